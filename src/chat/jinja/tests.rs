use serde_json::Value;

use super::{Facts, check, check_kwargs, render};
use crate::chat::message::Message;
use crate::error::Error;
use crate::simd::DefaultFloats;

const CHAT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/chat");

fn facts(add_generation_prompt: bool) -> Facts<'static> {
    Facts { bos_token: "<s>", eos_token: "</s>", add_generation_prompt, kwargs: &[], mark: None }
}

fn apply(template: &str) -> Result<String, String> {
    let messages = [Message::user("Hello"), Message::assistant("Hi"), Message::user("Bye")];
    render(template, &messages, &facts(true)).map_err(|error| error.to_string())
}

#[test]
fn templates_give_the_text_that_jinja_gives() {
    let cases = std::fs::read_to_string(format!("{CHAT}/expected.json")).unwrap();
    let cases: Value = serde_json::from_str(&cases).unwrap();
    let mut count = 0;
    for case in cases.as_array().unwrap() {
        let name = case["template"].as_str().unwrap();
        let template = std::fs::read_to_string(format!("{CHAT}/{name}")).unwrap();
        let messages: Vec<Message<'_>> = case["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| Message { role: m["role"].as_str().unwrap(), content: m["content"].as_str().unwrap() })
            .collect();
        let kwargs: Vec<String> = case["kwargs"].as_str().map(str::to_owned).into_iter().collect();
        let facts = Facts { kwargs: &kwargs, ..facts(case["prompt"].as_bool().unwrap()) };
        let made = render(&template, &messages, &facts);
        match (&case["text"], &case["refused"]) {
            (Value::String(text), _) => assert_eq!(&made.unwrap(), text, "{name}: {messages:?}"),
            (_, Value::String(refused)) => {
                let error = made.unwrap_err().to_string();
                assert_eq!(error, format!("the chat template refuses these messages: {refused}"));
            }
            _ => panic!("a case without a result"),
        }
        count += 1;
    }
    assert!(count > 150, "{count}");
}

