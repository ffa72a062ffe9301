//! The body of an answer: all at once, or events as they come (server-sent events).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use serde::Serialize;
use tokio::sync::mpsc::UnboundedReceiver;

use super::answer::{Heading, Usage};
use super::held::Held;
use super::job::{Event, TokenReport};
use crate::output::JsonText;

/// What is sent.
pub enum AnswerBody {
    Whole(Option<Bytes>),
    Stream(Box<EventStream>),
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match &mut *self {
            Self::Whole(data) => data.take(),
            Self::Stream(stream) => ready!(stream.poll(context)),
        };
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    /// Of a whole answer the length is told before it.
    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(data) => SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64)),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// The events of a streamed answer. When it is dropped, as its client has left, the engine gives the places back.
pub struct EventStream {
    pub heading: Heading,
    pub events: UnboundedReceiver<(usize, Event)>,
    pub state: StreamState,
}

/// What has been sent.
pub struct StreamState {
    pub ready: VecDeque<Bytes>,
    /// Texts that are not complete, and texts for each prompt.
    pub left: usize,
    pub n: usize,
    pub log_probs: bool,
    /// Characters of each text's tokens that have been reported.
    pub offsets: Vec<usize>,
    pub usage: Usage,
    pub include_usage: bool,
    pub done: bool,
}

impl EventStream {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(data) = self.state.ready.pop_front() {
                return Poll::Ready(Some(data));
            }
            if self.state.done {
                return Poll::Ready(None);
            }
            match ready!(self.events.poll_recv(context)) {
                Some((choice, event)) => self.take(choice, event),
                // The engine has ended.
                None => self.state.done = true,
            }
        }
    }

    pub fn take(&mut self, choice: usize, event: Event) {
        let Self { heading, state, .. } = self;
        let with_usage = state.include_usage;
        match event {
            Event::Piece(piece) => {
                let Some(offset) = state.offsets.get_mut(choice) else { return };
                let chunk = data(&heading.piece(choice, &piece, state.log_probs, *offset, with_usage));
                *offset += piece.tokens.iter().map(TokenReport::characters).sum::<usize>();
                state.ready.push_back(chunk);
            }
            Event::End(end) => {
                state.usage.add(&end, choice.is_multiple_of(state.n));
                state.ready.push_back(data(&heading.end(choice, &end, with_usage)));
                state.left -= 1;
                if state.left == 0 {
                    if with_usage {
                        state.ready.push_back(data(&heading.usage(state.usage)));
                    }
                    state.ready.push_back(Bytes::from_static(b"data: [DONE]\n\n"));
                    state.done = true;
                    self.events.close();
                }
            }
            Event::Failed(failure) => {
                state.ready.push_back(data(&failure.body()));
                state.done = true;
                self.events.close();
            }
        }
    }
}

/// One event.
pub fn data(value: &impl Serialize) -> Bytes {
    Bytes::from(format!("data: {}\n\n", JsonText(value)))
}

/// What is sent at once, which is counted until it is.
pub fn counted(bytes: Vec<u8>, held: Held) -> Bytes {
    struct Counted(Vec<u8>, #[allow(dead_code)] Held);
    impl AsRef<[u8]> for Counted {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    Bytes::from_owner(Counted(bytes, held))
}
