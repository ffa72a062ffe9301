//! Threads that several contexts share.

use std::sync::Arc;

use super::cores::{count_threads, parse_list};
use super::cpu::{Placement, Pool, PoolOptions, RunTasks};
use super::params::ContextParams;
use crate::error::{Error, Result};
use crate::memory::collected;

/// How to make a [`ThreadPool`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadPoolParams<'a> {
    /// Threads, that of the calling context included (default 0: one per core, see [`ThreadPool`]).
    pub threads: usize,
    /// How long a thread without work waits before it sleeps, 0 (not at all) to 100; 50, the default, is about a
    /// millisecond. (llama.cpp: `--poll`.)
    pub poll: u32,
    /// The processors, by the system's numbers, that the pool's own threads may run on (default: empty, those of the
    /// process). Linux and Android.
    pub cpus: &'a [usize],
    /// Added to the nice value of the pool's own threads, -40 to 40 (default 0). Lower values than the process's take a
    /// privilege. Linux and Android.
    pub nice: i32,
}

impl Default for ThreadPoolParams<'_> {
    fn default() -> Self {
        Self { threads: 0, poll: Self::DEFAULT_POLL, cpus: &[], nice: 0 }
    }
}

impl ThreadPoolParams<'_> {
    /// [`ThreadPoolParams::poll`] unless said otherwise.
    pub const DEFAULT_POLL: u32 = 50;
    /// Times that a waiting thread yields its core for each unit of `poll`.
    const YIELDS: u32 = 40;

    /// Reads a list of processors such as `0-3,8`, for [`ThreadPoolParams::cpus`].
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for what is no such list.
    pub fn parse_cpus(list: &str) -> Result<Vec<usize>> {
        parse_list(list)
    }

    fn check(&self) -> Result<PoolOptions> {
        let Self { threads, poll, cpus, nice } = *self;
        if poll > 100 {
            return Err(Error::invalid(format!("poll is {poll}, not in 0..=100")));
        }
        if !(-40..=40).contains(&nice) {
            return Err(Error::invalid(format!("nice is {nice}, not in -40..=40")));
        }
        let placement = Placement { cpus: collected(cpus.iter().copied())?, nice };
        Ok(PoolOptions { threads: count_threads(threads)?, poll: poll * Self::YIELDS, placement })
    }
}

/// Threads that several contexts share (on the CPU, with the library's own kernels). They help one context at a time: one
/// that finds them in use computes alone. So many contexts in as many threads of the caller's do not fight for the cores.
///
/// The default number of threads is that of the processors that the process may use, by its affinity mask and the quota of
/// its control group; where some are faster than others, of the faster ones. Clones are the same pool.
#[derive(Debug, Clone)]
pub struct ThreadPool(pub(super) Arc<Pool>);

impl ThreadPool {
    /// Starts the threads, or as many as the system gives, which is logged.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a parameter out of range, or a processor or nice value that the system refuses;
    /// [`Error::Unsupported`] for processors or a nice value where the system is not Linux.
    pub fn new(params: &ThreadPoolParams<'_>) -> Result<Self> {
        Ok(Self(Arc::new(Pool::new(&params.check()?)?)))
    }

    /// A pool of the caller's own threads. `run` is called for each run of the network with a number of tasks, at most
    /// `threads`, and calls the given function with each number below it: side by side in different threads, as far as
    /// these are free, and otherwise later. It returns when all calls have. The first that comes computes, the others help
    /// it and return when it is done.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for 0 threads or more than the library manages.
    pub fn of_callers(
        threads: usize,
        run: impl Fn(usize, &(dyn Fn(usize) + Sync)) + Send + Sync + 'static,
    ) -> Result<Self> {
        if threads == 0 {
            return Err(Error::invalid("a pool of 0 threads"));
        }
        let run: Box<RunTasks> = Box::new(run);
        Ok(Self(Arc::new(Pool::of_callers(count_threads(threads)?, run))))
    }

    /// Threads, that of the calling context included.
    pub fn threads(&self) -> usize {
        self.0.threads()
    }

    /// The parameters of a context in `pool`, which has as many threads as the pool unless said otherwise.
    pub(crate) fn in_pool(params: ContextParams, pool: Option<&Self>) -> ContextParams {
        let threads = match (params.threads, pool) {
            (0, Some(pool)) => pool.threads(),
            (threads, _) => threads,
        };
        ContextParams { threads, ..params }
    }
}
