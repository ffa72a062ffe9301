//! Texts that a window writes, of WeDLM and of Eso-LM (B): in batches, behind states, beside others.

use esolm::{
    Adaptive, Architecture, Context, ContextParams, GenerateParams, KvType, Model, Prompt, SamplingParams,
    Variant,
};

use crate::reference::{LENGTH, MASK, Network, Random};
use crate::runs::{context, everywhere, finish, masks_asked, own, params, texts, there};
use crate::wedlm::architectures;

const GREEDY: SamplingParams = SamplingParams { temperature: 0.0, ..SamplingParams::FULL };

pub fn prompts() -> [Prompt; 3] {
    [3, 11, 6].map(|length| Prompt::prefix(&Random(length as u64).text(length)).unwrap())
}

#[test]
fn a_batch_writes_the_texts_of_its_sequences_alone_with_any_threads() {
    for (number, architecture) in architectures().into_iter().enumerate() {
        let model = there(&Network::qwen(Variant::WeDlm, architecture, 20 + number as u64).to_gguf());
        for alpha_0 in [0.0, 1.0] {
            let params = GenerateParams { alpha_0, sampling: GREEDY, ..GenerateParams::DEFAULT };
            let mut together = vec![];
            for (mut context, mut alone) in everywhere(&model, 3).into_iter().zip(everywhere(&model, 1)) {
                together.push(texts(&mut context, &prompts(), &params));
                for (prompt, expected) in prompts().into_iter().zip(together.last().unwrap()) {
                    assert_eq!(&texts(&mut alone, &[prompt], &params)[0], expected, "alpha_0 {alpha_0}");
                }
            }
            assert!(together.iter().all(|texts| *texts == together[0]), "{together:?}");
            // Rows that do not fit into one batch.
            let params_of = ContextParams {
                sequences: 3,
                batch_rows: 7,
                kv_type: KvType::F32,
                ..ContextParams::default()
            };
            let mut narrow = Context::new(&model, &params_of).unwrap();
            assert_eq!(texts(&mut narrow, &prompts(), &params), together[0], "alpha_0 {alpha_0}");
        }
    }
}

#[test]
fn a_text_goes_on_from_a_state_and_behind_an_answer() {
    let model = there(&Network::qwen(Variant::WeDlm, Architecture::QWEN3, 31).to_gguf());
    for (context, other) in everywhere(&model, 1).into_iter().zip(everywhere(&model, 1)) {
        goes_on(context, other);
    }
}

fn goes_on(mut context: Context, mut other: Context) {
    let params = |length| GenerateParams { length, sampling: GREEDY, ..GenerateParams::DEFAULT };
    let prompt = prompts()[1].clone();
    let first = texts(&mut context, std::slice::from_ref(&prompt), &params(24)).remove(0);
    assert_eq!(first.len(), 24);
    let state = context.save().unwrap();
    context.extend(&[Prompt::default()], &params(LENGTH)).unwrap();
    let fed = context.cached_tokens(0).unwrap();
    assert!(fed >= 24 - 16, "{fed} of 24 tokens have final keys and values");
    finish(&mut context);
    let whole = context.tokens(0).unwrap().to_vec();
    other.restore(&state).unwrap();
    other.extend(&[Prompt::default()], &params(LENGTH)).unwrap();
    finish(&mut other);
    assert_eq!(other.tokens(0).unwrap(), whole);
    // The same from the tokens alone, and one by one behind a window.
    let again = texts(&mut other, &[Prompt::prefix(&first).unwrap()], &params(LENGTH)).remove(0);
    assert_eq!(again, whole);
    context.restore(&state).unwrap();
    let one_by_one = GenerateParams { alpha_0: 0.0, ..params(LENGTH) };
    context.extend(&[Prompt::default()], &one_by_one).unwrap();
    finish(&mut context);
    let behind = context.tokens(0).unwrap().to_vec();
    let from_tokens = texts(&mut other, &[Prompt::prefix(&first).unwrap()], &one_by_one).remove(0);
    assert_eq!(behind, from_tokens);
    // A window that is given up in the middle leaves what is known without a gap.
    context.begin(std::slice::from_ref(&prompt), &params(LENGTH)).unwrap();
    for _ in 0..6 {
        context.step().unwrap();
    }
    let state = context.save().unwrap();
    context.extend(&[Prompt::default()], &one_by_one).unwrap();
    finish(&mut context);
    other.restore(&state).unwrap();
    other.extend(&[Prompt::default()], &one_by_one).unwrap();
    finish(&mut other);
    assert_eq!(context.tokens(0).unwrap(), other.tokens(0).unwrap());
}

