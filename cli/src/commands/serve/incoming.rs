//! The bodies of requests: one of a length that may be, in time, and not more at once than memory is meant for.

use std::ops::Deref;
use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};

use super::failure::Failure;
use super::held::{Held, HeldBytes};

/// What each body may take whatever others do, so that small requests are answered beside many large ones.
const FREE: usize = 1 << 14;

/// What bodies may take.
pub struct Bodies {
    /// Bytes of one.
    pub longest: usize,
    /// Bytes of all at once.
    pub most: usize,
    /// How long a client may take to send one.
    pub patience: Duration,
    pub held: HeldBytes,
}

/// A body, whose bytes are counted while it is there.
pub struct ReceivedBody {
    bytes: Vec<u8>,
    held: Held,
}

impl Deref for ReceivedBody {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Bodies {
    /// The body of a request.
    pub async fn receive(&self, request: Request<Incoming>) -> Result<ReceivedBody, Failure> {
        // A browser sends other types from any page, without asking.
        let is_json = |value: &HeaderValue| {
            let kind = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
            kind.trim().eq_ignore_ascii_case("application/json")
        };
        if !request.headers().get(CONTENT_TYPE).is_some_and(is_json) {
            return Err(Failure::content_type());
        }
        let length =
            request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if length.is_some_and(|length: u64| length > self.longest as u64) {
            return Err(Failure::too_large(self.longest));
        }
        let all = self.collect(request.into_body());
        tokio::time::timeout(self.patience, all).await.map_err(|_| Failure::slow_body())?
    }

    /// All that comes. Clients that have left are noticed once what they sent has been read, so that many bodies may lie here
    /// before any of them is worked on.
    async fn collect(&self, body: Incoming) -> Result<ReceivedBody, Failure> {
        let mut body = Limited::new(body, self.longest);
        let mut received = Some(ReceivedBody { bytes: Vec::new(), held: self.held.hold(0) });
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| match error.is::<LengthLimitError>() {
                true => Failure::too_large(self.longest),
                false => Failure::wrong(format!("the body is not complete: {error}")),
            })?;
            let Ok(data) = frame.into_data() else { continue };
            // What is refused is read all the same: a client that still sends would not get the answer.
            received = received.and_then(|body| self.longer(body, &data));
        }
        received.ok_or_else(Failure::too_many_bodies)
    }

    /// A body and what came next, if there is room for it.
    fn longer(&self, mut body: ReceivedBody, data: &[u8]) -> Option<ReceivedBody> {
        body.held.join(self.held.hold(data.len()));
        let has_room = body.bytes.len() + data.len() <= FREE || self.held.bytes() <= self.most;
        if !has_room || body.bytes.try_reserve(data.len()).is_err() {
            return None;
        }
        body.bytes.extend_from_slice(data);
        Some(body)
    }
}
