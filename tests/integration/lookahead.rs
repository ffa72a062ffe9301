//! Lookahead: fewer passes, and the text has the distribution of one token per pass.

use esolm::{
    Constraints, Context, ContextParams, Dry, Error, Feature, GenerateParams, Grammar, Model, Order, Prompt,
    SamplingParams, Schedule, StopReason, Variant,
};

use crate::orders::prompts;
use crate::reference::{LENGTH, Network, Random, config};
use crate::runs::{context, default_model, diffusion, finish, open, params, texts, tokens};
use crate::stopping::tokenizer;

/// One token per step in this order.
fn one_by_one(order: Order<'_>) -> GenerateParams<'_> {
    GenerateParams { order, schedule: Schedule::Custom(&[1]), ignore_eos: true, ..diffusion() }
}

/// The same with lookahead.
fn ahead(order: Order<'_>, lookahead: u32) -> GenerateParams<'_> {
    GenerateParams { lookahead, ..one_by_one(order) }
}

const GREEDY: SamplingParams = SamplingParams { temperature: 0.0, ..SamplingParams::FULL };

/// Counts of a generation.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Counts {
    pub passes: usize,
    pub tokens: usize,
    pub proposed: usize,
    pub accepted: usize,
}

/// Runs the generation to its end.
pub fn run(context: &mut Context) -> Counts {
    let mut counts = Counts::default();
    while let Some(step) = context.step().unwrap() {
        assert!(step.accepted <= step.proposed && step.accepted <= step.updates.len());
        counts.passes += 1;
        counts.tokens += step.updates.len();
        counts.proposed += step.proposed;
        counts.accepted += step.accepted;
    }
    counts
}

/// The probability of every text that begins with `written`, by the definition: one token after the other, from what the
/// context says it is drawn from. Texts are in the order of their tokens as written.
fn joint(context: &mut Context, prompt: &Prompt, params: &GenerateParams, written: &[u32]) -> Vec<f64> {
    context.begin(std::slice::from_ref(prompt), &GenerateParams { lookahead: 0, ..*params }).unwrap();
    for &token in written {
        context.step_with_tokens(|_, _| Ok(token)).unwrap().unwrap();
    }
    let place = prompt.known.len() + written.len();
    let Some(&position) = context.order(0).unwrap().get(place) else { return vec![1.0] };
    let mut probabilities = vec![0.0; context.model().config().vocab_size];
    context.probabilities(0, &[position], &mut probabilities).unwrap();
    let mut all = vec![];
    for (token, &probability) in (0..TINY as u32).zip(&probabilities) {
        if probability == 0.0 {
            let behind = context.order(0).unwrap().len() - place - 1;
            all.resize(all.len() + TINY.pow(behind as u32), 0.0);
            continue;
        }
        let rest = joint(context, prompt, params, &[written, &[token]].concat());
        all.extend(rest.iter().map(|rest| rest * f64::from(probability)));
    }
    all
}

/// Tokens of the tiny vocabulary besides the mask.
pub const TINY: usize = 4;

fn tiny_network(variant: Variant) -> Network {
    let config = esolm::Config { variant, vocab_size: TINY + 1, mask_token_id: TINY as u32, ..config(2, 4) };
    Network::random(config, 3)
}

fn tiny(variant: Variant) -> Model {
    tiny_network(variant).model()
}

/// The value that chi-square exceeds with a probability of 1e-5 (Wilson and Hilferty).
fn limit(freedom: usize) -> f64 {
    let freedom = freedom as f64;
    freedom * (1.0 - 2.0 / (9.0 * freedom) + 4.265 * (2.0 / (9.0 * freedom)).sqrt()).powi(3)
}

#[test]
fn texts_have_the_distribution_of_one_token_per_pass() {
    let full = SamplingParams::FULL;
    let penalties = [Constraints {
        repetition_penalty: 1.5,
        frequency_penalty: 0.3,
        dry: Dry { multiplier: 0.8, allowed_length: 1, ..Dry::DEFAULT },
        allowed: vec![(3, vec![0, 1, 3])],
        ..Constraints::default()
    }];
    let scattered = [3, 1, 4, 0, 2];
    let cases = [
        (Variant::EsoB, Order::LeftToRight, full, &[][..], 0),
        (Variant::EsoB, Order::LeftToRight, full, &[], 1),
        (Variant::EsoB, Order::LeftToRight, full, &[], 4),
        (Variant::EsoB, Order::Custom(&scattered), full, &[], 2),
        (Variant::EsoB, Order::Custom(&scattered), SamplingParams { temperature: 0.7, ..full }, &[], 3),
        (Variant::EsoB, Order::LeftToRight, SamplingParams { top_p: 0.95, ..full }, &[], 2),
        (Variant::EsoB, Order::LeftToRight, SamplingParams { top_k: 3, min_p: 0.1, ..full }, &[], 3),
        (Variant::EsoB, Order::LeftToRight, SamplingParams { temperature: 1.3, ..full }, &penalties, 3),
        (Variant::EsoB, Order::Custom(&scattered), full, &penalties, GenerateParams::LOOKAHEAD_AUTO),
        (Variant::EsoA, Order::Custom(&scattered), full, &[], 2),
    ];
    let models = [Variant::EsoB, Variant::EsoA].map(|variant| (variant, tiny(variant)));
    for (variant, order, sampling, constraints, lookahead) in cases {
        let what = format!("{variant:?} {order:?} {sampling:?} {lookahead} {}", constraints.len());
        let (_, model) = models.iter().find(|(of, _)| *of == variant).unwrap();
        let mut context = Context::new(model, &ContextParams { length: 5, ..params(1) }).unwrap();
        // Eso-LM (A) has its sequential phase in the order of the positions.
        let (alpha_0, order) =
            if variant == Variant::EsoA { (0.0, Order::LeftToRight) } else { (1.0, order) };
        let request = GenerateParams { alpha_0, sampling, constraints, lookahead, ..one_by_one(order) };
        let prompt = Prompt { known: vec![(2, 1)] };
        let counts = check_distribution(&mut context, &prompt, &request, &what);
        // Tokens stay, and are drawn anew.
        if lookahead > 0 {
            assert!(counts.passes < counts.tokens * 9 / 10, "{what}: {counts:?}");
            assert!(counts.accepted > 1000 && counts.accepted + 1000 < counts.proposed, "{what}: {counts:?}");
        }
    }
}

/// Behind a `b` or a `d` comes an `a` or a `c`, whatever the guesses before it were.
#[test]
fn texts_of_a_grammar_have_the_distribution_of_one_token_per_pass() {
    let words = serde_json::json!({
        "version": "1.0", "added_tokens": [], "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "c": 2, "d": 3}, "unk_token": "a"}
    });
    let model = tiny_network(Variant::EsoB).model_with_tokenizer(&words.to_string());
    let mut context = Context::new(&model, &ContextParams { length: 5, ..params(1) }).unwrap();
    let grammar = Grammar::Regex("([ac][bd]?)*".into());
    let constraints = &[Constraints { grammar: Some(grammar), ..Constraints::default() }];
    for lookahead in [1, 3] {
        let request = GenerateParams { alpha_0: 0.0, constraints, ..ahead(Order::LeftToRight, lookahead) };
        let prompt = Prompt::prefix(&[1]).unwrap();
        let expected = joint(&mut context, &prompt, &request, &[]);
        let possible = expected.iter().filter(|&&probability| probability > 0.0).count();
        // 48 texts end with an `a` or a `c`, behind any token; 32 with a `b` or a `d` behind such a one.
        assert_eq!(possible, 80, "what the grammar lets be");
        let counts = check_distribution(&mut context, &prompt, &request, &format!("grammar, {lookahead}"));
        assert!(counts.accepted > 1000 && counts.accepted + 1000 < counts.proposed, "{counts:?}");
    }
}

/// Writes 8,000 texts of four tokens behind a prompt of one, and compares their number with the probabilities by the definition:
/// chi-square at a significance of 1e-5.
pub fn check_distribution(
    context: &mut Context,
    prompt: &Prompt,
    request: &GenerateParams,
    what: &str,
) -> Counts {
    let expected = joint(context, prompt, request, &[]);
    assert!((expected.iter().sum::<f64>() - 1.0).abs() < 1e-4, "{what}");
    let n = 8000;
    let mut found = vec![0.0; expected.len()];
    let mut counts = Counts::default();
    for seed in 0..n {
        context.begin(std::slice::from_ref(prompt), &GenerateParams { seed, ..*request }).unwrap();
        let one = run(context);
        assert!(one.tokens == 4 && one.passes <= 4, "{what}: {one:?}");
        counts.passes += one.passes;
        counts.tokens += one.tokens;
        counts.proposed += one.proposed;
        counts.accepted += one.accepted;
        let text = context.tokens(0).unwrap();
        let order = &context.order(0).unwrap()[1..];
        let index = order.iter().fold(0, |index, &p| index * TINY + text[p as usize] as usize);
        found[index] += 1.0;
    }
    // Texts that are too rare for the test are one.
    let (mut chi, mut freedom, mut rare) = (0.0, 0, (0.0, 0.0));
    for (&probability, &found) in expected.iter().zip(&found) {
        let expected = probability * n as f64;
        if expected < 5.0 {
            rare = (rare.0 + expected, rare.1 + found);
            continue;
        }
        chi += (found - expected).powi(2) / expected;
        freedom += 1;
    }
    if rare.0 >= 5.0 {
        chi += (rare.1 - rare.0).powi(2) / rare.0;
        freedom += 1;
    } else {
        assert!(rare.1 <= rare.0 + 6.0 * rare.0.sqrt() + 3.0, "{what}: {rare:?}");
    }
    assert!(freedom > 5, "{what}: {freedom}");
    println!("{what}: chi-square {chi:.1} of {freedom} texts, {counts:?}");
    assert!(chi < limit(freedom - 1), "{what}: {chi}, {freedom} texts");
    counts
}

#[test]
fn greedy_texts_are_the_same() {
    let given = Random(7).permutation(LENGTH);
    let mut saved = 0;
    for variant in [Variant::EsoB, Variant::EsoA] {
        let model = Network::small(variant, 1).model();
        let mut context = context(&model, 1);
        for order in [Order::LeftToRight, Order::Custom(&given), Order::Random, Order::Blocks { size: 5 }] {
            // In the diffusion phase of (A) nothing is looked ahead.
            let alpha_0 = if variant == Variant::EsoA { 0.0 } else { 1.0 };
            for prompt in prompts() {
                let plain = GenerateParams { alpha_0, sampling: GREEDY, ..one_by_one(order) };
                let expected = texts(&mut context, std::slice::from_ref(&prompt), &plain);
                for lookahead in [1, 2, 5, 8, 16, GenerateParams::LOOKAHEAD_AUTO] {
                    let request = GenerateParams { lookahead, ..plain };
                    context.begin(std::slice::from_ref(&prompt), &request).unwrap();
                    let counts = run(&mut context);
                    assert_eq!(tokens(&context), expected, "{variant:?} {order:?} {lookahead}");
                    assert_eq!(counts.tokens, LENGTH - prompt.known.len());
                    assert!(counts.passes <= counts.tokens, "{counts:?}");
                    saved += counts.tokens - counts.passes;
                }
            }
        }
    }
    assert!(saved > 1000, "{saved}");
}

#[test]
fn reported_log_probs_are_those_of_one_token_per_pass() {
    let given = Random(7).permutation(LENGTH);
    for (variant, alpha_0) in [(Variant::EsoB, 1.0), (Variant::EsoA, 0.0)] {
        let model = Network::small(variant, 1).model();
        let mut context = context(&model, 1);
        for (order, prompt) in [Order::LeftToRight, Order::Custom(&given)].into_iter().zip(prompts()) {
            let request =
                GenerateParams { alpha_0, log_probs: true, top_log_probs: 3, seed: 5, ..ahead(order, 4) };
            context.begin(std::slice::from_ref(&prompt), &request).unwrap();
            let (mut reported, mut positions) = (vec![], vec![]);
            while let Some(step) = context.step().unwrap() {
                assert_eq!(step.log_probs.len(), step.updates.len());
                assert_eq!(step.top_log_probs.len(), 3 * step.updates.len());
                reported.extend_from_slice(step.log_probs);
                positions.extend(step.updates.iter().map(|update| update.position));
            }
            let (text, order) = (context.tokens(0).unwrap().to_vec(), context.order(0).unwrap().to_vec());
            assert_eq!(positions, order[prompt.known.len()..]);
            let scores = context.score_order(&text, &order, prompt.known.len()).unwrap();
            assert_eq!(scores.len(), reported.len());
            for (score, reported) in scores.iter().zip(&reported) {
                assert!((score - reported).abs() < 1e-4, "{variant:?}: {score} {reported}");
            }
        }
    }
}

#[test]
fn seed_gives_the_same_text_for_any_threads_rows_and_neighbours() {
    let model = Network::small(Variant::EsoB, 1).model();
    let given = Random(7).permutation(LENGTH);
    let all = prompts();
    for lookahead in [1, 3, GenerateParams::LOOKAHEAD_AUTO] {
        let request = GenerateParams { seed: 9, ..ahead(Order::Custom(&given), lookahead) };
        let beside = GenerateParams { seed: 1, lookahead: 2, ..request };
        check_surroundings(&mut context(&model, 2), &all, &request, &beside);
    }
}

/// Checks that a request gives the same texts for any threads, rows and neighbours. `alone` has two sequences; in it the first
/// one also joins a text of `beside`.
pub fn check_surroundings(
    alone: &mut Context,
    all: &[Prompt],
    request: &GenerateParams<'_>,
    beside: &GenerateParams<'_>,
) {
    let (model, lookahead) = (alone.model().clone(), request.lookahead);
    let expected = texts(&mut context(&model, all.len()), all, request);
    for (threads, batch_rows) in [(2, 0), (1, 25), (2, 40)] {
        let limits = ContextParams { threads, batch_rows, ..params(all.len()) };
        let mut context = Context::new(&model, &limits).unwrap();
        assert_eq!(texts(&mut context, all, request), expected, "{lookahead} {threads} {batch_rows}");
    }
    // The first of a batch, and the same alone; and one that joins another.
    assert_eq!(texts(alone, &all[..1], request)[0], expected[0], "{lookahead}");
    alone.begin(&all[1..2], beside).unwrap();
    alone.step().unwrap();
    assert_eq!(alone.add_sequence(&all[0], request).unwrap(), 1);
    finish(alone);
    assert_eq!(alone.tokens(1).unwrap(), expected[0], "{lookahead}");
    // Another seed gives another text.
    assert_ne!(texts(alone, &all[..1], &GenerateParams { seed: 10, ..*request })[0], expected[0]);
}

#[test]
fn sequences_may_look_ahead_differently() {
    let model = Network::small(Variant::EsoB, 1).model();
    let given = Random(7).permutation(LENGTH);
    let orders = [Order::LeftToRight, Order::Custom(&given), Order::LeftToRight];
    let lookaheads = [0, 5, 2];
    let alone: Vec<_> = (0..3)
        .map(|i| {
            texts(&mut context(&model, 1), &prompts()[i..=i], &ahead(orders[i], lookaheads[i])).remove(0)
        })
        .collect();
    let mut all = Context::new(&model, &ContextParams { batch_rows: 20, ..params(3) }).unwrap();
    all.begin(&prompts()[..1], &ahead(orders[0], lookaheads[0])).unwrap();
    for i in [1, 2] {
        all.step().unwrap();
        all.add_sequence(&prompts()[i], &ahead(orders[i], lookaheads[i])).unwrap();
    }
    // The updates of a step go by sequence.
    while let Some(step) = all.step().unwrap() {
        assert!(step.updates.is_sorted_by_key(|update| update.sequence));
    }
    assert_eq!(tokens(&all), alone);
}

#[test]
fn keys_and_values_are_final_between_passes() {
    let model = Network::small(Variant::EsoB, 1).model();
    let given = Random(7).permutation(LENGTH);
    let request = GenerateParams { seed: 2, ..ahead(Order::Custom(&given), 6) };
    let vocab = model.config().vocab_size;
    let mut several = 0;
    for passes in 1..8 {
        let mut generating = context(&model, 2);
        generating.begin(&[Prompt::default()], &request).unwrap();
        for _ in 0..passes {
            several += usize::from(generating.step().unwrap().unwrap().updates.len() > 1);
        }
        let order = generating.order(0).unwrap().to_vec();
        let mask = model.config().mask_token_id;
        let text = generating.tokens(0).unwrap().to_vec();
        let known = text.iter().filter(|&&token| token != mask).count();
        let next = &order[known..known + 3];
        let logits = |context: &mut Context, number: usize| {
            let mut logits = vec![0.0; 3 * vocab];
            context.logits(number, next, &mut logits).unwrap();
            logits
        };
        // Fed one by one.
        let plan = esolm::Plan {
            known: order[..known].iter().map(|&p| text[p as usize]).collect(),
            order: order.clone(),
            counts: vec![(LENGTH - known) as u32],
            diffusion: 0,
        };
        let mut fed = context(&model, 1);
        fed.begin_with_plans(&[plan], SamplingParams::FULL, 0).unwrap();
        let expected = logits(&mut fed, 0);
        assert!(logits(&mut generating, 0) == expected, "{passes} passes");
        // A state saved in the middle.
        let state = generating.save().unwrap();
        let mut restored = context(&model, 2);
        restored.restore(&state).unwrap();
        restored.extend(&[Prompt::default()], &one_by_one(Order::Custom(&given))).unwrap();
        assert!(logits(&mut restored, 0) == expected, "{passes} passes");
        // And the generation goes on as if nothing had been asked.
        finish(&mut generating);
        assert_eq!(tokens(&generating), texts(&mut context(&model, 2), &[Prompt::default()], &request));
    }
    assert!(several > 10, "{several}");
}

#[test]
fn texts_of_the_default_model_end_where_they_would() {
    let model = open(&default_model());
    let prompt = Prompt::prefix(&model.tokenizer().unwrap().encode("Once upon a time").unwrap()).unwrap();
    let mut context = context(&model, 1);
    let mut reasons = vec![];
    for stop_strings in [&[][..], &["park"], &["dog", " to the"], &[". Sh"]] {
        let plain = GenerateParams {
            sampling: GREEDY,
            alpha_0: 0.0,
            stop_strings,
            step_text: true,
            log_probs: true,
            ..GenerateParams::default()
        };
        let lookaheads = [1, 3, 8, GenerateParams::LOOKAHEAD_AUTO];
        reasons.push(check_end(&mut context, &prompt, &plain, &lookaheads));
    }
    reasons.dedup();
    assert!(reasons.len() > 1, "{reasons:?}");
}

/// Checks that the text of a greedy request with `step_text` and `log_probs` ends the same with lookahead, and that steps report
/// as much. Returns why it ends.
pub fn check_end(
    context: &mut Context,
    prompt: &Prompt,
    plain: &GenerateParams<'_>,
    lookaheads: &[u32],
) -> Option<StopReason> {
    context.begin(std::slice::from_ref(prompt), plain).unwrap();
    let beginning = context.text(0).unwrap();
    finish(context);
    let (expected, reason) = (context.text(0).unwrap(), context.stop_reason(0).unwrap());
    let expected_tokens = tokens(context);
    for &lookahead in lookaheads {
        context.begin(std::slice::from_ref(prompt), &GenerateParams { lookahead, ..*plain }).unwrap();
        let (mut text, mut written) = (beginning.clone(), 0);
        while let Some(step) = context.step().unwrap() {
            text += step.text(0);
            written += step.updates.len();
            assert_eq!(step.log_probs.len(), step.updates.len());
        }
        assert_eq!(tokens(context), expected_tokens, "{:?} {lookahead}", plain.stop_strings);
        // Nothing behind the end is reported.
        assert_eq!(written, expected_tokens[0].len() - prompt.known.len());
        assert_eq!((context.text(0).unwrap(), context.stop_reason(0).unwrap()), (expected.clone(), reason));
        assert_eq!(text, expected);
    }
    reason
}

/// Checks that a greedy request with a grammar writes the same text with lookahead. Returns how many passes that saved.
pub fn check_grammar(
    context: &mut Context,
    prompt: &Prompt,
    plain: &GenerateParams<'_>,
    lookaheads: &[u32],
) -> usize {
    let expected = texts(context, std::slice::from_ref(prompt), plain);
    let reason = context.stop_reason(0).unwrap();
    let saved = lookaheads.iter().map(|&lookahead| {
        context.begin(std::slice::from_ref(prompt), &GenerateParams { lookahead, ..*plain }).unwrap();
        let counts = run(context);
        assert_eq!((tokens(context), context.stop_reason(0).unwrap()), (expected.clone(), reason));
        counts.tokens - counts.passes
    });
    saved.sum()
}

#[test]
fn random_orders_take_far_fewer_passes() {
    let model = open(&default_model());
    let mut context = context(&model, 1);
    // With a model as small as this one a pass costs its rows: it does not pay to look far.
    for (lookahead, most) in [(1, 0.65), (4, 0.4), (GenerateParams::LOOKAHEAD_AUTO, 0.9)] {
        let mut counts = Counts::default();
        for seed in 0..3 {
            let request = GenerateParams { seed, length: 100, ..ahead(Order::Random, lookahead) };
            context.begin(&[Prompt::default()], &request).unwrap();
            let one = run(&mut context);
            assert_eq!(one.tokens, 100);
            counts.passes += one.passes;
            counts.tokens += one.tokens;
        }
        let share = counts.passes as f64 / counts.tokens as f64;
        assert!(share < most, "{lookahead}: {share}");
    }
}

#[test]
fn grammars_are_matched_as_without() {
    let model = open(&default_model());
    let prompt = Prompt::prefix(&model.tokenizer().unwrap().encode("The").unwrap()).unwrap();
    let schema = r#"{"type": "object", "additionalProperties": false, "required": ["name", "friends"],
        "properties": {"name": {"type": "string", "maxLength": 12},
            "friends": {"type": "array", "items": {"type": "string", "maxLength": 8}, "maxItems": 3}}}"#;
    let grammars = [
        Grammar::Regex(r" (cat|dog)s? and ([a-f]{2,5} ){1,4}end\.".into()),
        Grammar::JsonSchema(schema.into()),
    ];
    let mut context = context(&model, 1);
    let mut saved = 0;
    for grammar in grammars {
        let rules = [Constraints { grammar: Some(grammar), ..Constraints::default() }];
        let plain = GenerateParams {
            alpha_0: 0.0,
            length: 100,
            sampling: GREEDY,
            constraints: &rules,
            ..GenerateParams::default()
        };
        saved += check_grammar(&mut context, &prompt, &plain, &[1, 3, 8]);
        // Any token is possible, so that the grammar decides.
        let sampling = SamplingParams { temperature: 50.0, ..SamplingParams::FULL };
        for seed in 0..5 {
            let request = GenerateParams { lookahead: 4, sampling, seed, ..plain };
            context.begin(std::slice::from_ref(&prompt), &request).unwrap();
            run(&mut context);
            if let Grammar::Regex(_) = rules[0].grammar.as_ref().unwrap() {
                let text = context.text(0).unwrap();
                assert!(text.starts_with("The cat") || text.starts_with("The dog"), "{text}");
                assert!(text.ends_with(" end."), "{text}");
            }
        }
    }
    assert!(saved > 20, "{saved}");
}

