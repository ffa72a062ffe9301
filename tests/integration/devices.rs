//! What every device does. `ESOLM_TEST_DEVICE` names one (`cuda:0`); otherwise it is the CPU with ggml's kernels, which run the
//! same graph. `ESOLM_TEST_TOLERANCE` is how far logits in f32 may be from the reference's (docs/devices.md has the figures).

use esolm::evaluate::verify::verify;
use esolm::gguf::TensorType;
use esolm::quantize::{QuantizeOptions, quantize};
use esolm::{
    Adaptive, Confidence, Constraints, Context, ContextParams, Error, GenerateParams, Kernels, KvType,
    LoadOptions, Model, Order, Prompt, SamplingParams, ScoreParams, TextScore, Variant,
};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::golden::{Golden, path};
use crate::reference::{Network, Random};
use crate::replay::{Case, cases, largest_difference, replay_cases};
use crate::runs::{
    ON, both_phases, context, cpu, default_model, device, diffusion, finish, params, texts, there, tokens,
};

const VARIANTS: [Variant; 4] = [Variant::EsoB, Variant::EsoA, Variant::Mdlm, Variant::Ar];
const GREEDY: SamplingParams = SamplingParams { temperature: 0.0, ..SamplingParams::FULL };

fn tolerance() -> f64 {
    let given = std::env::var("ESOLM_TEST_TOLERANCE").ok();
    given.map_or(crate::replay::EXACT, |number| number.parse().unwrap())
}

fn options() -> LoadOptions<'static> {
    LoadOptions { device: device(), ..LoadOptions::default() }
}

/// A context on the device, in f32.
fn context_there(model: &Model, sequences: usize) -> Context {
    Context::new(model, &limits(params(sequences))).unwrap()
}

fn limits(params: ContextParams) -> ContextParams {
    ContextParams { kernels: Kernels::Ggml, ..params }
}

/// A small network on the CPU with the library's own kernels, and on the device.
fn both(variant: Variant, sequences: usize) -> [Context; 2] {
    let network = Network::small(variant, 1);
    [context(&network.model(), sequences), context_there(&there(&network.to_gguf()), sequences)]
}

#[test]
fn every_variant_has_the_reference_s_logits() {
    let cases = cases();
    let some: Vec<&Case> = cases.iter().collect();
    // Autoregression has an order of its own: below, against the authors' texts.
    for variant in [Variant::EsoB, Variant::EsoA, Variant::Mdlm] {
        let network = Network::small(variant, 1);
        // One after the other in one cache (single rows and many), and side by side.
        let mut context = context_there(&there(&network.to_gguf()), some.len());
        let mut largest: f64 = 0.0;
        let alone = some.iter().flat_map(|case| replay_cases(&mut context, &[case])).collect();
        for found in [alone, replay_cases(&mut context, &some)] {
            for (case, found) in some.iter().zip(&found) {
                largest = largest.max(largest_difference(found, &case.expected(&network)));
            }
        }
        println!("{variant:?}: {largest:e}");
        assert!(largest <= tolerance(), "{variant:?}: {largest:e}");
    }
}

#[test]
fn the_authors_texts_are_written() {
    for name in ["tiny-B", "tiny-A", "mdlm-tiny", "ar-tiny"] {
        let golden = Golden::open(name);
        let file = crate::golden::converted(&golden.path("checkpoint.ckpt"), &Default::default());
        let outcomes = verify(&there(&file), &path(name).join("golden.safetensors"), &params(1), None);
        for outcome in outcomes.unwrap() {
            println!("{name}: {outcome:?}");
            assert_eq!(outcome.differing, 0, "{name}: {outcome:?}");
            assert!(f64::from(outcome.largest_difference) <= tolerance(), "{name}: {outcome:?}");
        }
    }
}

