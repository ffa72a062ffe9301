//! Repositories with GGUF files.

use super::repository::{COMMIT, File, Hub, tiny};
use super::{generate, pull};
use crate::command_line::err;

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
