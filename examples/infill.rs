//! Fills the holes of a text.
//!
//! ```sh
//! cargo run --release --example infill -- models/stories-q8_0.gguf "The king {{mask 20}} was happy."
//! ```

use std::error::Error;
use std::ops::ControlFlow;

use esolm::{Context, ContextParams, GenerateParams, LoadOptions, Model, Template};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: infill MODEL [TEMPLATE]")?;
    let text = args.next().unwrap_or("The king {{mask 20}} was happy.".into());

    let model = Model::open(path, &LoadOptions::default())?;
    // A prompt is known tokens at any positions: here all that is not a hole. `length` counts the holes' tokens too. Special
    // tokens in the text are characters (`prompt_with` has an option), and the space before a hole is the hole's.
    let tokenizer = model.tokenizer()?;
    let (prompt, length) = Template::parse(&text)?.prompt(tokenizer)?;

    let mut context = Context::new(&model, &ContextParams { length, ..ContextParams::default() })?;
    let params = GenerateParams { seed: 1, ..GenerateParams::default() };
    context.generate(&[prompt], &params, |_| ControlFlow::Continue(()))?;

    // `context.text` would end at the first end-of-text token; this is everything, whatever fills the holes.
    println!("{}", tokenizer.decode(context.tokens(0)?)?);
    Ok(())
}
