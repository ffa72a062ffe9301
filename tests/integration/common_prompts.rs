//! Prompts that begin alike, of sequences that begin together or join before the first has been read: they are read once.

use esolm::{
    Adaptive, Architecture, Config, Context, ContextParams, Error, GenerateParams, Model, Prompt,
    SamplingParams, Variant,
};

use crate::reference::{LENGTH, Network, config};
use crate::runs::{context, everywhere, finish, params, texts, tokens};

const MOST: usize = 24;
const ROWS: usize = 8;

/// Every kind of model that keeps keys and values, with parameters that write in several steps.
fn models() -> Vec<(Model, GenerateParams<'static>)> {
    let one_by_one =
        GenerateParams { alpha_0: 0.0, sampling: SamplingParams::FULL, ..GenerateParams::default() };
    let phases = GenerateParams { alpha_0: 0.5, steps: 4, ..one_by_one };
    let lookahead = GenerateParams { lookahead: 2, ..one_by_one };
    let window = Adaptive { window: 5, threshold: 4.0, ..Adaptive::WEDLM };
    let window = GenerateParams { adaptive: Some(window), alpha_0: 1.0, ..one_by_one };
    let blocks = GenerateParams { alpha_0: 1.0, steps: 0, ..one_by_one };
    let bd3lm =
        Network::random(Config { variant: Variant::Bd3Lm, block_length: 4, ..config(3, 4) }, 1).model();
    let wedlm = || Network::qwen(Variant::WeDlm, Architecture::QWEN3, 1).model();
    vec![
        (Network::small(Variant::EsoB, 1).model(), phases),
        (Network::small(Variant::EsoB, 2).model(), lookahead),
        (Network::small(Variant::Ar, 1).model(), one_by_one),
        (Network::qwen(Variant::Ar, Architecture::QWEN2, 1).model(), one_by_one),
        (wedlm(), window),
        (wedlm(), lookahead),
        (bd3lm, blocks),
    ]
}

fn prompt(tokens: &[u32]) -> Prompt {
    Prompt::prefix(tokens).unwrap()
}

/// Prompts of which some are equal, some begin alike, and some have nothing in common.
fn prompts() -> Vec<Prompt> {
    let long: Vec<u32> = (1..=MOST as u32).collect();
    let mut other = long.clone();
    other[MOST - 4] = 50;
    let different: Vec<u32> = long.iter().rev().copied().collect();
    let all = [&long, &long, &other, &different, &long, &different, &other];
    all.map(|tokens| prompt(tokens)).into_iter().chain([prompt(&long[..3]), prompt(&long[..20])]).collect()
}

/// The text of a prompt, written without another one like it, as the `stream`th of some.
fn alone(model: &Model, prompt: &Prompt, stream: usize, params: &GenerateParams<'_>) -> Vec<u32> {
    let mut prompts = vec![self::prompt(&[3]); stream];
    prompts.push(prompt.clone());
    texts(&mut context(model, prompts.len()), &prompts, params).remove(stream)
}

#[test]
fn prompts_that_begin_alike_give_the_texts_that_they_give_alone() {
    for (model, params) in models() {
        let prompts = prompts();
        let streams = prompts.iter().enumerate();
        let expected: Vec<_> =
            streams.map(|(stream, prompt)| alone(&model, prompt, stream, &params)).collect();
        let first: Vec<_> = prompts.iter().map(|prompt| alone(&model, prompt, 0, &params)).collect();
        for context in &mut everywhere(&model, prompts.len()) {
            assert_eq!(texts(context, &prompts, &params), expected, "{:?}", model.config().variant);
        }
        for batch_rows in [ROWS, 13, 40] {
            let limits = ContextParams { batch_rows, prompt_rows: ROWS, ..self::params(prompts.len()) };
            let mut context = Context::new(&model, &limits).unwrap();
            assert_eq!(texts(&mut context, &prompts, &params), expected);
            // One after the other, a step between some of them.
            context.reset();
            for (number, prompt) in prompts.iter().enumerate() {
                assert_eq!(context.add_sequence(prompt, &params).unwrap(), number);
                if number % 3 == 2 {
                    context.step().unwrap();
                }
            }
            finish(&mut context);
            assert_eq!(tokens(&context), first);
        }
    }
}

