//! Every kind of model is served.

use std::path::Path;

use serde_json::{Value, json};

use super::{CHAT, COMPLETIONS, Server};
use crate::command_line::{err, esolm, library_file, out, with_words};

/// The golden WeDLM with this in its configuration, and a word for each token.
fn wedlm(dir: &Path, key: &str, value: Value) -> String {
    let folder = dir.join("folder");
    std::fs::create_dir(&folder).unwrap();
    let golden = |name: &str| library_file(&format!("tests/golden/wedlm-qwen25/{name}"));
    std::fs::copy(golden("model.safetensors"), folder.join("model.safetensors")).unwrap();
    let mut config: Value = serde_json::from_slice(&std::fs::read(golden("config.json")).unwrap()).unwrap();
    config[key] = value;
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    with_words(&folder.display().to_string(), 512, dir)
}

/// That a server with these options writes what `generate` writes.
fn writes_as_generate(given: &[&str]) {
    let server = Server::start(given);
    let wanted = json!({"prompt": "w7 w9", "max_tokens": 20, "temperature": 0, "seed": 1});
    let (status, answer) = server.post(COMPLETIONS, &wanted);
    assert_eq!(status, 200, "{given:?}: {answer}");
    let text = answer["choices"][0]["text"].as_str().unwrap();
    assert!(!text.trim().is_empty(), "{given:?}: {answer}");
    let own = ["generate", "-q", "-p", "w7 w9", "-n", "20", "--temp", "0", "--seed", "1"];
    let own = esolm(&[&own[..], given].concat());
    assert_eq!(format!("w7 w9{text}").trim_end(), out(&own).trim_end(), "{given:?}: {}", err(&own));
}

#[test]
fn texts_of_every_variant_are_those_of_generate() {
    for (model, words, options) in [
        ("tiny-A/model.safetensors", 96, &[][..]),
        ("tiny-A/model.safetensors", 96, &["--alpha0", "1", "--steps", "12"]),
        ("mdlm-tiny/model.safetensors", 96, &["--steps", "12"]),
        ("bd3lm-tiny", 97, &[]),
        ("bd3lm-tiny", 97, &["--steps", "8"]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let model = with_words(&library_file(&format!("tests/golden/{model}")), words, dir.path());
        writes_as_generate(&[&["-m", model.as_str()], options].concat());
    }
    // A Qwen, and a WeDLM whose mask is the first token.
    for (key, value) in [("model_type", json!("qwen2")), ("mask_token_id", json!(0))] {
        let dir = tempfile::tempdir().unwrap();
        writes_as_generate(&["-m", &wedlm(dir.path(), key, value)]);
    }
}

#[test]
fn chats_with_a_wedlm_are_its_completions() {
    let dir = tempfile::tempdir().unwrap();
    let model = wedlm(dir.path(), "mask_token_id", json!(511));
    let template = dir.path().join("template.jinja").display().to_string();
    std::fs::write(&template, "{% for m in messages %}w1 {{ m.content }} w500 {% endfor %}").unwrap();
    let server = Server::start(&["-m", &model, "--template", &template, "--window", "4"]);
    let settings = json!({"max_tokens": 12, "temperature": 0, "seed": 1});
    let with = |key: &str, value: Value| {
        let mut request = settings.clone();
        request[key] = value;
        request
    };
    let (status, written) = server.post(COMPLETIONS, &with("prompt", json!("w1 w3 w4 w500")));
    assert_eq!(status, 200, "{written}");
    let written = written["choices"][0]["text"].as_str().unwrap().trim().to_owned();
    let messages = with("messages", json!([{"role": "user", "content": "w3 w4"}]));
    let (status, answer) = server.post(CHAT, &messages);
    assert_eq!(status, 200, "{answer}");
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    // The template's end of an answer ends it.
    let expected = written.split("w500").next().unwrap().trim();
    assert!(!expected.is_empty() && text.trim() == expected, "{answer}: {written}");
    let mut streamed = messages;
    streamed["stream"] = true.into();
    let events = server.stream(CHAT, &streamed);
    let joined: String =
        events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(joined, text);
}
