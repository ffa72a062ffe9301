//! Repositories with GGUF files.

use super::repository::{COMMIT, File, Hub, tiny};
use super::{generate, pull};
use crate::command_line::{err, library_file, out};

#[test]
fn gguf_of_the_repository_is_used_as_it_is() {
    let made = Hub::start(tiny());
    let model = std::fs::read(pull(&made, &[])).unwrap();
    let hub = Hub::start(vec![File::large("a model-q8_0.gguf", model.clone()), File::small("README.md", "")]);
    let behaviour = hub.behaviour.clone();
    let file = pull(&hub, &[]);
    assert!(file.ends_with(&format!("snapshots/{COMMIT}/a model-q8_0.gguf")), "{file}");
    assert_eq!(std::fs::read(&file).unwrap(), model);
    let output = hub.path("copy.gguf");
    assert_eq!(pull(&hub, &["-o", &output]), output);
    assert_eq!(std::fs::read(&output).unwrap(), model);
    behaviour.lock().unwrap().refuses = Some(500);
    hub.hub.as_ref().unwrap().take_requests();
    assert_eq!(generate(&hub, "hf:owner/tiny"), generate(&made, "hf:owner/tiny"));
    assert!(hub.hub.as_ref().unwrap().take_requests().is_empty());
    // The only file, whose name says another type: also without a request the next time.
    let hub = Hub::start(vec![File::large("model-Q4_K_M.gguf", model)]);
    let behaviour = hub.behaviour.clone();
    assert_eq!(generate(&hub, "hf:owner/tiny"), generate(&made, "hf:owner/tiny"));
    behaviour.lock().unwrap().refuses = Some(500);
    hub.hub.as_ref().unwrap().take_requests();
    assert_eq!(generate(&hub, "hf:owner/tiny"), generate(&made, "hf:owner/tiny"));
    assert!(hub.hub.as_ref().unwrap().take_requests().is_empty());
    behaviour.lock().unwrap().refuses = None;
    let refused = hub.esolm(&["pull", "owner/tiny", "--variant", "b"]);
    assert_eq!(refused.status.code(), Some(2), "{}", err(&refused));
    // A GGUF of something else.
    let other = Hub::start(vec![File::large("other.gguf", "GGUF of another kind")]);
    let refused = other.esolm(&["pull", "owner/tiny"]);
    assert_eq!(refused.status.code(), Some(3), "{}", err(&refused));
}

/// A WeDLM as llama.cpp's tools convert it, which does not say its mask: it is fetched, and run by who says it.
#[test]
fn gguf_without_a_mask_is_pulled_and_runs_with_one() {
    let mut model = std::fs::read(library_file("fuzz/seeds/gguf/llama-wedlm")).unwrap();
    for (known, unknown) in [("ggml.mask_token_id", "ggml.musk_token_id"), ("<mask>", "<musk>")] {
        let at = model.windows(known.len()).position(|bytes| bytes == known.as_bytes()).unwrap();
        model[at..at + known.len()].copy_from_slice(unknown.as_bytes());
    }
    let hub = Hub::start(vec![File::large("model.gguf", model)]);
    let generate = ["generate", "-m", "hf:owner/tiny", "--prompt-ids", "1,2", "-n", "3", "--threads", "1"];
    let with_mask = |mask: &str| hub.esolm(&[&generate[..], &["--mask-token", mask]].concat());
    // As the first command, and after it.
    for _ in 0..2 {
        let written = with_mask("23");
        assert_eq!(written.status.code(), Some(0), "{}", err(&written));
        assert!(!out(&written).trim().is_empty());
    }
    let pulled = hub.esolm(&["pull", "owner/tiny"]);
    assert_eq!(pulled.status.code(), Some(0), "{}", err(&pulled));
    assert!(err(&pulled).contains("--mask-token") && out(&pulled).contains("model.gguf"), "{}", err(&pulled));
    let without = hub.esolm(&generate);
    assert!(without.status.code() == Some(2) && err(&without).contains("--mask-token"), "{}", err(&without));
}
