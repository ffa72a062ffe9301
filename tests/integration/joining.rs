//! Sequences that join a generation and leave it.

use esolm::{
    Adaptive, Confidence, Constraints, Context, ContextParams, Error, GenerateParams, Grammar, KvType, Model,
    Order, Prompt, SamplingParams, Schedule, StopReason, Variant,
};

use crate::reference::{LENGTH, Network};
use crate::runs::{both_phases, context, default_model, diffusion, finish, open, params, texts, tokens};

/// What one caller asks for.
struct Request {
    prompt: Prompt,
    params: GenerateParams<'static>,
}

/// Its text, the log-probabilities of its tokens in the order in which they were written, and why it ended.
#[derive(Debug, PartialEq, Default)]
struct Answer {
    tokens: Vec<u32>,
    written: Vec<(u32, u32)>,
    log_probs: Vec<u64>,
    reason: Option<StopReason>,
}

static RULES: std::sync::LazyLock<[Constraints; 1]> = std::sync::LazyLock::new(|| {
    let banned = vec![3, 4, 5];
    [Constraints { banned, repetition_penalty: 1.3, frequency_penalty: 0.2, ..Constraints::default() }]
});

/// Requests that have little in common.
fn requests(variant: Variant) -> Vec<Request> {
    let ar = variant == Variant::Ar;
    let causal = matches!(variant, Variant::EsoB | Variant::Ar);
    let base = if ar { GenerateParams { alpha_0: 0.0, ..GenerateParams::default() } } else { diffusion() };
    let request = |known: &[u32], params| Request { prompt: Prompt::prefix(known).unwrap(), params };
    let cool = SamplingParams { temperature: 0.7, top_p: 0.9, min_p: 0.01, ..SamplingParams::FULL };
    let mut all = vec![
        request(&[], GenerateParams { seed: 1, steps: 9, ..base }),
        request(&[1, 2, 3], GenerateParams { seed: 2, length: 17, sampling: cool, ..base }),
        request(&[1, 2, 3, 4, 5, 6, 7], GenerateParams { seed: 3, max_tokens: 9, log_probs: true, ..base }),
        request(&[9; 30], GenerateParams { seed: 4, constraints: &*RULES, ..base }),
        request(&[1, 2, 3, 4, 9], GenerateParams { seed: 1, stop_tokens: &[7, 8, 9, 10, 11, 12], ..base }),
        request(&[1, 2, 3], GenerateParams { seed: 6, length: 4, top_log_probs: 3, ..base }),
        request(&[5; 31], GenerateParams { seed: 7, sampling: cool, constraints: &*RULES, ..base }),
    ];
    if !ar {
        let adaptive = Some(Adaptive {
            confidence: Confidence::Margin,
            threshold: 0.1,
            window: 6,
            ..Adaptive::default()
        });
        let strided = Order::Strided { stride: 8, shuffle: true };
        all.push(request(&[1, 2], GenerateParams { seed: 8, adaptive, log_probs: true, ..base }));
        all.push(request(&[], GenerateParams { seed: 9, order: strided, ..base }));
        all.push(request(&[8], GenerateParams { seed: 10, schedule: Schedule::Custom(&[5, 2]), ..base }));
        let holes = Prompt { known: vec![(20, 4), (3, 9), (4, 9)] };
        all.push(Request { prompt: holes, params: GenerateParams { seed: 11, steps: 3, ..base } });
    }
    if causal || variant == Variant::EsoA {
        all.push(request(&[1, 2, 3, 4, 5], GenerateParams { seed: 12, alpha_0: 0.0, ..base }));
        all.push(request(
            &[1, 2, 3],
            GenerateParams { seed: 13, alpha_0: if ar { 0.0 } else { 0.5 }, ..base },
        ));
    }
    all
}

/// Adds what a step wrote of a sequence. The log-probabilities only if they were asked for.
fn record(answer: &mut Answer, step: &esolm::Step<'_>, sequence: usize, params: &GenerateParams<'_>) {
    for (index, update) in step.updates.iter().enumerate().filter(|(_, u)| u.sequence as usize == sequence) {
        answer.written.push((update.position, update.token));
        if params.log_probs {
            answer.log_probs.push(step.log_probs[index].to_bits());
        }
    }
}

