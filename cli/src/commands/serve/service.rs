//! What each path of the server does.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use esolm::Model;
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::unbounded_channel;

use super::answer::{Choice, Heading, Usage};
use super::body::{AnswerBody, EventStream, StreamState, counted, data};
use super::engine::Engine;
use super::failure::Failure;
use super::incoming::Bodies;
use super::job::{Event, Job};
use super::origin::Page;
use super::request::Request;
use crate::allocation::{collected, copy_of, formatted};
use crate::chat_format::ChatFormat;
use crate::output::JsonText;

/// Most log-probabilities of tokens that an answer reports. Each takes some sixty bytes, and as many again as JSON.
const MOST_REPORTS: usize = 1 << 20;

/// Requests that are read at once.
pub const READERS: usize = 4;

/// A request takes the place of a reader for each of so many bytes that it begins: while it is read, its tokens and JSON take a
/// hundred times as many.
const BYTES_OF_A_READER: usize = 1 << 18;

/// What requests may take.
pub struct Limits {
    /// The context's length.
    pub length: usize,
    pub timeout: Duration,
    /// How long a client may take to send a head, and take nothing of an answer.
    pub patience: Duration,
}

/// The server's state, of which there is one.
pub struct Service {
    engine: Engine,
    shared: Arc<Shared>,
    keys: Vec<String>,
    limits: Limits,
    bodies: Bodies,
    created: u64,
    requests: AtomicU64,
    readers: Arc<Semaphore>,
    /// One request that takes the place of several readers waits for them, so that others are not behind many of these.
    long: Semaphore,
}

/// What reading a request takes.
struct Shared {
    model: Model,
    format: Option<ChatFormat>,
    name: String,
}

impl Service {
    pub fn new(
        engine: Engine,
        model: Model,
        format: Option<ChatFormat>,
        name: String,
        keys: Vec<String>,
        limits: Limits,
        bodies: Bodies,
    ) -> Self {
        let shared = Arc::new(Shared { model, format, name });
        let (requests, readers) = (AtomicU64::new(0), Arc::new(Semaphore::new(READERS)));
        Self {
            engine,
            shared,
            keys,
            limits,
            bodies,
            created: seconds(),
            requests,
            readers,
            long: Semaphore::new(1),
        }
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// How long a client may take without doing anything, and in all.
    pub fn patience(&self) -> [Duration; 2] {
        [self.limits.patience, self.limits.timeout]
    }

    /// Answers a request, whatever it is.
    pub async fn answer(
        &self,
        request: hyper::Request<Incoming>,
    ) -> Result<Response<AnswerBody>, Infallible> {
        let page = Page::of(request.headers(), !self.keys.is_empty());
        let answer = match page.is_asking_first(&request) {
            // (It gives no key yet.)
            true => page.check().map(|()| response(StatusCode::NO_CONTENT, Bytes::new())),
            false => self.route(request, &page).await,
        };
        let mut answer = answer.unwrap_or_else(|failure| json_response(failure.status, &failure.body()));
        page.permit(answer.headers_mut());
        Ok(answer)
    }

    async fn route(
        &self,
        request: hyper::Request<Incoming>,
        page: &Page,
    ) -> Result<Response<AnswerBody>, Failure> {
        let path = request.uri().path().trim_end_matches('/').to_owned();
        let path = path.as_str();
        if path == "/health" {
            let (running, waiting) = self.engine.load();
            let (bodies, unread) = (self.bodies.held.bytes(), self.engine.unread.bytes());
            let health = json!({
                "status": "ok", "running": running, "waiting": waiting, "bodies": bodies, "unread": unread
            });
            return expect(&request, &Method::GET).map(|()| json_response(StatusCode::OK, &health));
        }
        self.check_key(request.headers())?;
        if path == "/v1/models" {
            expect(&request, &Method::GET)?;
            let list = json!({ "object": "list", "data": [self.model_object()] });
            return Ok(json_response(StatusCode::OK, &list));
        }
        if let Some(name) = path.strip_prefix("/v1/models/") {
            expect(&request, &Method::GET)?;
            return match percent_decoded(name) == self.name().as_bytes() {
                true => Ok(json_response(StatusCode::OK, &self.model_object())),
                false => Err(Failure::other_model(name, self.name())),
            };
        }
        let is_chat = match path {
            "/v1/completions" => false,
            "/v1/chat/completions" => true,
            _ => return Err(Failure::not_found(&format!("path '{path}'"))),
        };
        expect(&request, &Method::POST)?;
        page.check()?;
        let deadline = Instant::now() + self.limits.timeout;
        let body = self.bodies.receive(request).await?;
        let shared = self.shared.clone();
        // A request waits here and not as a task, which would stay when its client leaves.
        let places = (body.len() / BYTES_OF_A_READER + 1).min(READERS);
        let reader = async {
            let _turn = if places > 1 { Some(self.long.acquire().await?) } else { None };
            self.readers.clone().acquire_many_owned(places as u32).await
        };
        let reader = tokio::time::timeout_at(deadline.into(), reader).await;
        let reader = reader.map_err(|_| Failure::out_of_time())?.map_err(|_| Failure::ending())?;
        // Tokenizing a long prompt takes its time.
        let read = tokio::task::spawn_blocking(move || {
            let _reader = reader;
            let Shared { model, format, name } = &*shared;
            match is_chat {
                true => Request::chat(&body, model, name, format.as_ref()),
                false => Request::completion(&body, model, name),
            }
        });
        let request = read.await.map_err(|_| Failure::ending())??;
        self.write(request, deadline).await
    }

    fn model_object(&self) -> Value {
        json!({ "id": self.name(), "object": "model", "created": self.created, "owned_by": "esolm" })
    }

    /// Compares the key that is given, in a time that does not depend on how much of it is right.
    fn check_key(&self, headers: &HeaderMap) -> Result<(), Failure> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default().as_bytes();
        let is_same = |key: &[u8]| {
            let differing = key.iter().zip(given).fold(0, |all, (a, b)| all | (a ^ b));
            key.len() == given.len() && differing == 0
        };
        let found = self.keys.iter().fold(false, |found, key| found | is_same(key.as_bytes()));
        if found { Ok(()) } else { Err(Failure::unauthorized()) }
    }

