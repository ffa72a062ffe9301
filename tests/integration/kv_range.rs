//! Keys and values beyond the range of the K/V cache.

use esolm::{Constraints, Context, ContextParams, Error, GenerateParams, Kernels, KvType, Model, Prompt};

use crate::reference::{MASK, Network, config};
use crate::runs::{both_phases, every_step};

/// A model whose second block has some `what` (0 queries, 1 keys, 2 values) multiplied.
fn model(what: usize, by: f32) -> Model {
    let mut model = Network::random(config(3, 2), 1);
    let width = model.config.embedding_length;
    let rows = &mut model.tensor_mut("blk.1.attn_qkv.weight")[what * width * width..];
    rows[5 * width..9 * width].iter_mut().for_each(|w| *w *= by);
    model.model()
}

fn run(model: &Model, kv_type: KvType, threads: usize) -> Result<Vec<u32>, Error> {
    let params = ContextParams { kv_type, threads, ..ContextParams::default() };
    let mut context = Context::new(model, &params)?;
    let result = context.generate(&[Prompt::prefix(&[1, 2, 3]).unwrap()], &both_phases(0), every_step);
    if let Err(error) = &result {
        assert_eq!(context.progress().0, 0, "no step was done");
        // The next step fails in the same way: the threads still run.
        assert_eq!(context.step().unwrap_err().to_string(), error.to_string());
        let text: Vec<u32> = (0..48).collect();
        assert!(matches!(context.score_order(&text, &text, 0), Err(Error::NotFinite(_))));
    }
    result.map(|()| context.tokens(0).unwrap().to_vec())
}

#[test]
fn overflow_of_the_cache_is_an_error_that_names_the_remedy() {
    for threads in [1, 2] {
        for what in [1, 2] {
            for large in [1e6, -1e9] {
                let model = model(what, large);
                let error = run(&model, KvType::F16, threads).unwrap_err();
                let text = error.to_string();
                assert!(matches!(error, Error::NotFinite(_)) && text.contains("block 1"), "{text}");
                assert!(text.contains("kv_type") && text.contains("--kv-type f32"), "{text}");
                assert!(!run(&model, KvType::F32, threads).unwrap().contains(&MASK));
            }
            run(&model(what, 100.0), KvType::F16, threads).unwrap();
            // A scale in f16 has room for 127 times as much.
            run(&model(what, 1e5), KvType::Q8_0, threads).unwrap();
            let error = run(&model(what, -1e9), KvType::Q8_0, threads).unwrap_err();
            assert!(matches!(error, Error::NotFinite(_)), "{error}");
        }
        // Queries are not cached.
        run(&model(0, 1e6), KvType::F16, threads).unwrap();
    }
}

#[test]
fn damaged_weights_are_not_blamed_on_the_cache() {
    for kv_type in [KvType::F16, KvType::F32, KvType::Q8_0] {
        let error = run(&model(1, f32::INFINITY), kv_type, 1).unwrap_err();
        assert!(error.to_string().contains("damaged"), "{error}");
    }
}

/// A model with a token whose row of `tensor` is no numbers.
fn without_token(tensor: &str, token: usize) -> Model {
    let mut model = Network::random(config(3, 2), 1);
    let width = model.config.embedding_length;
    model.tensor_mut(tensor)[token * width..(token + 1) * width].fill(f32::NAN);
    model.model()
}

fn contexts(model: &Model) -> [Context; 2] {
    [Kernels::Own, Kernels::Ggml].map(|kernels| {
        let params = ContextParams { kernels, kv_type: KvType::F32, threads: 1, ..ContextParams::default() };
        Context::new(model, &params).unwrap()
    })
}

#[test]
fn scoring_that_failed_leaves_nothing_for_the_next_text() {
    const DAMAGED: u32 = 9;
    let model = without_token("token_embd.weight", DAMAGED as usize);
    let constraints = [Constraints { banned: vec![DAMAGED], ..Constraints::default() }];
    let params = GenerateParams { constraints: &constraints, ..both_phases(0) };
    for mut context in contexts(&model) {
        let text: Vec<u32> = (0..24).map(|i| if i > 12 { DAMAGED } else { 1 }).collect();
        let order: Vec<u32> = (0..24).collect();
        assert!(matches!(context.score_order(&text, &order, 0), Err(Error::NotFinite(_))));
        context.generate(&[Prompt::prefix(&[1, 2]).unwrap()], &params, every_step).unwrap();
        // As after a generation that failed.
        let bad = Prompt::prefix(&[1, 2, DAMAGED]).unwrap();
        assert!(matches!(context.generate(&[bad], &params, every_step), Err(Error::NotFinite(_))));
        context.generate(&[Prompt::prefix(&[1, 2]).unwrap()], &params, every_step).unwrap();
    }
}

#[test]
fn logits_that_are_no_numbers_are_an_error() {
    let model = without_token("output.weight", 5);
    for mut context in contexts(&model) {
        context.begin(&[Prompt::prefix(&[1, 2]).unwrap()], &both_phases(0)).unwrap();
        let mut numbers = vec![0.0; model.config().vocab_size];
        assert!(matches!(context.logits(0, &[7], &mut numbers), Err(Error::NotFinite(_))));
        assert!(matches!(context.probabilities(0, &[7], &mut numbers), Err(Error::NotFinite(_))));
    }
}
