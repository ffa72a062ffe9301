//! Options of a generation: order, schedule, adaptive steps, constraints. The library has the defaults.

use std::path::Path;

use esolm::{
    Adaptive, Confidence, Constraints, Error, GenerateParams, Grammar, Model, Order, Result, Schedule,
    TokenizeOptions, Variant,
};

use crate::allocation::{collected, copy_of, push};
use crate::dry_args::DryArgs;
use crate::input::read_text;
use crate::phase_args::{ADAPTIVE, PassArgs, WINDOW};

/// The options as they are written on the command line.
#[derive(clap::Args)]
pub struct GenerationArgs {
    /// Order in which positions are written: random, ltr (left to right), strided:S (step j writes positions j, j+S,
    /// j+2S, ..; strided:S:shuffle takes the steps in random order), blocks:S (blocks of S positions from left to right,
    /// random within a block), or @FILE, a list of all positions (@- reads it from standard input). Default: random.
    #[arg(long, value_name = "ORDER", help_heading = "Diffusion")]
    order: Option<String>,
    /// Number of tokens that each diffusion step writes, such as 1,2,4,8, or @FILE. The last number repeats, so 4 means
    /// four in every step. Default: as --steps says.
    #[arg(long, value_name = "K,K..", conflicts_with = "sliding", help_heading = "Diffusion")]
    schedule: Option<String>,
    /// Adaptive steps: of the next W positions (default 8), each step writes those whose token the model is confident of,
    /// at least one. The confidence is conf:X (probability of the token at least X), margin:X (at least X more than the
    /// second best) or entropy:X (entropy at most X nats), each followed by :W or not. It makes --alpha0 1 the default, the only
    /// one that it takes. Not with --schedule, nor with --window.
    #[arg(
        long,
        value_name = "MEASURE:X[:W]",
        conflicts_with_all = ["schedule", "sliding"],
        help_heading = "Diffusion"
    )]
    adaptive: Option<String>,
    #[command(flatten)]
    pub passes: PassArgs,
    /// Allow only these tokens at a position, or at each position of a range: '5= yes, no', '3-9=the,#48'. Positions count
    /// tokens from 0, prompt included (`esolm tokenize` shows the tokens). A token is given by its text, or as #ID, which a
    /// token with a comma in it needs. May be repeated for other positions.
    #[arg(long = "allow", value_name = "POSITION[-LAST]=TOKEN,..", help_heading = "What may be written")]
    allowed: Vec<String>,
    /// Never write this token, given by its text (often with a space in front) or as #ID. May be repeated.
    #[arg(
        long = "ban",
        value_name = "TOKEN",
        allow_hyphen_values = true,
        help_heading = "What may be written"
    )]
    banned: Vec<String>,
    /// Logit bias: add X to the logit of a token, as in ' king=2.5'. Positive makes it more likely, negative less; 5 is a
    /// lot. May be repeated.
    #[arg(long, value_name = "TOKEN=X", allow_hyphen_values = true, help_heading = "What may be written")]
    bias: Vec<String>,
    /// Repetition penalty: above 1 makes tokens that are already in the text less likely; 1.2 is usual, 1 = off.
    #[arg(
        long,
        alias = "repeat-penalty",
        default_value_t = 1.0,
        value_name = "X",
        help_heading = "Penalties"
    )]
    repetition_penalty: f32,
    /// Frequency penalty: make a token less likely by this for each time that it is in the text; 0 = off.
    #[arg(
        long,
        default_value_t = 0.0,
        value_name = "X",
        allow_hyphen_values = true,
        help_heading = "Penalties"
    )]
    frequency_penalty: f32,
    /// Presence penalty: make a token that is in the text less likely by this; 0 = off.
    #[arg(
        long,
        default_value_t = 0.0,
        value_name = "X",
        allow_hyphen_values = true,
        help_heading = "Penalties"
    )]
    presence_penalty: f32,
    #[command(flatten, next_help_heading = "Penalties")]
    dry: DryArgs,
    /// Write a text that matches this regular expression, in one hole or after the prompt: from left to right, one token per
    /// step.
    #[arg(
        long,
        value_name = "REGEX",
        allow_hyphen_values = true,
        conflicts_with = "json_schema",
        help_heading = "What may be written"
    )]
    regex: Option<String>,
    /// Write a JSON value of the JSON schema in this file (- reads it from standard input), or of this one, which begins with a
    /// brace: from left to right, one token per step.
    #[arg(
        long,
        alias = "json-schema-file",
        value_name = "FILE|SCHEMA",
        help_heading = "What may be written"
    )]
    json_schema: Option<String>,
}

/// Most tokens of --allow, those of a range at each of its positions: 64 MiB.
const MOST_ALLOWED: usize = 1 << 24;

/// The options, parsed for a model.
pub struct GenerationOptions {
    order: OrderKind,
    schedule: Option<Vec<u32>>,
    adaptive: Option<Adaptive>,
    lookahead: u32,
    constraints: [Constraints; 1],
}

