//! Options of how many tokens a step writes, for the commands that write texts: of which phase, in how many steps, in a window, or
//! proposed ahead.

use esolm::{Adaptive, Context, Error, GenerateParams, Result, Variant};

use crate::output::tell;

/// The options for steps whose number of tokens is known only then.
pub const ADAPTIVE: &str = "--adaptive";
pub const WINDOW: &str = "--window";

/// The phases of a text.
#[derive(clap::Args)]
pub struct PhaseArgs {
    /// Fraction of the tokens written in parallel by diffusion, 0 to 1; the rest is written one by one, left to right.
    /// Default: 1 if adaptive steps, a window or an order for diffusion is given; otherwise what the model's file says, or 0,
    /// which gives the best text, and which a grammar takes (WeDLM: or 1, its window, without --lookahead). With --steps or
    /// --schedule it is 1 where it would be 0.
    #[arg(long, value_name = "A", help_heading = "Diffusion")]
    pub alpha0: Option<f64>,
    /// Number of diffusion steps, unless another option (--window, a schedule, an order) says how many tokens each writes.
    /// Fewer are faster. Default: what the model's file says, or 128.
    #[arg(long, value_name = "T", help_heading = "Diffusion")]
    pub steps: Option<usize>,
}

impl PhaseArgs {
    /// As [`check_phases`].
    pub fn check(&self, in_place_of_steps: Option<&str>, variant: Variant) -> Result<()> {
        check_phases(self.alpha0.as_slice(), self.steps.as_slice(), in_place_of_steps, variant)
    }

    /// `params` with these options.
    pub fn apply<'a>(&self, params: GenerateParams<'a>) -> GenerateParams<'a> {
        let (alpha_0, steps) = (self.alpha0.unwrap_or(params.alpha_0), self.steps.unwrap_or(params.steps));
        GenerateParams { alpha_0, steps, ..params }
    }
}

/// What writes several tokens where the model is certain of them, or had guessed them.
#[derive(clap::Args)]
pub struct PassArgs {
    /// A window of W positions (default 16; auto = as many as pay, to 32, by those filled so far) that slides from left to
    /// right: each step fills those whose entropy is at most X nats (default 0.4), at least one, where P (default 0.02) is added
    /// for each position that one is behind the first; what is filled behind a gap is computed anew until there is none before
    /// it. WeDLM always writes so, unless --alpha0 is 0; Eso-LM (B) can. It makes --alpha0 1 the default, the only one that it
    /// takes.
    #[arg(long = "window", value_name = "W|auto[:X[:P]]", help_heading = "Diffusion")]
    sliding: Option<String>,
    /// Where tokens are written one by one: propose K tokens per step, and write as many of them as one token per step would
    /// have drawn, and one more. The text has the same distribution, in fewer steps; at most 16; auto = as many as pay, by those
    /// accepted so far; 0 = off. Only for Eso-LM, and for WeDLM, which writes one by one with it, without a window.
    #[arg(long, default_value = "0", value_name = "K|auto", value_parser = lookahead, help_heading = "Diffusion")]
    pub lookahead: u32,
    /// What a step costs beside its rows, in rows, up to 256: by it auto decides (--window, --lookahead). measured = on this
    /// machine, with these threads; the number is printed, and given in its place it leads to the same texts. Default, or 0: 2
    /// with weights of at most 32 MB, 10 with more.
    #[arg(long, value_name = "N|measured", value_parser = overhead, help_heading = "Diffusion")]
    pass_overhead: Option<Overhead>,
}

/// What a pass costs beside its rows.
#[derive(Clone, Copy)]
enum Overhead {
    Rows(f32),
    Measured,
}

fn overhead(text: &str) -> std::result::Result<Overhead, String> {
    match text.parse() {
        _ if text == "measured" => Ok(Overhead::Measured),
        Ok(rows) => Ok(Overhead::Rows(rows)),
        Err(_) => Err("not a number of rows, or measured".into()),
    }
}

impl PassArgs {
    /// Tells a new context what a pass costs.
    pub fn tell_overhead(&self, context: &mut Context) -> Result<()> {
        let rows = match self.pass_overhead {
            None => return Ok(()),
            Some(_) if !self.decides_itself() => {
                let what = "--pass-overhead has no effect without --window auto or --lookahead auto";
                return Err(Error::InvalidArgument(what.into()));
            }
            Some(Overhead::Rows(rows)) => rows,
            Some(Overhead::Measured) => context.measure_pass_overhead()?,
        };
        context.set_pass_overhead(rows)?;
        if self.measures() {
            tell(&format!("pass overhead {rows}"));
        }
        Ok(())
    }

    /// Whether what a pass costs is measured, so that texts depend on the machine.
    pub fn measures(&self) -> bool {
        matches!(self.pass_overhead, Some(Overhead::Measured))
    }

    /// Whether it says by itself how far it looks ahead, or how large the window is.
    fn decides_itself(&self) -> bool {
        let slides = self.sliding.as_deref().is_some_and(|given| given.split(':').next() == Some("auto"));
        slides || self.lookahead == GenerateParams::LOOKAHEAD_AUTO
    }

    /// Whether there is a window. It says how many tokens a step writes, in place of --steps.
    pub fn slides(&self) -> bool {
        self.sliding.is_some()
    }