fn alone(context: &mut Context, request: &Request) -> Answer {
    let mut answer = Answer::default();
    context.begin(std::slice::from_ref(&request.prompt), &request.params).unwrap();
    while let Some(step) = context.step().unwrap() {
        record(&mut answer, &step, 0, &request.params);
    }
    Answer { tokens: tokens(context).remove(0), reason: context.stop_reason(0).unwrap(), ..answer }
}

/// Serves all requests with `context`. Which join and when is drawn from `seed`; some are removed halfway and come again.
fn serve(context: &mut Context, capacity: usize, requests: &[Request], seed: u64) -> Vec<Answer> {
    let mut random = seed;
    let mut draw = move |below: u64| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) % below
    };
    let mut answers: Vec<Answer> = requests.iter().map(|_| Answer::default()).collect();
    let mut waiting: Vec<usize> = (0..requests.len()).collect();
    let mut running: Vec<(usize, usize)> = vec![];
    let mut disturbed = 0;
    while !waiting.is_empty() || !running.is_empty() {
        while !waiting.is_empty() && running.len() < capacity && draw(3) > 0 {
            let request = waiting.remove(draw(waiting.len() as u64) as usize);
            let sequence =
                context.add_sequence(&requests[request].prompt, &requests[request].params).unwrap();
            assert!(sequence < capacity && running.iter().all(|&(_, other)| other != sequence));
            answers[request] = Answer::default();
            running.push((request, sequence));
        }
        if disturbed < 4 && running.len() > 1 && draw(4) == 0 {
            let (request, sequence) = running.remove(draw(running.len() as u64) as usize);
            context.remove_sequence(sequence).unwrap();
            assert!(context.tokens(sequence).is_err());
            waiting.push(request);
            disturbed += 1;
        }
        if let Some(step) = context.step().unwrap() {
            for &(request, sequence) in &running {
                record(&mut answers[request], &step, sequence, &requests[request].params);
            }
        }
        running.retain(|&(request, sequence)| {
            let Some(reason) = context.stop_reason(sequence).unwrap() else { return true };
            let answer = &mut answers[request];
            (answer.tokens, answer.reason) = (context.tokens(sequence).unwrap().to_vec(), Some(reason));
            context.remove_sequence(sequence).unwrap();
            false
        });
    }
    assert_eq!(disturbed, 4);
    answers
}