enum OrderKind {
    Named(Order<'static>),
    Custom(Vec<u32>),
}

impl GenerationArgs {
    /// The option that says how many tokens a step writes, in place of --steps.
    pub fn in_place_of_steps(&self) -> Option<&'static str> {
        let strided = self.order.as_deref().is_some_and(|order| order.starts_with("strided"));
        let given = [
            ("--schedule", self.schedule.is_some()),
            (ADAPTIVE, self.adaptive.is_some()),
            (WINDOW, self.passes.slides()),
            ("--order strided", strided),
        ];
        given.into_iter().find_map(|(name, given)| given.then_some(name))
    }

    /// The files that options name.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let lists =
            [&self.order, &self.schedule].into_iter().flatten().filter_map(|text| text.strip_prefix('@'));
        let schema = self.json_schema.iter().map(String::as_str).filter(|text| !is_schema(text));
        lists.chain(schema).filter(|file| *file != "-").map(Path::new)
    }

    /// Whether a step writes what the model is certain of, which takes an alpha_0 of 1.
    pub fn is_adaptive(&self) -> bool {
        self.adaptive.is_some() || self.passes.slides()
    }

    /// Whether there is a grammar, which a text matches from left to right.
    pub fn has_grammar(&self) -> bool {
        self.regex.is_some() || self.json_schema.is_some()
    }

    /// Whether tokens are proposed.
    pub fn looks_ahead(&self) -> bool {
        self.passes.lookahead > 0
    }

    /// Parses the options. Tokens are those of `model`.
    pub fn parse(&self, model: &Model) -> Result<GenerationOptions> {
        let bias = |text: &String| {
            let (name, value) = text.rsplit_once('=').ok_or_else(|| bad("--bias", text, "TOKEN=X"))?;
            let value = value.trim().parse::<f32>().map_err(|_| bad("--bias", text, "TOKEN=X"))?;
            Ok((token("--bias", name, model)?, value))
        };
        let mut allowed = Vec::new();
        for text in &self.allowed {
            allow(text, model, &mut allowed)?;
        }
        let order = match self.order.as_deref() {
            None => OrderKind::Named(GenerateParams::default().order),
            Some(text) => match text.strip_prefix('@') {
                Some(file) => OrderKind::Custom(numbers(&read_text(file)?, "--order")?),
                None => OrderKind::Named(named_order(text)?),
            },
        };
        if self.adaptive.is_some() {
            self.passes.check_lookahead(ADAPTIVE)?;
        }
        let schedule = |text: &String| match text.strip_prefix('@') {
            Some(file) => numbers(&read_text(file)?, "--schedule"),
            None => numbers(text, "--schedule"),
        };
        Ok(GenerationOptions {
            order,
            schedule: self.schedule.as_ref().map(schedule).transpose()?,
            adaptive: match self.passes.parse()? {
                Some(window) => Some(window),
                None => self.adaptive.as_deref().map(adaptive).transpose()?,
            },
            lookahead: self.passes.lookahead,
            constraints: [Constraints {
                allowed,
                banned: self.banned.iter().map(|text| token("--ban", text, model)).collect::<Result<_>>()?,
                bias: self.bias.iter().map(bias).collect::<Result<_>>()?,
                repetition_penalty: self.repetition_penalty,
                frequency_penalty: self.frequency_penalty,
                presence_penalty: self.presence_penalty,
                dry: self.dry.parse(model)?,
                grammar: self.grammar()?,
            }],
        })
    }
}

impl GenerationArgs {
    fn grammar(&self) -> Result<Option<Grammar>> {
        match (&self.regex, &self.json_schema) {
            (Some(regex), _) => Ok(Some(Grammar::Regex(regex.clone()))),
            (None, Some(schema)) if is_schema(schema) => Ok(Some(Grammar::JsonSchema(schema.clone()))),
            (None, Some(file)) => Ok(Some(Grammar::JsonSchema(read_text(file)?))),
            (None, None) => Ok(None),
        }
    }
}

