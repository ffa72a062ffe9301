//! Continues a prompt, and reports each step.
//!
//! ```sh
//! cargo run --release --example generate -- models/stories-q8_0.gguf "Once upon a time"
//! ```

use std::error::Error;

use esolm::{Context, ContextParams, GenerateParams, LoadOptions, Model, Prompt};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: generate MODEL [PROMPT]")?;
    let text = args.next().unwrap_or("Once upon a time".into());

    // The weights stay in the mapped file. A context allocates all memory for generating, for the longest text that is
    // wanted of it.
    let model = Model::open(path, &LoadOptions::default())?;
    let mut context = Context::new(&model, &ContextParams { length: 64, ..ContextParams::default() })?;

    // Half of the new tokens are written by diffusion, many per step and in random order; the rest one per step, left to
    // right.
    let prompt = Prompt::prefix(&model.tokenizer()?.encode(&text)?)?;
    let params = GenerateParams { alpha_0: 0.5, steps: 16, seed: 1, ..GenerateParams::default() };
    context.begin(&[prompt], &params)?;
    while let Some(step) = context.step()? {
        let positions: Vec<u32> = step.updates.iter().map(|update| update.position).collect();
        eprintln!("step {} of {} wrote positions {positions:?}", step.index + 1, step.total);
    }
    println!("{}", context.text(0)?);
    Ok(())
}
