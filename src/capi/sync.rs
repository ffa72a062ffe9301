//! The lock of `exclusive.rs`, in one place: `tests/loom` puts loom's in place of it.

pub(super) use std::sync::Mutex;