/// One token per step, where devices compute most exactly: every kind of request writes what the CPU writes.
#[test]
fn requests_write_what_the_cpu_writes() {
    let [mut here, mut there] = both(Variant::EsoB, 3);
    let one = GenerateParams { alpha_0: 0.0, steps: 0, order: Order::LeftToRight, ..diffusion() };
    let sampling = |sampling| GenerateParams { sampling, seed: 5, ..one };
    let full = SamplingParams::FULL;
    let bans = Constraints { banned: (0..40).collect(), ..Constraints::default() };
    let rules = Constraints {
        banned: vec![3, 4],
        bias: vec![(7, 2.0), (9, -1.0)],
        allowed: vec![(11, vec![20, 21])],
        repetition_penalty: 1.2,
        ..Constraints::default()
    };
    let (bans, rules) = ([bans], [rules]);
    let requests = [
        ("greedy", sampling(GREEDY)),
        ("all", sampling(full)),
        ("top-k", sampling(SamplingParams { top_k: 5, ..full })),
        ("top-p", sampling(SamplingParams { top_p: 0.7, temperature: 0.8, ..full })),
        ("min-p", sampling(SamplingParams { min_p: 0.2, ..full })),
        ("all three", sampling(SamplingParams { top_k: 20, top_p: 0.9, min_p: 0.05, ..full })),
        ("typical", sampling(SamplingParams { typical_p: 0.6, top_n_sigma: 2.0, ..full })),
        ("log-probabilities", GenerateParams { log_probs: true, ..sampling(full) }),
        ("bans", GenerateParams { constraints: &bans, ..sampling(full) }),
        ("constraints", GenerateParams { constraints: &rules, ..sampling(full) }),
        ("lookahead", GenerateParams { lookahead: 2, ..sampling(full) }),
    ];
    let prompts = [Prompt::prefix(&[5, 6, 7]).unwrap()];
    for (name, request) in requests {
        assert_eq!(texts(&mut there, &prompts, &request), texts(&mut here, &prompts, &request), "{name}");
    }
}

#[test]
fn steps_of_many_tokens_keep_to_their_rules() {
    for variant in VARIANTS {
        let [mut here, mut there] = both(variant, 3);
        let prompts = [Prompt::prefix(&[5, 6, 7]).unwrap(), Prompt::default(), Prompt::prefix(&[9]).unwrap()];
        let alpha_0 = if variant == Variant::Ar { 0.0 } else { 1.0 };
        let bans = [Constraints { banned: (0..90).collect(), ..Constraints::default() }];
        let greedy = GenerateParams { alpha_0, sampling: GREEDY, steps: 9, seed: 2, ..diffusion() };
        assert_eq!(texts(&mut there, &prompts, &greedy), texts(&mut here, &prompts, &greedy), "{variant:?}");
        let banned = GenerateParams { constraints: &bans, sampling: SamplingParams::FULL, ..greedy };
        let written = texts(&mut there, &prompts[1..2], &banned);
        assert!(written[0].iter().all(|&token| token >= 90), "{variant:?}: {written:?}");
        // The same seed writes the same text, whatever was computed before.
        let again = texts(&mut there, &prompts[1..2], &banned);
        assert_eq!(again, written, "{variant:?}");
    }
    let adaptive =
        Adaptive { confidence: Confidence::Probability, threshold: 0.5, window: 6, ..Adaptive::default() };
    let [mut here, mut there] = both(Variant::EsoB, 1);
    let request = GenerateParams { adaptive: Some(adaptive), sampling: GREEDY, ..diffusion() };
    let prompts = [Prompt::prefix(&[5]).unwrap()];
    assert_eq!(texts(&mut there, &prompts, &request), texts(&mut here, &prompts, &request));
}

#[test]
fn every_variant_scores_as_on_the_cpu() {
    let text = Random(5).text(20);
    for variant in VARIANTS {
        let orders = usize::from(variant != Variant::Mdlm);
        let draws = if variant == Variant::Ar { 0 } else { 4 };
        let alpha_0 = if variant == Variant::Mdlm { 1.0 } else { 0.5 };
        let params = ScoreParams { orders, draws, alpha_0, seed: 3, ..ScoreParams::default() };
        let [here, there] =
            both(variant, 1).map(|mut context| context.score_text(&text, &params, ON).unwrap());
        let parts = |score: &TextScore| [score.nll, score.bound.diffusion.mean, score.bound.sequential.mean];
        for (here, there) in parts(&here).into_iter().zip(parts(&there)) {
            println!("{variant:?}: {here} {there}");
            // A difference of each token's logit and of the others'.
            assert!((here - there).abs() <= 4.0 * 20.0 * tolerance(), "{variant:?}: {here} {there}");
        }
        assert!(here.nll + here.bound.total().mean > 1.0, "{variant:?}: {here:?}");
    }
}

