//! The most likely tokens for each `[MASK]` in a text. Tokens begin with the space before their word, so the mask does, too.
//!
//! ```sh
//! cargo run --release --example fill_mask -- models/stories-q8_0.gguf "Once upon a time there was a little[MASK] named Lily."
//! ```

use std::error::Error;

use esolm::{
    Context, ContextParams, GenerateParams, LoadOptions, Model, Prompt, SamplingParams, TokenizeOptions,
};

const TEXT: &str = "Once upon a time there was a little[MASK] named Lily.";

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: fill_mask MODEL [TEXT]")?;
    let text = args.next().unwrap_or(TEXT.into());

    let model = Model::open(path, &LoadOptions::default())?;
    let (tokenizer, config) = (model.tokenizer()?, model.config());
    // Special tokens are characters as all others unless this says that they are meant.
    let special = TokenizeOptions { parse_special: true, ..TokenizeOptions::default() };
    let tokens = tokenizer.encode_with(&text, &special)?;
    let all = (0..).zip(tokens.iter().copied());
    let (masks, known): (Vec<_>, Vec<_>) = all.partition(|&(_, token)| token == config.mask_token_id);
    let positions: Vec<u32> = masks.iter().map(|&(position, _)| position).collect();

    let mut context =
        Context::new(&model, &ContextParams { length: tokens.len(), ..ContextParams::default() })?;
    // The model's own distribution: no temperature, no filters.
    let params = GenerateParams { sampling: SamplingParams::FULL, ..GenerateParams::default() };
    context.begin(&[Prompt { known }], &params)?;
    let mut probabilities = vec![0.0; positions.len() * config.vocab_size];
    context.probabilities(0, &positions, &mut probabilities)?;
    for (position, row) in positions.iter().zip(probabilities.chunks(config.vocab_size)) {
        let mut likely: Vec<(usize, f32)> = row.iter().copied().enumerate().collect();
        likely.sort_by(|a, b| b.1.total_cmp(&a.1));
        for (token, probability) in likely.iter().take(5) {
            let bytes = tokenizer.token_bytes(*token as u32)?;
            println!("{position:4}  {probability:.4}  {:?}", String::from_utf8_lossy(&bytes));
        }
    }
    Ok(())
}
