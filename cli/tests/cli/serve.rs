//! `esolm serve`, spoken to in plain HTTP. (`make test-serve` speaks to it with OpenAI's own client.)

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::command_line::golden_with_words;

/// A server of the built-in model, which ends with this.
pub struct Server {
    pub child: Child,
    pub address: String,
    /// What it says.
    lines: BufReader<std::process::ChildStderr>,
}

impl Server {
    pub fn start(more: &[&str]) -> Self {
        Self::start_with(more, &[])
    }

    fn start_with(more: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new("env")
            .args([
                "--default-signal=INT,TERM",
                env!("CARGO_BIN_EXE_esolm"),
                "serve",
                "--port",
                "0",
                "--threads",
                "1",
            ])
            .args(more)
            .envs(environment.iter().copied())
            .env_remove("ESOLM_MODEL")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let address = line.split("http://").nth(1).unwrap_or_else(|| panic!("{line}"));
        let address = address.split('/').next().unwrap().trim().to_owned();
        Self { child, address, lines }
    }

    /// The answer to a request: status, head and body.
    pub fn send(&self, request: &[u8]) -> (u16, String, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // A refusal may come before everything is read.
        let _ = stream.write_all(request);
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let answer = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_lowercase(), body.to_owned())
    }

    pub fn get(&self, path: &str) -> (u16, Value) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let (status, _, body) = self.send(request.as_bytes());
        (status, serde_json::from_str(&body).unwrap())
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, _, body) = self.send(&post(path, &body.to_string(), ""));
        (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{body}")))
    }

    /// The events of a streamed answer.
    fn stream(&self, path: &str, body: &Value) -> Vec<Value> {
        let (status, head, body) = self.send(&post(path, &body.to_string(), ""));
        assert!(status == 200 && head.contains("content-type: text/event-stream"), "{head}\n{body}");
        let lines = body.lines().filter_map(|line| line.strip_prefix("data: "));
        let (last, events): (Vec<_>, Vec<_>) = lines.partition(|line| *line == "[DONE]");
        assert_eq!(last.len(), 1, "{body}");
        events.iter().map(|event| serde_json::from_str(event).unwrap()).collect()
    }

    fn signal(&self, name: &str) {
        let killed = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
    }

    /// Waits until so many texts are written and wait.
    pub fn wait_for(&self, running: u64, waiting: u64) {
        self.wait_until(|health| health["running"] == running && health["waiting"] == waiting);
    }

    /// Waits until what `/health` says is so.
    pub fn wait_until(&self, is_so: impl Fn(&Value) -> bool) {
        let started = Instant::now();
        loop {
            let (_, health) = self.get("/health");
            if is_so(&health) {
                return;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "{health}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn post(path: &str, body: &str, more: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n{more}Content-Length: \
         {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

pub const COMPLETIONS: &str = "/v1/completions";
pub const CHAT: &str = "/v1/chat/completions";

#[test]
fn completions_are_those_of_the_command_line() {
    let server = Server::start(&[]);
    let wanted = json!({"prompt": "Once upon a time", "max_tokens": 20, "temperature": 0, "seed": 1});
    let (status, answer) = server.post(COMPLETIONS, &wanted);
    assert_eq!(status, 200, "{answer}");
    let text = answer["choices"][0]["text"].as_str().unwrap();
    let own = crate::command_line::esolm(&[
        "generate",
        "-p",
        "Once upon a time",
        "-n",
        "20",
        "--temp",
        "0",
        "--seed",
        "1",
        "-q",
    ]);
    let own = crate::command_line::out(&own);
    assert_eq!(format!("Once upon a time{text}").trim_end(), own.trim_end());
    assert_eq!(answer["object"], "text_completion");
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 20);
    let prompt = answer["usage"]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(answer["usage"]["total_tokens"], prompt + 20);
    // Streamed, it is the same text.
    let mut streamed = wanted.clone();
    streamed["stream"] = true.into();
    streamed["stream_options"] = json!({"include_usage": true});
    let events = server.stream(COMPLETIONS, &streamed);
    let (usage, chunks) = events.split_last().unwrap();
    let joined: String = chunks.iter().map(|chunk| chunk["choices"][0]["text"].as_str().unwrap()).collect();
    assert_eq!(joined, text);
    assert_eq!(usage["usage"]["completion_tokens"], 20);
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "length");
    // Several prompts, and several texts of each; token ids are a prompt, too.
    let many = json!({"prompt": ["Once upon a time", "The king"], "n": 2, "max_tokens": 4, "seed": 5});
    let (_, answer) = server.post(COMPLETIONS, &many);
    let choices = answer["choices"].as_array().unwrap();
    assert_eq!(
        choices.iter().map(|choice| choice["index"].as_u64().unwrap()).collect::<Vec<_>>(),
        [0, 1, 2, 3]
    );
    assert_eq!(answer["usage"]["completion_tokens"], 16);
    let (status, answer) = server.post(COMPLETIONS, &json!({"prompt": [5, 6, 7], "max_tokens": 3}));
    assert_eq!((status, &answer["usage"]["prompt_tokens"]), (200, &json!(3)));
    // A stop string ends a text before it.
    let stopped =
        json!({"prompt": "Once upon a time", "max_tokens": 60, "temperature": 0, "stop": [".", "!"]});
    let (_, answer) = server.post(COMPLETIONS, &stopped);
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert!(!answer["choices"][0]["text"].as_str().unwrap().contains('.'));
}

#[test]
fn chats_are_answered_with_a_template() {
    let server = Server::start(&["--template", "chatml", "--name", "stories"]);
    let (_, models) = server.get("/v1/models");
    assert_eq!(models["data"][0]["id"], "stories");
    assert_eq!(server.get("/v1/models/stories").0, 200);
    assert_eq!(server.get("/v1/models/other").0, 404);
    let parts = json!([{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]);
    let wanted = json!({"model": "stories", "messages": [{"role": "user", "content": parts}],
        "max_completion_tokens": 12, "temperature": 0, "logprobs": true, "top_logprobs": 2, "user": "ignored"});
    let (status, answer) = server.post(CHAT, &wanted);
    assert_eq!(status, 200, "{answer}");
    let choice = &answer["choices"][0];
    let text = choice["message"]["content"].as_str().unwrap();
    assert_eq!(
        (&answer["object"], &choice["message"]["role"]),
        (&json!("chat.completion"), &json!("assistant"))
    );
    let tokens = choice["logprobs"]["content"].as_array().unwrap();
    assert_eq!(tokens.len(), 12);
    assert_eq!(tokens.iter().map(|token| token["token"].as_str().unwrap()).collect::<String>(), text);
    for token in tokens {
        // The most likely tokens were written.
        assert_eq!(token["token"], token["top_logprobs"][0]["token"]);
        assert!(
            (token["logprob"].as_f64().unwrap() - token["top_logprobs"][0]["logprob"].as_f64().unwrap())
                .abs()
                < 1e-3
        );
        assert_eq!(token["top_logprobs"].as_array().unwrap().len(), 2);
    }
    let mut streamed = wanted;
    streamed["stream"] = true.into();
    let events = server.stream(CHAT, &streamed);
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    let joined: String =
        events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(joined, text);
    assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "length");
    // The same messages again: their keys and values are there.
    let again = json!({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2});
    let (_, answer) = server.post(CHAT, &again);
    let cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert!(cached > 20, "{answer}");
}

#[test]
fn wrong_requests_are_refused_as_openai_refuses_them() {
    let server = Server::start(&["--max-body", "4000"]);
    let long = "word ".repeat(400);
    for (path, body, status, says) in [
        (CHAT, json!({"messages": [{"role": "user", "content": "a"}]}), 400, "no chat template"),
        (COMPLETIONS, json!({}), 400, "'prompt'"),
        (COMPLETIONS, json!({"prompt": "a", "max_tokens": 0}), 400, "'max_tokens'"),
        (COMPLETIONS, json!({"prompt": "a", "temperature": -1}), 400, "'temperature'"),
        (COMPLETIONS, json!({"prompt": "a", "top_p": "much"}), 400, "'top_p'"),
        (COMPLETIONS, json!({"prompt": "a", "stop": [""]}), 400, "'stop'"),
        (COMPLETIONS, json!({"prompt": "a", "n": 1000}), 400, "'n'"),
        // More than wait and run by default, however long one tries.
        (COMPLETIONS, json!({"prompt": "a", "n": 73}), 400, "73 texts; at most 72"),
        (COMPLETIONS, json!({"prompt": "a", "suffix": "b"}), 400, "'suffix'"),
        (COMPLETIONS, json!({"prompt": "a", "logit_bias": {"99999": 1}}), 400, "'logit_bias'"),
        (COMPLETIONS, json!({"prompt": [99999]}), 400, "no such token"),
        (COMPLETIONS, json!({"prompt": "a", "model": "gpt-4"}), 404, "gpt-4"),
        (COMPLETIONS, json!({"prompt": long}), 400, "the context has 256"),
        (COMPLETIONS, json!({"prompt": "a".repeat(5000)}), 413, "4000 bytes"),
        (COMPLETIONS, json!([1]), 400, "no JSON object"),
        ("/v1/embeddings", json!({}), 404, "/v1/embeddings"),
        ("/v1/models", json!({}), 405, "another method"),
    ] {
        let (found, answer) = server.post(path, &body);
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(found == status && message.contains(says), "{body}: {found} {answer}");
        assert!(answer["error"]["type"].is_string());
    }
    let text =
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(server.send(text).0, 415);
    // A grammar that is none: all texts of the request are refused, and none waits.
    let schema =
        json!({"type": "json_schema", "json_schema": {"schema": {"type": "string", "pattern": "("}}});
    let (status, answer) =
        server.post(COMPLETIONS, &json!({"prompt": "a", "n": 60, "response_format": schema}));
    assert_eq!(status, 400, "{answer}");
    server.wait_for(0, 0);
    assert_eq!(server.send(&post(COMPLETIONS, "{", "")).0, 400);
    assert_eq!(server.send(b"nonsense\r\n\r\n").0, 400);
    assert_eq!(server.get("/health").1["status"], "ok");
}

/// The site whose name the browser took for this machine's.
#[test]
fn pages_of_other_sites_are_refused_where_there_is_no_key() {
    let (open, locked) = (Server::start(&["--name", "a b/é"]), Server::start(&["--api-key", "secret"]));
    let body = json!({"prompt": "a", "max_tokens": 1}).to_string();
    for (origin, status) in [
        ("http://evil.example:8080", 403),
        ("http://localhost.evil.example", 403),
        ("null", 403),
        ("http://localhost:3000", 200),
        ("https://app.localhost", 200),
        ("http://127.0.0.1:8080", 200),
        ("http://[::1]:8080", 200),
    ] {
        let header = format!("Origin: {origin}\r\n");
        let (found, _, answer) = open.send(&post(COMPLETIONS, &body, &header));
        assert_eq!(found, status, "{origin}: {answer}");
        let with_key = format!("{header}Authorization: Bearer secret\r\n");
        assert_eq!(locked.send(&post(COMPLETIONS, &body, &with_key)).0, 200, "{origin}");
    }
    // Names in paths are as browsers and clients write them.
    assert_eq!(open.get("/v1/models/a%20b%2F%C3%A9").1["id"], "a b/é");
    assert_eq!(open.get("/v1/models/a%20b").0, 404);
}

/// Behind the end of a text a model that writes in any order may have written others.
#[test]
fn log_probabilities_are_those_of_the_text() {
    let dir = tempfile::tempdir().unwrap();
    let model = golden_with_words("mdlm-tiny/model.safetensors", dir.path());
    let server = Server::start(&["-m", &model]);
    let stop: Vec<String> = (1..9).map(|n| format!("w{n}")).collect();
    let wanted =
        json!({"prompt": "w30 w50", "max_tokens": 24, "n": 16, "logprobs": 1, "stop": stop, "seed": 1});
    let (status, answer) = server.post(COMPLETIONS, &wanted);
    assert_eq!(status, 200, "{answer}");
    let choices = answer["choices"].as_array().unwrap();
    assert!(choices.iter().any(|choice| choice["finish_reason"] == "stop"), "{answer}");
    let reported = choices.iter().map(|choice| choice["logprobs"]["tokens"].as_array().unwrap().len());
    assert_eq!(answer["usage"]["completion_tokens"], reported.sum::<usize>(), "{answer}");
}

#[test]
fn key_is_asked_for() {
    for server in [
        Server::start(&["--api-key", "secret", "--api-key", "other"]),
        Server::start_with(&[], &[("ESOLM_API_KEY", "secret")]),
    ] {
        let body = json!({"prompt": "a", "max_tokens": 1}).to_string();
        for (header, status) in [
            ("", 401),
            ("Authorization: Bearer secre\r\n", 401),
            ("Authorization: Bearer secretx\r\n", 401),
            ("Authorization: secret\r\n", 401),
            ("Authorization: Bearer secret\r\n", 200),
        ] {
            let (found, _, answer) = server.send(&post(COMPLETIONS, &body, header));
            assert_eq!(found, status, "{header}: {answer}");
        }
        assert_eq!(server.get("/health").0, 200);
        assert_eq!(server.get("/v1/models").0, 401);
    }
}

/// Long enough that it runs while others come. (The graph of other devices is slow enough on a CPU.)
fn slow(more: &[&str]) -> Server {
    Server::start_with(more, &[("ESOLM_DEVICE_GRAPH", "1")])
}

const LONG: &str = r#"{"prompt": "Once", "max_tokens": 250, "logit_bias": {"0": -100}}"#;

#[test]
fn client_that_leaves_gives_its_place_back_and_too_many_are_refused() {
    let server = slow(&["--parallel", "1", "--queue", "1"]);
    let leave = |body: &str| {
        let mut stream = TcpStream::connect(&server.address).unwrap();
        stream.write_all(&post(COMPLETIONS, body, "")).unwrap();
        stream
    };
    let streamed = LONG.replacen('{', r#"{"stream": true, "#, 1);
    for body in [LONG, &streamed] {
        let first = leave(body);
        server.wait_for(1, 0);
        let second = leave(body);
        server.wait_for(1, 1);
        // No more than that.
        let (status, answer) = server.post(COMPLETIONS, &json!({"prompt": "a"}));
        assert_eq!(status, 429, "{answer}");
        assert_eq!(answer["error"]["type"], "rate_limit_error");
        drop(second);
        server.wait_for(1, 0);
        drop(first);
        server.wait_for(0, 0);
    }
    assert_eq!(server.post(COMPLETIONS, &json!({"prompt": "a", "max_tokens": 1})).0, 200);
}

#[test]
fn answer_that_takes_too_long_is_given_up() {
    let server = slow(&["--timeout", "1", "--parallel", "1"]);
    let many = json!({"prompt": "Once", "max_tokens": 250, "n": 64, "logit_bias": {"0": -100}});
    let (status, answer) = server.post(COMPLETIONS, &many);
    assert_eq!(status, 504, "{answer}");
    server.wait_for(0, 0);
}

#[test]
fn signal_ends_it_once_what_runs_is_complete() {
    for name in ["-TERM", "-INT"] {
        let mut server = slow(&[]);
        let mut stream = TcpStream::connect(&server.address).unwrap();
        stream.write_all(&post(COMPLETIONS, &LONG.replace("250", "60"), "")).unwrap();
        server.wait_for(1, 0);
        server.signal(name);
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains(r#""completion_tokens":60"#),
            "{answer}"
        );
        assert_eq!(server.child.wait().unwrap().code(), Some(0));
        let mut said = String::new();
        server.lines.read_to_string(&mut said).unwrap();
        assert!(said.contains("ending"), "{said}");
    }
}

#[test]
fn many_requests_at_once_get_the_texts_that_they_get_alone() {
    let server = Server::start(&["--parallel", "4"]);
    let wanted = |seed: usize| json!({"prompt": "Once upon a time", "max_tokens": 20, "seed": seed});
    let text = |seed: usize| {
        let (status, answer) = server.post(COMPLETIONS, &wanted(seed));
        assert_eq!(status, 200, "{answer}");
        answer["choices"][0]["text"].as_str().unwrap().to_owned()
    };
    let alone: Vec<String> = (0..12).map(text).collect();
    let together: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..12).map(|seed| scope.spawn(move || text(seed))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(alone, together);
}
