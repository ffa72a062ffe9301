//! A hub with one repository, whose large files lie on another host.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use ring::digest;
use serde_json::json;
use tempfile::TempDir;

use super::server::{Answer, Interruption, Request, Server};
use crate::command_line::{golden, tokenizer};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub const TOKEN: &str = "hf_secret";

/// How the servers behave.
#[derive(Clone, Default)]
pub struct Behaviour {
    /// What happens to the next large body.
    pub interruption: Interruption,
    /// And to all answers of the hub itself.
    pub of_hub: Interruption,
    /// Ranges are not known: every answer is the whole file.
    pub ignores_ranges: bool,
    /// Flips a bit of large files.
    pub damages: bool,
    /// Answers every request to the hub with this status.
    pub refuses: Option<u16>,
    /// More headers of the hub's answers, which replace others.
    pub headers: Vec<(&'static str, String)>,
    /// More file names in the listing.
    pub more_names: Vec<&'static str>,
    /// Names of repositories beside `owner/tiny`, and for each a file that it lacks of those there.
    pub others: Vec<(&'static str, &'static str)>,
    /// Another commit in the listing.
    pub commit: Option<&'static str>,
}

/// A hub, its storage, and the folders of a user.
pub struct Hub {
    pub hub: Option<Server>,
    pub storage: Server,
    pub behaviour: Arc<Mutex<Behaviour>>,
    port: u16,
    pub home: TempDir,
}

/// A file of the repository; a large one lies in the storage.
#[derive(Clone)]
pub struct File {
    pub name: &'static str,
    pub content: Vec<u8>,
    pub large: bool,
}

impl File {
    pub fn small(name: &'static str, content: impl Into<Vec<u8>>) -> Self {
        Self { name, content: content.into(), large: false }
    }

    pub fn large(name: &'static str, content: impl Into<Vec<u8>>) -> Self {
        Self { name, content: content.into(), large: true }
    }

    fn etag(&self) -> String {
        let content = if self.large {
            digest::digest(&digest::SHA256, &self.content)
        } else {
            let blob = [format!("blob {}\0", self.content.len()).as_bytes(), &self.content].concat();
            digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &blob)
        };
        let hex: String = content.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        format!("\"{hex}\"")
    }
}

/// The authors' model, with a tokenizer as its vocabulary is, and files that nobody needs.
pub fn tiny() -> Vec<File> {
    let read = |name: &str| std::fs::read(golden(name)).unwrap();
    vec![
        File::small("README.md", "words"),
        File::small("model.py", "raise SystemExit"),
        File::small("config.json", read("config.json")),
        File::small("tokenizer.json", tokenizer()),
        File::large("model.safetensors", read("model.safetensors")),
        File::large("pytorch_model.bin", "the same weights again"),
    ]
}

impl Hub {
    /// A hub with the repository `owner/tiny`.
    pub fn start(files: Vec<File>) -> Self {
        let behaviour = Arc::new(Mutex::new(Behaviour::default()));
        let (stored, rules) = (files.clone(), behaviour.clone());
        let storage = Server::start(move |request| store(&stored, &rules, request));
        let (rules, port) = (behaviour.clone(), storage.port);
        let hub = Server::start(move |request| answer(&files, &rules.lock().unwrap().clone(), port, request));
        Self { port: hub.port, hub: Some(hub), storage, behaviour, home: tempfile::tempdir().unwrap() }
    }

    /// Changes how the servers behave.
    pub fn set(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    /// The command of a user with a token, whose files are all in `home`.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_esolm"));
        for (name, _) in std::env::vars_os() {
            let lower = name.to_string_lossy().to_lowercase();
            if lower.starts_with("hf_") || lower.ends_with("_proxy") || lower == "esolm_model" {
                command.env_remove(name);
            }
        }
        command
            .args(args)
            .env("HOME", self.home.path())
            .env("HF_HOME", self.home.path().join("hf"))
            .env("XDG_CACHE_HOME", self.home.path().join("cache"))
            .env("HF_ENDPOINT", format!("http://127.0.0.1:{}", self.port))
            .env("HF_TOKEN", TOKEN);
        command
    }