#[test]
fn sequences_join_windows_that_are_being_written() {
    let model = there(&Network::qwen(Variant::WeDlm, Architecture::QWEN2, 41).to_gguf());
    let params = GenerateParams { sampling: GREEDY, ..GenerateParams::DEFAULT };
    for (mut context, mut alone) in everywhere(&model, 3).into_iter().zip(everywhere(&model, 1)) {
        let mut numbers = vec![];
        for prompt in prompts() {
            numbers.push(context.add_sequence(&prompt, &params).unwrap());
            context.step().unwrap();
            context.step().unwrap();
        }
        finish(&mut context);
        for (number, prompt) in numbers.into_iter().zip(prompts()) {
            assert_eq!(context.tokens(number).unwrap(), texts(&mut alone, &[prompt], &params)[0]);
        }
    }
}

#[test]
fn a_window_larger_than_the_text_is_as_large_as_the_text() {
    let wedlm = Network::qwen(Variant::WeDlm, Architecture::QWEN3, 9).model();
    let models = [wedlm, Network::small(Variant::EsoB, 9).model(), Network::small(Variant::Mdlm, 9).model()];
    for model in models {
        let causal = model.config().variant != Variant::Mdlm;
        for in_order in [false, true].into_iter().filter(|in_order| causal || !in_order) {
            let with = |window| {
                let adaptive = Some(Adaptive { window, in_order, ..Adaptive::WEDLM });
                let params = GenerateParams { adaptive, ignore_eos: true, ..GenerateParams::DEFAULT };
                texts(&mut context(&model, 1), &prompts()[..1], &params)
            };
            let expected = with(model.config().context_length);
            for window in [1 << 33, usize::MAX / 2, usize::MAX - 1, usize::MAX] {
                assert_eq!(with(window), expected, "{window}, {in_order}");
            }
        }
    }
}

#[test]
fn a_window_s_size_is_found_out_the_same_for_any_threads_and_neighbours() {
    let models = [
        Network::qwen(Variant::WeDlm, Architecture::QWEN3, 81).model(),
        Network::random(crate::reference::config(3, 4), 82).model(),
    ];
    for model in models {
        let mut rows = vec![];
        for threshold in [0.0, 3.8, 10.0] {
            let auto = Adaptive { threshold, window: Adaptive::WINDOW_AUTO, ..Adaptive::WEDLM };
            let sampling = SamplingParams::FULL;
            let params = GenerateParams {
                adaptive: Some(auto),
                alpha_0: 1.0,
                sampling,
                seed: 3,
                ..GenerateParams::DEFAULT
            };
            let [mut first, mut second] = own(&model, 3);
            let expected = texts(&mut first, &prompts(), &params);
            assert!(expected.iter().all(|text| text.len() == LENGTH && !text.contains(&MASK)));
            assert_eq!(texts(&mut second, &prompts(), &params), expected);
            let mut context = everywhere(&model, 1).remove(0);
            assert_eq!(texts(&mut context, &prompts()[..1], &params)[0], expected[0]);
            // How many places are asked for in the last pass but a few.
            context.begin(&prompts()[..1], &params).unwrap();
            let asked = masks_asked(&mut context);
            assert!(asked.iter().all(|&masks| masks <= 32));
            rows.push(asked[asked.len() / 2]);
        }
        // Where one is filled in a pass the window is small, where all are it is as large as can be.
        assert!(rows[0] <= 4 && rows[0] < rows[2], "{rows:?}");
    }
    let model = Network::small(Variant::EsoB, 1).model();
    let loose = Adaptive { window: Adaptive::WINDOW_AUTO, ..Adaptive::default() };
    let params = GenerateParams { adaptive: Some(loose), ..GenerateParams::DEFAULT };
    let error = everywhere(&model, 1)[0].begin(&[Prompt::default()], &params).unwrap_err().to_string();
    assert!(error.contains("slides in order"), "{error}");
}

