//! The entries of a zip file that are stored without compression, as `torch.save` writes them.
//!
//! Only what such a file has is read: one directory, at most one record of 64-bit sizes, and the local headers. The end
//! record is looked for where a comment of at most 64 KiB can leave it, and nothing is read twice, so the time is linear
//! in the directory, whatever the file holds.
//!
//! Format: <https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT>.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::error::{Error, Result};
use crate::memory::{copied, filled, insert};

/// Most entries; there is one per tensor of the model and of the optimizer.
const MAX_ENTRIES: u64 = 1 << 16;
/// Longest name of an entry, in bytes.
const MAX_NAME: usize = 512;
/// Longest directory, in bytes.
const MAX_DIRECTORY: u64 = 32 << 20;

const END: [u8; 4] = *b"PK\x05\x06";
const END_64: [u8; 4] = *b"PK\x06\x06";
const LOCATOR_64: [u8; 4] = *b"PK\x06\x07";
const DIRECTORY_ENTRY: [u8; 4] = *b"PK\x01\x02";
const LOCAL_HEADER: [u8; 4] = *b"PK\x03\x04";
/// Sizes of these records without the parts of variable length.
const END_BYTES: usize = 22;
const END_64_BYTES: usize = 56;
const LOCATOR_64_BYTES: usize = 20;
const DIRECTORY_ENTRY_BYTES: usize = 46;
const LOCAL_HEADER_BYTES: usize = 30;
/// Marks a number that the record of 64-bit sizes has.
const SEE_64: u64 = u32::MAX as u64;

/// The bytes of an entry in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub offset: u64,
    pub len: u64,
}

/// The entries of a zip of `len` bytes by name. All are inside the file.
///
/// # Errors
/// [`Error::BadFile`] with the offset of what is wrong; [`Error::Unsupported`] for an entry that is compressed or
/// encrypted; [`Error::Io`].
pub(super) fn entries(file: &mut (impl Read + Seek), len: u64, path: &Path) -> Result<HashMap<String, Span>> {
    Zip { file, path, len }.entries()
}

/// Where the directory is.
struct Directory {
    count: u64,
    offset: u64,
    len: u64,
}

struct Zip<'a, F> {
    file: &'a mut F,
    path: &'a Path,
    len: u64,
}

