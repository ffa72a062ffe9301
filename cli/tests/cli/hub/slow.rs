//! Hubs that send, but too little.

use std::time::{Duration, Instant};

use super::repository::{Behaviour, Hub, tiny};
use super::server::Interruption;
use crate::command_line::err;

#[test]
fn hub_that_sends_a_byte_now_and_then_is_given_up() {
    let hub = Hub::start(tiny());
    let pull = |behaviour: Behaviour, seconds: &str| {
        hub.set(behaviour);
        let start = Instant::now();
        let mut command = hub.command(&["pull", "owner/tiny"]);
        let output = command.env("HF_HUB_DOWNLOAD_TIMEOUT", seconds).output().unwrap();
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}: {}", start.elapsed(), err(&output));
        (output.status.code(), err(&output))
    };
    // In the weights, in the list of files, and in the head of an answer.
    let weights = Behaviour { interruption: Interruption::Drip(300_000), ..Behaviour::default() };
    let (code, said) = pull(weights, "1");
    let says = ["/resolve/", "model.safetensors", "less than 1000 a second"];
    assert!(code == Some(3) && says.iter().all(|says| said.contains(says)), "{said}");
    let of_hub = |count| Behaviour { of_hub: Interruption::Drip(count), ..Behaviour::default() };
    let (code, said) = pull(of_hub(100), "1");
    let says = ["/api/models/owner/tiny", "less than 1000 a second"];
    assert!(code == Some(3) && says.iter().all(|says| said.contains(says)), "{said}");
    let (code, said) = pull(of_hub(0), "1");
    assert!(code == Some(3) && said.contains("/api/models/owner/tiny"), "{said}");
    let (code, said) = pull(Behaviour::default(), "soon");
    assert!(code == Some(2) && said.contains("HF_HUB_DOWNLOAD_TIMEOUT"), "{said}");
    // What was downloaded is continued.
    assert!(hub.downloads(Some("part"))[0].metadata().unwrap().len() >= 299_000);
    assert_eq!(pull(Behaviour::default(), "30").0, Some(0));
    let ranges: Vec<_> = hub.storage.take_requests().iter().map(|r| r.start() > 0).collect();
    assert_eq!(ranges, [false, true]);
}