    pub fn esolm(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// The files of the downloads that are of this kind: `part`, or those without an ending.
    pub fn downloads(&self, ending: Option<&str>) -> Vec<std::path::PathBuf> {
        let blobs = self.home.path().join("hf/hub/models--owner--tiny/blobs");
        let all = std::fs::read_dir(blobs).into_iter().flatten().map(|entry| entry.unwrap().path());
        all.filter(|path| path.extension().and_then(|e| e.to_str()) == ending).collect()
    }

    /// The folder of a commit's files.
    pub fn snapshot(&self) -> std::path::PathBuf {
        self.home.path().join("hf/hub/models--owner--tiny/snapshots").join(COMMIT)
    }

    pub fn path(&self, name: &str) -> String {
        self.home.path().join(name).display().to_string()
    }
}

/// What the hub answers.
fn answer(files: &[File], behaviour: &Behaviour, storage: u16, request: &Request) -> Answer {
    let mut answer = described(files, behaviour, storage, request);
    if let Some(status) = behaviour.refuses {
        answer = Answer { status, body: b"{\"error\": \"no\"}".to_vec(), ..Answer::default() };
    }
    answer.interruption = behaviour.of_hub;
    answer.headers.retain(|(name, _)| !behaviour.headers.iter().any(|(other, _)| other == name));
    answer.headers.extend(behaviour.headers.clone());
    answer
}

fn described(files: &[File], behaviour: &Behaviour, storage: u16, request: &Request) -> Answer {
    let nothing = || Answer { status: 404, ..Answer::default() };
    let other = behaviour.others.iter().find(|(other, _)| request.path.contains(other));
    let (other, lacks) = *other.unwrap_or(&("owner/tiny", ""));
    let path = request.path.replace(other, "owner/tiny");
    let files: Vec<&File> = files.iter().filter(|file| file.name != lacks).collect();
    if path.starts_with("/api/models/owner/tiny/revision/") {
        let names = files.iter().map(|file| file.name).chain(behaviour.more_names.iter().copied());
        let siblings: Vec<_> = names.map(|name| json!({ "rfilename": name })).collect();
        let revision = Path::new(&path).file_name().unwrap().to_str().unwrap();
        if !["main", "v1", COMMIT].contains(&revision) {
            return nothing();
        }
        let description = json!({
            "id": "owner/tiny", "sha": behaviour.commit.unwrap_or(COMMIT), "siblings": siblings,
            "tags": ["license:mit"], "cardData": { "license": "apache-\u{1b}[1m2.0" },
        });
        return Answer { status: 200, body: description.to_string().into_bytes(), ..Answer::default() };
    }
    let name = &path.rsplit('/').next().unwrap().replace("%20", " ");
    let Some(file) = files.iter().find(|file| file.name == name) else { return nothing() };
    let commit = ("X-Repo-Commit", COMMIT.to_owned());
    let escaped = name.replace(' ', "%20");
    if path == format!("/owner/tiny/resolve/{COMMIT}/{escaped}") {
        if file.large {
            let location = format!("http://localhost:{storage}/{escaped}?signature=1");
            let linked = [("X-Linked-Size", file.content.len().to_string()), ("X-Linked-Etag", file.etag())];
            let headers = [("Location", location), commit].into_iter().chain(linked).collect();
            return Answer { status: 302, headers, ..Answer::default() };
        }
        let headers =
            vec![("Location", format!("/api/resolve-cache/models/owner/tiny/{COMMIT}/{name}")), commit];
        return Answer { status: 307, headers, ..Answer::default() };
    }
    if path == format!("/api/resolve-cache/models/owner/tiny/{COMMIT}/{name}") && !file.large {
        let headers = vec![("ETag", file.etag()), commit];
        return Answer { status: 200, headers, body: file.content.clone(), ..Answer::default() };
    }
    nothing()
}

/// What the storage answers.
fn store(files: &[File], behaviour: &Mutex<Behaviour>, request: &Request) -> Answer {
    let name = &request.path.replace("%20", " ");
    let name = name.trim_start_matches('/').trim_end_matches("?signature=1");
    let Some(file) = files.iter().find(|file| file.name == name && file.large) else {
        return Answer { status: 404, ..Answer::default() };
    };
    let mut behaviour = behaviour.lock().unwrap();
    let mut body = file.content.clone();
    if behaviour.damages {
        body[1000] ^= 1;
    }
    let interruption = std::mem::take(&mut behaviour.interruption);
    let size = body.len();
    let start = if behaviour.ignores_ranges { 0 } else { request.start() };
    if start == 0 {
        return Answer { status: 200, body, interruption, ..Answer::default() };
    }
    let headers = vec![("Content-Range", format!("bytes {start}-{}/{size}", size - 1))];
    Answer { status: 206, headers, body: body.split_off(start), interruption }
}