#[test]
fn wrong_variables_are_refused() {
    let deep = |depth: usize| format!(r#"{{"a": {}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    let many = |count: usize| -> String {
        let names: Vec<String> = (0..count).map(|n| format!("\"a{n}\": 1")).collect();
        format!("{{{}}}", names.join(", "))
    };
    for (json, says) in [
        ("", "its variables: EOF"),
        ("[1]", "its variables are a list, and no object in JSON"),
        ("{\"a\": 1} 2", "trailing characters"),
        ("{\"a\": NaN}", "expected value"),
        ("{\"a\": 1, \"b\": [{\"c\": 1, \"d\": 2, \"c\": 1}]}", "two values of 'c'"),
        ("{\"messages\": []}", "'messages' is not to be given"),
        ("{\"a\": 9223372036854775808}", "a number is too large"),
        (&deep(16), "more than 16 deep"),
        (&deep(100_000), "recursion limit"),
    ] {
        let error = check_kwargs(json).unwrap_err().to_string();
        assert!(
            error.starts_with("chat template: its variables") && error.contains(says),
            "{json:.50}: {error}"
        );
    }
    for json in ["{}", " {\"a\": \"\\u0041\\n\"}", &deep(15), &many(200)] {
        check_kwargs(json).unwrap();
        render("{{ a }}", &[], &Facts { kwargs: &[json.to_owned()], ..facts(true) }).unwrap();
    }
    // More names than a template may have.
    let error = render("", &[], &Facts { kwargs: &[many(300)], ..facts(true) }).unwrap_err().to_string();
    assert!(error.contains("more than 256 names"), "{error}");
    // The last one counts.
    let kwargs = [r#"{"a": 1, "tools": [], "b": 3}"#, r#"{"a": 2}"#].map(str::to_owned);
    let made = render("{{ a }}{{ tools }}{{ b }}", &[], &Facts { kwargs: &kwargs, ..facts(true) });
    assert_eq!(made.unwrap(), "2[]3");
    // Numbers as `serde_json` hands them out where a crate of the program has it keep them as they are written.
    let number =
        |name: char, text: &str| format!(r#"{{"{name}": [{{"$serde_json::private::Number": "{text}"}}]}}"#);
    let kwargs = [number('a', "7"), number('b', "-2"), number('c', "0.5")];
    let made =
        render("{{ a[0] + 1 }} {{ b[0] }} {{ c[0] * 3 }}", &[], &Facts { kwargs: &kwargs, ..facts(true) });
    assert_eq!(made.unwrap(), "8 -2 1.5");
    assert!(
        check_kwargs(&number('a', "18446744073709551615")).is_err()
            && check_kwargs(&number('a', "x")).is_err()
    );
    // Whose size pays for what it makes.
    let lists = format!(r#"{{"a": [{}0]}}"#, "[],".repeat(2_000_000));
    let started = std::time::Instant::now();
    check_kwargs(&lists).unwrap();
    assert!(started.elapsed().as_secs() < 30);
}

#[test]
fn wrong_templates_are_refused_with_their_line() {
    for (template, says) in [
        ("{% if %}", "chat template, line 1:"),
        ("a\nb {{ messages[0 }}", "chat template, line 2:"),
        ("\n\n{{ 'a' + 1 }}", "line 3: an operation on a string and a number"),
        ("{% for x in 5 %}{% endfor %}", "a loop over a number"),
        ("{{ x.y }}", "line 1: 'y' of what is undefined"),
        ("{{ nothing() }}", "there is no function 'nothing'"),
        ("{{ 'a'|nothing }}", "there is no filter 'nothing'"),
        ("{{ 'a' is nothing }}", "there is no test 'nothing'"),
        ("{{ 'a'.nothing() }}", "a string has no method 'nothing'"),
        ("{{ 1 // 0 }}", "a division by 0"),
        ("{{ messages[0]() }}", "a call of what is no name"),
        ("{{ raise_exception('no') }}", "the chat template refuses these messages: no"),
        ("{{ messages[1:2:0] }}", "a step of 0"),
        ("{% for x in messages recursive %}{% endfor %}", "recursive loops are not supported"),
        ("{{ 99999999999999999999 }}", "a number is too large"),
        ("{{ 9223372036854775807 + 1 }}", "a number is too large"),
    ] {
        let error = apply(template).unwrap_err();
        assert!(error.contains(says), "{template}: {error}");
    }
    assert!(matches!(check("{% if %}"), Err(Error::InvalidArgument(_))));
    // No file can be named, and nothing that reads one.
    for template in ["{% include 'x' %}", "{% import 'x' as y %}", "{% extends 'x' %}", "{{ open('x') }}"] {
        apply(template).unwrap_err();
    }
}

/// Each would take gigabytes, minutes or all of the stack, if it were let.
#[test]
fn hostile_templates_are_refused_in_little_time() {
    let again = |x: &str, what: &str| {
        format!("{{% set x = {x} %}}{{% for i in range(60000) %}}{{% set y = {what} %}}{{% endfor %}}")
            .repeat(5)
    };
    let nested = |times: usize| "{% set a = [a, a] %}{% set b = [b, b] %}".repeat(times);
    let cases = [
        format!("{}{{{{ a == b }}}}", nested(40)),
        format!("{}{{{{ a }}}}", nested(15) + "{% set a = [a, a, a, a, a, a, a, a, a, a, a, a, a, a, a] %}"),
        "{% set x = 'aaaaaaaa' %}".to_owned() + &"{% set x = x ~ x %}".repeat(60),
        "{% set x = 'aaaaaaaa' %}".to_owned() + &"{% set x = x + x %}".repeat(60),
        "{% set x = [1] %}".to_owned() + &"{% set x = x + x %}".repeat(60),
        "{{ 'x' * 1000000000000 }}".to_owned(),
        "{{ '' * 1000000000000 }}".to_owned(),
        "{% set x = 'a' * 1000000 %}{{ x|replace('a', x) }}".to_owned(),
        "{% set x = 'a' * 1000000 %}{{ x.replace('', x) }}".to_owned(),
        "{% set x = 'a b ' * 100000 %}{{ x.split()|join(x) }}".to_owned(),
        "{{ 'a\nb'|indent(1000000000) }}".to_owned(),
        "{{ [1]|tojson(indent=100000000000) }}".to_owned(),
        "{{ range(1000000000) }}".to_owned(),
        "{% for x in range(60000) %}{% for y in range(60000) %}{% endfor %}{% endfor %}".to_owned(),
        "{% for x in range(60000) %}{{ messages[0].content * 1000 }}{% endfor %}".to_owned(),
        "{% set n = namespace(a=[]) %}{% for x in range(60000) %}{% set n.a = [n.a] %}{% endfor %}"
            .to_owned(),
        "{% set n = namespace() %}{% set n.a = n %}{{ n }}".to_owned(),
        "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}".to_owned(),
        "{% macro f(x) %}{{ f(x) }}{{ f(x) }}{% endmacro %}{{ f(1) }}".to_owned(),
        format!("{{{{ {}1 }}}}", "-".repeat(100_000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(20_000)),
        format!("{{{{ {}1", "(".repeat(100_000)),
        format!("{{{{ {} }}}}", "[".repeat(900)),
        format!("{{{{ 1{} }}}}", "+1".repeat(20_000)),
        format!("{{{{ 1{} }}}}", " if 1 else 1".repeat(20_000)),
        format!("{{{{ a{} }}}}", ".a".repeat(20_000)),
        format!("{{{{ a{} }}}}", "|trim".repeat(20_000)),
        "{% if 1 %}".repeat(20_000),
        format!("{{% if 0 %}}a{}{{% endif %}}", "{% elif 0 %}a".repeat(20_000)),
        "x".repeat(1 << 19),
        // Trees that are deep, and macros that call themselves from the bottom.
        format!("{{% macro f(x) %}}{{{{ {}f(x) }}}}{{% endmacro %}}{{{{ f(1) }}}}", "-".repeat(980)),
        format!("{{% macro f(x) %}}{{{{ {}f(x) }}}}{{% endmacro %}}{{{{ f(1) }}}}", "not ".repeat(980)),
        // What reads long texts again and again.
        again("'a' * 1000000", "'b'.find(x)"),
        again("'a' * 1000000", "'b'.split(x)|length"),
        again("'a' * 1000000", "'b'.rsplit(x, 1)|length"),
        again("'a' * 2000000", "x|trim('b' * 1000000 ~ 'a')"),
        again("'0' * 5000000", "x|int"),
        again("'0' * 5000000", "x|float"),
        again("'a' * 5000000", "x is startingwith(x)"),
        again("'a' * 1000000", "x.endswith([x, x, x, x, x, x, x, x])"),
        again("'a' * 1000000", "x in {x: 1}"),
        (0..15_000).map(|n| format!("{{%set a{n:05}=1%}}")).collect(),
        again("[5e-324, 5e-324, 5e-324, 5e-324] * 4", "x|join(x|join)"),
    ];
    for template in cases {
        let started = std::time::Instant::now();
        let made = apply(&template);
        let start: String = template.chars().take(70).collect();
        assert!(made.is_err(), "{start}");
        assert!(started.elapsed().as_secs() < 30, "{start}: {:?}", started.elapsed());
    }
}

/// However many messages there are, and though they are empty.
#[test]
fn many_messages_do_not_let_a_template_take_gigabytes_or_minutes() {
    let messages = vec![Message { role: "", content: "" }; 80_000];
    for template in [
        "{% for m in messages %}{% set x = range(1300) %}{% endfor %}",
        "{% for m in messages %}{% set x = 'a' * 60000 %}{% endfor %}",
        "{% for i in range(65000) %}{% for m in range(60000) %}{% endfor %}{% endfor %}",
    ] {
        let started = std::time::Instant::now();
        let error = render(template, &messages, &facts(true)).unwrap_err().to_string();
        assert!(error.contains("for these messages"), "{template}: {error}");
        assert!(started.elapsed().as_secs() < 30, "{template}: {:?}", started.elapsed());
    }
    // Long messages pay for much work, and not for as much memory.
    let long = "a".repeat(4 << 20);
    let again = "{% for i in range(60000) %}{% set x = range(200) %}{% endfor %}";
    let error = render(again, &[Message::user(&long)], &facts(true)).unwrap_err().to_string();
    assert!(error.contains("for these messages"), "{error}");
    let budget = super::Budget::new(0, 0);
    budget.keep::<String>(64 << 20).unwrap_err();
    budget.keep::<String>(1 << 20).unwrap();
}

#[test]
fn numbers_are_written_as_python_does() {
    let template = "{{ 1e-4 }} {{ 0.00001 }} {{ 5e-324 }} {{ 1e15 }} {{ 1e16 }} {{ 1.5e300 }} {{ -2.5e-7 }} {{ 0.0 }} {{ 1e308 * 10 }}";
    assert_eq!(
        apply(template).unwrap(),
        "0.0001 1e-05 5e-324 1000000000000000.0 1e+16 1.5e+300 -2.5e-07 0.0 inf"
    );
}

#[test]
fn deepest_template_within_the_limits_runs() {
    assert_eq!(apply(&format!("{{{{ 0{} }}}}", "+1".repeat(490))).unwrap(), "490");
    assert_eq!(apply(&format!("{{{{ {}1 }}}}", "-".repeat(900))).unwrap(), "1");
    assert_eq!(apply(&format!("{{% if 0 %}}a{}{{% endif %}}", "{% elif 1 %}b".repeat(290))).unwrap(), "b");
}

#[test]
fn long_conversation_is_within_the_budget() {
    for (count, words) in [(4000, 40), (10_000, 1)] {
        let content = "word ".repeat(words);
        let messages: Vec<Message<'_>> = (0..count)
            .map(|n| if n % 2 == 0 { Message::user(&content) } else { Message::assistant(&content) })
            .collect();
        for name in ["qwen2", "qwen2.5", "qwen3", "headers", "alternating"] {
            let template = std::fs::read_to_string(format!("{CHAT}/{name}.jinja")).unwrap();
            let text = render(&template, &messages, &facts(true)).unwrap();
            assert!(text.len() > count * words * 4, "{name}");
        }
    }
    // A loop with tools: each answer calls one, whose results follow.
    let messages: Vec<Message<'_>> = (0..6000)
        .map(|n| match n % 3 {
            0 => Message::user("What is it?"),
            1 => Message::assistant("<think>\nwell\n</think>\n\n<tool_call>\n{}\n</tool_call>"),
            _ => Message { role: "tool", content: "{}" },
        })
        .collect();
    for name in ["qwen2.5", "qwen3", "headers"] {
        let template = std::fs::read_to_string(format!("{CHAT}/{name}.jinja")).unwrap();
        render(&template, &messages, &facts(true)).unwrap();
    }
}

#[test]
fn numbers_are_rounded_to_the_nearest_whatever_the_caller_has_set() {
    let plain = apply("{{ 1.5 * 3 / 7 }} {{ 0.1 + 0.7 }} {{ 4.9e-324 * 1 }}").unwrap();
    let strange = DefaultFloats::strange();
    let made = apply("{{ 1.5 * 3 / 7 }} {{ 0.1 + 0.7 }} {{ 4.9e-324 * 1 }}");
    drop(strange);
    assert_eq!(made.unwrap(), plain);
}

#[test]
fn macros_see_their_arguments_and_what_is_outside_of_loops() {
    let template = "{% set z = 3 %}{% macro g(x) %}{{ x }}{{ y }}{{ z }}{% endmacro %}\
        {% macro f(x) %}{{ g(x ~ 1) }}{{ x }}{% endmacro %}{% for y in [7] %}{{ f('a') }}{{ y }}{{ x }}{% endfor %}";
    assert_eq!(apply(template).unwrap(), "a13a7");
}

#[test]
fn parts_of_texts_and_lists_are_those_of_python() {
    let template = "{% set a = 'añb' %}{{ a[1] }}{{ a[::-1] }}{{ a[1:] }}{{ a|list|join('-') }}{{ a|reverse }}\
        {{ [1, 2, 3][::-2] }}{{ 'a-b-c'.rsplit('-', 1) }}{{ {'b': 1, 'a': 2}|dictsort }}{{ 1.0 }}{{ [a]|tojson(indent=2) }}";
    let expected = "ñbñañba-ñ-bbña[3, 1]['a-b', 'c'][['a', 2], ['b', 1]]1.0[\n  \"añb\"\n]";
    assert_eq!(apply(template).unwrap(), expected);
}
