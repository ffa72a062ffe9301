//! Where the threads of a pool run, and how willingly they give way.

use std::io;

/// What a pool's threads set for themselves when they start. The default changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Placement {
    /// The processors that they may run on, by the system's numbers; empty: those that the process may.
    pub(crate) cpus: Vec<usize>,
    /// Added to their nice value.
    pub(crate) nice: i32,
}

impl Placement {
    /// Applies it to the calling thread.
    ///
    /// # Errors
    /// The system's; [`io::ErrorKind::Unsupported`] where it is not Linux.
    pub(super) fn apply(&self) -> io::Result<()> {
        if *self == Self::default() { Ok(()) } else { self.apply_on_this_system() }
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn apply_on_this_system(&self) -> io::Result<()> {
        use rustix::process::{getpriority_process, setpriority_process};
        use rustix::thread::{CpuSet, gettid, sched_getaffinity, sched_setaffinity};
        if !self.cpus.is_empty() {
            let none = |cpu: usize| {
                let text = format!("there is no processor {cpu}, or this process may not run on it");
                io::Error::new(io::ErrorKind::InvalidInput, text)
            };
            let mut set = CpuSet::new();
            for &cpu in &self.cpus {
                if cpu >= CpuSet::MAX_CPU {
                    return Err(none(cpu));
                }
                set.set(cpu);
            }
            let result = sched_setaffinity(None, &set);
            // The system leaves out processors that it does not have, and says so only if none is left.
            let taken = sched_getaffinity(None)?;
            if let Some(&cpu) = self.cpus.iter().find(|&&cpu| !taken.is_set(cpu)) {
                return Err(none(cpu));
            }
            result?;
        }
        if self.nice != 0 {
            // Linux's nice value is a thread's, and threads have numbers as processes do.
            let thread = Some(gettid());
            let nice = getpriority_process(thread)?.saturating_add(self.nice);
            setpriority_process(thread, nice).map_err(|error| {
                let error = io::Error::from(error);
                io::Error::new(error.kind(), format!("a nice value of {nice}: {error}"))
            })?;
        }
        Ok(())
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn apply_on_this_system(&self) -> io::Result<()> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }
}
