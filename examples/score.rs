//! How likely a text is, token by token.
//!
//! ```sh
//! cargo run --release --example score -- models/stories-q8_0.gguf "Once upon a time there was a king."
//! ```

use std::error::Error;
use std::ops::ControlFlow;

use esolm::{Context, ContextParams, LoadOptions, Model, ScoreParams};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: score MODEL [TEXT]")?;
    let text = args.next().unwrap_or("Once upon a time there was a king.".into());

    let model = Model::open(path, &LoadOptions::default())?;
    let mut context = Context::new(&model, &ContextParams::default())?;
    let tokenizer = model.tokenizer()?;
    let tokens = tokenizer.encode(&text)?;

    // Left to right is the default: each token is scored given all tokens before it. A text longer than the context is
    // scored in windows, and the closure is called after each of them.
    let score = context.score_text(&tokens, &ScoreParams::default(), |_, _| ControlFlow::Continue(()))?;
    for (token, log_prob) in tokens.iter().zip(&score.tokens) {
        println!("{log_prob:8.3}  {:?}", tokenizer.decode(&[*token])?);
    }
    let nats = score.nll / tokens.len() as f64;
    println!("{nats:.3} nats per token, perplexity {:.1}", nats.exp());
    Ok(())
}
