//! Files that appear under their name only when they are complete.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A temporary file in the directory of its target. Dropping it without [`PendingFile::commit`] removes it.
#[derive(Debug)]
pub(crate) struct PendingFile {
    file: File,
    temporary: PathBuf,
    target: PathBuf,
    force: bool,
    committed: bool,
}

impl PendingFile {
    /// Creates the temporary file. `force` allows the target to exist.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the target exists without `force`, or has no file name; [`Error::Io`].
    pub fn create(target: &Path, force: bool) -> Result<Self> {
        refuse_existing(target, force)?;
        let Some(name) = target.file_name() else {
            return Err(Error::invalid(format!("'{}' is not a file name", target.display())));
        };
        for attempt in 0..100 {
            let mut hidden = std::ffi::OsString::from(".");
            hidden.push(name);
            hidden.push(format!(".{}-{attempt}.tmp", std::process::id()));
            let temporary = target.with_file_name(hidden);
            match OpenOptions::new().write(true).create_new(true).open(&temporary) {
                Ok(file) => {
                    let target = target.to_owned();
                    return Ok(Self { file, temporary, target, force, committed: false });
                }
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Error::io(target, e)),
            }
        }
        Err(Error::io(target, ErrorKind::AlreadyExists.into()))
    }

    /// The file to write to.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Syncs the file to the disk and renames it to the target. Returns its size in bytes.
    ///
    /// # Errors
    /// As [`PendingFile::create`]; the temporary file is then removed.
    pub fn commit(mut self) -> Result<u64> {
        let io = |e| Error::io(&self.target, e);
        self.file.sync_all().map_err(io)?;
        let bytes = self.file.metadata().map_err(io)?.len();
        refuse_existing(&self.target, self.force)?;
        fs::rename(&self.temporary, &self.target).map_err(io)?;
        self.committed = true;
        // The new name is durable once the directory is synced. Not every system can open a directory, and the file itself
        // is safe: a failure here is not an error.
        let parent = self.target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if let Ok(directory) = File::open(parent) {
            let _ = directory.sync_all();
        }
        Ok(bytes)
    }
}

impl Drop for PendingFile {
    fn drop(&mut self) {
        if !self.committed {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

fn refuse_existing(target: &Path, force: bool) -> Result<()> {
    if target.is_dir() {
        return Err(Error::invalid(format!("{} is a directory", target.display())));
    }
    if !force && target.symlink_metadata().is_ok() {
        return Err(Error::invalid(format!("{} exists; --force replaces it", target.display())));
    }
    Ok(())
}

/// Refuses an output that is the input, even with `force`, also through a link.
#[cfg(feature = "convert")]
pub(crate) fn refuse_input_as_output(input: &Path, output: &Path) -> Result<()> {
    match (input.canonicalize(), output.canonicalize()) {
        (Ok(input), Ok(output)) if input == output => {
            Err(Error::invalid(format!("{} is both input and output", output.display())))
        }
        _ => Ok(()),
    }
}
