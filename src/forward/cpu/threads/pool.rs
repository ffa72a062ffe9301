//! The threads of one context or of several, which live as long as these do.

use std::sync::{Arc, PoisonError};
use std::{fmt, io, process};

use super::pause::Pause;
use super::placement::Placement;
use super::sync::{AtomicBool, Builder, JoinHandle, POLL};
use super::team::Team;
use crate::error::{Error, Result};
use crate::log::{LogLevel, log};
use crate::memory::room_for_thread;
use crate::simd::DefaultFloats;

/// Calls a function with each number below a count, on any threads, and returns when all calls have returned.
pub(crate) type RunTasks = dyn Fn(usize, &(dyn Fn(usize) + Sync)) + Send + Sync;

/// How to make a pool.
#[derive(Debug, Clone)]
pub(crate) struct PoolOptions {
    /// Threads, the user's included.
    pub(crate) threads: usize,
    /// Times that a waiting thread yields its core before it sleeps.
    pub(crate) poll: u32,
    pub(crate) placement: Placement,
}

impl PoolOptions {
    pub(crate) fn new(threads: usize) -> Self {
        Self { threads, poll: POLL, placement: Placement::default() }
    }
}

/// Threads that help whoever uses them, one user at a time.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(super) helpers: Helpers,
    /// Whether someone uses them.
    pub(super) taken: AtomicBool,
    pub(super) pause: Pause,
}

/// Where the helping threads come from.
pub(super) enum Helpers {
    /// Threads of the pool's own.
    Own {
        team: Arc<Team>,
        threads: Vec<JoinHandle<()>>,
        /// The process that the threads are in: a child of fork() has none of them.
        process: u32,
    },
    /// The caller's: a function that runs as many tasks as there are threads.
    Callers { run: Box<RunTasks>, threads: usize },
}

impl fmt::Debug for Helpers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own { threads, process, .. } => {
                f.debug_struct("Own").field("threads", &threads.len()).field("process", process).finish()
            }
            Self::Callers { threads, .. } => f.debug_struct("Callers").field("threads", threads).finish(),
        }
    }
}

impl Pool {
    /// Starts the threads, or as many as the system gives, which is logged.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] and [`Error::Unsupported`] if the system refuses the threads' placement.
    pub(crate) fn new(options: &PoolOptions) -> Result<Self> {
        Self::start_with(options, |builder, serve| room_for_thread(None).and_then(|()| builder.spawn(serve)))
    }

    /// A pool of the caller's threads, the user's included.
    pub(crate) fn of_callers(threads: usize, run: Box<RunTasks>) -> Self {
        Self::with(Helpers::Callers { run, threads })
    }

    fn with(helpers: Helpers) -> Self {
        Self { helpers, taken: AtomicBool::new(false), pause: Pause::new() }
    }

    /// As [`Pool::new`], with threads from `spawn`.
    pub(super) fn start_with(
        options: &PoolOptions,
        mut spawn: impl FnMut(Builder, Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>>,
    ) -> Result<Self> {
        let &PoolOptions { threads: size, poll, ref placement } = options;
        let (team, mut threads) = (Arc::new(Team::new()), Vec::new());
        for index in 1..size {
            let (member, placement) = (Arc::clone(&team), placement.clone());
            let serve = move || {
                let _floats = DefaultFloats::set();
                if let Err(error) = placement.apply() {
                    member.refused.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
                member.serve(index, poll);
            };
            match spawn(Builder::new().name(format!("esolm-{index}")), Box::new(serve)) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    let text = format!("only {index} of {size} threads could be started ({error})");
                    log(LogLevel::Warn, &text);
                    break;
                }
            }
        }
        // A thread allocates when it starts: have that done before anyone generates.
        team.wait_for_start(threads.len());
        let refused = team.refused.lock().unwrap_or_else(PoisonError::into_inner).take();
        let pool = Self::with(Helpers::Own { team, threads, process: process::id() });
        match refused {
            None => Ok(pool),
            Some(error) if error.kind() == io::ErrorKind::Unsupported => {
                Err(Error::Unsupported("choosing processors or priority of threads on this system".into()))
            }
            Some(error) => Err(Error::invalid(format!("where the pool's threads run: {error}"))),
        }
    }

    /// Threads, the user's included.
    pub(crate) fn threads(&self) -> usize {
        match &self.helpers {
            Helpers::Own { threads, .. } => threads.len() + 1,
            Helpers::Callers { threads, .. } => *threads,
        }
    }

    /// Whether the pool's own threads are in another process.
    pub(super) fn is_elsewhere(&self) -> bool {
        match &self.helpers {
            Helpers::Own { threads, process, .. } => !threads.is_empty() && process::id() != *process,
            Helpers::Callers { .. } => false,
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let elsewhere = self.is_elsewhere();
        let Helpers::Own { team, threads, .. } = &mut self.helpers else { return };
        if elsewhere {
            // Joining or detaching them would touch what the system keeps of threads that are not there.
            threads.drain(..).for_each(std::mem::forget);
            return;
        }
        team.dissolve();
        threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}
