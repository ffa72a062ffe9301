//! Texts that match a regular expression or a JSON schema.

use std::time::{Duration, Instant};

use esolm::{
    Adaptive, Architecture, Confidence, Config, Constraints, Context, ContextParams, Error, GenerateParams,
    Grammar, Model, Order, Prompt, SamplingParams, Schedule, Variant,
};

use crate::reference::Network;
use crate::runs::{context, default_model, diffusion, finish, open, tokens};
use crate::stopping::words;

fn model() -> Model {
    open(&default_model())
}

fn rules(grammar: Grammar) -> [Constraints; 1] {
    [Constraints { grammar: Some(grammar), ..Constraints::default() }]
}

fn regex(text: &str) -> [Constraints; 1] {
    rules(Grammar::Regex(text.into()))
}

/// The text that is written behind the prompt, up to the end of text.
fn written(context: &Context, prompt: &str) -> String {
    context.text(0).unwrap().strip_prefix(prompt).unwrap().to_owned()
}

fn prompt(model: &Model, text: &str) -> Prompt {
    Prompt::prefix(&model.tokenizer().unwrap().encode(text).unwrap()).unwrap()
}

/// Any token is possible, so that only the grammar decides.
fn anything(constraints: &[Constraints], seed: u64) -> GenerateParams<'_> {
    let sampling = SamplingParams { temperature: 50.0, ..SamplingParams::FULL };
    GenerateParams { alpha_0: 0.0, length: 64, sampling, constraints, seed, ..GenerateParams::default() }
}

#[test]
fn text_matches_the_regex_and_ends() {
    let model = model();
    let mut context = context(&model, 1);
    let rules = regex(r" (cat|dog)s? and [a-f]{2,5}\.");
    for seed in 0..20 {
        context.begin(&[prompt(&model, "The")], &anything(&rules, seed)).unwrap();
        finish(&mut context);
        let text = written(&context, "The");
        let rest =
            text.strip_prefix(" cat").or(text.strip_prefix(" dog")).unwrap_or_else(|| panic!("{text}"));
        let rest =
            rest.strip_prefix('s').unwrap_or(rest).strip_prefix(" and ").unwrap_or_else(|| panic!("{text}"));
        let letters = rest.strip_suffix('.').unwrap_or_else(|| panic!("{text}"));
        assert!((2..=5).contains(&letters.len()), "{text}");
        assert!(letters.chars().all(|c| ('a'..='f').contains(&c)), "{text}");
    }
}

/// Nobody has to say that a grammar's text is written one by one, also where the model does something else by default.
#[test]
fn grammar_is_matched_one_by_one_by_default() {
    let config = Config {
        architecture: Architecture { kv_head_count: Some(2), ..Architecture::QWEN3 },
        eos_token_id: Some(94),
        ..Network::qwen_config(Variant::WeDlm)
    };
    let wedlm = Network::random(config, 3).model_with_tokenizer(&words());
    for model in [model(), wedlm] {
        let rules = regex("(ab|ba){3}");
        let given = [Prompt::prefix(&[5]).unwrap()];
        let params = GenerateParams { constraints: &rules, ..GenerateParams::default() };
        let mut context = context(&model, 1);
        let before = model.tokenizer().unwrap().decode(&[5]).unwrap();
        context.begin(&given, &params).unwrap();
        finish(&mut context);
        let text = written(&context, &before);
        assert!(text.len() == 6 && ["ab", "ba"].contains(&&text[4..]), "{text}");
        let params = GenerateParams { alpha_0: 1.0, ..params };
        assert!(context.begin(&given, &params).is_err());
    }
}

#[test]
fn text_is_json_of_the_schema() {
    let schema = r#"{"type": "object", "additionalProperties": false, "required": ["name", "age", "kind"],
        "properties": {"name": {"type": "string", "maxLength": 6}, "age": {"type": "integer", "minimum": 0, "maximum": 99},
                       "kind": {"enum": ["cat", "dog"]}}}"#;
    let model = model();
    let mut context = context(&model, 2);
    let rules = rules(Grammar::JsonSchema(schema.into()));
    for seed in 0..5 {
        // Likely tokens, as white space may be of any length.
        let how = GenerateParams {
            length: 0,
            sampling: SamplingParams { temperature: 0.5, ..SamplingParams::FULL },
            ..anything(&rules, seed)
        };
        context.begin(&[Prompt::default(), prompt(&model, "A")], &how).unwrap();
        finish(&mut context);
        for (sequence, before) in ["", "A"].into_iter().enumerate() {
            let text = context.text(sequence).unwrap();
            let value: serde_json::Value = serde_json::from_str(text.strip_prefix(before).unwrap())
                .unwrap_or_else(|e| panic!("{text}: {e}"));
            assert!(value["name"].as_str().unwrap().chars().count() <= 6, "{text}");
            assert!(value["age"].as_u64().unwrap() <= 99, "{text}");
            assert!(["cat", "dog"].contains(&value["kind"].as_str().unwrap()), "{text}");
            assert_eq!(value.as_object().unwrap().len(), 3, "{text}");
        }
    }
}