/// WeDLM, and an Eso-LM that slides a window as it does: both fill one place in a pass, wherever it is.
fn sliding() -> [(Model, GenerateParams<'static>); 2] {
    let adaptive = Some(Adaptive { threshold: 0.0, penalty: 0.0, ..Adaptive::WEDLM });
    let params = GenerateParams { adaptive, sampling: GREEDY, ignore_eos: true, ..GenerateParams::DEFAULT };
    let wedlm = Network::qwen(Variant::WeDlm, Architecture::QWEN3, 91);
    [wedlm, Network::small(Variant::EsoB, 92)].map(|network| (network.model(), params))
}

/// A window reaches beyond the end of a text that is shorter than the context; the order does not.
#[test]
fn order_is_of_the_text_and_of_what_is_final() {
    const SHORT: usize = 16;
    for (model, params) in sliding() {
        let params = GenerateParams { length: SHORT, ..params };
        let mut context = context(&model, 1);
        let prompt = &prompts()[0];
        context.begin(std::slice::from_ref(prompt), &params).unwrap();
        let mut behind_gaps = 0;
        loop {
            let (order, tokens) = (context.order(0).unwrap(), context.tokens(0).unwrap());
            assert!(order.iter().copied().eq(0..order.len() as u32), "{order:?}");
            assert!(order.iter().all(|&position| tokens[position as usize] != MASK), "{order:?}, {tokens:?}");
            behind_gaps += tokens.iter().filter(|&&token| token != MASK).count() - order.len();
            if context.step().unwrap().is_none() {
                break;
            }
        }
        assert!(behind_gaps > 0, "no step leaves a gap");
        let (order, tokens) = (context.order(0).unwrap().to_vec(), context.tokens(0).unwrap().to_vec());
        assert_eq!((order.len(), tokens.len()), (SHORT, SHORT));
        if model.config().variant == Variant::EsoB {
            assert_eq!(context.score_order(&tokens, &order, 1).unwrap().len(), SHORT - 1);
        }
    }
}

/// Of a window's text, too: from one that is being written, one that has left, and one that came with a state.
#[test]
fn same_beginning_is_computed_once() {
    let long = Random(93).text(30);
    let mut other = long.clone();
    other[12] = (other[12] + 1) % MASK;
    for (model, params) in sliding() {
        let (mut context, mut alone) = (context(&model, 2), self::context(&model, 1));
        let mut copied = vec![];
        let mut add = |context: &mut Context, prompt: &[u32]| {
            let number = context.add_sequence(&Prompt::prefix(prompt).unwrap(), &params).unwrap();
            copied.push(context.cached_tokens(number).unwrap());
            number
        };
        let mut expect = |context: &mut Context, number: usize, prompt: &[u32]| {
            finish(context);
            let expected = texts(&mut alone, &[Prompt::prefix(prompt).unwrap()], &params).remove(0);
            assert_eq!(context.tokens(number).unwrap(), expected);
        };
        let first = add(&mut context, &long);
        context.step().unwrap();
        let second = add(&mut context, &other);
        expect(&mut context, first, &long);
        expect(&mut context, second, &other);
        context.remove_sequence(first).unwrap();
        context.remove_sequence(second).unwrap();
        let third = add(&mut context, &long[..25]);
        expect(&mut context, third, &long[..25]);
        let state = context.save().unwrap();
        let mut restored = self::context(&model, 2);
        restored.restore(&state).unwrap();
        let fourth = add(&mut restored, &long[..20]);
        expect(&mut restored, fourth, &long[..20]);
        assert_eq!(copied, [0, 12, 25, 20]);
    }
}

/// A prompt that joins is fed in parts, while the windows of others go on.
#[test]
fn long_prompt_joins_in_parts() {
    const ROWS: usize = 6;
    for (model, params) in sliding() {
        let limits = ContextParams { prompt_rows: ROWS, ..self::params(2) };
        let (mut context, mut alone) = (Context::new(&model, &limits).unwrap(), self::context(&model, 1));
        let long = Prompt::prefix(&Random(94).text(28)).unwrap();
        let first = context.add_sequence(&prompts()[0], &params).unwrap();
        context.step().unwrap();
        let second = context.add_sequence(&long, &params).unwrap();
        for part in 1..=4 {
            let step = context.step().unwrap().unwrap();
            assert!(step.updates.iter().all(|update| update.sequence as usize == first));
            assert_eq!(context.cached_tokens(second).unwrap(), part * ROWS);
        }
        finish(&mut context);
        for (number, prompt) in [(first, prompts()[0].clone()), (second, long)] {
            assert_eq!(context.tokens(number).unwrap(), texts(&mut alone, &[prompt], &params)[0]);
        }
    }
}
