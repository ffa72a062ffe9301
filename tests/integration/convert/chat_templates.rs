//! The chat template beside the weights.

use esolm::convert::Options;
use esolm::{ChatTemplate, Error, Feature, LoadOptions, Message, Model};
use serde_json::{Value, json};

use super::{Published, converted, refused};

/// The golden model's folder with a vocabulary of letters, and these files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = Published::tiny().write();
    let vocab: serde_json::Map<_, _> =
        (0..96u8).map(|i| (char::from(b' ' + i).to_string(), i.into())).collect();
    let tokenizer = json!({"version": "1.0", "added_tokens": [], "decoder": {"type": "Fuse"},
        "model": {"type": "BPE", "vocab": vocab, "merges": []}});
    std::fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn opened(files: &[(&str, &str)]) -> Model {
    let (_, bytes) = converted(folder(files).path(), &Options::default());
    Model::from_bytes(&bytes, &LoadOptions::default()).unwrap()
}

fn configured(template: Value) -> String {
    json!({"eos_token": "~", "chat_template": template}).to_string()
}

#[test]
fn template_of_a_folder_is_that_of_the_model() {
    const JINJA: &str = "{% for m in messages %}[{{ m.role }}: {{ m.content }}]{% endfor %}{{ eos_token }}";
    let other = "{{ messages[0].content }}";
    let named = json!([{"name": "tool_use", "template": other}, {"name": "default", "template": JINJA}]);
    let text = configured(JINJA.into());
    let list = configured(named);
    let less = configured(other.into());
    for files in [
        &[("tokenizer_config.json", text.as_str())][..],
        &[("tokenizer_config.json", &list)],
        // The file of its own counts more.
        &[("tokenizer_config.json", &less), ("chat_template.jinja", JINJA)],
    ] {
        let model = opened(files);
        assert!(model.supports(Feature::Chat), "{files:?}");
        let template = ChatTemplate::of_model(&model).unwrap();
        let messages = [Message::system("Be brief."), Message::user("Hi")];
        assert_eq!(template.apply(&messages, true).unwrap(), "[system: Be brief.][user: Hi]~", "{files:?}");
    }
    // None, and a list without the one that is taken.
    let list = configured(json!([{"name": "rag", "template": other}]));
    for config in ["{}", &list] {
        assert!(!opened(&[("tokenizer_config.json", config)]).supports(Feature::Chat), "{config}");
    }
}

#[test]
fn template_that_is_no_text_is_refused_by_its_name() {
    let dir = folder(&[]);
    std::fs::write(dir.path().join("chat_template.jinja"), b"{{ '\xff' }}").unwrap();
    let error = refused(dir.path(), &Options::default());
    assert!(
        matches!(error, Error::BadFile { .. }) && error.to_string().contains("chat_template.jinja"),
        "{error}"
    );
}