#[test]
fn hole_matches_the_regex_and_the_rest_stays() {
    let model = model();
    let mut context = context(&model, 1);
    let tokenizer = model.tokenizer().unwrap();
    let (before, after) = (tokenizer.encode("He is").unwrap(), tokenizer.encode(" years old.").unwrap());
    let hole = 7;
    let behind = (before.len() + hole) as u32..;
    let known = (0..).zip(before.iter().copied()).chain(behind.zip(after.iter().copied())).collect();
    let length = before.len() + hole + after.len();
    let rules = regex("[0-9 ]+");
    for (order, alpha_0, schedule) in
        [(Order::Random, 0.0, Schedule::Reference), (Order::LeftToRight, 1.0, Schedule::Custom(&[1]))]
    {
        let how = GenerateParams { length, order, alpha_0, schedule, ..anything(&rules, 1) };
        context.begin(&[Prompt { known: Vec::clone(&known) }], &how).unwrap();
        // What a token would be drawn with there, and what it is not.
        let vocabulary = model.config().vocab_size;
        let mut seen = vec![0.0; vocabulary];
        context.probabilities(0, &[before.len() as u32], &mut seen).unwrap();
        assert!((seen.iter().sum::<f32>() - 1.0).abs() < 1e-4);
        for (token, _) in seen.iter().enumerate().filter(|(_, p)| **p > 0.0) {
            let bytes = tokenizer.token_bytes(token as u32).unwrap();
            assert!(bytes.iter().all(|b| b.is_ascii_digit() || *b == b' '), "{token}");
        }
        finish(&mut context);
        let text = context.text(0).unwrap();
        let middle = text.strip_prefix("He is").and_then(|t| t.strip_suffix(" years old.")).unwrap();
        assert!(!middle.is_empty() && middle.chars().all(|c| c.is_ascii_digit() || c == ' '), "{text}");
    }
    // Complete after one token, with six left.
    let rules = regex(" ");
    context.begin(&[Prompt { known }], &GenerateParams { length, ..anything(&rules, 1) }).unwrap();
    context.step().unwrap();
    let error = context.step().unwrap_err();
    assert!(error.to_string().contains("is complete, but positions are left"), "{error}");
}

#[test]
fn fields_are_written_one_after_another() {
    let model = model();
    let mut context = context(&model, 2);
    let mut text = "The dog was".to_owned();
    let fields =
        [(" [0-9]{1,2}", " years old and his name was"), (" (Max|Spot)", ". He ate"), (" [a-z]{3,8}s", ".")];
    let mut cached = vec![];
    for (field, after) in fields {
        let rules = regex(field);
        let how = GenerateParams { length: 0, ..anything(&rules, 3) };
        let sequence = context.add_sequence(&prompt(&model, &text), &how).unwrap();
        cached.push(context.cached_tokens(sequence).unwrap());
        finish(&mut context);
        let written = context.text(sequence).unwrap();
        assert!(written.len() > text.len() && written.starts_with(&text), "{written}");
        text = written + after;
        context.remove_sequence(sequence).unwrap();
    }
    let words: Vec<&str> = text.split(' ').collect();
    assert!(words[3].parse::<u32>().is_ok_and(|age| age < 100), "{text}");
    assert!(
        text.contains(" years old and his name was Max. He") || text.contains("was Spot. He ate "),
        "{text}"
    );
    assert!(cached[0] == 0 && cached[1] > 2 && cached[2] > cached[1], "{cached:?}");
}

#[test]
fn chosen_tokens_have_to_match() {
    let model = model();
    let mut context = context(&model, 1);
    let rules = regex("[ab]+");
    context.begin(&[Prompt::default()], &anything(&rules, 1)).unwrap();
    let token = |text: &str| model.tokenizer().unwrap().encode(text).unwrap()[0];
    let (a, c) = (token("a"), token("c"));
    let error = context.step_with_tokens(|_, _| Ok(c)).unwrap_err();
    assert!(error.to_string().contains("does not match the grammar"), "{error}");
    context.step_with_tokens(|_, _| Ok(a)).unwrap();
    let before = tokens(&context);
    assert!(context.step_with_tokens(|_, _| Ok(c)).is_err());
    assert_eq!(tokens(&context), before);
    context.step_with_tokens(|_, _| Ok(a)).unwrap();
    assert!(context.text(0).unwrap().starts_with("aa"));
    // The next generation has none.
    context.begin(&[Prompt::default()], &diffusion()).unwrap();
    context.step_with_tokens(|_, _| Ok(c)).unwrap();
}

