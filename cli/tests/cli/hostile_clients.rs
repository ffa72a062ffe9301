//! `esolm serve` and clients that mean it harm: slow ones, and bodies made to take time or memory.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::serve::{CHAT, COMPLETIONS, Server, post};

/// What comes of a client that sends `first` and then a byte now and then: its answer, once it is dropped.
fn dripped(server: &Server, first: &[u8]) -> String {
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.write_all(first).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let (started, mut answer) = (Instant::now(), Vec::new());
    loop {
        assert!(started.elapsed() < Duration::from_secs(20), "it is still listened to");
        let _ = stream.write_all(b"a");
        let mut bytes = [0; 4096];
        match stream.read(&mut bytes) {
            Ok(0) => break,
            Ok(count) => answer.extend(&bytes[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(_) => (),
        }
    }
    String::from_utf8(answer).unwrap()
}

#[test]
fn clients_that_send_or_read_a_byte_now_and_then_are_dropped() {
    let server = Server::start(&["--client-timeout", "1", "--template", "chatml"]);
    // Nothing at all, some of a head, a head without an end, and one that comes after an answer.
    for first in [
        "",
        "POST /v1/comp",
        "GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        "GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        let answer = dripped(&server, first.as_bytes());
        assert_eq!(answer.contains("200 OK"), first.ends_with("\r\n\r\n"), "{first}: {answer}");
    }
    let mut body = post(COMPLETIONS, &" ".repeat(3000), "");
    body.truncate(body.len() - 2990);
    assert!(dripped(&server, &body).starts_with("HTTP/1.1 408"));
    // One that asks for texts and reads none of them: more than the system keeps on the way.
    let wanted = json!({"prompt": "Once", "max_tokens": 250, "n": 8, "stream": true, "logprobs": 20, "logit_bias": {"0": -100}});
    let request = String::from_utf8(post(COMPLETIONS, &wanted.to_string(), "")).unwrap();
    let many = request.replace("Connection: close\r\n", "").repeat(40);
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let _ = stream.write_all(many.as_bytes());
    let started = Instant::now();
    // Once it is dropped, writing to it fails.
    while !matches!(stream.write(b" "), Err(error) if error.kind() != std::io::ErrorKind::WouldBlock) {
        assert!(started.elapsed() < Duration::from_secs(60), "it is still written to");
        std::thread::sleep(Duration::from_millis(20));
    }
    server.wait_for(0, 0);
}

#[test]
fn hostile_bodies_are_refused_in_little_time() {
    let server = Server::start(&["--template", "chatml"]);
    let deep = "[".repeat(500_000);
    let nested = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    let objects = format!("[{}{{}}]", "{\"\":0},".repeat(100_000));
    let prompts = format!("[{}\"a\"]", "\"a\",".repeat(200_000));
    let tokens = format!("[{}1]", "1,".repeat(500_000));
    let lone = r#"{"prompt": "\ud800"}"#;
    let bodies = [
        ("", 400),
        ("\0", 400),
        ("\u{feff}{}", 400),
        (lone, 400),
        (r#"{"prompt": "a", "max_tokens": 1e400}"#, 400),
        (r#"{"prompt": "a", "seed": 123456789012345678901234567890}"#, 400),
        (r#"{"prompt": "a", "prompt": 7}"#, 400),
        (r#"{"prompt": [-1]}"#, 400),
        (r#"{"prompt": [4294967296]}"#, 400),
        (r#"{"prompt": "a", "temperature": 1e39}"#, 400),
        (r#"{"prompt": "a", "model": {"a": 1}}"#, 400),
        (
            r#"{"prompt": "a", "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": 7}}}}"#,
            400,
        ),
        (r#"{"messages": [{"role": "user", "content": [[[]]]}]}"#, 400),
        (&deep, 400),
        (&format!(r#"{{"prompt": {nested}}}"#), 400),
        (&format!(r#"{{"prompt": {objects}}}"#), 400),
        (&format!(r#"{{"prompt": {prompts}}}"#), 400),
        (&format!(r#"{{"prompt": {tokens}}}"#), 400),
        (&format!(r#"{{"prompt": "{}"}}"#, "a".repeat(1_000_000)), 400),
        (&format!(r#"{{"prompt": "a", "stop": {prompts}}}"#), 400),
        (
            &format!(
                r#"{{"prompt": "a", "response_format": {{"type": "json_schema", "json_schema": {{"schema": {nested}}}}}}}"#
            ),
            400,
        ),
        (
            &format!(
                r#"{{"messages": [{}{{"role": "user"}}]}}"#,
                r#"{"role": "", "content": ""},"#.repeat(30_000)
            ),
            400,
        ),
    ];
    for (body, status) in bodies {
        let started = Instant::now();
        let shown: String = body.chars().take(100).collect();
        let paths = if body.contains("messages") { &[CHAT][..] } else { &[COMPLETIONS, CHAT] };
        for path in paths {
            let (found, _, answer) = server.send(&post(path, body, ""));
            assert_eq!(found, status, "{shown}: {answer}");
            assert!(answer.len() < 2000 && answer.contains("invalid_request_error"), "{shown}: {answer}");
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{shown}: {:?}", started.elapsed());
    }
    for head in [
        format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000)),
        format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(1000)),
        "GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n".into(),
        "POST /v1/completions HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na".into(),
        "POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n".into(),
    ] {
        let (status, _, _) = server.send(head.as_bytes());
        assert!((400..500).contains(&status), "{status}: {:.80}", head);
    }
    // It lives, and its memory is that of before.
    assert_eq!(server.get("/health").1["running"], 0);
    let peak = peak_kib(&server);
    assert!(peak < 1 << 20, "{peak} KiB");
}

/// The most memory that a server has had.
fn peak_kib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches("kB").trim().parse().unwrap()
}

/// A request for many texts with all that may be reported of their tokens.
fn many_reports(n: usize, more: &str) -> Vec<u8> {
    let wanted = format!(
        r#"{{"messages": [{{"role": "user", "content": "Hi"}}], "n": {n}, "logprobs": true, "top_logprobs": 20,
        "max_tokens": 200, "logit_bias": {{"0": -100}} {more}}}"#
    );
    post(CHAT, &wanted, "")
}

#[test]
fn an_answer_takes_little_more_memory_than_its_text() {
    let server = Server::start(&["--template", "chatml"]);
    server.get("/health");
    let before = peak_kib(&server);
    let (status, _, answer) = server.send(&many_reports(16, ""));
    assert_eq!(status, 200, "{answer:.200}");
    let text = answer.len() as u64 >> 10;
    let more = peak_kib(&server) - before;
    assert!(text > 2 << 10, "{text} KiB of text");
    assert!(more < 10 * text, "{more} KiB for {text} KiB of text");
}

#[test]
fn answers_that_nobody_takes_are_bounded() {
    let server = Server::start(&["--template", "chatml", "--max-unread", "1000000"]);
    // What one client leaves is more than that, and than the system keeps on the way.
    let mut left: Vec<TcpStream> = Vec::new();
    for more in ["", r#", "stream": true"#] {
        let mut stream = TcpStream::connect(&server.address).unwrap();
        stream.write_all(&many_reports(64, more)).unwrap();
        left.push(stream);
        server.wait_until(|health| {
            health["running"].as_u64() > Some(0) || health["unread"].as_u64() > Some(1_000_000)
        });
        server.wait_for(0, 0);
        let (_, health) = server.get("/health");
        assert!(health["unread"].as_u64() > Some(1_000_000), "{more}: {health}");
        let (status, _, answer) = server.send(&post(COMPLETIONS, r#"{"prompt": "a", "max_tokens": 1}"#, ""));
        assert!(status == 429 && answer.contains("not been taken"), "{more}: {answer}");
        // Once it is gone, so is what it left.
        left.clear();
        server.wait_until(|health| health["unread"] == 0);
        let (status, _, answer) = server.send(&post(COMPLETIONS, r#"{"prompt": "a", "max_tokens": 1}"#, ""));
        assert_eq!(status, 200, "{more}: {answer}");
    }
}

/// A request of 1 MB, whose prompt is longer than the context.
fn long_request() -> Vec<u8> {
    post(COMPLETIONS, &json!({"prompt": "word ".repeat(200_000)}).to_string(), "")
}

fn assert_too_long((status, _, answer): &(u16, String, String)) {
    assert!(*status == 400 && answer.contains("the context has 256"), "{status}: {answer}");
}

#[test]
fn bodies_of_clients_that_have_left_are_not_kept() {
    let server = Server::start(&[]);
    let request = long_request();
    // Threads that read keep some of the memory that a long one took; which of them reads is left to chance.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..6 {
                    assert_too_long(&server.send(&request));
                }
            });
        }
    });
    let before = peak_kib(&server);
    // The system takes their bodies faster than the server does, so that many are read side by side.
    for _ in 0..200 {
        let mut stream = TcpStream::connect(&server.address).unwrap();
        stream.write_all(&request).unwrap();
    }
    let (status, _, answer) = server.send(&post(COMPLETIONS, r#"{"prompt": "a", "max_tokens": 1}"#, ""));
    assert_eq!(status, 200, "{answer}");
    // They have 200 MB in all.
    let more = peak_kib(&server) - before;
    assert!(more < 100 << 10, "{more} KiB");
}

#[test]
fn a_short_request_does_not_wait_for_many_long_ones() {
    let server = Server::start(&[]);
    let long = long_request();
    let short = post(COMPLETIONS, r#"{"prompt": "a", "max_tokens": 1}"#, "");
    std::thread::scope(|scope| {
        let long: Vec<_> = (0..12).map(|_| scope.spawn(|| server.send(&long))).collect();
        server.wait_until(|health| health["bodies"].as_u64() > Some(8_000_000));
        let (status, _, answer) = server.send(&short);
        assert_eq!(status, 200, "{answer}");
        // Most of them still wait: they are read one at a time.
        let (_, health) = server.get("/health");
        assert!(health["bodies"].as_u64() > Some(4_000_000), "{health}");
        for request in long {
            assert_too_long(&request.join().unwrap());
        }
    });
}

#[test]
fn bodies_that_are_never_complete_are_bounded() {
    let body = json!({"prompt": "word ".repeat(180_000)}).to_string();
    let large = post(COMPLETIONS, &body, "");
    // All of each but its last byte. Three have room, and nothing beside them.
    let most = (3 * (body.len() - 1)).to_string();
    let server = Server::start(&["--max-body", "1000000", "--max-bodies", &most]);
    let mut left: Vec<TcpStream> = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(&server.address).unwrap();
        stream.write_all(&large[..large.len() - 1]).unwrap();
        left.push(stream);
    }
    server.wait_until(|health| health["bodies"] == 3 * (body.len() - 1));
    let (status, _, answer) = server.send(&large);
    assert!(status == 429 && answer.contains("try again later"), "{status}: {answer}");
    // A small one is answered beside them.
    let small = post(COMPLETIONS, r#"{"prompt": "a", "max_tokens": 1}"#, "");
    let (status, _, answer) = server.send(&small);
    assert_eq!(status, 200, "{answer}");
    // What they sent goes with them.
    left.clear();
    server.wait_until(|health| health["bodies"] == 0);
    assert_too_long(&server.send(&large));
}
