//! A small HTTP server on loopback. It answers one request per connection and ends by itself.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longer than any test takes.
const LIFETIME: Duration = Duration::from_secs(300);

/// A request, and how many bytes of body were sent in answer.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub sent: usize,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The first byte that is asked for.
    pub fn start(&self) -> usize {
        let range = self.header("range").and_then(|range| range.strip_prefix("bytes="));
        range.map_or(0, |range| range.split('-').next().unwrap().parse().unwrap())
    }
}

/// What happens in the middle of a body.
#[derive(Clone, Copy, Default, PartialEq)]
pub enum Interruption {
    #[default]
    None,
    /// The connection is closed after so many bytes.
    Cut(usize),
    /// Nothing comes after so many bytes, until the client goes away.
    Stall(usize),
    /// After so many bytes of head and body a byte comes each 50 ms, until the client goes away.
    Drip(usize),
}

#[derive(Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    pub interruption: Interruption,
}

type Handler = dyn Fn(&Request) -> Answer + Send + Sync;

pub struct Server {
    pub port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (requests, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (log, stopped) = (requests.clone(), stop.clone());
        let handler: Arc<Handler> = Arc::new(handler);
        let thread = std::thread::spawn(move || {
            let end = Instant::now() + LIFETIME;
            while Instant::now() < end && !stopped.load(Ordering::Relaxed) {
                if let Ok((stream, _)) = listener.accept() {
                    let (handler, log, stopped) = (handler.clone(), log.clone(), stopped.clone());
                    std::thread::spawn(move || serve(&stream, &*handler, &log, &stopped));
                } else {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        });
        Self { port, requests, stop, thread: Some(thread) }
    }

    /// What was asked since the last call.
    pub fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn serve(mut stream: &TcpStream, handler: &Handler, log: &Mutex<Vec<Request>>, stop: &AtomicBool) {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut lines = BufReader::new(stream.take(1 << 16)).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap(), words.next().unwrap_or_default());
    let headers = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned())))
        .collect();
    let mut request = Request { method, path, headers, sent: 0 };
    let answer = handler(&request);
    let mut head = format!("HTTP/1.1 {} Answer\r\nConnection: close\r\n", answer.status);
    if !answer.headers.iter().any(|(name, _)| *name == "Content-Length") {
        head += &format!("Content-Length: {}\r\n", answer.body.len());
    }
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let body: &[u8] = if request.method == "HEAD" { &[] } else { &answer.body };
    let body = match answer.interruption {
        Interruption::Cut(count) | Interruption::Stall(count) => &body[..count.min(body.len())],
        Interruption::None | Interruption::Drip(_) => body,
    };
    request.sent = body.len();
    // Before the answer: who has it finds the request in the log.
    log.lock().unwrap().push(request);
    let mut rest = body;
    let bytes;
    if let Interruption::Drip(count) = answer.interruption {
        bytes = [format!("{head}\r\n").as_bytes(), body].concat();
        let (first, slow) = bytes.split_at(count.min(bytes.len()));
        let _ = stream.write_all(first);
        rest = &[];
        for byte in slow.chunks(1) {
            std::thread::sleep(Duration::from_millis(50));
            if stream.write_all(byte).is_err() || stop.load(Ordering::Relaxed) {
                return;
            }
        }
    } else {
        // The client may have gone away.
        let _ = stream.write_all(format!("{head}\r\n").as_bytes());
    }
    let _ = stream.write_all(rest);
    if let Interruption::Stall(_) = answer.interruption {
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        for _ in 0..600 {
            // Reading ends when the client goes away.
            let gone = matches!(stream.read(&mut [0]), Ok(0));
            if gone || stop.load(Ordering::Relaxed) {
                break;
            }
        }
    }
}
