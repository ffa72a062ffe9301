//! How much work and memory a template may take, and what went wrong in one.

use std::cell::Cell;

/// Why a template cannot be applied.
#[derive(Debug)]
pub(super) struct Fault {
    /// What is wrong.
    pub(super) what: String,
    /// The template's line, once it is known.
    pub(super) line: Option<usize>,
    /// Whether the template itself refuses the messages (`raise_exception`).
    pub(super) raised: bool,
}

pub(super) type Outcome<T> = Result<T, Fault>;

impl Fault {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), line: None, raised: false }
    }
}

/// A fault as a result.
pub(super) fn fault<T>(what: impl Into<String>) -> Outcome<T> {
    Err(Fault::new(what))
}

/// Work that a template may do with no messages at all, and how much more each message and each of their bytes allow. A
/// unit is one operation; 16 bytes of text, or one item of a list, cost as much.
const UNITS: u64 = 1 << 20;
const UNITS_PER_MESSAGE: u64 = 1 << 12;
const UNITS_PER_BYTE: u64 = 4;

/// What is left of the work. All that a template makes or walks over is paid for, so this bounds time and memory.
#[derive(Debug)]
pub(super) struct Budget {
    left: Cell<u64>,
}

impl Budget {
    /// For so many messages of so many bytes in all.
    pub(super) fn new(messages: usize, bytes: usize) -> Self {
        let more = UNITS_PER_MESSAGE.saturating_mul(messages as u64);
        let more = more.saturating_add(UNITS_PER_BYTE.saturating_mul(bytes as u64));
        Self { left: Cell::new(UNITS.saturating_add(more)) }
    }

    /// Pays for operations, or items of a list.
    pub(super) fn items(&self, count: usize) -> Outcome<()> {
        match self.left.get().checked_sub(1 + count as u64) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => {
                self.left.set(0);
                fault("it takes too much work for these messages")
            }
        }
    }

    /// Pays for bytes of text.
    pub(super) fn bytes(&self, count: usize) -> Outcome<()> {
        self.items(count / 16)
    }

    /// Pays for bytes that do not exist yet, of which there would be `count` times `each`.
    pub(super) fn product(&self, count: usize, each: usize) -> Outcome<()> {
        self.bytes(count.saturating_mul(each))
    }

    /// Pays for looking for a text of `part` bytes in one of `whole`. (It is linear in both.)
    pub(super) fn search(&self, whole: usize, part: usize) -> Outcome<()> {
        self.bytes(whole.saturating_add(part))
    }
}
