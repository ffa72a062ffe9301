//! Has the model write JSON that matches a schema. (The built-in model knows only stories: what it writes has the form, and
//! little sense.)
//!
//! ```sh
//! cargo run --release --features grammar --example json -- models/stories-q8_0.gguf "There was a dog. "
//! ```

use std::error::Error;
use std::ops::ControlFlow;

use esolm::{
    Constraints, Context, ContextParams, GenerateParams, Grammar, LoadOptions, Model, Prompt, SamplingParams,
};

const SCHEMA: &str = r#"{
    "type": "object",
    "additionalProperties": false,
    "required": ["animal", "name", "legs"],
    "properties": {
        "animal": { "enum": ["cat", "dog", "fish"] },
        "name": { "type": "string", "pattern": "^[A-Z][a-z]{1,9}$" },
        "legs": { "type": "integer", "minimum": 0, "maximum": 8 }
    }
}"#;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: json MODEL [PROMPT]")?;
    let text = args.next().unwrap_or("There was a dog. ".into());

    let model = Model::open(path, &LoadOptions::default())?;
    let prompt = Prompt::prefix(&model.tokenizer()?.encode(&text)?)?;
    let mut context = Context::new(&model, &ContextParams { length: 96, ..ContextParams::default() })?;
    let grammar = Some(Grammar::JsonSchema(SCHEMA.into()));
    let params = GenerateParams {
        // A grammar needs one token per step, from left to right.
        alpha_0: 0.0,
        constraints: &[Constraints { grammar, ..Constraints::default() }],
        sampling: SamplingParams { min_p: 0.02, ..SamplingParams::DEFAULT },
        seed: 1,
        ..GenerateParams::default()
    };
    context.generate(&[prompt], &params, |_| ControlFlow::Continue(()))?;
    let written = context.text(0)?;
    println!("{}", written.strip_prefix(&text).ok_or("the prompt is not there")?);
    Ok(())
}
