//! The bytes of a model file: mapped or read into memory.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use memmap2::Mmap;

use super::arena::Arena;
use crate::error::{Error, Result};
use crate::log::{LogLevel, log};

/// The bytes of a model file.
#[derive(Debug)]
pub(crate) enum FileBytes {
    /// A mapped file.
    Map(Mmap),
    /// Memory that lives as long as the process, for example a file compiled in.
    Static(&'static [u8]),
    /// A copy in an arena.
    Copy(Arena),
}

impl FileBytes {
    /// Maps the file at `path`, or reads it where the file system cannot map, which is logged.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::OutOfMemory`]; [`Error::BadFile`] if it is empty or not a regular file.
    pub(crate) fn map(path: &Path) -> Result<Self> {
        let (file, _) = open_model(path)?;
        // SAFETY: the mapping is read-only here. That no other process changes the file while it is mapped cannot be
        // checked: `LoadMode::Map` documents it as a condition, and `LoadMode::Copy` does without it.
        match unsafe { Mmap::map(&file) } {
            Ok(map) => Ok(Self::Map(map)),
            Err(error) if cannot_map(&error) => {
                let name = path.display();
                log(
                    LogLevel::Warn,
                    &format!("{name}: its file system cannot map files; reading it into memory"),
                );
                Self::read(path, &|_| Ok(()))
            }
            Err(error) if error.kind() == ErrorKind::OutOfMemory => {
                Err(Error::OutOfMemory(format!("{} could not be mapped ({error})", path.display())))
            }
            Err(error) => Err(Error::io(path, error)),
        }
    }

    /// Reads the file at `path` into memory. `report` is called with the fraction read, 0 to 1; an error of it cancels.
    ///
    /// # Errors
    /// As [`FileBytes::map`]; [`Error::OutOfMemory`]; what `report` returns.
    pub(crate) fn read(path: &Path, report: &dyn Fn(f64) -> Result<()>) -> Result<Self> {
        let (mut file, len) = open_model(path)?;
        let mut memory = Arena::allocate(len)?;
        for (part, fraction) in parts(memory.bytes_mut()) {
            file.read_exact(part).map_err(|e| Error::io(path, e))?;
            report(fraction)?;
        }
        Ok(Self::Copy(memory))
    }

    /// Copies `bytes`; `report` as in [`FileBytes::read`].
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; what `report` returns.
    pub(crate) fn copy_of(mut bytes: &[u8], report: &dyn Fn(f64) -> Result<()>) -> Result<Self> {
        let mut memory = Arena::allocate(bytes.len())?;
        for (part, fraction) in parts(memory.bytes_mut()) {
            let (from, rest) = bytes.split_at(part.len());
            part.copy_from_slice(from);
            bytes = rest;
            report(fraction)?;
        }
        Ok(Self::Copy(memory))
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Map(map) => map,
            Self::Static(bytes) => bytes,
            Self::Copy(memory) => memory.bytes(),
        }
    }
}

/// Whether the file system has no mapped files.
fn cannot_map(error: &std::io::Error) -> bool {
    #[cfg(unix)]
    return error.raw_os_error() == Some(libc::ENODEV);
    #[cfg(not(unix))]
    return error.kind() == ErrorKind::Unsupported;
}

/// Opens a regular file. Returns it and its length.
///
/// # Errors
/// [`Error::BadFile`] for anything else: opening a pipe waits for a writer, and a device may have no end. [`Error::Io`].
pub(crate) fn open_regular(path: &Path) -> Result<(File, u64)> {
    let io = |e| Error::io(path, e);
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(Error::bad_file(path.display().to_string(), "is no regular file"));
    }
    let file = File::open(path).map_err(io)?;
    let len = file.metadata().map_err(io)?.len();
    Ok((file, len))
}

/// Reads a file, a pipe or a device to its end.
///
/// # Errors
/// [`Error::BadFile`] if there are more than `max` bytes; [`Error::OutOfMemory`]; [`Error::Io`].
#[cfg(feature = "convert")]
pub(crate) fn read_at_most(path: &Path, max: u64) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).map_err(|e| match e.kind() {
        ErrorKind::OutOfMemory => Error::OutOfMemory(format!("the content of {}", path.display())),
        _ => Error::io(path, e),
    })?;
    if bytes.len() as u64 > max {
        let what = format!("is larger than {} MiB, which is the limit", max >> 20);
        return Err(Error::bad_file(path.display().to_string(), what));
    }
    Ok(bytes)
}

/// Opens a regular file that is not empty. Returns it and its length.
fn open_model(path: &Path) -> Result<(File, usize)> {
    let (file, len) = open_regular(path)?;
    let bad = |what: &str| Error::bad_file(path.display().to_string(), what);
    match usize::try_from(len) {
        Ok(0) => Err(bad("is empty")),
        Ok(len) => Ok((file, len)),
        Err(_) => Err(bad("is larger than the address space")),
    }
}

/// Splits a buffer into one part per progress report, each with the fraction done once it is filled.
fn parts(bytes: &mut [u8]) -> impl Iterator<Item = (&mut [u8], f64)> {
    const PART: usize = 8 << 20;
    let all = bytes.len();
    bytes.chunks_mut(PART).enumerate().map(move |(number, part)| {
        let done = number * PART + part.len();
        (part, done as f64 / all as f64)
    })
}