#[test]
fn each_sequence_gets_the_text_that_it_gets_alone() {
    for variant in [Variant::EsoB, Variant::EsoA, Variant::Mdlm, Variant::Ar] {
        let model = Network::small(variant, 1).model();
        let requests = requests(variant);
        for kv_type in [KvType::F32, KvType::F16] {
            let mut single = Context::new(&model, &ContextParams { kv_type, ..params(1) }).unwrap();
            let expected: Vec<_> = requests.iter().map(|request| alone(&mut single, request)).collect();
            for (capacity, threads, batch_rows, prompt_rows) in
                [(3, 1, 0, 4), (5, 2, LENGTH, 0), (4, 1, 5, 1)]
            {
                let limits = ContextParams { kv_type, threads, batch_rows, prompt_rows, ..params(capacity) };
                let mut context = Context::new(&model, &limits).unwrap();
                for seed in 0..3 {
                    let answers = serve(&mut context, capacity, &requests, seed);
                    for (number, (answer, expected)) in answers.iter().zip(&expected).enumerate() {
                        assert_eq!(
                            answer, expected,
                            "{variant:?}, request {number}, seed {seed}, {capacity}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn quantized_model_writes_the_same_story_beside_others() {
    let model = open(&default_model());
    let encode = |text: &str| Prompt::prefix(&model.tokenizer().unwrap().encode(text).unwrap()).unwrap();
    let beginning = "Once upon a time there was a little girl who lived near the sea. ";
    let requests: Vec<_> = ["One day", "She", "Her dog", "", "Her mother said"]
        .iter()
        .zip(1..)
        .map(|(more, seed)| Request {
            prompt: encode(&format!("{beginning}{more}")),
            params: GenerateParams { seed, max_tokens: 20, ..GenerateParams::default() },
        })
        .collect();
    let limits = ContextParams { sequences: 3, threads: 2, ..ContextParams::default() };
    let mut context = Context::new(&model, &limits).unwrap();
    let mut single = Context::new(&model, &ContextParams { sequences: 1, ..limits }).unwrap();
    let expected: Vec<_> = requests.iter().map(|request| alone(&mut single, request)).collect();
    assert_eq!(serve(&mut context, 3, &requests, 1), expected);
}

#[test]
fn same_beginning_is_computed_once() {
    for variant in [Variant::EsoB, Variant::Ar] {
        let model = Network::small(variant, 1).model();
        let mut context = context(&model, 3);
        let mut fresh = self::context(&model, 1);
        let alpha_0 = if variant == Variant::Ar { 0.0 } else { 0.5 };
        let of = |seed| GenerateParams { alpha_0, steps: 4, seed, ..diffusion() };
        let of = |seed| {
            if variant == Variant::Ar {
                GenerateParams { alpha_0, seed, ..Default::default() }
            } else {
                of(seed)
            }
        };
        let long: Vec<u32> = (1..=20).collect();
        let mut other = long.clone();
        other[12] = 50;
        let mut cached = vec![];
        let mut add = |context: &mut Context, prompt: &[u32], seed| {
            let sequence = context.add_sequence(&Prompt::prefix(prompt).unwrap(), &of(seed)).unwrap();
            cached.push(context.cached_tokens(sequence).unwrap());
            sequence
        };
        let first = add(&mut context, &long, 1);
        context.step().unwrap();
        // From one that is being written, one that ends before it differs, and one that has been removed.
        let second = add(&mut context, &long, 2);
        let third = add(&mut context, &other, 3);
        let expect = |context: &Context, sequence: usize, prompt: &[u32], seed, fresh: &mut Context| {
            assert_eq!(
                context.tokens(sequence).unwrap(),
                &texts(fresh, &[Prompt::prefix(prompt).unwrap()], &of(seed))[0],
                "{variant:?}"
            );
        };
        finish(&mut context);
        expect(&context, first, &long, 1, &mut fresh);
        expect(&context, second, &long, 2, &mut fresh);
        expect(&context, third, &other, 3, &mut fresh);
        context.remove_sequence(third).unwrap();
        context.remove_sequence(first).unwrap();
        let fourth = add(&mut context, &other[..15], 4);
        assert_eq!(fourth, third);
        finish(&mut context);
        expect(&context, fourth, &other[..15], 4, &mut fresh);
        // In AR a slot has the token before.
        let ar = usize::from(variant == Variant::Ar);
        assert_eq!(cached, [0, 20, 12 + ar, 15], "{variant:?}");
        // A text that was written is a beginning, too, if it was written from left to right.
        if variant == Variant::Ar {
            let text = context.tokens(second).unwrap().to_vec();
            context.remove_sequence(second).unwrap();
            let fifth = context.add_sequence(&Prompt::prefix(&text[..30]).unwrap(), &of(5)).unwrap();
            assert_eq!(context.cached_tokens(fifth).unwrap(), 30);
            finish(&mut context);
            expect(&context, fifth, &text[..30], 5, &mut fresh);
        }
        context.reset();
        let sixth = context.add_sequence(&Prompt::prefix(&long).unwrap(), &of(6)).unwrap();
        assert_eq!(context.cached_tokens(sixth).unwrap(), 0);
    }
}

#[test]
fn models_without_a_cache_share_nothing() {
    for variant in [Variant::EsoA, Variant::Mdlm] {
        let model = Network::small(variant, 1).model();
        let mut context = context(&model, 2);
        for seed in 0..2 {
            let sequence = context
                .add_sequence(&Prompt::prefix(&[1; 9]).unwrap(), &GenerateParams { seed, ..diffusion() })
                .unwrap();
            assert_eq!((sequence, context.cached_tokens(sequence).unwrap()), (seed as usize, 0));
            context.step().unwrap();
        }
    }
}

#[test]
fn one_sequence_goes_on_beside_the_others() {
    for variant in [Variant::EsoB, Variant::Ar] {
        let model = Network::small(variant, 1).model();
        let alpha_0 = if variant == Variant::Ar { 0.0 } else { 0.5 };
        let part = |length, seed| GenerateParams { length, alpha_0, seed, ..GenerateParams::default() };
        let mut fresh = context(&model, 1);
        fresh.begin(&[Prompt::prefix(&[1, 2]).unwrap()], &part(12, 1)).unwrap();
        finish(&mut fresh);
        fresh.extend(&[Prompt { known: vec![(12, 7)] }], &part(30, 2)).unwrap();
        finish(&mut fresh);
        let expected = tokens(&fresh).remove(0);
        let other = texts(&mut fresh, &[Prompt::prefix(&[5]).unwrap()], &part(0, 3)).remove(0);

        let mut context = context(&model, 2);
        let second = context.add_sequence(&Prompt::prefix(&[5]).unwrap(), &part(0, 3)).unwrap();
        let first = context.add_sequence(&Prompt::prefix(&[1, 2]).unwrap(), &part(12, 1)).unwrap();
        while context.stop_reason(first).unwrap().is_none() {
            context.step().unwrap();
        }
        let longer = Prompt { known: vec![(12, 7)] };
        context.extend_sequence(first, &longer, &part(30, 2)).unwrap();
        finish(&mut context);
        assert_eq!((&tokens(&context)[first], &tokens(&context)[second]), (&expected, &other));
        assert!(matches!(context.extend_sequence(2, &longer, &part(30, 2)), Err(Error::InvalidArgument(_))));
    }
    let mdlm = Network::small(Variant::Mdlm, 1).model();
    let mut context = context(&mdlm, 1);
    context.add_sequence(&Prompt::default(), &diffusion()).unwrap();
    let extended = context.extend_sequence(0, &Prompt::default(), &diffusion());
    assert!(matches!(extended, Err(Error::Unsupported(_))));
}

#[test]
fn sequence_without_possible_tokens_does_not_end_the_others() {
    let model = Network::small(Variant::EsoB, 1).model();
    let mut context = context(&model, 3);
    let expected = texts(&mut self::context(&model, 1), &[Prompt::default()], &both_phases(1)).remove(0);
    let good = context.add_sequence(&Prompt::default(), &both_phases(1)).unwrap();
    let bad = context.add_sequence(&Prompt::default(), &both_phases(2)).unwrap();
    let third = context.add_sequence(&Prompt::default(), &both_phases(1)).unwrap();
    context.step().unwrap();
    let failed = context.step_with_logits(|row, logits| {
        logits.fill(if row.sequence == bad { f32::NEG_INFINITY } else { 0.5 });
        Ok(())
    });
    assert!(matches!(failed, Err(Error::InvalidArgument(_))));
    let reasons = [good, bad, third].map(|sequence| context.stop_reason(sequence).unwrap());
    assert_eq!(reasons, [None, Some(StopReason::Error), None]);
    context.remove_sequence(bad).unwrap();
    finish(&mut context);
    for sequence in [good, third] {
        assert_eq!(context.tokens(sequence).unwrap(), expected);
    }
}

#[cfg(feature = "grammar")]
#[test]
fn grammar_that_ends_too_early_does_not_disturb_the_others() {
    let model: Model = open(&default_model());
    let mut context = context(&model, 2);
    let rules =
        |regex: &str| [Constraints { grammar: Some(Grammar::Regex(regex.into())), ..Constraints::default() }];
    let params =
        |constraints| GenerateParams { constraints, alpha_0: 0.0, max_tokens: 12, ..Default::default() };
    let long = rules("[a-z ]{40,90}");
    let one = Prompt::prefix(&model.tokenizer().unwrap().encode("The").unwrap()).unwrap();
    let expected = texts(&mut self::context(&model, 1), std::slice::from_ref(&one), &params(&long)).remove(0);
    // Between known tokens it cannot end with the end of the text.
    let hole = Prompt { known: (0..).zip([1, 2, 3]).chain([(12, 9)]).collect() };
    let short = rules("[a-z]{3}");
    let good = context.add_sequence(&one, &params(&long)).unwrap();
    let bad =
        context.add_sequence(&hole, &GenerateParams { length: 13, max_tokens: 0, ..params(&short) }).unwrap();
    let error = loop {
        if let Err(error) = context.step() {
            break error.to_string();
        }
    };
    assert!(error.contains("sequence 1") && error.contains("complete"), "{error}");
    assert_eq!(context.stop_reason(good).unwrap(), None);
    // Trying again changes nothing.
    assert_eq!(context.step().unwrap_err().to_string(), error);
    context.remove_sequence(bad).unwrap();
    finish(&mut context);
    assert_eq!(context.tokens(good).unwrap(), expected);
}

#[test]
fn numbers_are_checked() {
    let model = Network::small(Variant::EsoB, 1).model();
    let mut context = context(&model, 2);
    let add = |context: &mut Context| context.add_sequence(&Prompt::default(), &both_phases(1));
    let invalid = |result: Result<(), Error>| {
        let Err(Error::InvalidArgument(what)) = result else { panic!("{result:?}") };
        what
    };
    assert_eq!(context.sequences(), 0);
    assert_eq!(invalid(context.remove_sequence(0)), "there is no sequence 0");
    assert_eq!((add(&mut context).unwrap(), add(&mut context).unwrap()), (0, 1));
    assert_eq!(invalid(add(&mut context).map(|_| ())), "all 2 sequences of the context are in use");
    context.remove_sequence(0).unwrap();
    assert_eq!(invalid(context.remove_sequence(0)), "there is no sequence 0");
    assert_eq!(invalid(context.tokens(0).map(|_| ())), "there is no sequence 0");
    assert_eq!(context.sequences(), 2);
    let both = [Prompt::default(), Prompt::default()];
    // One that was removed stays away when the others go on.
    let wrong = [Prompt::prefix(&[1]).unwrap(), Prompt::default()];
    let error = invalid(context.extend(&wrong, &both_phases(1)));
    assert_eq!(error, "a prompt to go on with sequence 0, which was removed");
    context.extend(&both, &both_phases(1)).unwrap();
    assert!(
        context.step().unwrap().is_some_and(|step| step.updates.iter().all(|update| update.sequence == 1))
    );
    assert_eq!(invalid(context.tokens(0).map(|_| ())), "there is no sequence 0");
    // A prompt that is refused takes no place.
    let bad = Prompt { known: vec![(LENGTH as u32, 1)] };
    assert!(invalid(context.add_sequence(&bad, &both_phases(1)).map(|_| ())).starts_with("prompt 0:"));
    assert_eq!(add(&mut context).unwrap(), 0);
    context.begin(&both[..1], &both_phases(1)).unwrap();
    assert_eq!((context.sequences(), add(&mut context).unwrap()), (1, 1));
    let (done, _) = context.progress();
    assert_eq!(done, 0);
    finish(&mut context);
    context.remove_sequence(1).unwrap();
    assert_eq!(context.sequences(), 1);
    context.reset();
    assert_eq!(context.sequences(), 0);
    assert_eq!(add(&mut context).unwrap(), 0);
    context.reset();
    assert!(context.step().unwrap().is_none());
}

#[test]
fn saved_state_has_the_places_of_removed_sequences() {
    let model = Network::small(Variant::EsoB, 1).model();
    let mut context = context(&model, 3);
    for seed in 0..3 {
        context.add_sequence(&Prompt::default(), &both_phases(seed)).unwrap();
    }
    finish(&mut context);
    context.remove_sequence(1).unwrap();
    let saved = context.save().unwrap();
    assert_eq!(saved.len(), context.saved_size().unwrap());
    let mut restored = self::context(&model, 3);
    restored.restore(&saved).unwrap();
    assert_eq!(restored.sequences(), 3);
    assert!(restored.tokens(1).is_err());
    for sequence in [0, 2] {
        assert_eq!(restored.tokens(sequence).unwrap(), context.tokens(sequence).unwrap());
    }
    assert_eq!(restored.save().unwrap(), saved);
    assert_eq!(restored.add_sequence(&Prompt::default(), &both_phases(5)).unwrap(), 1);
}
