//! Sequences that come and go: with every kind of model nothing is allocated; with rules and the text of each step, additions alone
//! allocate.

use std::path::Path;
use std::sync::atomic::Ordering;

use esolm::{
    Architecture, Config, Constraints, Context, ContextParams, GenerateParams, LoadOptions, Model, Prompt,
    StopReason, Variant,
};

use super::ALLOCATIONS;
use super::reference::{Network, config};

/// What [`serve`] saw.
#[derive(Default)]
struct Served {
    /// Tokens of others' prompts.
    shared: usize,
    /// Of the text that the steps gave.
    bytes: usize,
    /// Sequences that a stop string ended.
    stopped: usize,
    /// Allocations of additions, and of all else.
    allocations: [usize; 2],
}

/// Twelve sequences that join and leave; when the fifth has joined, all are removed.
fn serve(model: &Model, params: &GenerateParams<'_>) -> esolm::Result<Served> {
    let limits = ContextParams { sequences: 3, threads: 2, prompt_rows: 2, ..ContextParams::default() };
    let mut context = Context::new(model, &limits)?;
    let prompt = Prompt::prefix(&[1, 2, 3, 4, 5, 6, 7, 8, 9])?;
    let (mut served, mut added) = (Served::default(), 0);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for seed in 0..12 {
        let adding = ALLOCATIONS.load(Ordering::Relaxed);
        let sequence =
            context.add_sequence(&prompt, &GenerateParams { seed, log_probs: seed % 2 == 0, ..*params })?;
        added += ALLOCATIONS.load(Ordering::Relaxed) - adding;
        served.shared += context.cached_tokens(sequence)?;
        for _ in 0..8 {
            if let Some(step) = context.step()?
                && params.step_text
            {
                served.bytes += step.text(sequence).len();
            }
        }
        for sequence in 0..context.sequences() {
            let is_there = context.has_sequence(sequence);
            let reason = if is_there { context.stop_reason(sequence)? } else { None };
            served.stopped += usize::from(reason == Some(StopReason::StopString));
            if is_there && (seed == 4 || reason.is_some()) {
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
    served.allocations = [added, ALLOCATIONS.load(Ordering::Relaxed) - before - added];
    Ok(served)
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
        let Served { shared, allocations, .. } = serve(&model, &params)?;
        assert_eq!(allocations, [0, 0], "{variant:?}");
        let shares = !matches!(variant, Variant::EsoA | Variant::Mdlm);
        // Eight or nine tokens of each prompt, where another sequence is there.
        assert!(if shares { shared >= 5 * 8 } else { shared == 0 }, "{variant:?}: {shared} tokens shared");
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
        stop_strings: &["no such text", "."],
        constraints: &constraints,
        top_log_probs: 3,
        ..GenerateParams::default()
    };
    let Served { shared, bytes, stopped, allocations } = serve(&model, &params)?;
    println!("{shared} tokens shared, {bytes} bytes of text, {stopped} stopped by a string");
    assert!(shared > 0 && bytes > 100 && stopped > 0);
    assert_eq!(allocations[1], 0);
    Ok(())
}
