//! Whether there is memory for what cannot be refused any: the start of a thread, and another's library.

use std::io;
use std::thread::{Builder, Scope, ScopedJoinHandle};

use super::vector::no_room;
use crate::error::Result;

/// A thread's stack unless its size is given, in bytes.
const STACK: usize = 2 << 20;
/// What a thread takes beside its stack before it runs anything. Rust's library ends the process where it cannot have that, and
/// with `RUST_BACKTRACE=1` waits for ever in telling where that was.
const BESIDE: usize = 512 << 10;

/// Whether there is memory for a thread with a stack of so many bytes, or of the usual size, to start now. Between this and the
/// start another thread may take it.
///
/// # Errors
/// Those of the system.
pub(crate) fn room_for_thread(stack: Option<usize>) -> io::Result<()> {
    look_for(stack.unwrap_or(STACK) + BESIDE)
}

/// Starts a thread of a scope, with a stack of so many bytes or of the usual size, if [`room_for_thread`] finds memory for it.
///
/// # Errors
/// Those of the system.
pub(crate) fn start_scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    stack: Option<usize>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    room_for_thread(stack)?;
    stack.map_or_else(Builder::new, |bytes| Builder::new().stack_size(bytes)).spawn_scoped(scope, work)
}

/// Whether there are so many bytes for a library that ends the process where it gets none. Another thread may take them.
///
/// # Errors
/// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
pub(crate) fn room_for_library(bytes: usize) -> Result<()> {
    look_for(bytes).map_err(|_| no_room(bytes))
}

/// Has the system reserve memory, and gives it back untouched.
fn look_for(bytes: usize) -> io::Result<()> {
    memmap2::MmapOptions::new().len(bytes).map_anon().map(drop)
}
