//! A connection whose client has to take what it asked for: one that does not read would keep its place for ever.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

/// A connection on which a write fails that makes no progress for some time, or if what is to be written has not been for a
/// longer time: a client might take a little now and then. (A head and a body have a limit of their own.)
pub struct Patient {
    inner: TokioIo<TcpStream>,
    patience: Duration,
    in_all: Duration,
    /// When to give up, while a write waits.
    end: Pin<Box<Sleep>>,
    waits: bool,
    /// Since when there is something that the client has not taken.
    behind: Option<Instant>,
}

impl Patient {
    pub fn new(stream: TcpStream, [patience, in_all]: [Duration; 2]) -> Self {
        let (inner, end) = (TokioIo::new(stream), Box::pin(sleep(patience)));
        Self { inner, patience, in_all, end, waits: false, behind: None }
    }

    /// The result of a write, or that it waits for too long.
    fn limited<T>(&mut self, context: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.waits = false;
            return result;
        }
        if !self.waits {
            self.waits = true;
            let now = Instant::now();
            let behind = *self.behind.get_or_insert(now);
            self.end.as_mut().reset((now + self.patience).min(behind + self.in_all));
        }
        self.end.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Read for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl Write for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.limited(context, result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // All that there was has been written.
        self.behind = None;
        let result = Pin::new(&mut self.inner).poll_flush(context);
        self.limited(context, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_shutdown(context);
        self.limited(context, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(context, parts);
        self.limited(context, result)
    }
}
