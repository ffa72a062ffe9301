//! The threads of a context: the pool, the barrier they wait at, the memory they share, and the clock.
//!
//! From below: `barrier`, `shared` and `clock`; [`team`], the threads at work on one job; [`pool`], which starts and ends
//! them.

mod barrier;
pub(super) mod clock;
pub(super) mod pool;
pub(super) mod shared;
pub(super) mod team;