impl<F: Read + Seek> Zip<'_, F> {
    fn entries(mut self) -> Result<HashMap<String, Span>> {
        let directory = self.directory()?;
        let bytes = self.read(directory.offset, directory.len as usize)?;
        let mut rest = bytes.as_slice();
        let mut entries = HashMap::new();
        for _ in 0..directory.count {
            let at = directory.offset + (bytes.len() - rest.len()) as u64;
            let (name, header, len) = self.entry(&mut rest, at)?;
            let span = self.span(&name, header, len)?;
            if entries.contains_key(&name) {
                return Err(self.bad(at, format!("entry '{name}' occurs twice")));
            }
            insert(&mut entries, name, span)?;
        }
        Ok(entries)
    }

    /// Finds the directory by the end record, whose comment ends the file.
    fn directory(&mut self) -> Result<Directory> {
        let tail_len = self.len.min((END_BYTES + usize::from(u16::MAX)) as u64);
        let tail_start = self.len - tail_len;
        let tail = self.read(tail_start, tail_len as usize)?;
        let is_end = |record: &[u8]| {
            let comment = record.len().checked_sub(END_BYTES).map(|len| len as u64);
            record.starts_with(&END) && comment.is_some() && field(record, 20, 2) == comment
        };
        let place =
            (0..=tail.len().saturating_sub(END_BYTES)).rev().find(|&at| tail.get(at..).is_some_and(is_end));
        let place = place.ok_or_else(|| self.bad(self.len, "no end record"))?;
        let at = tail_start + place as u64;
        let record = tail.get(place..).unwrap_or_default();
        let number = |offset, bytes| {
            field(record, offset, bytes).ok_or_else(|| self.bad(at, "the end record is cut off"))
        };
        let (count, len, offset) = (number(10, 2)?, number(12, 4)?, number(16, 4)?);
        let wide = count == u64::from(u16::MAX) || len == SEE_64 || offset == SEE_64;
        let (directory, end) =
            if wide { self.wide_directory(at)? } else { (Directory { count, offset, len }, at) };
        let Directory { count, offset, len } = directory;
        if count > MAX_ENTRIES || len > MAX_DIRECTORY {
            return Err(self.bad(end, format!("a directory of {count} entries and {len} bytes; at most {MAX_ENTRIES} and {MAX_DIRECTORY} are read")));
        }
        if offset.checked_add(len).is_none_or(|directory_end| directory_end > end) {
            return Err(
                self.bad(end, format!("the directory ({len} bytes at {offset}) ends behind its end record"))
            );
        }
        Ok(directory)
    }

    /// The directory by the end record with 64-bit sizes, and where that record is. Its locator is in front of the end
    /// record at `end`.
    fn wide_directory(&mut self, end: u64) -> Result<(Directory, u64)> {
        let missing = || self.bad(end, "the locator of 64-bit sizes is missing");
        let locator_at = end.checked_sub(LOCATOR_64_BYTES as u64).ok_or_else(missing)?;
        let locator = self.read(locator_at, LOCATOR_64_BYTES)?;
        let at = field(&locator, 8, 8).filter(|at| locator.starts_with(&LOCATOR_64) && *at < locator_at);
        let at = at.ok_or_else(|| self.bad(locator_at, "the locator of 64-bit sizes is missing"))?;
        let record = self.read(at, END_64_BYTES)?;
        let number = |offset| field(&record, offset, 8).filter(|_| record.starts_with(&END_64));
        match (number(32), number(40), number(48)) {
            (Some(count), Some(len), Some(offset)) => Ok((Directory { count, offset, len }, at)),
            _ => Err(self.bad(at, "the record of 64-bit sizes is missing")),
        }
    }

    /// Takes one entry, which is at `at` in the file, off the directory: its name, the offset of its local header, and
    /// its length.
    fn entry(&self, directory: &mut &[u8], at: u64) -> Result<(String, u64, u64)> {
        let cut = || self.bad(at, "the directory ends inside an entry");
        let fixed = directory.split_off(..DIRECTORY_ENTRY_BYTES).ok_or_else(cut)?;
        if !fixed.starts_with(&DIRECTORY_ENTRY) {
            return Err(self.bad(at, "no entry where the directory should have one"));
        }
        let number = |offset, bytes| field(fixed, offset, bytes).ok_or_else(cut);
        let mut part = |offset| {
            let len = number(offset, 2)? as usize;
            directory.split_off(..len).ok_or_else(cut)
        };
        let (name, extra, _comment) = (part(28)?, part(30)?, part(32)?);
        let name = std::str::from_utf8(name).ok().filter(|name| name.len() <= MAX_NAME);
        let name = name
            .ok_or_else(|| self.bad(at, format!("an entry's name is not UTF-8 or above {MAX_NAME} bytes")))?;
        let (flags, method) = (number(8, 2)?, number(10, 2)?);
        let (mut packed, mut len, mut header) = (number(20, 4)?, number(24, 4)?, number(42, 4)?);
        let mut wide = wide_numbers(extra);
        for small in [&mut len, &mut packed, &mut header] {
            if *small == SEE_64 {
                *small = wide
                    .next()
                    .ok_or_else(|| self.bad(at, format!("entry '{name}': its 64-bit sizes are missing")))?;
            }
        }
        if method != 0 || flags & 1 != 0 || packed != len {
            return Err(Error::unsupported(format!(
                "{}: entry '{name}' is compressed; torch.save stores entries as they are",
                self.path.display()
            )));
        }
        Ok((copied(name)?, header, len))
    }

    /// The bytes of an entry whose local header is at `at`.
    fn span(&mut self, name: &str, at: u64, len: u64) -> Result<Span> {
        let header = self.read(at, LOCAL_HEADER_BYTES)?;
        if !header.starts_with(&LOCAL_HEADER) {
            return Err(self.bad(at, format!("no local header of entry '{name}'")));
        }
        let lengths = field(&header, 26, 2).unwrap_or_default() + field(&header, 28, 2).unwrap_or_default();
        let offset = at.saturating_add(LOCAL_HEADER_BYTES as u64).saturating_add(lengths);
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(Span { offset, len }),
            _ => Err(self.bad(at, format!("entry '{name}' ({len} bytes at {offset}) ends beyond the file"))),
        }
    }

    /// Reads `len` bytes at `offset`, of which the caller knows that they are few.
    fn read(&mut self, offset: u64, len: usize) -> Result<Vec<u8>> {
        if offset.checked_add(len as u64).is_none_or(|end| end > self.len) {
            return Err(self.bad(offset, format!("{len} bytes are announced beyond the file's {}", self.len)));
        }
        let mut bytes = filled(len, 0)?;
        let read = self.file.seek(SeekFrom::Start(offset)).and_then(|_| self.file.read_exact(&mut bytes));
        read.map_err(|e| Error::io(self.path, e))?;
        Ok(bytes)
    }

    fn bad(&self, offset: u64, what: impl std::fmt::Display) -> Error {
        Error::bad_file(self.path.display().to_string(), format!("zip: {what} (offset {offset})"))
    }
}

/// The 64-bit numbers of an entry's extra fields.
fn wide_numbers(mut extra: &[u8]) -> impl Iterator<Item = u64> {
    let mut numbers: &[u8] = &[];
    while let (Some(kind), Some(len)) = (field(extra, 0, 2), field(extra, 2, 2)) {
        let Some((one, rest)) = extra.split_at_checked(4 + len as usize) else { break };
        if kind == 1 {
            numbers = one.get(4..).unwrap_or_default();
        }
        extra = rest;
    }
    numbers.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes))
}

/// The little-endian number of `bytes` bytes at `offset` of a record.
fn field(record: &[u8], offset: usize, bytes: usize) -> Option<u64> {
    let mut all = [0; 8];
    all.get_mut(..bytes)?.copy_from_slice(record.get(offset..offset.checked_add(bytes)?)?);
    Some(u64::from_le_bytes(all))
}

#[cfg(test)]
mod tests;
