//! What `esolm serve` is sent, and what `esolm chat` loads: the bodies of completions and chats, and saved conversations. The files
//! are those of the command.
#![no_main]

use std::sync::LazyLock;

use esolm::{Model, Variant};
use esolm_fuzz::model;
use libfuzzer_sys::fuzz_target;

#[allow(dead_code)]
#[path = "../../cli/src/allocation.rs"]
mod allocation;
#[allow(dead_code)]
#[path = "../../cli/src/commands/serve/failure.rs"]
mod failure;
#[path = "../../cli/src/commands/serve/fields.rs"]
mod fields;
#[allow(dead_code)]
#[path = "../../cli/src/commands/serve/held.rs"]
mod held;
#[allow(dead_code)]
#[path = "../../cli/src/commands/chat/history.rs"]
mod history;
#[allow(dead_code)]
#[path = "../../cli/src/commands/serve/job.rs"]
mod job;
#[path = "../../cli/src/commands/serve/ordered.rs"]
mod ordered;
#[allow(dead_code)]
#[path = "../../cli/src/commands/serve/request.rs"]
mod request;
#[path = "../../cli/src/commands/serve/sampling.rs"]
mod sampling;

/// Stand for the command's, which read options and files.
mod chat_format {
    pub struct ChatFormat {
        pub template: esolm::ChatTemplate,
        pub stop_tokens: Vec<u32>,
        pub stop_strings: Vec<String>,
    }
}

mod seed {
    pub struct Seed {
        pub value: u64,
    }

    impl Seed {
        pub fn random() -> Self {
            Self { value: 1 }
        }
    }
}

mod input {
    pub fn read_text(_: &str) -> esolm::Result<String> {
        Ok(String::new())
    }
}

mod output {
    pub fn json_line(value: serde_json::Value) -> String {
        value.to_string()
    }

    pub struct JsonText<'a, T>(pub &'a T);

    impl<T: serde::Serialize> std::fmt::Display for JsonText<'_, T> {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(&serde_json::to_string(self.0).map_err(|_| std::fmt::Error)?)
        }
    }

    pub fn write_file(_: &std::path::Path, _: impl std::fmt::Display) -> esolm::Result<()> {
        Ok(())
    }
}

static MODEL: LazyLock<Model> = LazyLock::new(|| model(Variant::EsoB));
static FORMAT: LazyLock<chat_format::ChatFormat> = LazyLock::new(|| chat_format::ChatFormat {
    template: esolm::ChatTemplate::chatml(),
    stop_tokens: vec![],
    stop_strings: vec!["<|im_end|>".into()],
});

fuzz_target!(|input: &[u8]| {
    let Some((&kind, body)) = input.split_first() else { return };
    let read = match kind % 4 {
        0 => request::Request::completion(body, &MODEL, "model"),
        1 => request::Request::chat(body, &MODEL, "model", Some(&FORMAT)),
        2 => request::Request::chat(body, &MODEL, "model", None),
        _ => {
            let Ok(text) = str::from_utf8(body) else { return };
            if let Ok(messages) = history::parse(text) {
                let content: usize =
                    messages.iter().map(|entry| entry.role.len() + entry.content.len()).sum();
                assert!(content <= text.len(), "more text than there was");
                let again = messages
                    .iter()
                    .map(|entry| serde_json::json!({"role": entry.role, "content": entry.content}));
                let again = serde_json::Value::from_iter(again).to_string();
                assert_eq!(history::parse(&again).as_deref(), Ok(messages.as_slice()));
            }
            return;
        }
    };
    match read {
        Ok(request) => {
            assert!(request.prompts.len() * request.n <= 128, "more texts than there may be");
            assert!(request.is_chat == (kind % 4 == 1));
        }
        Err(failure) => {
            let body = failure.body().to_string();
            assert!(failure.status.is_client_error(), "{body}");
            // Characters of control take six bytes.
            assert!(body.len() <= 8000, "{} bytes: {body:.200}", body.len());
        }
    }
});
