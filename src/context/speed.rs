//! What the speed of a context depends on: its threads, and what a pass is taken to cost.

use super::Context;
use crate::error::Result;

/// Threads, and the cost of a pass.
impl Context {
    /// Has `threads` threads compute from the next call on, which does not change the text.
    ///
    /// # Errors
    /// [`crate::Error::InvalidArgument`] for 0, or more than it was made with.
    pub fn set_threads(&mut self, threads: usize) -> Result<()> {
        self.runner.set_threads(threads)
    }

    /// Number of threads that compute.
    pub fn threads(&self) -> usize {
        self.runner.threads()
    }

    /// Measures what a pass costs beside its rows: with the time of one row as unit, the time in which the weights are read. Runs
    /// the network on some rows for half a second, or until it has done so twice, and returns the number, 0.1 to 256 in steps of 0.1,
    /// for [`Context::set_pass_overhead`]. The choice of tokens is not measured. Ends the current generation.
    ///
    /// # Errors
    /// [`crate::Error::InvalidArgument`] if a batch has less than 4 rows, or a text less than 4 tokens; those of [`Context::step`].
    pub fn measure_pass_overhead(&mut self) -> Result<f32> {
        self.session.measure_pass_overhead(&mut self.runner)
    }

    /// Says what a pass costs beside its rows, in rows, for generations and sequences that begin from now on. By it
    /// [`GenerateParams::LOOKAHEAD_AUTO`](crate::GenerateParams::LOOKAHEAD_AUTO) and
    /// [`Adaptive::WINDOW_AUTO`](crate::Adaptive::WINDOW_AUTO) decide, so their texts depend on it. The default, which 0
    /// stands for, is the same on every machine, and so are the texts: 2 with weights of at most 32 MB, which may stay in a
    /// processor's cache, and 10 with more.
    ///
    /// # Errors
    /// [`crate::Error::InvalidArgument`] for less than 0, more than 256, or NaN.
    pub fn set_pass_overhead(&mut self, rows: f32) -> Result<()> {
        self.session.set_pass_overhead(&self.runner.model, rows)
    }
}
