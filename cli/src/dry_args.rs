//! Options of DRY, the penalty for repeated runs of tokens.

use esolm::{Dry, Error, Model, Result};

use crate::allocation::push;
use crate::input::tokenizer;

/// The options as they are written on the command line; the names are llama.cpp's, but for the range, where its 0 is none.
#[derive(clap::Args)]
pub struct DryArgs {
    /// DRY: a token that would continue a repetition of n tokens becomes less likely, by this times base^(n - allowed
    /// length); 0.8 is usual, 0 = off.
    #[arg(long, default_value_t = Dry::DEFAULT.multiplier, value_name = "X")]
    dry_multiplier: f32,
    /// How fast the penalty of DRY grows with the length of the repetition, at least 1.
    #[arg(long, default_value_t = Dry::DEFAULT.base, value_name = "X", requires = "dry_multiplier")]
    dry_base: f32,
    /// The shortest repetition that DRY penalises, in tokens.
    #[arg(long, default_value_t = Dry::DEFAULT.allowed_length, value_name = "N", requires = "dry_multiplier")]
    dry_allowed_length: u32,
    /// How many tokens left of a position DRY looks at; 0 = all.
    #[arg(long, default_value_t = Dry::DEFAULT.range, value_name = "N", requires = "dry_multiplier")]
    dry_range: u32,
    /// No repetition reaches across a token that contains this text. May be repeated. Default, or none: no text. (llama.cpp's
    /// are a line break, ':', '"' and '*'.)
    #[arg(
        long = "dry-sequence-breaker",
        value_name = "TEXT",
        allow_hyphen_values = true,
        requires = "dry_multiplier"
    )]
    dry_breakers: Vec<String>,
}

impl DryArgs {
    /// The library's parameters. Tokens are those of `model`.
    pub fn parse(&self, model: &Model) -> Result<Dry> {
        Ok(Dry {
            multiplier: self.dry_multiplier,
            base: self.dry_base,
            allowed_length: self.dry_allowed_length,
            range: self.dry_range,
            breakers: if self.dry_multiplier == 0.0 { vec![] } else { self.breakers(model)? },
        })
    }

    /// The tokens that contain a breaker. (llama.cpp also finds breakers that are spread over several tokens.)
    fn breakers(&self, model: &Model) -> Result<Vec<u32>> {
        if let Some(text) = self.dry_breakers.iter().find(|text| text.is_empty()) {
            return Err(Error::InvalidArgument(format!("--dry-sequence-breaker: '{text}' is empty")));
        }
        let given: Vec<&str> = match self.dry_breakers.as_slice() {
            [] => return Ok(Dry::DEFAULT.breakers),
            [none] if none == "none" => vec![],
            given => given.iter().map(String::as_str).collect(),
        };
        let Some(tokenizer) = tokenizer(model)? else { return Ok(vec![]) };
        let config = model.config();
        let breaks = |token: u32| {
            let bytes = tokenizer.token_piece(token)?.unwrap_or_default();
            let contains = |text: &&str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
            Ok::<_, Error>(token != config.mask_token_id && given.iter().any(contains))
        };
        let mut all = Vec::new();
        for token in 0..config.vocab_size as u32 {
            if breaks(token)? {
                push(&mut all, token)?;
            }
        }
        Ok(all)
    }
}
