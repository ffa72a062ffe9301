//! Memory for a thread to start.

use std::io;

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
    memmap2::MmapOptions::new().len(stack.unwrap_or(STACK) + BESIDE).map_anon().map(drop)
}
