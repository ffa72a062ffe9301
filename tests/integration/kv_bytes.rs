//! A K/V cache in bytes with scales.

use esolm::{
    Architecture, Config, Context, ContextParams, Error, GenerateParams, Kernels, KvType, Model, Prompt,
    Variant,
};

use crate::extend::{begin_part, finish, more};
use crate::reference::{Network, config};
use crate::runs::{default_model, every_step, open, params};

fn bytes(params: ContextParams) -> ContextParams {
    ContextParams { kv_type: KvType::Q8_0, ..params }
}

fn wide_heads(variant: Variant) -> Model {
    Network::random(Config { variant, ..config(3, 2) }, 3).model()
}

/// Two heads of queries for each one of keys and values, as Qwen3 has them.
fn shared_heads() -> Model {
    let architecture = Architecture { kv_head_count: Some(2), ..Architecture::QWEN3 };
    let config = Config { variant: Variant::Ar, architecture, embedding_length: 128, ..config(3, 4) };
    Network::random(config, 3).model()
}

#[test]
fn cache_takes_34_bytes_for_32_numbers() {
    let model = wide_heads(Variant::EsoB);
    let usage = |params: ContextParams| Context::memory_use(&model, &params).unwrap().kv_cache;
    assert_eq!(usage(bytes(params(3))) * 4 * 32, usage(params(3)) * 34);
}

#[test]
fn what_cannot_use_it_is_refused() {
    let refused = |model: &Model, params: ContextParams| match Context::new(model, &params) {
        Err(Error::Unsupported(what)) => assert!(what.contains("--kv-type f16"), "{what}"),
        other => panic!("{other:?}"),
    };
    let model = wide_heads(Variant::EsoB);
    refused(&model, bytes(ContextParams { kernels: Kernels::Ggml, ..params(1) }));
    // Heads that are 16 wide.
    refused(&Network::random(config(2, 4), 1).model(), bytes(params(1)));
}

#[test]
fn text_is_the_same_with_any_threads_batches_and_neighbours() {
    let model = open(&default_model());
    let tokens = model.tokenizer().unwrap().encode("Once upon a time there was a little").unwrap();
    let generate =
        GenerateParams { length: 120, seed: 7, steps: 20, alpha_0: 0.5, ..GenerateParams::default() };
    let run = |limits: ContextParams| {
        let mut context = Context::new(&model, &bytes(limits)).unwrap();
        context.generate(&[Prompt::prefix(&tokens).unwrap()], &generate, every_step).unwrap();
        context.tokens(0).unwrap().to_vec()
    };
    let one = ContextParams { threads: 1, ..ContextParams::default() };
    let alone = run(one);
    assert_eq!(run(ContextParams { threads: 2, ..one }), alone);
    assert_eq!(run(ContextParams { batch_rows: 3, ..one }), alone);
    let mut context = Context::new(&model, &bytes(ContextParams { sequences: 3, ..one })).unwrap();
    context.add_sequence(&Prompt::prefix(&tokens).unwrap(), &GenerateParams { seed: 9, ..generate }).unwrap();
    context.step().unwrap();
    let joined = context.add_sequence(&Prompt::prefix(&tokens).unwrap(), &generate).unwrap();
    assert!(context.cached_tokens(joined).unwrap() > 0, "keys, values and scales were copied");
    while context.step().unwrap().is_some() {}
    assert_eq!(context.tokens(joined).unwrap(), alone);
}

#[test]
fn saved_states_go_on_bit_by_bit() {
    for variant in [Variant::EsoB, Variant::Ar] {
        let model = wide_heads(variant);
        let new = |params: ContextParams| Context::new(&model, &params).unwrap();
        let mut context = new(bytes(params(2)));
        let prompts = begin_part(&mut context, 20, 100);
        let state = context.save().unwrap();
        context.extend(&prompts, &more(7)).unwrap();
        let expected = finish(&mut context);
        let mut restored = new(bytes(params(4)));
        restored.restore(&state).unwrap();
        assert!(restored.save().unwrap() == state, "saving what was restored");
        restored.extend(&prompts, &more(7)).unwrap();
        assert_eq!(finish(&mut restored), expected);
        // Computed again in another precision.
        let mut precise = new(params(2));
        precise.restore(&state).unwrap();
        precise.extend(&prompts, &more(7)).unwrap();
        assert_eq!(finish(&mut precise).steps.len(), expected.steps.len());
    }
}

#[test]
fn logits_are_close_to_those_of_single_precision() {
    let all = [Variant::EsoB, Variant::EsoA, Variant::Mdlm, Variant::Ar].map(wide_heads);
    for model in all.into_iter().chain([shared_heads()]) {
        let variant = model.config().variant;
        let text: Vec<u32> = (0..40).map(|i| i * 7 % 48).collect();
        let order: Vec<u32> = (0..40).collect();
        let likelihoods = |params: ContextParams| {
            let mut context = Context::new(&model, &params).unwrap();
            match variant {
                Variant::Mdlm => context.score_masked(&text, &order, 20).unwrap(),
                _ => {
                    let given = usize::from(model.config().needs_first_token);
                    context.score_order(&text, &order, given).unwrap()
                }
            }
        };
        let (exact, found) = (likelihoods(params(1)), likelihoods(bytes(params(1))));
        let largest = exact.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        println!("{variant:?}: at most {largest:.1e} nats off");
        assert!(largest > 0.0 && largest < 0.2, "{variant:?}: {largest}");
    }
}
