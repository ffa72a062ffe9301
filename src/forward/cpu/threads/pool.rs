//! The threads of a context, which live as long as it does.

use std::sync::Arc;
use std::{io, process};

use super::pause::Pause;
use super::sync::{AtomicBool, Builder, JoinHandle, POLL};
use super::team::Team;
use crate::log::{LogLevel, log};
use crate::simd::DefaultFloats;

/// Persistent threads. Their user's is one more.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(super) team: Arc<Team>,
    /// All but the user's.
    threads: Vec<JoinHandle<()>>,
    /// Whether someone uses them.
    pub(super) taken: AtomicBool,
    pub(super) pause: Pause,
    /// The process that the threads are in: a child of fork() has none of them.
    process: u32,
}

impl Pool {
    /// Starts a pool of `size` threads, the user's included, or as many as the system gives, which is logged.
    pub(crate) fn new(size: usize) -> Self {
        Self::start_with(size, |builder, serve| builder.spawn(serve))
    }

    /// As [`Pool::new`], with threads from `spawn`.
    pub(super) fn start_with(
        size: usize,
        mut spawn: impl FnMut(Builder, Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>>,
    ) -> Self {
        let (team, mut threads) = (Arc::new(Team::new()), Vec::new());
        for index in 1..size {
            let member = Arc::clone(&team);
            let serve = move || {
                let _floats = DefaultFloats::set();
                member.serve(index, POLL);
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
        Self { team, threads, taken: AtomicBool::new(false), pause: Pause::new(), process: process::id() }
    }

    /// Threads, the user's included.
    pub(crate) fn threads(&self) -> usize {
        self.threads.len() + 1
    }

    /// Whether this process has none of the threads.
    pub(super) fn is_elsewhere(&self) -> bool {
        !self.threads.is_empty() && process::id() != self.process
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.is_elsewhere() {
            // Joining or detaching them would touch what the system keeps of threads that are not there.
            self.threads.drain(..).for_each(std::mem::forget);
            return;
        }
        self.team.dissolve();
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}