#[test]
fn equal_prompts_are_read_once() {
    for (model, params) in models() {
        let prompts = vec![prompt(&[7; MOST]); 4];
        let limits = ContextParams { batch_rows: ROWS, ..self::params(4) };
        let steps = |count: usize| {
            let mut context = Context::new(&model, &limits).unwrap();
            context.begin(&prompts[..count], &params).unwrap();
            let (mut reading, mut expected) = (0, context.progress().1);
            while context.step().unwrap().unwrap().updates.is_empty() {
                reading += 1;
                // What comes is known from the start on.
                expected = expected.max(context.progress().1);
                assert_eq!(context.progress().1, expected);
            }
            let cached: Vec<usize> =
                (0..count).map(|sequence| context.cached_tokens(sequence).unwrap()).collect();
            assert!(cached.iter().all(|&slots| slots >= MOST - 1), "{cached:?}");
            reading
        };
        assert_eq!(steps(4), steps(1), "{:?}", model.config().variant);
    }
}

#[test]
fn sequences_that_join_wait_for_the_one_that_reads_their_prompt() {
    for (model, params) in models() {
        let limits = ContextParams { prompt_rows: ROWS, batch_rows: 8 * ROWS, ..self::params(4) };
        let mut context = Context::new(&model, &limits).unwrap();
        context.add_sequence(&prompt(&[1]), &params).unwrap();
        context.step().unwrap();
        let joined = [5, 5, 5].map(|token| context.add_sequence(&prompt(&[token; MOST]), &params).unwrap());
        let mut steps = 0;
        while context.cached_tokens(joined[2]).unwrap() < MOST - 1 {
            context.step().unwrap();
            steps += 1;
        }
        // As many as one prompt takes, and they begin to write together.
        assert!(steps <= MOST / ROWS + 1, "{:?}: {steps}", model.config().variant);
        let cached = joined.map(|sequence| context.cached_tokens(sequence).unwrap() >= MOST - 1);
        assert_eq!(cached, [true; 3]);
        finish(&mut context);
    }
}

#[test]
fn who_waits_reads_by_itself_once_the_other_leaves() {
    for (model, params) in models() {
        let limits = ContextParams { prompt_rows: ROWS, ..self::params(3) };
        let mut context = Context::new(&model, &limits).unwrap();
        let text: Vec<u32> = (1..=MOST as u32).collect();
        let first = context.add_sequence(&prompt(&text), &params).unwrap();
        let second = context.add_sequence(&prompt(&text), &params).unwrap();
        context.step().unwrap();
        context.remove_sequence(first).unwrap();
        // Its place is taken by another.
        let third = context.add_sequence(&prompt(&[9; MOST]), &params).unwrap();
        finish(&mut context);
        let expected = [prompt(&text), prompt(&[9; MOST])].map(|prompt| alone(&model, &prompt, 0, &params));
        assert_eq!([second, third].map(|sequence| context.tokens(sequence).unwrap().to_vec()), expected);
    }
}

#[test]
fn failed_steps_read_again() {
    for (model, params) in models() {
        let prompts = vec![prompt(&(1..=MOST as u32).collect::<Vec<u32>>()); 3];
        let mut whole = context(&model, 3);
        let expected = texts(&mut whole, &prompts, &params);
        let limits = ContextParams { batch_rows: 10, ..self::params(3) };
        let mut context = Context::new(&model, &limits).unwrap();
        context.begin(&prompts, &params).unwrap();
        while context.progress().0 < context.progress().1 {
            let cancel = context.cancel_token();
            cancel.cancel();
            assert!(matches!(context.step(), Err(Error::Cancelled)));
            cancel.reset();
            // Its logits can be asked for meanwhile.
            let mut logits = vec![0.0; model.config().vocab_size];
            context.logits(2, &[LENGTH as u32 - 1], &mut logits).ok();
            context.step().unwrap();
        }
        assert_eq!(tokens(&context), expected, "{:?}", model.config().variant);
    }
}