    /// Has the texts of a request written.
    async fn write(&self, request: Request, deadline: Instant) -> Result<Response<AnswerBody>, Failure> {
        let Request { prompts, n, wanted, stream, include_usage, is_chat } = request;
        // Of a gap all has to fit; behind a prompt, one token.
        let behind =
            wanted.suffix.as_ref().map_or(1, |suffix| wanted.max_tokens.saturating_add(suffix.tokens.len()));
        let most = self.limits.length;
        if let Some(prompt) = prompts.iter().find(|prompt| prompt.len().saturating_add(behind) > most) {
            return Err(match &wanted.suffix {
                Some(suffix) => {
                    Failure::too_long_gap(prompt.len() + suffix.tokens.len(), wanted.max_tokens, most)
                }
                None => Failure::too_long(prompt.len(), most),
            });
        }
        if let Some(top) = wanted.log_probs {
            let limit = if wanted.max_tokens == 0 { usize::MAX } else { wanted.max_tokens };
            let room =
                prompts.iter().map(|prompt| limit.min(self.limits.length.saturating_sub(prompt.len())));
            let tokens = room.sum::<usize>().saturating_mul(n);
            if tokens.saturating_mul(1 + top) > MOST_REPORTS {
                return Err(Failure::parameter(
                    "logprobs",
                    format!(
                        "with {top} other tokens for each of up to {tokens}: an answer has at most {MOST_REPORTS} \
                         log-probabilities; ask for fewer texts, 'max_tokens' or 'top_logprobs'"
                    ),
                ));
            }
        }
        let heading = self.heading(is_chat);
        let log_probs = wanted.log_probs.is_some();
        let (events, mut incoming) = unbounded_channel();
        let count = prompts.len() * n;
        let wanted = Arc::new(wanted);
        let job = |(choice, prompt): (usize, &Vec<u32>)| {
            Ok(Job {
                choice,
                prompt: copy_of(prompt)?,
                wanted: wanted.clone(),
                // Each text has random numbers of its own.
                seed: wanted.seed.wrapping_add(choice as u64),
                deadline,
                events: events.clone(),
            })
        };
        let each = prompts.iter().flat_map(|prompt| std::iter::repeat_n(prompt, n));
        self.engine.submit(collected(each.enumerate().map(job))?)?;
        drop(events);
        if stream {
            // What is refused at once is refused as a whole.
            let first = incoming.recv().await.ok_or_else(Failure::ending)?;
            if let (_, Event::Failed(failure)) = first {
                return Err(failure);
            }
            let beginnings = (0..count).filter_map(|index| heading.beginning(index, include_usage));
            let ready: VecDeque<Bytes> = beginnings.map(|chunk| data(&chunk)).collect();
            let offsets = vec![0; count];
            let usage = Usage::default();
            let state =
                StreamState { ready, left: count, n, log_probs, offsets, usage, include_usage, done: false };
            let mut stream = EventStream { heading, events: incoming, state };
            stream.take(first.0, first.1);
            return Ok(stream_response(stream));
        }
        let mut choices: Vec<Choice> = (0..count).map(|_| Choice::default()).collect();
        let mut left = count;
        while left > 0 {
            let (choice, event) = incoming.recv().await.ok_or_else(Failure::ending)?;
            let Some(choice) = choices.get_mut(choice) else { continue };
            match event {
                Event::Piece(piece) => choice.push(piece)?,
                Event::End(end) => {
                    choice.end(end);
                    left -= 1;
                }
                Event::Failed(failure) => return Err(failure),
            }
        }
        let answer = formatted(JsonText(&heading.whole(&choices, n, log_probs)))?.into_bytes();
        let held = self.engine.unread.hold(answer.len());
        Ok(response(StatusCode::OK, counted(answer, held)))
    }

    fn heading(&self, is_chat: bool) -> Heading {
        let created = seconds();
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let prefix = if is_chat { "chatcmpl" } else { "cmpl" };
        let id = format!("{prefix}-{:x}-{number:x}", self.created);
        Heading { id, created, model: self.name().to_owned(), is_chat }
    }
}

/// Seconds since 1970.
fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// The bytes that a part of a path stands for: `%20` is a blank.
fn percent_decoded(path: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::with_capacity(path.len()), path.as_bytes());
    while let Some((&first, behind)) = rest.split_first() {
        let digits = behind.get(..2).filter(|_| first == b'%').and_then(|digits| str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(first));
        rest = if byte.is_some() { behind.get(2..).unwrap_or_default() } else { behind };
    }
    bytes
}

fn expect(request: &hyper::Request<Incoming>, method: &Method) -> Result<(), Failure> {
    if request.method() == method { Ok(()) } else { Err(Failure::method()) }
}

fn json_response(status: StatusCode, value: &Value) -> Response<AnswerBody> {
    response(status, Bytes::from(value.to_string()))
}

fn response(status: StatusCode, json: Bytes) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::Whole(Some(json)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn stream_response(stream: EventStream) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::Stream(Box::new(stream)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
