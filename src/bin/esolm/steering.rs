//! Options that steer a generation: what is written when, and what may be written.

use esolm::{Adaptive, Confidence, Constraints, Error, GenerateParams, Model, Order, Result, Schedule};

use crate::model_file::read_text;

/// Order, schedule and constraints, as they are written on the command line.
#[derive(clap::Args)]
#[command(next_help_heading = "Order and constraints")]
pub struct SteeringArgs {
    /// Which positions come when: random, ltr (left to right), strided:S (step j writes positions j, j+S,
    /// j+2S..; strided:S:shuffle in random order), blocks:S (blocks of S positions from left to right, each at random
    /// positions), or @FILE with every position once (@- is standard input).
    #[arg(long, default_value = "random", value_name = "ORDER")]
    order: String,
    /// How many tokens each step of the diffusion phase writes, such as 1,2,4,8, or @FILE; the last number goes on to the
    /// end, so 4 is four in every step. Without it --steps decides.
    #[arg(long, value_name = "K,K..")]
    schedule: Option<String>,
    /// Let each step write the tokens that the model is sure of, at least one, out of W positions (default 8) that it
    /// looks at: conf:X (probability at least X), margin:X (X above the second best), entropy:X (at most X nats); each
    /// may end in :W. Takes --alpha0 1, and no --schedule.
    #[arg(long, value_name = "MEASURE:X[:W]", conflicts_with = "schedule")]
    adaptive: Option<String>,
    /// Write one of these tokens at this position of the text, or at each from the first to the last: '5= yes, no',
    /// '3-9=the,#48'. Positions count tokens from 0, the prompt's too (`esolm tokenize` shows them); a token with a
    /// comma in it goes by its #ID. May be given several times, but no position twice.
    #[arg(long = "allow", value_name = "POSITION[-LAST]=TOKEN,..")]
    allowed: Vec<String>,
    /// Never write this token. A token is a piece of text that is one, often with the space before it, or #ID. May be
    /// given several times.
    #[arg(long = "ban", value_name = "TOKEN")]
    banned: Vec<String>,
    /// Add X to a token's logit: above 0 makes it likelier, below less likely; 5 is much. Such as ' king=2.5'.
    /// May be given several times.
    #[arg(long, value_name = "TOKEN=X", allow_hyphen_values = true)]
    bias: Vec<String>,
    /// Above 1: tokens that are in the text already become less likely; 1.2 is usual, 1 changes nothing.
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    repetition_penalty: f32,
}

/// The same, read.
pub struct Steering {
    order: OrderKind,
    positions: Vec<u32>,
    schedule: Option<Vec<u32>>,
    adaptive: Option<Adaptive>,
    constraints: [Constraints; 1],
}

enum OrderKind {
    Named(Order<'static>),
    Positions,
}

impl SteeringArgs {
    /// Reads the options. Tokens are the model's.
    pub fn read(&self, model: &Model) -> Result<Steering> {
        let bias = |text: &String| {
            let (name, value) = text.rsplit_once('=').ok_or_else(|| bad("--bias", text, "TOKEN=X"))?;
            let value = value.trim().parse::<f32>().map_err(|_| bad("--bias", text, "TOKEN=X"))?;
            Ok((token("--bias", name, model)?, value))
        };
        let mut allowed = Vec::new();
        for text in &self.allowed {
            allow(text, model, &mut allowed)?;
        }
        let (order, positions) = match self.order.strip_prefix('@') {
            Some(file) => (OrderKind::Positions, numbers(&read_text(file)?, "--order")?),
            None => (OrderKind::Named(order(&self.order)?), vec![]),
        };
        let schedule = |text: &String| match text.strip_prefix('@') {
            Some(file) => numbers(&read_text(file)?, "--schedule"),
            None => numbers(text, "--schedule"),
        };
        Ok(Steering {
            order,
            positions,
            schedule: self.schedule.as_ref().map(schedule).transpose()?,
            adaptive: self.adaptive.as_deref().map(adaptive).transpose()?,
            constraints: [Constraints {
                allowed,
                banned: self.banned.iter().map(|text| token("--ban", text, model)).collect::<Result<_>>()?,
                bias: self.bias.iter().map(bias).collect::<Result<_>>()?,
                repetition_penalty: self.repetition_penalty,
            }],
        })
    }
}

impl Steering {
    /// `params` with these options.
    pub fn apply<'a>(&'a self, params: GenerateParams<'a>) -> GenerateParams<'a> {
        let order = match self.order {
            OrderKind::Named(order) => order,
            OrderKind::Positions => Order::Given(&self.positions),
        };
        let schedule = self.schedule.as_deref().map_or(Schedule::Reference, Schedule::Given);
        let Self { adaptive, ref constraints, .. } = *self;
        GenerateParams { order, schedule, adaptive, constraints, ..params }
    }
}

fn order(text: &str) -> Result<Order<'static>> {
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

/// Positions that an adaptive step looks at, unless said otherwise.
const WINDOW: &str = "8";

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
    let window = parts.next().unwrap_or(WINDOW).parse().map_err(|_| bad())?;
    match parts.next() {
        None => Ok(Adaptive { confidence, threshold, window }),
        Some(_) => Err(bad()),
    }
}

/// Numbers with commas or spaces between them.
fn numbers(text: &str, option: &str) -> Result<Vec<u32>> {
    let pieces = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|piece| !piece.is_empty());
    pieces.map(|piece| piece.parse().map_err(|_| bad(option, piece, "a whole number"))).collect()
}

/// The positions of `text`, POSITION=TOKEN,.. or FIRST-LAST=TOKEN,.., with the tokens that are allowed there, go to
/// `allowed`.
fn allow(text: &str, model: &Model, allowed: &mut Vec<(u32, Vec<u32>)>) -> Result<()> {
    let form = || bad("--allow", text, "POSITION=TOKEN,.. or FIRST-LAST=TOKEN,..");
    let wrong = |what: String| Err(Error::InvalidArgument(format!("--allow: '{text}': {what}")));
    let (places, names) = text.split_once('=').ok_or_else(form)?;
    let place = |text: &str| text.trim().parse::<u32>().map_err(|_| form());
    let (first, last) = places.split_once('-').unwrap_or((places, places));
    let (first, last) = (place(first)?, place(last)?);
    if first > last {
        return wrong(format!("{first} comes after {last}"));
    }
    // Before there is a list of them.
    let length = model.config().context_length;
    if last as usize >= length {
        return wrong(format!("position {last} is beyond the model's {length} tokens, which count from 0"));
    }
    let tokens = names.split(',').map(|name| token("--allow", name, model)).collect::<Result<Vec<_>>>()?;
    allowed.extend((first..=last).map(|position| (position, tokens.clone())));
    Ok(())
}

/// A token by its text or its number.
fn token(option: &str, text: &str, model: &Model) -> Result<u32> {
    if let Some(id) = text.strip_prefix('#').and_then(|id| id.parse().ok()) {
        return Ok(id);
    }
    match model.tokenizer()?.encode(text)?.as_slice() {
        &[token] => Ok(token),
        [] => Err(bad(option, text, "a token; name one by its text, or as #ID")),
        tokens => Err(Error::InvalidArgument(format!(
            "{option}: '{text}' is {} tokens {tokens:?}; name one, or #ID",
            tokens.len()
        ))),
    }
}

fn bad(option: &str, given: &str, wanted: &str) -> Error {
    Error::InvalidArgument(format!("{option}: '{given}' is not {wanted}"))
}
