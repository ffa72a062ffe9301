//! Saved states, of all sequences and of one.

use std::path::Path;

use super::Context;
use crate::error::Result;
use crate::generate::saved_sequences;

/// Saved states.
impl Context {
    /// The state of the current generation as bytes for [`Context::restore`]: tokens, order, keys and values. Remaining
    /// steps, parameters, constraints and random numbers are not saved: [`Context::extend`] takes new ones. So a
    /// generation saved halfway continues from the same tokens, but not to the same text. The bytes are the same on
    /// every device.
    ///
    /// # Errors
    /// [`crate::Error::Unsupported`] as for [`Context::extend`].
    pub fn save(&self) -> Result<Vec<u8>> {
        self.session.save(&self.runner)
    }

    /// Writes what [`Context::save`] returns to a file. An existing file is replaced only once the new one is
    /// complete and on disk.
    ///
    /// # Errors
    /// As [`Context::save`]; [`crate::Error::Io`]; [`crate::Error::InvalidArgument`] if `path` is a directory or not
    /// a file name.
    pub fn save_to(&self, path: impl AsRef<Path>) -> Result<()> {
        self.session.save_to(&self.runner, path.as_ref())
    }

    /// The length in bytes of what [`Context::save`] returns, without making it.
    ///
    /// # Errors
    /// As [`Context::save`].
    pub fn saved_size(&self) -> Result<usize> {
        self.session.saved_size(&self.runner)
    }

    /// Replaces the current generation by a saved state: its tokens are known, no steps remain, and [`Context::extend`]
    /// continues. Keys and values of another precision than this context's are computed again, which is logged (see
    /// [`crate::set_log_receiver`]).
    ///
    /// # Errors
    /// [`crate::Error::BadFile`] if the bytes are damaged or of another model; [`crate::Error::InvalidArgument`] if the
    /// context is too small; [`crate::Error::Unsupported`] as for [`Context::save`]; [`crate::Error::Cancelled`]. After
    /// an error the current generation is unchanged, but for [`crate::Error::OutOfMemory`] and [`crate::Error::Device`] with
    /// ggml's kernels, after which there is none.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<()> {
        self.session.restore(&mut self.runner, bytes)
    }

    /// As [`Context::restore`], from a file. One that is larger than the state of any generation of this context is refused
    /// before it is read.
    ///
    /// # Errors
    /// As [`Context::restore`]; [`crate::Error::Io`].
    pub fn restore_from(&mut self, path: impl AsRef<Path>) -> Result<()> {
        self.session.restore_from(&mut self.runner, path.as_ref())
    }

    /// How many sequences the saved state in a file has, by its head: as many a context needs that restores it.
    ///
    /// # Errors
    /// [`crate::Error::BadFile`] for what is no saved state; [`crate::Error::Io`].
    pub fn saved_sequences(path: impl AsRef<Path>) -> Result<usize> {
        saved_sequences(path.as_ref())
    }

    /// The state of one sequence as bytes, as [`Context::save`] makes them of all, for [`Context::restore_sequence`] of this context or
    /// another: such as a conversation that waits for its next message while others have its place. The others are not disturbed.
    ///
    /// # Errors
    /// As [`Context::save`]; [`crate::Error::InvalidArgument`] if there is no such sequence.
    pub fn save_sequence(&self, sequence: usize) -> Result<Vec<u8>> {
        self.session.save_one(&self.runner, sequence)
    }

    /// The length in bytes of what [`Context::save_sequence`] returns, without making it.
    ///
    /// # Errors
    /// As [`Context::save_sequence`].
    pub fn saved_sequence_size(&self, sequence: usize) -> Result<usize> {
        self.session.saved_size_of_one(&self.runner, sequence)
    }

    /// Adds a saved sequence to the generation, between two steps or in a new context, and returns its number: its tokens are known,
    /// no steps remain, and [`Context::extend_sequence`] and [`Context::append_sequence`] go on with it. The others are not disturbed.
    /// The bytes are those of [`Context::save_sequence`], or of [`Context::save`] with one sequence.
    ///
    /// # Errors
    /// As [`Context::restore`]; [`crate::Error::InvalidArgument`] also if all sequences are in use, and for bytes of no sequence or of
    /// several. After an error the other sequences are unchanged.
    pub fn restore_sequence(&mut self, bytes: &[u8]) -> Result<usize> {
        self.session.restore_one(&mut self.runner, bytes)
    }
}
