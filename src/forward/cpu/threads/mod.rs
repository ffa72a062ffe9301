//! The threads of a context, where they wait for each other, and the memory that they share.

mod barrier;
pub(super) mod clock;
pub(super) mod pool;
pub(super) mod shared;
