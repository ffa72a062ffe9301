//! Fills a gap in a random order, token by token, with and without lookahead: the same distribution in fewer steps.
//!
//! ```sh
//! cargo run --release --example lookahead -- models/stories-q8_0.gguf "Once upon a time{{mask 60}} happily ever after."
//! ```

use std::error::Error;

use esolm::{Context, ContextParams, GenerateParams, LoadOptions, Model, Order, Schedule, Template};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: lookahead MODEL [TEMPLATE]")?;
    let text = args.next().unwrap_or("Once upon a time{{mask 60}} happily ever after.".into());

    let model = Model::open(path, &LoadOptions::default())?;
    let tokenizer = model.tokenizer()?;
    let (prompt, length) = Template::parse(&text)?.prompt(tokenizer)?;
    let mut context = Context::new(&model, &ContextParams { length, ..ContextParams::default() })?;

    // One token per step. (With a schedule of more tokens, those of a step would not know of each other.)
    let order = Order::Random;
    let params =
        GenerateParams { order, schedule: Schedule::Custom(&[1]), seed: 1, ..GenerateParams::default() };
    for lookahead in [0, 4, GenerateParams::LOOKAHEAD_AUTO] {
        context.begin(std::slice::from_ref(&prompt), &GenerateParams { lookahead, ..params })?;
        let (mut tokens, mut steps, mut proposed, mut accepted) = (0, 0, 0, 0);
        while let Some(step) = context.step()? {
            tokens += step.updates.len();
            steps += 1;
            // What was proposed for this step, and what of it was written.
            proposed += step.proposed;
            accepted += step.accepted;
        }
        eprintln!("{tokens} tokens in {steps} steps, {accepted} of {proposed} proposed tokens accepted");
        println!("{}", tokenizer.decode(context.tokens(0)?)?);
    }
    Ok(())
}