#[test]
fn the_default_model_scores_and_writes_as_on_the_cpu() {
    let file = default_model_in_f32();
    let mut here = context(&Model::from_bytes(&file, &cpu()).unwrap(), 1);
    let mut there = context_there(&there(&file), 1);
    let text = std::fs::read_to_string(path("../heldout/stories.txt")).unwrap();
    let text: String = text.chars().take(900).collect();
    let text = here.model().tokenizer().unwrap().encode(&text).unwrap();
    let score = |context: &mut Context| {
        let params = ScoreParams { seed: 3, draws: 16, ..ScoreParams::default() };
        let score = context.score_text(&text, &params, ON).unwrap();
        [score.nll, score.bound.diffusion.mean].map(|nats| nats / text.len() as f64)
    };
    for (here, there) in score(&mut here).into_iter().zip(score(&mut there)) {
        println!("nats per token: {here} {there}");
        assert!((here - there).abs() <= 1e-3, "{here} {there}");
    }
    for seed in 0..8 {
        let request = GenerateParams { length: 128, steps: 40, sampling: GREEDY, seed, ..diffusion() };
        let [here, there] = [&mut here, &mut there].map(|context| written(context, &request));
        let different = here.iter().zip(&there).find(|(here, there)| here.0 != there.0);
        let Some(((position, token), logits)) = different.map(|(here, _)| here) else { continue };
        let other = there.iter().find(|((at, _), _)| at == position).unwrap().0.1;
        let gap = logits[*token as usize] - logits[other as usize];
        println!("seed {seed}: at {position} {token} or {other}, {gap} apart");
        assert!(
            (0.0..0.02 + tolerance() as f32).contains(&gap),
            "seed {seed}: no near tie at {position}: {gap}"
        );
    }
}

/// The default model's file in f32, so that all kernels multiply the same numbers.
fn default_model_in_f32() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("f32.gguf");
    let options = QuantizeOptions::new(TensorType::F32);
    quantize(&default_model(), &out, &options, &mut |_| ()).unwrap();
    std::fs::read(out).unwrap()
}

/// The tokens that a generation writes, with their positions, and the logits of each.
fn written(context: &mut Context, request: &GenerateParams<'_>) -> Vec<((u32, u32), Vec<f32>)> {
    let mut all = vec![];
    let mut logits = vec![];
    context.begin(&[Prompt::default()], request).unwrap();
    while let Some(step) = context
        .step_with_logits(|choice, _| {
            logits.push(choice.logits.to_vec());
            Ok(())
        })
        .unwrap()
    {
        all.extend(step.updates.iter().map(|u| (u.position, u.token)).zip(logits.drain(..)));
    }
    all
}

#[test]
fn states_move_between_devices() {
    for variant in [Variant::EsoB, Variant::Ar] {
        for kv_type in [KvType::F32, KvType::F16] {
            let network = Network::small(variant, 1);
            let models = [network.model(), there(&network.to_gguf())];
            let new = |device: usize| {
                let params = ContextParams { kv_type, ..params(3) };
                let limits = if device == 0 { params } else { limits(params) };
                Context::new(&models[device], &limits).unwrap()
            };
            let greedy = GenerateParams { alpha_0: 0.0, sampling: GREEDY, steps: 0, ..diffusion() };
            for from in [0, 1] {
                let mut first = new(from);
                let prompts = [Prompt::prefix(&[1, 2]).unwrap(), Prompt::prefix(&[3]).unwrap()];
                first.begin(&prompts, &GenerateParams { length: 20, ..greedy }).unwrap();
                finish(&mut first);
                let state = first.save().unwrap();
                let mut second = new(1 - from);
                second.restore(&state).unwrap();
                assert_eq!(second.cached_tokens(1).unwrap(), first.cached_tokens(1).unwrap());
                assert!(second.save().unwrap() == state, "{variant:?} {kv_type:?} {from}");
                let texts = [&mut first, &mut second].map(|context| {
                    context.extend(&[Prompt::default(), Prompt::default()], &greedy).unwrap();
                    finish(context);
                    tokens(context)
                });
                assert_eq!(texts[0], texts[1], "{variant:?} {kv_type:?} {from}");
            }
        }
    }
}

#[test]
fn sequences_join_and_leave() {
    let [mut here, mut there] = both(Variant::EsoB, 3);
    let request = GenerateParams { alpha_0: 0.0, sampling: GREEDY, steps: 0, ..diffusion() };
    let [here, there] = [&mut here, &mut there].map(|context| {
        let first = context.add_sequence(&Prompt::prefix(&[1, 2, 3, 4]).unwrap(), &request).unwrap();
        (0..5).for_each(|_| assert!(context.step().unwrap().is_some()));
        // Has the keys and values of the first one's beginning.
        let second = context.add_sequence(&Prompt::prefix(&[1, 2, 3, 9]).unwrap(), &request).unwrap();
        (0..5).for_each(|_| assert!(context.step().unwrap().is_some()));
        let gone = context.tokens(first).unwrap().to_vec();
        context.remove_sequence(first).unwrap();
        let third = context.add_sequence(&Prompt::prefix(&[7]).unwrap(), &request).unwrap();
        finish(context);
        [gone, context.tokens(second).unwrap().to_vec(), context.tokens(third).unwrap().to_vec()]
    });
    assert_eq!(there, here);
}

