//! Options of sampling: temperature and filters. The library has the defaults.

use esolm::{Error, Result, SamplingParams};

/// Options of how a token is drawn. -1 stands for the default, as in the library.
#[derive(clap::Args)]
pub struct SamplingArgs {
    /// Top-p (nucleus) sampling: draw from the most likely tokens that together have this probability, above 0 to 1;
    /// 1 = off. Default, or -1: what the model's file says, else 0.9 (WeDLM: 1).
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Top-k sampling: draw from this many most likely tokens; 0 = off. Default, or -1: the file's, else 0.
    #[arg(long, value_name = "K", value_parser = top_k)]
    top_k: Option<u32>,
    /// Sampling temperature: below 1 favours likely tokens, above 1 unlikely ones; 0 always takes the most likely token.
    /// Default, or -1: what the model's file says, else 1 (WeDLM: 0.2).
    #[arg(long, visible_alias = "temperature", value_name = "X")]
    temp: Option<f32>,
    /// Min-p sampling: leave out tokens less likely than this times the most likely one, 0 to 1; 0 = off. Default,
    /// or -1: the file's, else 0.
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Locally typical sampling: draw from the tokens of the most typical information content that together have this
    /// probability, above 0 to 1; 1 = off. Default, or -1: the file's, else 1.
    #[arg(long, alias = "typical-p", value_name = "P")]
    typical: Option<f32>,
    /// Top-n-sigma sampling: leave out tokens whose logit is more than this many standard deviations below the largest;
    /// 0 = off. Default, or -1: the file's, else 0.
    #[arg(long, alias = "top-nsigma", value_name = "N")]
    top_n_sigma: Option<f32>,
}

fn top_k(text: &str) -> std::result::Result<u32, std::num::ParseIntError> {
    if text == "-1" {
        return Ok(SamplingParams::TOP_K_AUTO);
    }
    // The largest number stands for the default in the library; who types it means all tokens, of which there are fewer.
    text.parse().map(|count: u32| count.min(SamplingParams::TOP_K_AUTO - 1))
}

impl SamplingArgs {
    /// The library's parameters. What is not given is the model file's to say, or the library's; so is what is -1.
    pub fn params(&self) -> Result<SamplingParams> {
        let given = [
            ("--temp", self.temp),
            ("--top-p", self.top_p),
            ("--min-p", self.min_p),
            ("--typical", self.typical),
            ("--top-n-sigma", self.top_n_sigma),
        ];
        let negative = |value: &f32| *value < 0.0 && *value != SamplingParams::AUTO;
        for (name, value) in given {
            if let Some(value) = value.filter(negative) {
                return Err(Error::InvalidArgument(format!("{name} is {value}, not a number from 0, or -1")));
            }
        }
        Ok(SamplingParams {
            temperature: self.temp.unwrap_or(SamplingParams::AUTO),
            top_k: self.top_k.unwrap_or(SamplingParams::TOP_K_AUTO),
            top_p: self.top_p.unwrap_or(SamplingParams::AUTO),
            min_p: self.min_p.unwrap_or(SamplingParams::AUTO),
            typical_p: self.typical.unwrap_or(SamplingParams::AUTO),
            top_n_sigma: self.top_n_sigma.unwrap_or(SamplingParams::AUTO),
        })
    }
}