/// No token has the `!` that has to follow those which the text does not have: behind such a guess nothing matches.
#[test]
fn guesses_may_lead_where_the_grammar_matches_no_token() {
    let network = Network::small(Variant::EsoB, 1);
    let words = tokenizer(r#"{"type": "Fuse"}"#, |id| format!("{id:02};"));
    let mut context = context(&network.model_with_tokenizer(&words), 1);
    let plain =
        GenerateParams { alpha_0: 0.0, sampling: GREEDY, ignore_eos: true, ..GenerateParams::default() };
    let text = texts(&mut context, &[Prompt::default()], &plain).concat();
    let written: Vec<String> = text.iter().map(|id| format!("{id:02}")).collect();
    let regex = format!("(({});|[0-9][0-9];!)*", written.join("|"));
    let rules = [Constraints { grammar: Some(Grammar::Regex(regex)), ..Constraints::default() }];
    let matched = GenerateParams { constraints: &rules, ..plain };
    let mut refused = 0;
    for lookahead in [0, 1, 3, 8] {
        context.begin(&[Prompt::default()], &GenerateParams { lookahead, ..matched }).unwrap();
        let counts = run(&mut context);
        assert_eq!(tokens(&context).concat(), text, "{lookahead}");
        refused += counts.proposed - counts.accepted;
    }
    assert!(refused > 20, "{refused}");
}

#[test]
fn functions_of_the_caller_write_one_token_per_step() {
    let model = Network::small(Variant::EsoB, 1).model();
    let mut context = context(&model, 1);
    let request = GenerateParams { sampling: GREEDY, ..ahead(Order::LeftToRight, 4) };
    let expected = texts(&mut context, &[Prompt::default()], &request);
    context.begin(&[Prompt::default()], &request).unwrap();
    for number in 0.. {
        let step = match number % 3 {
            0 => context.step_with_logits(|_, _| Ok(())),
            1 => context.step_with_tokens(|sampler, row| sampler.draw(row.logits, &GREEDY, 0.5)),
            _ => context.step(),
        };
        let Some(step) = step.unwrap() else { break };
        if number % 3 < 2 {
            assert_eq!((step.updates.len(), step.proposed, step.accepted), (1, 0, 0));
        }
    }
    assert_eq!(tokens(&context), expected);
}

#[test]
fn diffusion_phase_is_as_without() {
    let model = Network::small(Variant::EsoB, 1).model();
    let mut context = context(&model, 1);
    let both = |lookahead| GenerateParams {
        alpha_0: 0.5,
        schedule: Schedule::Custom(&[3]),
        sampling: GREEDY,
        lookahead,
        ..diffusion()
    };
    let steps = |context: &mut Context, lookahead| {
        context.begin(&[Prompt::default()], &both(lookahead)).unwrap();
        let mut sizes = vec![];
        while let Some(step) = context.step().unwrap() {
            sizes.push(step.updates.len());
        }
        (tokens(context), sizes)
    };
    let (expected, sizes) = steps(&mut context, 0);
    assert_eq!(sizes, [vec![3; 8], vec![1; 24]].concat());
    let (text, sizes) = steps(&mut context, 4);
    assert_eq!(text, expected);
    assert_eq!(sizes[..8], [3; 8]);
    assert!(sizes.len() < 32, "{sizes:?}");
    // Steps of several tokens alone: nothing changes, for sampled texts either.
    let request = |lookahead| GenerateParams { lookahead, schedule: Schedule::Custom(&[3]), ..diffusion() };
    let expected = texts(&mut context, &[Prompt::default()], &request(0));
    assert_eq!(texts(&mut context, &[Prompt::default()], &request(4)), expected);
}

#[test]
fn proposal_that_is_not_finite_is_not_fatal() {
    // Keys of token 3 do not fit into the cache. It may be written at the last position only, where nothing follows that would
    // attend to it; but as a proposal it is fed.
    let config = esolm::Config { vocab_size: TINY + 1, mask_token_id: TINY as u32, ..config(2, 4) };
    let width = config.embedding_length;
    let mut network = Network::random(config, 3);
    for (token, row) in network.tensor_mut("token_embd.weight").chunks_exact_mut(width).enumerate() {
        // The first dimension of its norm is large, and that of all others 0.
        row[0] = if token == 3 { 1e3 } else { row[1..].iter().sum::<f32>() / (width - 1) as f32 };
    }
    network.tensor_mut("blk.0.attn_norm.bias")[0] = 0.0;
    let keys = &mut network.tensor_mut("blk.0.attn_qkv.weight")[width * width..2 * width * width];
    keys.iter_mut().step_by(width).for_each(|weight| *weight = 1e6);
    let model = network.model();
    let limits = ContextParams { length: 6, threads: 1, ..ContextParams::default() };
    let mut context = Context::new(&model, &limits).unwrap();
    let allowed = |last: u32| (0..6).map(|p| (p, if p == 5 { vec![last] } else { vec![0, 1, 2] })).collect();
    let run = |context: &mut Context, last: u32, lookahead: u32| {
        let constraints = [Constraints { allowed: allowed(last), ..Constraints::default() }];
        let request = GenerateParams {
            constraints: &constraints,
            sampling: GREEDY,
            ..ahead(Order::LeftToRight, lookahead)
        };
        context.begin(&[Prompt::default()], &request).unwrap();
        (run(context), tokens(context).remove(0))
    };
    let (_, expected) = run(&mut context, 3, 0);
    for lookahead in [1, 2, 5] {
        let (counts, text) = run(&mut context, 3, lookahead);
        assert_eq!((text, counts.tokens), (expected.clone(), 6), "{lookahead}");
    }
    // Without it, such a step proposes the last token, too.
    let (counts, _) = run(&mut context, 2, 5);
    assert!(counts.accepted > 0, "{counts:?}");
    // And the token is not for other places.
    let prompt = Prompt::prefix(&[3]).unwrap();
    let request = GenerateParams { sampling: GREEDY, ..ahead(Order::LeftToRight, 2) };
    context.begin(std::slice::from_ref(&prompt), &request).unwrap();
    assert!(matches!(context.step(), Err(Error::NotFinite(_))));
}

#[test]
fn what_cannot_look_ahead_says_so() {
    let request = ahead(Order::LeftToRight, 2);
    let diffusion_only = esolm::Config { variant: Variant::EsoA, diffusion_only: true, ..config(32, 16) };
    let models = [
        (Network::small(Variant::Ar, 1), 0.0),
        (Network::small(Variant::Mdlm, 1), 1.0),
        (Network::random(diffusion_only, 1), 1.0),
    ];
    for (network, alpha_0) in models {
        let model = network.model();
        assert!(!model.supports(Feature::Lookahead));
        for lookahead in [1, GenerateParams::LOOKAHEAD_AUTO] {
            let error = context(&model, 1)
                .begin(&[Prompt::prefix(&[1]).unwrap()], &GenerateParams { alpha_0, lookahead, ..request })
                .unwrap_err();
            assert!(matches!(&error, Error::Unsupported(e) if e.contains("lookahead")), "{error}");
        }
    }
    let model = Network::small(Variant::EsoB, 1).model();
    let begin = |limits: ContextParams, lookahead| {
        let mut context = Context::new(&model, &limits).unwrap();
        context.begin(&[Prompt::default()], &GenerateParams { lookahead, ..request }).unwrap_err().to_string()
    };
    assert!(begin(params(1), 17).contains("at most 16"));
    let few = ContextParams { batch_rows: 6, ..params(1) };
    assert!(begin(few, 2).contains("batch_rows of 7"));
    assert!(begin(few, GenerateParams::LOOKAHEAD_AUTO).contains("batch_rows of 25"));
}
