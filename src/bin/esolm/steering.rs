//! Options that steer a generation: what is written when, and what may be written.

use std::path::Path;

use esolm::{Adaptive, Confidence, Constraints, Error, GenerateParams, Model, Order, Result, Schedule};

/// Order, schedule and constraints, as they are written on the command line.
#[derive(clap::Args)]
#[command(next_help_heading = "Order and constraints")]
pub struct SteeringArgs {
    /// Which positions come when: random (the default), ltr (left to right), strided:S (step j writes positions j, j+S,
    /// j+2S..; strided:S:shuffle in random order), blocks:S (blocks of S positions from left to right, each at random
    /// positions), or @FILE with every position once.
    #[arg(long, default_value = "random", value_name = "ORDER")]
    order: String,
    /// Tokens that each step of the diffusion phase writes, such as 1,2,4,8, or @FILE; the last goes on to the end, so
    /// 4 is four in every step. Without it --steps decides.
    #[arg(long, value_name = "K,K..")]
    schedule: Option<String>,
    /// Let each step write the tokens that the model is sure of, at least one, out of W positions (default 16) that it
    /// looks at: conf:X (probability at least X), margin:X (X above the second best), entropy:X (at most X nats); each
    /// may end in :W.
    #[arg(long, value_name = "MEASURE:X[:W]", conflicts_with = "schedule")]
    adaptive: Option<String>,
    /// Never write this token. A token is a piece of text that is one, often with the space before it, or #ID.
    #[arg(long = "ban", value_name = "TOKEN")]
    banned: Vec<String>,
    /// Add X to a token's logit: above 0 makes it likelier, below less likely; 5 is much. Such as ' king=2.5'.
    #[arg(long, value_name = "TOKEN=X", allow_hyphen_values = true)]
    bias: Vec<String>,
    /// Above 1: tokens that are in the text already become less likely; 1.2 is usual.
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
        let token = |text: &str| token(text, model);
        let bias = |text: &String| {
            let (name, value) = text.rsplit_once('=').ok_or_else(|| bad("--bias", text, "TOKEN=X"))?;
            let value = value.trim().parse::<f32>().map_err(|_| bad("--bias", text, "TOKEN=X"))?;
            Ok((token(name)?, value))
        };
        let (order, positions) = match self.order.strip_prefix('@') {
            Some(file) => (OrderKind::Positions, numbers(&read(file)?, "--order")?),
            None => (OrderKind::Named(order(&self.order)?), vec![]),
        };
        let schedule = |text: &String| match text.strip_prefix('@') {
            Some(file) => numbers(&read(file)?, "--schedule"),
            None => numbers(text, "--schedule"),
        };
        Ok(Steering {
            order,
            positions,
            schedule: self.schedule.as_ref().map(schedule).transpose()?,
            adaptive: self.adaptive.as_deref().map(adaptive).transpose()?,
            constraints: [Constraints {
                allowed: vec![],
                banned: self.banned.iter().map(|text| token(text)).collect::<Result<_>>()?,
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
const WINDOW: &str = "16";

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

/// A token by its text or its number.
fn token(text: &str, model: &Model) -> Result<u32> {
    if let Some(id) = text.strip_prefix('#').and_then(|id| id.parse().ok()) {
        return Ok(id);
    }
    match model.tokenizer()?.encode(text)?.as_slice() {
        &[token] => Ok(token),
        tokens => Err(Error::InvalidArgument(format!(
            "'{text}' is {} tokens {tokens:?}; name one, or #ID",
            tokens.len()
        ))),
    }
}

fn read(file: &str) -> Result<String> {
    std::fs::read_to_string(Path::new(file)).map_err(|source| Error::Io { file: file.into(), source })
}

fn bad(option: &str, given: &str, wanted: &str) -> Error {
    Error::InvalidArgument(format!("{option}: '{given}' is not {wanted}"))
}
