//! Chat templates in model files.

use std::path::Path;

use esolm::{ChatTemplate, LoadOptions, Message, Model, Result};

use super::corpus::Tally;
use super::tokenizers::with_text;

/// Opens the model and applies its template, which may well refuse these messages.
fn use_template(path: &Path) -> Result<()> {
    let model = Model::open(path, &LoadOptions { device: "cpu".into(), ..LoadOptions::default() })?;
    let template = ChatTemplate::of_model(&model)?;
    let messages = [Message::user("Hello"), Message::assistant("Hi"), Message::user("Bye")];
    let _ = template.apply(&messages, true);
    let _ = template.encode(model.tokenizer()?, &messages);
    let _ = template.answer_end();
    Ok(())
}

pub fn all(folder: &Path) -> Tally {
    let mut tally = Tally::default();
    let path = folder.join("template.gguf");
    let twice = |times| "{% set a = [a, a] %}{% set b = [b, b] %}".repeat(times);
    let accepted = [
        ("chatml", ChatTemplate::CHATML.to_owned()),
        ("lists that have one list twice, compared", twice(40) + "{{ a == b }}"),
        ("lists that have one list twice, printed", twice(15) + "{{ a }}{{ a|tojson }}"),
        ("a text doubled", "{% set x = 'aaaaaaaa' %}".to_owned() + &"{% set x = x ~ x %}".repeat(60)),
        ("a list doubled", "{% set x = [1] %}".to_owned() + &"{% set x = x + x %}".repeat(60)),
        ("a text many times", "{{ 'x' * 1000000000000 }}".into()),
        ("a replacement", "{% set x = 'a' * 1000000 %}{{ x|replace('a', x) }}".into()),
        ("joined texts", "{% set x = 'a b ' * 100000 %}{{ x.split()|join(x) }}".into()),
        ("a wide indent", "{{ 'a\nb'|indent(1000000000) }}{{ [1]|tojson(indent=100000000000) }}".into()),
        ("loops", "{% for x in range(60000) %}{% for y in range(60000) %}a{% endfor %}{% endfor %}".into()),
        (
            "a deep list",
            "{% set n = namespace(a=[]) %}{% for x in range(60000) %}{% set n.a = [n.a] %}{% endfor %}"
                .into(),
        ),
        ("a namespace in itself", "{% set n = namespace() %}{% set n.a = n %}{{ n }}".into()),
        ("a macro that calls itself", "{% macro f(x) %}{{ f(x) }}{{ f(x) }}{% endmacro %}{{ f(1) }}".into()),
    ];
    for (name, template) in accepted {
        std::fs::write(&path, with_text(ChatTemplate::KEY, &template)).expect("a file");
        assert!(tally.case(name, &path, 0, use_template).is_some(), "{name}: {}", tally.said);
    }
    let refused = [
        ("signs", format!("{{{{ {}1 }}}}", "-".repeat(100_000))),
        ("a sum", format!("{{{{ 1{} }}}}", "+1".repeat(20_000))),
        ("attributes", format!("{{{{ a{} }}}}", ".a".repeat(20_000))),
        ("filters", format!("{{{{ a{} }}}}", "|trim".repeat(20_000))),
        ("parentheses", format!("{{{{ {}1", "(".repeat(100_000))),
        ("conditions", "{% if 1 %}".repeat(20_000)),
        ("branches", format!("{{% if 0 %}}a{}{{% endif %}}", "{% elif 0 %}a".repeat(20_000))),
        ("a long text", "x".repeat(1 << 20)),
        ("another file", "{% include '/etc/passwd' %}".into()),
    ];
    for (name, template) in refused {
        std::fs::write(&path, with_text(ChatTemplate::KEY, &template)).expect("a file");
        assert!(tally.case(name, &path, 0, use_template).is_none(), "{name}: accepted");
    }
    tally
}