/// Whether the text is a schema and not the name of its file.
fn is_schema(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

impl GenerationOptions {
    /// How far beyond the end of a text a step may look: a window that slides has masks there, and with fewer of them writes
    /// another text. So the context has room for them, whatever other texts need.
    pub fn beyond(&self, variant: Variant) -> usize {
        let slides = variant == Variant::WeDlm || self.adaptive.is_some_and(|adaptive| adaptive.in_order);
        match self.adaptive.unwrap_or(Adaptive::WEDLM).window {
            _ if !slides => 0,
            Adaptive::WINDOW_AUTO => 2 * Adaptive::MOST_AUTO_WINDOW,
            window => window.saturating_mul(2),
        }
    }

    /// `params` with these options.
    pub fn apply<'a>(&'a self, params: GenerateParams<'a>) -> GenerateParams<'a> {
        let order = match &self.order {
            OrderKind::Named(order) => *order,
            OrderKind::Custom(positions) => Order::Custom(positions),
        };
        let schedule = self.schedule.as_deref().map_or(Schedule::Reference, Schedule::Custom);
        let Self { adaptive, lookahead, constraints, .. } = self;
        GenerateParams { order, schedule, adaptive: *adaptive, lookahead: *lookahead, constraints, ..params }
    }
}

fn named_order(text: &str) -> Result<Order<'static>> {
    let parts: Vec<&str> = text.split(':').collect();
    let size = |text: &str| text.parse::<usize>().map_err(|_| bad("--order", text, "a number"));
    match *parts.as_slice() {
        ["random"] => Ok(Order::Random),
        ["ltr"] => Ok(Order::LeftToRight),
        ["strided", stride] => Ok(Order::Strided { stride: size(stride)?, shuffle: false }),
        ["strided", stride, "shuffle"] => Ok(Order::Strided { stride: size(stride)?, shuffle: true }),
        ["blocks", of] => Ok(Order::Blocks { size: size(of)? }),
        _ => Err(bad("--order", text, "random, ltr, strided:S, strided:S:shuffle, blocks:S or @FILE")),
    }
}

fn adaptive(text: &str) -> Result<Adaptive> {
    let bad = || bad("--adaptive", text, "conf:X, margin:X or entropy:X, with :W behind it or not");
    let mut parts = text.split(':');
    let confidence = match parts.next() {
        Some("conf") => Confidence::Probability,
        Some("margin") => Confidence::Margin,
        Some("entropy") => Confidence::Entropy,
        _ => return Err(bad()),
    };
    let threshold = parts.next().and_then(|x| x.parse().ok()).ok_or_else(bad)?;
    let default = Adaptive::default();
    let window = parts.next().map_or(Ok(default.window), |window| window.parse().map_err(|_| bad()))?;
    match parts.next() {
        None => Ok(Adaptive { confidence, threshold, window, ..default }),
        Some(_) => Err(bad()),
    }
}

/// Numbers separated by commas or white space.
fn numbers(text: &str, option: &str) -> Result<Vec<u32>> {
    let pieces = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|piece| !piece.is_empty());
    collected(pieces.map(|piece| piece.parse().map_err(|_| bad(option, piece, "a whole number"))))
}

/// Parses POSITION=TOKEN,.. or FIRST-LAST=TOKEN,.. and appends each position and its allowed tokens to `allowed`.
fn allow(text: &str, model: &Model, allowed: &mut Vec<(u32, Vec<u32>)>) -> Result<()> {
    let form = || bad("--allow", text, "POSITION=TOKEN,.. or FIRST-LAST=TOKEN,..");
    let wrong = |what: String| Err(Error::InvalidArgument(format!("--allow: '{text:.SHOWN$}': {what}")));
    let (places, names) = text.split_once('=').ok_or_else(form)?;
    let place = |text: &str| text.trim().parse::<u32>().map_err(|_| form());
    let (first, last) = places.split_once('-').unwrap_or((places, places));
    let (first, last) = (place(first)?, place(last)?);
    if first > last {
        return wrong(format!("{first} comes after {last}"));
    }
    // Checked before a list of that many positions is made.
    let length = model.config().context_length;
    if last as usize >= length {
        return wrong(format!("position {last} is beyond the model's {length} tokens, which count from 0"));
    }
    let tokens = collected(names.split(',').map(|name| token("--allow", name, model)))?;
    // Each position has a list of its own.
    let before: usize = allowed.iter().map(|(_, tokens)| tokens.len()).sum();
    let all = tokens.len().saturating_mul((last - first) as usize + 1).saturating_add(before);
    if all > MOST_ALLOWED {
        return wrong(format!("{all} tokens at all positions; at most {MOST_ALLOWED}"));
    }
    (first..=last).try_for_each(|position| push(allowed, (position, copy_of(&tokens)?)))
}

/// The token that `text` names, by its text or as #ID.
fn token(option: &str, text: &str, model: &Model) -> Result<u32> {
    if let Some(id) = text.strip_prefix('#').and_then(|id| id.parse().ok()) {
        return Ok(id);
    }
    let special = TokenizeOptions { parse_special: true, ..TokenizeOptions::default() };
    match model.tokenizer()?.encode_with(text, &special)?.as_slice() {
        &[token] => Ok(token),
        [] => Err(bad(option, text, "a token; name one by its text, or as #ID")),
        tokens => Err(Error::InvalidArgument(format!(
            "{option}: '{text:.SHOWN$}' is {} tokens; name one, or #ID",
            tokens.len()
        ))),
    }
}

/// Characters of what was given that a message shows.
const SHOWN: usize = 200;

fn bad(option: &str, given: &str, wanted: &str) -> Error {
    Error::InvalidArgument(format!("{option}: '{given:.SHOWN$}' is not {wanted}"))
}
