//! The threads of a context, which share the work of an operation: `claims` (who does what), `bell` (waiting), `team` (one
//! operation), `pool` (the threads), `crew` (one user of them, operation by operation), `shared` (memory that they share).

mod bell;
mod claims;
pub(crate) mod clock;
pub(crate) mod crew;
mod pause;
pub(crate) mod placement;
pub(crate) mod pool;
pub(crate) mod shared;
mod sync;
pub(crate) mod team;

pub(crate) use claims::Grain;