#[test]
fn what_does_not_fit_is_an_error_with_numbers() {
    if device() == "cpu" {
        // Memory of the host is provided when it is touched.
        return;
    }
    let model = Model::open(default_model(), &options()).unwrap();
    let limits = limits(ContextParams { batch_rows: 512, ..params(1 << 16) });
    match Context::new(&model, &limits) {
        Err(Error::OutOfMemory(what)) => assert!(what.contains(" free there"), "{what}"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("500 GB on a device"),
    }
    // And nothing is lost.
    let mut context = context_there(&model, 1);
    context.begin(&[Prompt::default()], &both_phases(1)).unwrap();
    finish(&mut context);
}

#[test]
fn the_estimate_for_a_file_is_what_it_takes() {
    let limits = limits(params(2));
    // In panels on the CPU, in plain rows on other devices.
    let model = Model::open(default_model(), &options()).unwrap();
    let estimate = Context::estimate(default_model(), &options(), &limits).unwrap();
    assert_eq!(estimate, Context::memory_use(&model, &limits).unwrap());
    // On the CPU with the copy that ggml takes of panels.
    let copied = estimate.weights - model.tensor_bytes();
    assert_eq!(copied > model.tensor_bytes() / 2, model.device() == "cpu");
    assert!(copied == 0 || model.device() == "cpu");
}

#[test]
fn cancelling_acts_inside_a_batch() {
    let model = Model::open(default_model(), &options()).unwrap();
    // One batch, of a size that takes a device long enough.
    let long_enough = [(8, 2048), (128, 32768)].into_iter().any(|size| cancels_inside_a_batch(&model, size));
    if !long_enough {
        assert_ne!(device(), "cpu");
        println!("not checked: {} takes less than 20 ms for the largest step", device());
    }
}

/// False if a step was too quick to be cancelled.
fn cancels_inside_a_batch(model: &Model, (sequences, batch_rows): (usize, usize)) -> bool {
    let limits = limits(ContextParams { batch_rows, ..params(sequences) });
    let mut context = Context::new(model, &limits).unwrap();
    let length = model.config().context_length;
    let prompts = vec![Prompt::prefix(&vec![5; length - 8]).unwrap(); sequences];
    let token = context.cancel_token();
    let mut run = |after: Option<Duration>| {
        token.reset();
        context.begin(&prompts, &GenerateParams { length, ..both_phases(1) }).unwrap();
        let token = token.clone();
        let canceller = after.map(|after| {
            std::thread::spawn(move || {
                std::thread::sleep(after);
                token.cancel();
            })
        });
        let started = Instant::now();
        let result = context.step().map(drop);
        let time = started.elapsed();
        canceller.into_iter().for_each(|thread| thread.join().unwrap());
        (result, time)
    };
    // The first run may prepare the device.
    run(None).0.unwrap();
    let (done, whole) = run(None);
    done.unwrap();
    let (cancelled, time) = run(Some(whole / 4));
    println!("a step of {whole:?}, cancelled after {:?}, returned after {time:?}", whole / 4);
    if whole < Duration::from_millis(20) {
        return false;
    }
    assert!(matches!(cancelled, Err(Error::Cancelled)), "{cancelled:?}");
    assert!(time < whole * 3 / 4, "{time:?} of {whole:?}");
    run(None).0.unwrap();
    true
}

#[test]
fn contexts_in_two_threads_write_what_one_writes() {
    let model = there(&Network::small(Variant::EsoB, 1).to_gguf());
    let text = |seed: u64| {
        let mut context = context_there(&model, 1);
        texts(&mut context, &[Prompt::prefix(&[seed as u32]).unwrap()], &both_phases(seed))
    };
    let alone = [1, 2].map(text);
    std::thread::scope(|scope| {
        let threads = [1, 2].map(|seed| scope.spawn(move || (0..5).map(|_| text(seed)).collect::<Vec<_>>()));
        for (thread, alone) in threads.into_iter().zip(&alone) {
            assert!(thread.join().unwrap().iter().all(|text| text == alone));
        }
    });
}

#[test]
fn progress_of_loading_can_be_stopped() {
    if device() == "cpu" {
        // Nothing is copied there.
        return;
    }
    let stop = |_: f64| ControlFlow::Break(());
    let options = LoadOptions { progress: Some(&stop), ..options() };
    assert!(matches!(Model::open(default_model(), &options), Err(Error::Cancelled)));
}