    /// The window.
    pub fn parse(&self) -> Result<Option<Adaptive>> {
        let window = self.sliding.as_deref().map(sliding).transpose()?;
        if window.is_some() {
            self.check_lookahead(WINDOW)?;
        }
        Ok(window)
    }

    /// Refuses to look ahead beside an option that has steps write several tokens.
    pub fn check_lookahead(&self, option: &str) -> Result<()> {
        match self.lookahead {
            0 => Ok(()),
            _ => Err(Error::InvalidArgument(format!(
                "--lookahead has no effect with {option}, whose steps write several tokens"
            ))),
        }
    }
}

/// The library's limit. It is checked here, too, as a number beyond it stands for `auto` there.
const MOST_LOOKAHEAD: u32 = 16;

fn lookahead(text: &str) -> std::result::Result<u32, String> {
    match text.parse() {
        _ if text == "auto" => Ok(GenerateParams::LOOKAHEAD_AUTO),
        Ok(count) if count <= MOST_LOOKAHEAD => Ok(count),
        _ => Err(format!("not a number of at most {MOST_LOOKAHEAD}, or auto")),
    }
}

fn sliding(text: &str) -> Result<Adaptive> {
    let bad = || {
        let wanted = "W, W:X or W:X:P, where W is a number or auto";
        Error::InvalidArgument(format!("--window: '{text:.200}' is not {wanted}"))
    };
    let Adaptive { threshold, penalty, .. } = Adaptive::WEDLM;
    let mut parts = text.split(':');
    let window = match parts.next() {
        Some("auto") => Adaptive::WINDOW_AUTO,
        // What stands for `auto` in the library is no size.
        given => given
            .and_then(|w| w.parse().ok())
            .filter(|&window| window != Adaptive::WINDOW_AUTO)
            .ok_or_else(bad)?,
    };
    let mut number = |default: f32| parts.next().map_or(Ok(default), |x| x.parse().map_err(|_| bad()));
    let (threshold, penalty) = (number(threshold)?, number(penalty)?);
    match parts.next() {
        None => Ok(Adaptive { window, threshold, penalty, ..Adaptive::WEDLM }),
        Some(_) => Err(bad()),
    }
}

/// Checks what --alpha0 and --steps give: the library takes more, as it has values that stand for its defaults.
pub fn check_diffusion(alphas: &[f64], steps: &[usize]) -> Result<()> {
    if steps.contains(&0) {
        return Err(Error::InvalidArgument("--steps must be at least 1".into()));
    }
    match alphas.iter().find(|alpha_0| !(0.0..=1.0).contains(*alpha_0)) {
        Some(alpha_0) => Err(Error::InvalidArgument(format!("--alpha0 is {alpha_0}, not in 0..=1"))),
        None => Ok(()),
    }
}

/// Refuses fractions of --alpha0 that the model has no phase for. (The library leaves them out of account.)
pub fn check_alpha_0(alphas: &[f64], variant: Variant) -> Result<()> {
    let possible = match variant {
        Variant::Ar => &[0.0][..],
        Variant::Mdlm | Variant::Bd3Lm => &[1.0],
        Variant::WeDlm => &[0.0, 1.0],
        Variant::EsoA | Variant::EsoB => return Ok(()),
    };
    match alphas.iter().find(|alpha_0| !possible.contains(alpha_0)) {
        Some(other) => {
            let possible: Vec<_> = possible.iter().map(f64::to_string).collect();
            let what = format!("--alpha0 is {other}; this model has only {}", possible.join(" and "));
            Err(Error::InvalidArgument(what))
        }
        None => Ok(()),
    }
}

/// Refuses an option for adaptive steps where there is more than diffusion.
fn check_adaptive(option: &str, alphas: &[f64], variant: Variant) -> Result<()> {
    let what = match alphas.iter().find(|&&alpha_0| alpha_0 != 1.0) {
        _ if variant == Variant::Ar => "an autoregressive model writes one token a step".to_owned(),
        Some(other) => format!("it takes an --alpha0 of 1, not {other}"),
        None => return Ok(()),
    };
    Err(Error::InvalidArgument(format!("{option}: {what}")))
}

/// Checks what --alpha0 and --steps give for a model of this variant, where another option may say how many tokens a step writes.
pub fn check_phases(
    alphas: &[f64],
    steps: &[usize],
    in_place_of_steps: Option<&str>,
    variant: Variant,
) -> Result<()> {
    check_diffusion(alphas, steps)?;
    check_alpha_0(alphas, variant)?;
    if let Some(option @ (ADAPTIVE | WINDOW)) = in_place_of_steps {
        check_adaptive(option, alphas, variant)?;
    }
    // With an alpha_0 of 0 the phase that has them is empty, as it nearly is with a small one.
    let why = match (in_place_of_steps, variant) {
        _ if steps.is_empty() => return Ok(()),
        (Some(other), _) => format!(" with {other}, which says how many tokens a step writes"),
        (None, Variant::Ar) => ": an autoregressive model writes one token a step".into(),
        (None, Variant::WeDlm) => ": WeDLM slides a window (--window)".into(),
        _ => return Ok(()),
    };
    Err(Error::InvalidArgument(format!("--steps has no effect{why}")))
}
