//! `esolm serve`, spoken to in plain HTTP. (`make test-serve` speaks to it with OpenAI's own client.)

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

mod answers;
mod many;
mod phases;
mod sampling;
mod variants;

/// A server of the built-in model, which ends with this.
pub struct Server {
    pub child: Child,
    pub address: String,
    /// What it says.
    pub lines: BufReader<std::process::ChildStderr>,
}

impl Server {
    pub fn start(more: &[&str]) -> Self {
        Self::start_with(more, &[])
    }

    pub fn start_with(more: &[&str], environment: &[(&str, &str)]) -> Self {
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
        // What it says of the model may come first.
        let mut said = String::new();
        while !said.contains("http://") {
            assert!(lines.read_line(&mut said).unwrap() > 0, "{said}");
        }
        let address = said.split("http://").nth(1).unwrap();
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

    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, _, body) = self.send(&post(path, &body.to_string(), ""));
        (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{body}")))
    }

    /// The events of a streamed answer.
    pub fn stream(&self, path: &str, body: &Value) -> Vec<Value> {
        let (status, head, body) = self.send(&post(path, &body.to_string(), ""));
        assert!(status == 200 && head.contains("content-type: text/event-stream"), "{head}\n{body}");
        let lines = body.lines().filter_map(|line| line.strip_prefix("data: "));
        let (last, events): (Vec<_>, Vec<_>) = lines.partition(|line| *line == "[DONE]");
        assert_eq!(last.len(), 1, "{body}");
        events.iter().map(|event| serde_json::from_str(event).unwrap()).collect()
    }

    pub fn signal(&self, name: &str) {
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
