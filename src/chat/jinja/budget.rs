//! How much work and memory a template may take, and what went wrong in one.

use std::cell::Cell;
use std::fmt::Display;

use crate::error::Error;
use crate::memory::append;

/// Why a template cannot be applied.
#[derive(Debug)]
pub(super) enum Fault {
    /// Something is wrong, in a line of the template once it is known.
    Wrong { what: String, line: Option<usize> },
    /// The template itself refuses the messages (`raise_exception`).
    Raised(String),
    /// There is no memory.
    Memory(Error),
}

pub(super) type Outcome<T> = Result<T, Fault>;

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Memory(error)
    }
}

impl Fault {
    pub(super) fn new(what: impl Display) -> Self {
        let mut text = String::new();
        append(&mut text, what).map_or_else(Self::Memory, |()| Self::Wrong { what: text, line: None })
    }

    /// At a line, unless it has one.
    pub(super) fn at(self, at: impl Into<usize>) -> Self {
        match self {
            Self::Wrong { what, line: None } => Self::Wrong { what, line: Some(at.into()) },
            other => other,
        }
    }
}

/// A fault as a result.
pub(super) fn fault<T>(what: impl Display) -> Outcome<T> {
    Err(Fault::new(what))
}

/// Work that a template may do with no messages at all, and how much more each message and each of their bytes allow. A
/// unit is one operation; 16 bytes of text, or one item of a list, cost as much.
const UNITS: u64 = 1 << 20;
const UNITS_PER_MESSAGE: u64 = 1 << 12;
const UNITS_PER_BYTE: u64 = 4;

/// Most that the messages allow by their number. (Known templates take 130 to 300 units for each that is short.)
const MOST_FOR_MESSAGES: u64 = 1 << 22;
/// Most memory of what a template has made and keeps: so much, and so much more for each byte of the messages.
const KEPT: usize = 64 << 20;
const KEPT_PER_BYTE: usize = 32;

/// What is left of the work, and of the memory. All that a template makes or walks over is paid for, so this bounds both.
#[derive(Debug)]
pub(super) struct Budget {
    left: Cell<u64>,
    /// Bytes that may still be kept.
    room: Cell<usize>,
}

impl Budget {
    /// For so many messages of so many bytes in all.
    pub(super) fn new(messages: usize, bytes: usize) -> Self {
        let more = UNITS_PER_MESSAGE.saturating_mul(messages as u64).min(MOST_FOR_MESSAGES);
        let more = more.saturating_add(UNITS_PER_BYTE.saturating_mul(bytes as u64));
        let room = KEPT.saturating_add(KEPT_PER_BYTE.saturating_mul(bytes));
        Self { left: Cell::new(UNITS.saturating_add(more)), room: Cell::new(room) }
    }

    /// Takes room for something that is kept until the template has run, and for what belongs to it.
    pub(super) fn keep<T>(&self, bytes: usize) -> Outcome<()> {
        match self.room.get().checked_sub(bytes.saturating_add(size_of::<T>())) {
            Some(room) => {
                self.room.set(room);
                Ok(())
            }
            None => fault("it makes too much for these messages"),
        }
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

    /// Pays for looking for a name among so many.
    pub(super) fn look_up(&self, names: usize, name: &str) -> Outcome<()> {
        self.product(names, name.len())
    }

    /// Pays for comparing two texts.
    pub(super) fn compare(&self, a: &str, b: &str) -> Outcome<()> {
        self.bytes(a.len().min(b.len()))
    }

    /// Pays for looking for a text of `part` bytes in one of `whole`. (It is linear in both.)
    pub(super) fn search(&self, whole: usize, part: usize) -> Outcome<()> {
        self.bytes(whole.saturating_add(part))
    }
}
