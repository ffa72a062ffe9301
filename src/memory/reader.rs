//! Where the bytes of a model file are read from: a part of an open file, or what a caller's code reads.

use std::fs::File;
use std::io::{self, ErrorKind};

use crate::error::{Error, Result};

/// Reads a model's file for [`Model::from_reader`](crate::Model::from_reader): an entry of an archive, an encrypted file, a
/// download. (What whisper.h has as `whisper_model_loader`.)
pub trait ModelReader {
    /// Size of the file in bytes.
    fn size(&self) -> u64;

    /// What messages call the file.
    fn name(&self) -> String {
        "(reader)".into()
    }

    /// Reads bytes from `offset` on into `buffer`, which ends at or before [`ModelReader::size`], and returns how many there
    /// are: as many as fit, or fewer, but at least one. 0 means that the file ends here. It is called from the beginning of
    /// the file to its end, on the thread that opens the model.
    ///
    /// # Errors
    /// Whatever keeps it from reading; after [`ErrorKind::Interrupted`] it is called again.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

/// What messages call a file that a caller has opened.
pub(crate) const OPEN_FILE: &str = "(open file)";

/// A part of an open file.
pub(crate) struct FilePart<'a> {
    file: &'a File,
    /// What messages call it.
    name: String,
    offset: u64,
    len: u64,
}

impl<'a> FilePart<'a> {
    /// `len` bytes from `offset` on.
    pub(super) fn new(file: &'a File, name: String, offset: u64, len: u64) -> Self {
        Self { file, name, offset, len }
    }

    /// `len` bytes from `offset` on, or all up to the end, of a file that a caller has opened.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if they are not in the file; [`Error::BadFile`] for what is no regular file; [`Error::Io`].
    pub(crate) fn of(file: &'a File, offset: u64, len: Option<u64>) -> Result<Self> {
        let name = OPEN_FILE.to_owned();
        let metadata = file.metadata().map_err(|source| Error::Io { file: name.clone(), source })?;
        if !metadata.is_file() {
            return Err(Error::bad_file(name, "is no regular file"));
        }
        let all = metadata.len();
        let rest = all.checked_sub(offset);
        match (rest, len) {
            (Some(rest), None) => Ok(Self::new(file, name, offset, rest)),
            (Some(rest), Some(len)) if len <= rest => Ok(Self::new(file, name, offset, len)),
            _ => {
                let len = len.map_or("the bytes".into(), |len| format!("{len} bytes"));
                Err(Error::invalid(format!("{name}: {len} from {offset} on are not in a file of {all}")))
            }
        }
    }

    pub(super) fn file(&self) -> &File {
        self.file
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The same part.
    pub(super) fn again(&self) -> Self {
        Self { file: self.file, name: self.name.clone(), offset: self.offset, len: self.len }
    }
}

impl ModelReader for FilePart<'_> {
    fn size(&self) -> u64 {
        self.len
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let offset = self.offset.checked_add(offset).ok_or(ErrorKind::InvalidInput)?;
        #[cfg(unix)]
        return std::os::unix::fs::FileExt::read_at(self.file, buffer, offset);
        #[cfg(windows)]
        return std::os::windows::fs::FileExt::seek_read(self.file, buffer, offset);
        #[cfg(not(any(unix, windows)))]
        {
            use std::io::{Read, Seek};

            let mut file = self.file;
            file.seek(io::SeekFrom::Start(offset))?;
            file.read(buffer)
        }
    }
}
