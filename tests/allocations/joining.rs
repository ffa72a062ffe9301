//! Sequences that come and go allocate nothing: of every kind of model, and with rules and the text of each step.

use std::path::Path;
use std::sync::atomic::Ordering;

use esolm::{
    Architecture, Config, Constraints, Context, ContextParams, GenerateParams, LoadOptions, Model, Prompt,
    Variant,
};

use super::ALLOCATIONS;
use super::reference::{Network, config};

/// Twelve sequences that join and leave; when the fifth has joined, all are removed. Returns how many tokens of others' prompts they shared, how many
/// bytes of text the steps gave, and the allocations of additions and of all else.
fn serve(model: &Model, params: &GenerateParams<'_>) -> esolm::Result<(usize, usize, [usize; 2])> {
    let limits = ContextParams { sequences: 3, threads: 2, prompt_rows: 2, ..ContextParams::default() };
    let mut context = Context::new(model, &limits)?;
    let prompt = Prompt::prefix(&[1, 2, 3, 4, 5, 6, 7, 8, 9])?;
    let (mut shared, mut bytes, mut added) = (0, 0, 0);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for seed in 0..12 {
        let adding = ALLOCATIONS.load(Ordering::Relaxed);
        let sequence =
            context.add_sequence(&prompt, &GenerateParams { seed, log_probs: seed % 2 == 0, ..*params })?;
        added += ALLOCATIONS.load(Ordering::Relaxed) - adding;
        shared += context.cached_tokens(sequence)?;
        for _ in 0..8 {
            if let Some(step) = context.step()?
                && params.step_text
            {
                bytes += step.text(sequence).len();
            }
        }
        for sequence in 0..context.sequences() {
            let is_there = context.has_sequence(sequence);
            if is_there && (seed == 4 || context.stop_reason(sequence)?.is_some()) {
                context.remove_sequence(sequence)?;
            }
        }
        // Room for the next one.
        while context.sequences() == 3 && (0..3).all(|sequence| context.has_sequence(sequence)) {
            context.step()?;
            for sequence in 0..3 {
                if context.stop_reason(sequence)?.is_some() {
                    context.remove_sequence(sequence)?;
                }
            }
        }
    }
    Ok((shared, bytes, [added, ALLOCATIONS.load(Ordering::Relaxed) - before - added]))
}

pub fn sequences_come_and_go_without_allocating() -> Result<(), Box<dyn std::error::Error>> {
    for variant in [Variant::EsoB, Variant::EsoA, Variant::Mdlm, Variant::Ar, Variant::WeDlm, Variant::Bd3Lm]
    {
        let network = match variant {
            Variant::WeDlm => Network::qwen(variant, Architecture::QWEN3, 1),
            Variant::Bd3Lm => Network::random(Config { variant, block_length: 4, ..config(2, 4) }, 1),
            _ => Network::small(variant, 1),
        };
        let model = network.model();
        let alpha_0 = match variant {
            Variant::Ar => 0.0,
            Variant::Mdlm | Variant::Bd3Lm | Variant::WeDlm => 1.0,
            _ => 0.5,
        };
        let params =
            GenerateParams { alpha_0, max_tokens: 12, ignore_eos: true, ..GenerateParams::default() };
        let (shared, _, allocations) = serve(&model, &params)?;
        assert_eq!(allocations, [0, 0], "{variant:?}");
        let shares = !matches!(variant, Variant::EsoA | Variant::Mdlm);
        assert_eq!(shared > 0, shares, "{variant:?}: {shared} tokens shared");
    }

    // An addition copies the rules and makes room for the text; steps and removals allocate nothing.
    let stories = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/stories-q8_0.gguf");
    let model = Model::open(&stories, &LoadOptions { device: "cpu".into(), ..LoadOptions::default() })?;
    let constraints = [Constraints {
        banned: vec![3],
        repetition_penalty: 1.1,
        frequency_penalty: 0.1,
        ..Constraints::default()
    }];
    let params = GenerateParams {
        max_tokens: 40,
        step_text: true,
        stop_tokens: &[17],
        stop_strings: &["no such text", "The end"],
        constraints: &constraints,
        top_log_probs: 3,
        ..GenerateParams::default()
    };
    let (shared, bytes, [_, others]) = serve(&model, &params)?;
    assert!(shared > 0 && bytes > 100, "{shared} tokens shared, {bytes} bytes of text");
    assert_eq!(others, 0);
    Ok(())
}
