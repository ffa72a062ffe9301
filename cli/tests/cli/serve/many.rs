//! Clients at once, those that leave, and the end of the server.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;

use super::{COMPLETIONS, Server, post};

/// Long enough that it runs while others come.
const LONG: &str = r#"{"prompt": "Once", "max_tokens": 250, "logit_bias": {"0": -100}}"#;

#[test]
fn client_that_leaves_gives_its_place_back_and_too_many_are_refused() {
    let server = Server::start(&["--parallel", "1", "--queue", "1"]);
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
    let server = Server::start(&["--timeout", "1", "--parallel", "1"]);
    let many = json!({"prompt": "Once", "max_tokens": 250, "n": 64, "logit_bias": {"0": -100}});
    let (status, answer) = server.post(COMPLETIONS, &many);
    assert_eq!(status, 504, "{answer}");
    server.wait_for(0, 0);
}

#[test]
fn signal_ends_it_once_what_runs_is_complete() {
    for name in ["-TERM", "-INT"] {
        let mut server = Server::start(&[]);
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
