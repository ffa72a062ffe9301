//! Conversations with a model of a hub.

use super::repository::{File, Hub, tiny};
use crate::command_line::{err, out, reading};

#[test]
fn chat_template_comes_with_the_model() {
    let mut files = tiny();
    let template = "{% for m in messages %}w1 {{ m.content }} w2 {% endfor %}";
    files.push(File::small("chat_template.jinja", template));
    files.push(File::small("tokenizer_config.json", r#"{"eos_token": "w95"}"#));
    let hub = Hub::start(files);
    let plain = Hub::start(tiny());
    let said = |hub: &Hub| {
        let mut chat = hub.command(&["chat", "-m", "hf:owner/tiny", "-n", "4", "--ignore-eos"]);
        reading(&mut chat, "w3 w4\n/stats\n")
    };
    let answered = said(&hub);
    assert_eq!(answered.status.code(), Some(0), "{}", err(&answered));
    // Four words before the answer.
    assert!(out(&answered).contains("4 tokens before it"), "{}", out(&answered));
    let refused = said(&plain);
    assert_eq!(refused.status.code(), Some(2), "{}", err(&refused));
    assert!(err(&refused).contains("no chat template"), "{}", err(&refused));
}