#[test]
fn what_has_no_grammar_is_refused() {
    let model = model();
    let mut context = context(&model, 1);
    let rules = regex("a+");
    let good = anything(&rules, 1);
    let adaptive =
        Adaptive { confidence: Confidence::Margin, threshold: 0.5, window: 4, ..Adaptive::default() };
    for bad in [
        GenerateParams { alpha_0: 0.5, ..good },
        GenerateParams { alpha_0: 1.0, order: Order::LeftToRight, ..good },
        GenerateParams { alpha_0: 1.0, order: Order::Random, schedule: Schedule::Custom(&[1]), ..good },
        GenerateParams {
            alpha_0: 1.0,
            order: Order::LeftToRight,
            schedule: Schedule::Custom(&[1, 2]),
            ..good
        },
        GenerateParams { alpha_0: 1.0, adaptive: Some(adaptive), ..good },
    ] {
        let error = context.begin(&[Prompt::default()], &bad).unwrap_err();
        assert!(matches!(&error, Error::Unsupported(what) if what.contains("left to right")), "{error}");
    }
    let two_holes = Prompt { known: vec![(5, 7)] };
    let error = context.begin(&[two_holes], &good).unwrap_err();
    assert!(matches!(&error, Error::InvalidArgument(what) if what.contains("several holes")), "{error}");
    for (bad, wrong) in [
        ("(", "unclosed group"),
        ("[z-a]", "class range"),
        ("a{5,2}", "count range"),
        (r"(?<=a)b", "look-behind"),
        (r"\ba", r"\ba"),
    ] {
        let rules = regex(bad);
        let error = context.begin(&[Prompt::default()], &anything(&rules, 1)).unwrap_err();
        assert!(
            matches!(&error, Error::InvalidArgument(what) if what.starts_with("regex: ") && what.contains(wrong)),
            "{bad}: {error}"
        );
    }
    for bad in
        ["", "{", r#"{"type": "nonsense"}"#, r##"{"$ref": "#/nowhere"}"##, r#"{"$ref": "http://a.b/c"}"#]
    {
        let rules = rules_of(bad);
        let error = context.begin(&[Prompt::default()], &anything(&rules, 1)).unwrap_err();
        assert!(
            matches!(&error, Error::InvalidArgument(what) if what.starts_with("JSON schema: ")),
            "{bad}: {error}"
        );
    }
    for nothing in [regex(r"[^\x00-\x{10FFFF}]"), rules_of(r##"{"$ref": "#"}"##)] {
        context.begin(&[Prompt::default()], &anything(&nothing, 1)).unwrap();
        let error = context.step().unwrap_err().to_string();
        assert!(error.contains("the grammar matches no text"), "{error}");
    }
    let long = regex(&"a".repeat((1 << 16) + 1));
    assert!(context.begin(&[Prompt::default()], &anything(&long, 1)).is_err());
    // After each part the matcher notes all that is behind it: these would take gigabytes.
    let repeated = "x*".repeat(32_000);
    let halves = format!(r#"{{"anyOf": [{{"pattern": "{0}"}}, {{"pattern": "{0}"}}]}}"#, "x?".repeat(600));
    let names = format!(r#"{{"patternProperties": {{"{repeated}": {{}}}}}}"#);
    for rules in [regex(&repeated), regex(&"(|x)".repeat(16_000)), rules_of(&halves), rules_of(&names)] {
        let error = context.begin(&[Prompt::default()], &anything(&rules, 1)).unwrap_err().to_string();
        assert!(error.contains("repetitions and groups"), "{error}");
    }
}

fn rules_of(schema: &str) -> [Constraints; 1] {
    rules(Grammar::JsonSchema(schema.into()))
}

/// Writes a text that has to match a grammar. Returns the error of beginning, the number of steps, and how long beginning and
/// the longest step took.
fn written_with(model: &Model, grammar: &Grammar) -> (Option<String>, usize, Duration, Duration) {
    let mut context = Context::new(model, &ContextParams { threads: 1, ..ContextParams::default() }).unwrap();
    let rules = rules(grammar.clone());
    let started = Instant::now();
    let mut longest = Duration::ZERO;
    let begun = context.begin(&[Prompt::default()], &GenerateParams { length: 24, ..anything(&rules, 1) });
    let beginning = started.elapsed();
    let mut steps = 0;
    if begun.is_ok() {
        loop {
            let started = Instant::now();
            let step = context.step();
            longest = longest.max(started.elapsed());
            match step {
                Ok(Some(_)) => steps += 1,
                Ok(None) => break,
                Err(error) => {
                    assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
                    break;
                }
            }
        }
    }
    (begun.err().map(|error| error.to_string()), steps, beginning, longest)
}

/// Grammars made to take time, memory or the stack: an error, or a text, soon. In a thread with the 128 KiB of stack that
/// the header promises to be enough.
#[test]
fn hostile_grammars_take_little() {
    let nested = |n: usize| format!("{}a{}", "(".repeat(n), ")*".repeat(n));
    let array = r#"{"type":"array","minItems":1,"items":"#;
    let arrays = |n: usize| format!(r#"{}{{"type":"null"}}{}"#, array.repeat(n), "}".repeat(n));
    let wide = (0..5000).map(|i| format!("word{i}x")).collect::<Vec<_>>().join("|");
    let properties =
        (0..2200).map(|i| format!(r#""p{i}": {{"type": "integer"}}"#)).collect::<Vec<_>>().join(",");
    let grammars = [
        Grammar::Regex(nested(200)),
        Grammar::Regex(nested(120)),
        Grammar::Regex(nested(100_000)),
        Grammar::Regex("((a{1000}){1000}){1000}".into()),
        Grammar::Regex("(a?){5000}b{5000}".into()),
        Grammar::Regex("(.*a.*b.*c.*){200}".into()),
        Grammar::Regex(r"(\pL{1,500}|\pN{1,500}){1,500}x".into()),
        Grammar::Regex(wide),
        Grammar::Regex("x*".repeat(1024)),
        Grammar::Regex(r"\w*".repeat(1024)),
        Grammar::Regex("(a|aa)".repeat(1024)),
        Grammar::JsonSchema(arrays(60)),
        Grammar::JsonSchema(arrays(5000)),
        Grammar::JsonSchema(format!(r#"{{"type": "object", "properties": {{{properties}}}}}"#)),
        Grammar::JsonSchema(r##"{"$ref": "#"}"##.into()),
        Grammar::JsonSchema(
            r##"{"anyOf": [{"$ref": "#"}, {"type": "array", "items": {"$ref": "#"}}]}"##.into(),
        ),
        Grammar::JsonSchema(r#"{"type": "string", "pattern": "^(a|b|ab)*c{1,100000}$"}"#.into()),
    ];
    let model = model();
    for grammar in &grammars {
        let (error, steps, beginning, longest) = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .stack_size(128 << 10)
                .spawn_scoped(scope, || written_with(&model, grammar));
            thread.unwrap().join().unwrap()
        });
        let text = format!("{grammar:?}").chars().take(60).collect::<String>();
        println!("{text}: {error:?}, {steps} steps, begun in {beginning:?}, longest step {longest:?}");
        // Measured 0.3 s and 0.1 s; the machine may be busy.
        assert!(beginning < Duration::from_secs(10) && longest < Duration::from_secs(5), "{text}");
    }
}

/// A regular expression of parts that llguidance may find hard, alone or together.
fn random_regex(random: &mut impl FnMut(usize) -> usize, depth: usize) -> String {
    const PARTS: [&str; 14] = [
        "a", ".", r"\w", r"\W", r"\d", r"\pL", "[a-z]", "[^a]", "\u{e9}", "(?i)k", "king", r"[\s\S]", r"\n",
        " ",
    ];
    const TIMES: [&str; 8] = ["*", "+", "?", "{1,9}", "{0,500}", "{3}", "{2,}", "{100,1000}"];
    if depth == 0 {
        return PARTS[random(PARTS.len())].into();
    }
    let mut part = || random_regex(random, depth - 1);
    let (a, b) = (part(), part());
    match random(5) {
        0 => format!("({a}){}", TIMES[random(TIMES.len())]),
        1 => format!("(?:{a}|{b})"),
        2 => format!("({a}|)"),
        3 => a + &b,
        _ => a,
    }
}

#[test]
fn random_grammars_take_little() {
    let model = model();
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for _ in 0..300 {
        let depth = random(6);
        let regex = random_regex(&mut random, depth).repeat([1, 1, 3, 30, 300][random(5)]);
        let schema =
            format!(r#"{{"type": "object", "patternProperties": {{{0:?}: {{"pattern": {0:?}}}}}}}"#, regex);
        for grammar in [Grammar::Regex(regex), Grammar::JsonSchema(schema)] {
            let (_, _, beginning, longest) = written_with(&model, &grammar);
            assert!(beginning < Duration::from_secs(10) && longest < Duration::from_secs(5), "{grammar:?}");
        }
    }
}
