//! Orders, schedules, adaptive steps, constraints and plans: any of them, with each variant.
#![no_main]

use std::sync::LazyLock;

use esolm::{
    Adaptive, Confidence, Constraints, Context, ContextParams, Dry, GenerateParams, Kernels, KvType, Model,
    Order, Plan, Prompt, SamplingParams, Schedule, Variant,
};
use esolm_fuzz::{Input, VOCAB_SIZE, model, ok};
use libfuzzer_sys::fuzz_target;

const VARIANTS: [Variant; 6] =
    [Variant::EsoB, Variant::EsoA, Variant::Mdlm, Variant::Ar, Variant::WeDlm, Variant::Bd3Lm];
static MODELS: LazyLock<[Model; VARIANTS.len()]> = LazyLock::new(|| VARIANTS.map(model));

const LENGTH: usize = 16;

fn constraints(input: &mut Input<'_>) -> Constraints {
    let allowed = (0..input.below(4)).map(|_| (input.index(LENGTH), input.list(4, VOCAB_SIZE)));
    let allowed = allowed.collect();
    let banned = input.list(6, VOCAB_SIZE);
    let bias = (0..input.below(4)).map(|_| (input.index(VOCAB_SIZE), input.float() as f32)).collect();
    let repetition_penalty = if input.seldom() { input.float() as f32 } else { 1.0 };
    let mut penalty = || if input.seldom() { input.float() as f32 } else { 0.0 };
    let (frequency_penalty, presence_penalty) = (penalty(), penalty());
    let (multiplier, base) = (penalty(), 1.0 + penalty());
    let dry = Dry {
        multiplier,
        base,
        allowed_length: input.below(4) as u32,
        range: input.below(LENGTH) as u32,
        breakers: input.list(3, VOCAB_SIZE),
    };
    Constraints {
        allowed,
        banned,
        bias,
        repetition_penalty,
        frequency_penalty,
        presence_penalty,
        dry,
        grammar: None,
    }
}

fn prompt(input: &mut Input<'_>) -> Prompt {
    let known = (0..input.below(5)).map(|at| {
        let position = if input.seldom() { input.index(LENGTH) } else { 2 * at as u32 };
        (position, input.index(VOCAB_SIZE))
    });
    Prompt { known: known.collect() }
}

fn adaptive(input: &mut Input<'_>) -> Option<Adaptive> {
    let confidence = match input.byte() {
        200..220 => Confidence::Probability,
        220..240 => Confidence::Margin,
        240.. => Confidence::Entropy,
        _ => return None,
    };
    Some(Adaptive {
        confidence,
        threshold: input.float() as f32,
        window: if input.seldom() { Adaptive::WINDOW_AUTO } else { input.size() },
        penalty: if input.seldom() { input.float() as f32 } else { 0.0 },
        in_order: input.below(2) == 0,
    })
}

/// Runs all steps: every position is written once, with a token that can be written. A window that slides may fill positions
/// behind the text alone in a step.
fn finish(context: &mut Context, model: &Model, slides: bool) {
    let mut written = 0;
    let (mut done, mut complete) = (false, true);
    while !done {
        match ok(context.step()) {
            Some(Some(step)) => {
                written += step.updates.len();
                assert!((slides || !step.updates.is_empty()) && step.index < step.total, "{:?}", step.index);
            }
            Some(None) => done = true,
            None => (done, complete) = (true, false),
        }
    }
    if complete {
        for sequence in 0..context.sequences() {
            let tokens = context.tokens(sequence).expect("tokens");
            let mask = model.config().mask_token_id;
            assert!(
                tokens.iter().all(|&token| token != mask && (token as usize) < VOCAB_SIZE),
                "{:?} {mask} {tokens:?}",
                model.config().variant
            );
            let mut order = context.order(sequence).expect("an order").to_vec();
            order.sort_unstable();
            assert!(order.iter().copied().eq(0..tokens.len() as u32), "{order:?}");
        }
        assert!(written <= context.sequences() * LENGTH);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let model = &MODELS[input.below(MODELS.len())];
    let params = ContextParams {
        sequences: 1 + input.below(3),
        batch_rows: input.below(64),
        threads: 1,
        kv_type: if input.below(2) == 0 { KvType::F16 } else { KvType::F32 },
        kernels: if input.byte() >= 240 { Kernels::Ggml } else { Kernels::Own },
        ..ContextParams::default()
    };
    let Some(mut context) = ok(Context::new(model, &params)) else { return };
    for _ in 0..3 {
        let sampling = SamplingParams {
            temperature: input.float() as f32,
            top_k: if input.seldom() { input.number() as u32 } else { 0 },
            top_p: if input.seldom() { input.float() as f32 } else { 0.9 },
            min_p: if input.seldom() { input.float() as f32 } else { 0.0 },
            typical_p: if input.seldom() { input.float() as f32 } else { 1.0 },
            top_n_sigma: if input.seldom() { input.float() as f32 } else { 0.0 },
        };
        let seed = input.number();
        if input.seldom() {
            let plans: Vec<Plan> = (0..1 + input.below(params.sequences))
                .map(|_| {
                    let len = input.below(LENGTH + 2);
                    Plan {
                        known: input.list(4, VOCAB_SIZE),
                        order: input.permutation(len),
                        counts: input.list(LENGTH, 4),
                        diffusion: input.below(LENGTH),
                    }
                })
                .collect();
            if ok(context.begin_with_plans(&plans, sampling, seed)).is_some() {
                finish(&mut context, model, false);
            }
            continue;
        }
        let prompts: Vec<Prompt> =
            (0..input.below(params.sequences + 2)).map(|_| prompt(&mut input)).collect();
        let order_len = if input.seldom() { input.below(LENGTH + 2) } else { LENGTH };
        let order = input.permutation(order_len);
        let counts = input.list(8, 6);
        let rules: Vec<Constraints> =
            (0..input.below(params.sequences + 2)).map(|_| constraints(&mut input)).collect();
        let rules = if input.below(2) == 0 { &[] } else { rules.as_slice() };
        let generate = GenerateParams {
            length: if input.seldom() { input.size() } else { 0 },
            alpha_0: input.float(),
            steps: if input.seldom() { input.size() } else { input.below(20) },
            order: match input.below(6) {
                0 => Order::Random,
                1 => Order::LeftToRight,
                2 => Order::Strided { stride: input.size(), shuffle: false },
                3 => Order::Strided { stride: input.size(), shuffle: true },
                4 => Order::Blocks { size: input.size() },
                _ => Order::Custom(&order),
            },
            schedule: if input.seldom() { Schedule::Custom(&counts) } else { Schedule::Reference },
            adaptive: adaptive(&mut input),
            sampling,
            constraints: rules,
            log_probs: input.below(2) == 0,
            seed,
            max_tokens: if input.seldom() { input.size() } else { 0 },
            stop_tokens: if input.seldom() { &counts } else { &[] },
            ignore_eos: input.below(2) == 0,
            step_text: input.below(2) == 0,
            lookahead: match input.byte() {
                most @ ..64 => u32::from(most % 18),
                64 => input.number() as u32,
                65..96 => GenerateParams::LOOKAHEAD_AUTO,
                _ => 0,
            },
            ..GenerateParams::default()
        };
        let begun = if input.seldom() {
            context.extend(&prompts, &generate)
        } else {
            context.begin(&prompts, &generate)
        };
        if ok(begun).is_some() {
            finish(&mut context, model, generate.adaptive.is_some());
        }
        if input.is_empty() {
            break;
        }
    }
});
