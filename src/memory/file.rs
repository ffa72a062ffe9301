//! The bytes of a model file: mapped or read into memory.

use std::fs::File;
use std::io::ErrorKind;
#[cfg(feature = "convert")]
use std::io::Read;
use std::path::Path;

use memmap2::{Mmap, MmapOptions};

use super::arena::Arena;
use super::pages::{LockedPages, prefetch};
use super::reader::{FilePart, ModelReader};
#[cfg(feature = "convert")]
use super::vector::no_room;
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
        let (file, len) = open_regular(path)?;
        Self::map_part(&FilePart::new(&file, path.display().to_string(), 0, len))
    }

    /// Reads the file at `path` into memory. `report` is called with the fraction read, 0 to 1; an error of it cancels.
    ///
    /// # Errors
    /// As [`FileBytes::map`]; what `report` returns.
    pub(crate) fn read(path: &Path, report: &dyn Fn(f64) -> Result<()>) -> Result<Self> {
        let (file, len) = open_regular(path)?;
        Self::from_reader(&mut FilePart::new(&file, path.display().to_string(), 0, len), report)
    }

    /// Maps a part of a file, or reads it where the file system cannot map.
    ///
    /// # Errors
    /// As [`FileBytes::map`].
    pub(crate) fn map_part(part: &FilePart<'_>) -> Result<Self> {
        let len = checked_len(part)?;
        // SAFETY: the mapping is read-only here. That no other process changes the file while it is mapped cannot be
        // checked: `LoadMode::Map` documents it as a condition, and `LoadMode::Copy` does without it.
        let mapped = unsafe { MmapOptions::new().offset(part.offset()).len(len).map(part.file()) };
        match mapped {
            Ok(map) => {
                // If the system refuses, pages are small.
                #[cfg(all(target_os = "linux", not(miri)))]
                let _ = map.advise(memmap2::Advice::HugePage);
                Ok(Self::Map(map))
            }
            Err(error) if cannot_map(&error) => {
                let name = part.name();
                log(
                    LogLevel::Warn,
                    &format!("{name}: its file system cannot map files; reading it into memory"),
                );
                Self::from_reader(&mut part.again(), &|_| Ok(()))
            }
            Err(error) if error.kind() == ErrorKind::OutOfMemory => {
                Err(Error::OutOfMemory(format!("{} could not be mapped ({error})", part.name())))
            }
            Err(source) => Err(Error::Io { file: part.name(), source }),
        }
    }

    /// Reads a file into memory; `report` as in [`FileBytes::read`].
    ///
    /// # Errors
    /// [`Error::Io`], also if the file ends before its size; [`Error::BadFile`] if it is empty; [`Error::OutOfMemory`]; what
    /// `report` returns.
    pub(crate) fn from_reader(
        reader: &mut dyn ModelReader,
        report: &dyn Fn(f64) -> Result<()>,
    ) -> Result<Self> {
        let mut memory = Arena::allocate_in_huge_pages(checked_len(reader)?)?;
        let mut at = 0;
        for (part, fraction) in parts(memory.bytes_mut()) {
            read_exact(reader, at, part).map_err(|source| Error::Io { file: reader.name(), source })?;
            at += part.len() as u64;
            report(fraction)?;
        }
        Ok(Self::Copy(memory))
    }

    /// Copies `bytes`; `report` as in [`FileBytes::read`].
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; what `report` returns.
    pub(crate) fn copy_of(mut bytes: &[u8], report: &dyn Fn(f64) -> Result<()>) -> Result<Self> {
        let mut memory = Arena::allocate_in_huge_pages(bytes.len())?;
        for (part, fraction) in parts(memory.bytes_mut()) {
            let (from, rest) = bytes.split_at(part.len());
            part.copy_from_slice(from);
            bytes = rest;
            report(fraction)?;
        }
        Ok(Self::Copy(memory))
    }

    /// Has the system read in the pages of a mapped file or of the caller's memory; `report` as in [`FileBytes::read`].
    ///
    /// # Errors
    /// What `report` returns.
    pub(crate) fn prefetch(&self, report: &dyn Fn(f64) -> Result<()>) -> Result<()> {
        match self {
            Self::Map(_) | Self::Static(_) => prefetch(self.bytes(), report),
            // It was written just now.
            Self::Copy(_) => Ok(()),
        }
    }

    /// Locks the bytes in main memory.
    ///
    /// # Errors
    /// Why the system refuses.
    pub(crate) fn lock(&self) -> std::result::Result<LockedPages, String> {
        LockedPages::lock(self.bytes())
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
    let no_file = || Error::bad_file(path.display().to_string(), "is no regular file");
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(no_file());
    }
    let mut options = File::options();
    options.read(true);
    // What is there now may be another: opening waits for nobody, and it is looked at once more. Of files, it changes nothing.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    let file = options.open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(no_file());
    }
    Ok((file, metadata.len()))
}

/// Reads a file, a pipe or a device to its end.
///
/// # Errors
/// [`Error::BadFile`] if there are more than `max` bytes; [`Error::OutOfMemory`]; [`Error::Io`].
#[cfg(feature = "convert")]
pub(crate) fn read_at_most(path: &Path, max: u64) -> Result<Vec<u8>> {
    read_all(File::open(path).map_err(|e| Error::io(path, e))?, path, max)
}

/// Reads a regular file.
///
/// # Errors
/// Those of [`open_regular`] and [`read_at_most`].
#[cfg(feature = "convert")]
pub(crate) fn read_regular(path: &Path, max: u64) -> Result<Vec<u8>> {
    let (file, _) = open_regular(path)?;
    read_all(file, path, max)
}

#[cfg(feature = "convert")]
fn read_all(file: File, path: &Path, max: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).map_err(|e| match e.kind() {
        ErrorKind::OutOfMemory => no_room(bytes.len()),
        _ => Error::io(path, e),
    })?;
    if bytes.len() as u64 > max {
        let what = format!("it is larger than {} MiB, which is the limit", max >> 20);
        return Err(Error::bad_file(path.display().to_string(), what));
    }
    Ok(bytes)
}

/// The size of a file that is not empty and fits in memory.
fn checked_len(reader: &dyn ModelReader) -> Result<usize> {
    let bad = |what: &str| Error::bad_file(reader.name(), what);
    match usize::try_from(reader.size()) {
        Ok(0) => Err(bad("it is empty")),
        Ok(len) if len <= isize::MAX as usize => Ok(len),
        _ => Err(bad("it is larger than the address space")),
    }
}

/// Fills `part` with the bytes from `offset` on.
fn read_exact(reader: &mut dyn ModelReader, offset: u64, part: &mut [u8]) -> std::io::Result<()> {
    let mut filled = 0;
    while let Some(rest) = part.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let (at, len) = (offset + filled as u64, rest.len());
        filled += match reader.read_at(at, rest) {
            Ok(0) => {
                let what = format!("it ends at byte {at}, before its size of {}", reader.size());
                return Err(std::io::Error::new(ErrorKind::UnexpectedEof, what));
            }
            Ok(count) if count > len => {
                let what = format!("{count} bytes were read at byte {at}, where {len} fit");
                return Err(std::io::Error::new(ErrorKind::InvalidData, what));
            }
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
    }
    Ok(())
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
