//! `esolm pull` and `hf:` names against a server that speaks the hub's protocol.

mod chat;
mod gguf;
#[cfg(unix)]
mod outputs;
mod published;
mod repository;
mod server;
mod slow;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::command_line::{err, golden, out, tokenizer};
use crate::json::{add_fields, documented};
use repository::{Behaviour, COMMIT, Hub, TOKEN, tiny};
use server::Interruption;

const GENERATE: [&str; 9] = ["-p", "w3 w4", "-n", "24", "--seed", "5", "--threads", "1", "-q"];

/// Pulls the model, which succeeds, and returns its file.
fn pull(hub: &Hub, more: &[&str]) -> String {
    let output = hub.esolm(&[&["pull", "owner/tiny"], more].concat());
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    out(&output).trim_end().to_owned()
}

fn generate(hub: &Hub, model: &str) -> String {
    let output = hub.esolm(&[&["generate", "-m", model], &GENERATE[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    out(&output)
}

#[test]
fn pulled_model_writes_what_the_converted_one_writes_also_without_a_network() {
    let mut hub = Hub::start(tiny());
    let output = hub.esolm(&["pull", "owner/tiny"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    // The licence, without the escape that the server put into it.
    assert!(err(&output).contains("licence: apache-[1m2.0"), "{}", err(&output));
    assert!(err(&output).contains(&COMMIT[..12]), "{}", err(&output));
    let pulled = out(&output).trim_end().to_owned();
    assert!(pulled.ends_with(&format!("cache/esolm/owner--tiny/{COMMIT}/tiny-q8_0.gguf")), "{pulled}");
    // What another program of the hub looks for.
    let refs = hub.home.path().join("hf/hub/models--owner--tiny/refs/main");
    assert_eq!(std::fs::read_to_string(refs).unwrap(), COMMIT);
    let names =
        std::fs::read_dir(hub.snapshot()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    assert_eq!(names, ["config.json", "model.safetensors", "tokenizer.json"]);
    let weights = std::fs::read(hub.snapshot().join("model.safetensors")).unwrap();
    assert_eq!(weights, std::fs::read(golden("model.safetensors")).unwrap());
    assert_eq!((hub.downloads(None).len(), hub.downloads(Some("part")).len()), (3, 0));

    let folder = hub.home.path().join("by-hand");
    std::fs::create_dir(&folder).unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(golden(name), folder.join(name)).unwrap();
    }
    std::fs::write(folder.join("tokenizer.json"), tokenizer()).unwrap();
    let converted = hub.path("by-hand.gguf");
    let args = ["convert", &folder.display().to_string(), "-o", &converted, "--type", "q8_0"];
    assert_eq!(hub.esolm(&args).status.code(), Some(0));
    let text = generate(&hub, &converted);
    assert!(text.starts_with("w3 w4 w"), "{text}");
    hub.hub.as_ref().unwrap().take_requests();
    assert_eq!(generate(&hub, "hf:owner/tiny"), text);
    assert!(hub.hub.as_ref().unwrap().take_requests().is_empty(), "a request for a model that is there");

    hub.hub = None;
    assert_eq!(generate(&hub, "hf:owner/tiny"), text);
    assert_eq!(generate(&hub, &format!("hf:owner/tiny@{COMMIT}:q8_0")), text);
    let again = hub.esolm(&["pull", "owner/tiny"]);
    assert_eq!((again.status.code(), out(&again).trim_end()), (Some(0), pulled.as_str()), "{}", err(&again));
    assert!(err(&again).contains("downloaded before"), "{}", err(&again));
    // Another type, from what was downloaded.
    let other =
        hub.command(&["pull", "owner/tiny", "--type", "f32"]).env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert_eq!(other.status.code(), Some(0), "{}", err(&other));
    let list = out(&hub.esolm(&["pull", "--list"]));
    assert!(list.lines().count() == 2 && list.contains("tiny-f32.gguf") && list.contains(&pulled), "{list}");
    let mut fields = BTreeSet::new();
    for args in [["owner/tiny", "--json"], ["--list", "--json"]] {
        let json = out(&hub.esolm(&[&["pull"], &args[..]].concat()));
        add_fields(&serde_json::from_str(&json).unwrap(), "", &mut fields);
        assert!(json.contains(&pulled), "{json}");
    }
    assert_eq!(fields, documented("pull --json"));
}

#[test]
fn every_command_that_takes_a_model_takes_one_of_a_hub() {
    let hub = Hub::start(tiny());
    // As the first command, which has to pull it.
    let about = hub.esolm(&["inspect", "hf:owner/tiny:f16"]);
    assert!(out(&about).contains("eso"), "{}", err(&about));
    let (small, imatrix, text) = (hub.path("small.gguf"), hub.path("m.imatrix"), hub.path("text.txt"));
    std::fs::write(&text, (0..96).map(|i| format!("w{i} ")).collect::<String>()).unwrap();
    let golden = golden("golden.safetensors");
    for args in [
        &["convert", "hf:owner/tiny", "-o", &hub.path("a.gguf"), "--type", "f32"][..],
        &["verify", "hf:owner/tiny:f32", &golden],
        &["quantize", "hf:owner/tiny:f32", &small, "--type", "q4_0"],
        &["quality", "hf:owner/tiny:f32", &small, "--text", &text, "--windows", "1", "--steps", "2"],
        &["imatrix", "hf:owner/tiny:f32", &text, "-o", &imatrix, "--pieces", "1", "--length", "16"],
        &["score", "-m", "hf:owner/tiny:f32", &text, "--draws", "1"],
        &["tokenize", "-m", "hf:owner/tiny:f32", "w3"],
        &["detokenize", "-m", "hf:owner/tiny:f32", "3"],
    ] {
        let output = hub.esolm(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", err(&output));
    }
    // The type of what is converted is said by an option.
    let typed = hub.esolm(&["convert", "hf:owner/tiny:q4_k", "-o", &hub.path("b.gguf")]);
    assert!(typed.status.code() == Some(2) && err(&typed).contains("--type q4_k"), "{}", err(&typed));
    let by_variable = hub.command(&["tokenize", "w3"]).env("ESOLM_MODEL", "hf:owner/tiny").output().unwrap();
    assert_eq!(out(&by_variable), "3\n", "{}", err(&by_variable));
}

#[test]
fn killed_download_is_continued_where_it_ended() {
    const SENT: usize = 300_000;
    let hub = Hub::start(tiny());
    hub.set(Behaviour { interruption: Interruption::Stall(SENT), ..Behaviour::default() });
    let mut child =
        hub.command(&["pull", "owner/tiny"]).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    // A small file that is complete loses its ending between the list and the look at it.
    let length = || {
        let length = |part: &PathBuf| part.metadata().map(|part| part.len()).ok();
        hub.downloads(Some("part")).iter().find_map(length).unwrap_or(0)
    };
    let end = Instant::now() + Duration::from_secs(60);
    while length() < SENT as u64 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    // SIGKILL on Unix.
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(length(), SENT as u64);
    assert!(!hub.snapshot().join("model.safetensors").exists());
    assert_eq!(hub.storage.take_requests().len(), 1);

    let file = pull(&hub, &[]);
    let requests = hub.storage.take_requests();
    let size = std::fs::metadata(golden("model.safetensors")).unwrap().len() as usize;
    assert_eq!(requests.len(), 1);
    assert_eq!((requests[0].header("range"), requests[0].sent), (Some("bytes=300000-"), size - SENT));
    assert!(Path::new(&file).is_file() && hub.downloads(Some("part")).is_empty());
    let weights = std::fs::read(hub.snapshot().join("model.safetensors")).unwrap();
    assert_eq!(weights, std::fs::read(golden("model.safetensors")).unwrap());
}

#[test]
fn broken_connection_is_taken_up_again() {
    for ignores_ranges in [false, true] {
        let hub = Hub::start(tiny());
        let interruption = Interruption::Cut(300_000);
        hub.set(Behaviour { interruption, ignores_ranges, ..Behaviour::default() });
        pull(&hub, &[]);
        let ranges: Vec<_> =
            hub.storage.take_requests().iter().map(|r| r.header("range").map(str::to_owned)).collect();
        assert_eq!(ranges, [None, Some("bytes=300000-".into())]);
        let weights = std::fs::read(hub.snapshot().join("model.safetensors")).unwrap();
        assert_eq!(weights, std::fs::read(golden("model.safetensors")).unwrap(), "{ignores_ranges}");
    }
}

#[test]
fn token_goes_to_the_hub_and_to_no_other_host() {
    let hub = Hub::start(tiny());
    pull(&hub, &[]);
    let requests = hub.hub.as_ref().unwrap().take_requests();
    assert!(requests.iter().all(|r| r.header("authorization") == Some("Bearer hf_secret")), "{requests:?}");
    let paths: Vec<_> = requests.iter().map(|r| r.path.as_str()).collect();
    assert!(!paths.iter().any(|path| path.contains("model.py") || path.contains("README")), "{paths:?}");
    let stored = hub.storage.take_requests();
    assert!(!stored.is_empty());
    for request in stored {
        assert!(!format!("{request:?}").contains(TOKEN), "{request:?}");
    }
    // The one that another program saved.
    std::fs::create_dir_all(hub.path("hf")).unwrap();
    std::fs::write(hub.path("hf/token"), "hf_saved\n").unwrap();
    let again = hub.command(&["pull", "owner/tiny@v1"]).env_remove("HF_TOKEN").output().unwrap();
    assert_eq!(again.status.code(), Some(0), "{}", err(&again));
    let requests = hub.hub.as_ref().unwrap().take_requests();
    assert_eq!(requests.len(), 1, "files that are there are not asked for: {requests:?}");
    assert_eq!(requests[0].header("authorization"), Some("Bearer hf_saved"));
}

#[test]
fn output_and_force_are_those_of_convert() {
    let hub = Hub::start(tiny());
    let output = hub.path("mine.gguf");
    std::fs::write(&output, "dear").unwrap();
    let args = ["pull", "owner/tiny", "-o", &output];
    let refused = hub.esolm(&args);
    assert_eq!(refused.status.code(), Some(2));
    assert!(err(&refused).contains("--force") && std::fs::read(&output).unwrap() == b"dear");
    assert!(hub.downloads(None).is_empty(), "nothing is downloaded for it");
    assert_eq!(pull(&hub, &["-o", &output, "--force"]), output);
    assert!(std::fs::metadata(&output).unwrap().len() > 100_000);
    // With --force the content that is there is checked.
    let large = hub.downloads(None).into_iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let right = std::fs::read(&large).unwrap();
    let mut wrong = right.clone();
    wrong[500_000] ^= 1;
    std::fs::write(&large, &wrong).unwrap();
    pull(&hub, &["--force"]);
    assert!(std::fs::read(&large).unwrap() == right);
}

#[test]
fn what_a_configuration_lacks_can_be_given() {
    let mut files = tiny();
    files.retain(|file| file.name != "tokenizer.json");
    files.iter_mut().find(|file| file.name == "config.json").unwrap().content =
        br#"{"model_type": "EsoLM", "vocab_size": 97, "model_length": 64, "mask_index": 96}"#.to_vec();
    let hub = Hub::start(files);
    let refused = hub.esolm(&["generate", "-m", "hf:owner/tiny"]);
    assert_eq!(refused.status.code(), Some(2), "{}", err(&refused));
    assert!(err(&refused).contains("esolm pull owner/tiny") && err(&refused).contains("--variant"));
    // The tokenizer of another repository: here that of the same hub.
    let file = hub.path("tokenizer.json");
    std::fs::write(&file, tokenizer()).unwrap();
    // What was converted without it is converted again.
    pull(&hub, &["--variant", "b"]);
    let wordless = hub.esolm(&["generate", "-m", "hf:owner/tiny", "-p", "w3"]);
    assert!(err(&wordless).contains("tokenizer"), "{}", err(&wordless));
    pull(&hub, &["--variant", "b", "--tokenizer", &file]);
    assert!(generate(&hub, "hf:owner/tiny").starts_with("w3 w4 w"));
    let missing = hub.esolm(&["pull", "owner/tiny", "--tokenizer", "hf:owner/tiny"]);
    assert_eq!(missing.status.code(), Some(3));
    assert!(err(&missing).contains("no tokenizer.json"), "{}", err(&missing));
    let other = Hub::start(tiny());
    let out = other.path("a.gguf");
    let args = ["pull", "owner/tiny", "--tokenizer", "hf:owner/tiny@v1", "-o", &out];
    let converted = other.esolm(&args);
    assert_eq!(converted.status.code(), Some(0), "{}", err(&converted));
}

/// Pulls from a hub that behaves so, which fails with exit code 3 and these words, and leaves nothing unfinished behind.
fn refused(behaviour: Behaviour, says: &[&str]) {
    let hub = Hub::start(tiny());
    hub.set(behaviour);
    let output = hub.esolm(&["pull", "owner/tiny"]);
    let said = err(&output);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("owner/tiny") && !said.contains(TOKEN), "{said}");
    for words in says {
        assert!(said.contains(words), "'{words}' in: {said}");
    }
    assert!(out(&output).is_empty() && !hub.snapshot().join("model.safetensors").exists(), "{said}");
    assert!(hub.downloads(Some("part")).is_empty(), "{said}");
}

#[test]
fn refusals_of_the_hub_say_what_to_do() {
    let status = |status, headers: &[(&'static str, &str)]| Behaviour {
        refuses: Some(status),
        headers: headers.iter().map(|(name, value)| (*name, value.to_string())).collect(),
        ..Behaviour::default()
    };
    refused(status(401, &[]), &["401", "HF_TOKEN", "not valid"]);
    let gated = [("X-Error-Code", "GatedRepo")];
    refused(status(403, &gated), &["gated (403)", "ask for access at http://127.0.0.1:", "HF_TOKEN"]);
    refused(status(404, &[]), &["no such repository, revision or file (404)"]);
    refused(status(503, &[]), &["503"]);
    refused(status(302, &[("Location", "/again")]), &["redirects"]);
    refused(status(302, &[]), &["a redirect to nowhere"]);

    let hub = Hub::start(tiny());
    hub.set(status(401, &[]));
    let without = hub.command(&["pull", "owner/tiny"]).env_remove("HF_TOKEN").output().unwrap();
    assert!(err(&without).contains("set HF_TOKEN to a token that may read it"), "{}", err(&without));
    hub.set(Behaviour::default());
    let revision = hub.esolm(&["pull", "owner/tiny", "--revision", "v2"]);
    assert_eq!(revision.status.code(), Some(3));
    assert!(err(&revision).contains("hf:owner/tiny@v2: the hub has no such"), "{}", err(&revision));
}

#[test]
fn content_that_is_not_what_the_hub_states_is_not_kept() {
    refused(Behaviour { damages: true, ..Behaviour::default() }, &["model.safetensors", "hash", "removed"]);
    let header =
        |name, value: &str| Behaviour { headers: vec![(name, value.into())], ..Behaviour::default() };
    refused(header("X-Linked-Size", "1000"), &["longer than the 1000 bytes"]);
    refused(header("X-Linked-Etag", "\"../../../../evil\""), &["does not say the file's hash"]);
    refused(header("X-Linked-Size", "many"), &["does not say how large"]);
    refused(Behaviour { commit: Some("../../evil"), ..Behaviour::default() }, &["is no commit"]);
}

#[test]
fn file_names_that_leave_the_folder_are_refused() {
    for name in ["../evil.gguf", "/etc/evil", "a\\evil.gguf", "a/../../evil", "evil\u{7}.json", "C:evil"] {
        refused(Behaviour { more_names: vec![name], ..Behaviour::default() }, &["not safe", "evil"]);
    }
}

#[test]
fn space_is_checked_before_anything_is_downloaded() {
    let hub = Hub::start(tiny());
    let headers = vec![("X-Linked-Size", (1u64 << 60).to_string())];
    hub.set(Behaviour { headers, ..Behaviour::default() });
    let output = hub.esolm(&["pull", "owner/tiny"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(err(&output).contains("are needed") && err(&output).contains("are free"), "{}", err(&output));
    let requests = hub.hub.as_ref().unwrap().take_requests();
    assert!(requests.iter().all(|r| r.method == "HEAD" || r.path.starts_with("/api/models")), "{requests:?}");
    assert!(hub.storage.take_requests().is_empty() && hub.downloads(None).is_empty());
    // What is here has to be converted, too: as large as a sparse file says it is.
    let hub = Hub::start(tiny());
    pull(&hub, &[]);
    let weights = hub.snapshot().join("model.safetensors").canonicalize().unwrap();
    std::fs::OpenOptions::new().write(true).open(weights).unwrap().set_len(1 << 43).unwrap();
    let output = hub.esolm(&["pull", "owner/tiny", "-o", "model.gguf", "--type", "f32"]);
    assert_eq!(output.status.code(), Some(3), "{}", err(&output));
    assert!(err(&output).contains("TiB are needed"), "{}", err(&output));
}

#[test]
#[cfg(target_os = "linux")]
fn file_that_cannot_be_written_is_named_and_continued_later() {
    let hub = Hub::start(tiny());
    // As if the disk were full after 204,800 bytes: writing fails, as the signal for it is ignored.
    let limited = "ulimit -f 400; trap '' XFSZ; exec \"$0\" \"$@\"";
    let command = hub.command(&["pull", "owner/tiny"]);
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", limited]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let output = shell.output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", err(&output));
    assert!(err(&output).contains(".part: File too large"), "{}", err(&output));
    assert_eq!(hub.downloads(Some("part"))[0].metadata().unwrap().len(), 204_800);
    hub.storage.take_requests();
    pull(&hub, &[]);
    assert_eq!(hub.storage.take_requests()[0].header("range"), Some("bytes=204800-"));
}

#[test]
fn two_at_once_download_a_file_once() {
    let hub = Hub::start(tiny());
    let pull = || hub.command(&["pull", "owner/tiny"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    for pull in [(); 4].map(|()| pull().unwrap()) {
        let output = pull.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", err(&output));
    }
    assert_eq!(hub.storage.take_requests().len(), 1);
    let weights = std::fs::read(hub.snapshot().join("model.safetensors")).unwrap();
    assert_eq!(weights, std::fs::read(golden("model.safetensors")).unwrap());
}

#[test]
fn without_a_network_the_message_says_so() {
    let mut hub = Hub::start(tiny());
    let offline = hub.command(&["pull", "owner/tiny"]).env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert_eq!(offline.status.code(), Some(3));
    assert!(err(&offline).contains("HF_HUB_OFFLINE"), "{}", err(&offline));
    assert!(hub.hub.as_ref().unwrap().take_requests().is_empty());
    hub.hub = None;
    let gone = hub.esolm(&["generate", "-m", "hf:owner/tiny"]);
    assert_eq!(gone.status.code(), Some(3));
    assert!(err(&gone).contains("cannot be reached"), "{}", err(&gone));
    let endpoint = hub.command(&["pull", "owner/tiny"]).env("HF_ENDPOINT", "ftp://x").output().unwrap();
    assert_eq!(endpoint.status.code(), Some(2));
    assert!(err(&endpoint).contains("HF_ENDPOINT"), "{}", err(&endpoint));
    for (name, says) in
        [("tiny", "no owner and name"), ("../x", "no owner and name"), ("a/b:q9", "'q9' is no type")]
    {
        let output = hub.esolm(&["pull", name]);
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(err(&output).contains(says), "{}", err(&output));
    }
}
