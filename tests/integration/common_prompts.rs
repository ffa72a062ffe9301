//! Prompts that begin alike, of sequences that begin together or join before the first has been read: they are read once.

use esolm::{
    Adaptive, Architecture, Config, Context, ContextParams, Error, GenerateParams, KvType, Model, Prompt,
    SamplingParams, Variant,
};

use crate::reference::{MASK, Network, config};
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

/// Whether its prompts are read in one step when they begin: BD3-LM's contexts have room for a whole text at once.
fn is_read_at_once(model: &Model) -> bool {
    model.config().variant == Variant::Bd3Lm
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
        let limits = ContextParams { batch_rows: ROWS, prompt_rows: ROWS, ..self::params(4) };
        let reading_steps = |count: usize| {
            let mut context = Context::new(&model, &limits).unwrap();
            context.begin(&prompts[..count], &params).unwrap();
            let total = context.progress().1;
            let mut reading = 0;
            while context.step().unwrap().unwrap().updates.is_empty() {
                reading += 1;
                // What comes is known from the start on.
                assert_eq!(context.progress(), (reading, total));
                // The others wait, and write with the first.
                let cached = |sequence| context.cached_tokens(sequence).unwrap();
                assert!((1..count).all(|sequence| cached(sequence) < MOST - 1));
            }
            reading
        };
        let alone = reading_steps(1);
        assert!(alone > 1 || is_read_at_once(&model), "{:?}", model.config().variant);
        assert_eq!(reading_steps(4), alone, "{:?}", model.config().variant);
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

/// A context for some more sequences beside one that writes, so that prompts are read in parts.
fn beside_a_writer(model: &Model, params: &GenerateParams<'_>, more: usize) -> Context {
    let limits = ContextParams { prompt_rows: ROWS, ..self::params(1 + more) };
    let mut context = Context::new(model, &limits).unwrap();
    context.add_sequence(&prompt(&[1]), params).unwrap();
    context.step().unwrap();
    context
}

#[test]
fn who_waits_reads_by_itself_once_the_other_leaves() {
    for (model, params) in models() {
        let mut context = beside_a_writer(&model, &params, 2);
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
fn who_waits_does_not_copy_what_is_restored_in_the_place_of_the_other() {
    for (model, params) in models() {
        let mut saved = context(&model, 1);
        saved.add_sequence(&prompt(&[9; MOST + 4]), &params).unwrap();
        finish(&mut saved);
        let (saved, restored) = (saved.save_sequence(0).unwrap(), saved.tokens(0).unwrap().to_vec());
        let mut context = beside_a_writer(&model, &params, 2);
        let text: Vec<u32> = (1..=MOST as u32).collect();
        let first = context.add_sequence(&prompt(&text), &params).unwrap();
        let second = context.add_sequence(&prompt(&text), &params).unwrap();
        // Two thirds of it, which are worth a copy.
        context.step().unwrap();
        context.step().unwrap();
        context.remove_sequence(first).unwrap();
        assert_eq!(context.restore_sequence(&saved).unwrap(), first);
        finish(&mut context);
        let variant = model.config().variant;
        assert_eq!(context.tokens(first).unwrap(), restored, "{variant:?}");
        let expected = alone(&model, &prompt(&text), 0, &params);
        assert_eq!(context.tokens(second).unwrap(), expected, "{variant:?}");
        // Nor are its keys and values those of the other text.
        let mut by_itself = self::context(&model, 1);
        by_itself.add_sequence(&prompt(&text), &params).unwrap();
        finish(&mut by_itself);
        assert!(context.save_sequence(second).unwrap() == by_itself.save_sequence(0).unwrap(), "{variant:?}");
    }
}

#[test]
fn failed_steps_read_again() {
    for (model, params) in models() {
        let params = GenerateParams { lookahead: 0, ..params };
        let prompts = vec![prompt(&(1..=MOST as u32).collect::<Vec<u32>>()); 3];
        let expected = texts(&mut context(&model, 3), &prompts, &params);
        let limits = ContextParams { batch_rows: 2 * ROWS, prompt_rows: ROWS, ..self::params(3) };
        let mut context = Context::new(&model, &limits).unwrap();
        context.begin(&prompts, &params).unwrap();
        let mut failed = 0;
        while context.progress().0 < context.progress().1 {
            // Steps that only read ask for no logits, and go on.
            match context.step_with_logits(|_, _| Err(Error::Cancelled)) {
                Err(Error::Cancelled) => failed += 1,
                other => {
                    assert!(other.unwrap().unwrap().updates.is_empty());
                    continue;
                }
            }
            // The logits of one that has copied can be asked for meanwhile, where any position has some.
            let open = context.tokens(2).unwrap().iter().rposition(|&token| token == MASK);
            if let (Variant::EsoB, Some(open)) = (model.config().variant, open) {
                let mut logits = vec![0.0; model.config().vocab_size];
                context.logits(2, &[open as u32], &mut logits).unwrap();
            }
            assert!(!context.step().unwrap().unwrap().updates.is_empty());
        }
        assert!(failed > 1);
        assert_eq!(tokens(&context), expected, "{:?}", model.config().variant);
    }
}

#[test]
fn one_that_ends_at_once_or_is_followed_by_another_text_has_lent_its_prompt() {
    for (model, params) in models() {
        let limits = ContextParams { prompt_rows: ROWS, ..self::params(3) };
        let mut context = Context::new(&model, &limits).unwrap();
        let text: Vec<u32> = (1..=MOST as u32).collect();
        let short = GenerateParams { max_tokens: 1, ..params };
        let first = context.add_sequence(&prompt(&text), &short).unwrap();
        let second = context.add_sequence(&prompt(&text), &params).unwrap();
        while context.stop_reason(first).unwrap().is_none() {
            context.step().unwrap();
        }
        context
            .extend_sequence(first, &Prompt::default(), &GenerateParams { max_tokens: 6, ..params })
            .unwrap();
        let third = context.add_sequence(&prompt(&text), &params).unwrap();
        finish(&mut context);
        let expected = alone(&model, &prompt(&text), 0, &params);
        for sequence in [second, third] {
            assert_eq!(context.tokens(sequence).unwrap(), expected, "{:?}", model.config().variant);
        }
    }
}

#[test]
fn generation_that_is_saved_while_it_reads_goes_on_elsewhere() {
    for (model, params) in models() {
        let prompts = &prompts()[..4];
        let limits =
            ContextParams { batch_rows: ROWS, prompt_rows: ROWS, kv_type: KvType::F16, ..self::params(4) };
        let new = || Context::new(&model, &limits).unwrap();
        let go_on = |context: &mut Context| {
            context.extend(&vec![Prompt::default(); prompts.len()], &params).unwrap();
            finish(context);
            tokens(context)
        };
        let mut begun = new();
        begun.begin(prompts, &params).unwrap();
        let expected = go_on(&mut begun);
        let mut context = new();
        context.begin(prompts, &params).unwrap();
        let mut saved = 0;
        while saved == 0 || context.step().unwrap().unwrap().updates.is_empty() {
            let mut elsewhere = new();
            elsewhere.restore(&context.save().unwrap()).unwrap();
            assert_eq!(go_on(&mut elsewhere), expected, "{:?}", model.config().variant);
            saved += 1;
        }
        assert!(saved > 1 || is_read_at_once(&model));
    }
}
