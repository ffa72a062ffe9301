//! One block of host memory, the library's own or the caller's.

use std::ptr::NonNull;

use memmap2::MmapMut;

use crate::error::{Error, Result};

/// Alignment of an arena and of every region in it, in bytes.
pub const ALIGNMENT: usize = 64;

/// A part of an arena.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Region {
    /// Bytes from the start of the arena.
    pub(crate) offset: usize,
    /// Length in bytes.
    pub(crate) len: usize,
}

/// A zeroed block of memory with a fixed address.
#[derive(Debug)]
pub(crate) struct Arena {
    start: NonNull<u8>,
    len: usize,
    /// Keeps the library's own memory; `None` when it is the caller's.
    _owned: Option<MmapMut>,
}

// SAFETY: a `Arena` is the only user of its bytes, wherever it is moved.
unsafe impl Send for Arena {}
// SAFETY: a shared `Arena` gives out addresses and reads; whoever writes through an address answers for it.
unsafe impl Sync for Arena {}

impl Arena {
    /// Asks the operating system for `len` bytes. Pages are taken as they are touched.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn allocate(len: usize) -> Result<Self> {
        let mut map = MmapMut::map_anon(len.max(1))
            .map_err(|e| Error::OutOfMemory(format!("{len} bytes could not be allocated ({e})")))?;
        let start = NonNull::from(map.as_mut()).cast();
        Ok(Self { start, len, _owned: Some(map) })
    }

    /// Uses `len` bytes at `start` and clears them.
    ///
    /// # Safety
    /// The bytes must be valid for writes and used by nobody else as long as the `Arena` lives.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `start` is not aligned to [`ALIGNMENT`].
    #[cfg_attr(not(feature = "capi"), allow(dead_code, reason = "callers' memory comes through C"))]
    pub(crate) unsafe fn borrow(start: NonNull<u8>, len: usize) -> Result<Self> {
        if !start.addr().get().is_multiple_of(ALIGNMENT) {
            return Err(Error::invalid(format!("the arena must be aligned to {ALIGNMENT} bytes")));
        }
        // SAFETY: the caller promises that the bytes may be written.
        unsafe { start.write_bytes(0, len) };
        Ok(Self { start, len, _owned: None })
    }

    /// The number of bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the block is initialised, has this length, and is written through `&mut` owners only.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The bytes, to be written.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the block is initialised, has this length, and is borrowed for as long as the slice lives.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// The address `offset` bytes in, with `len` bytes behind it.
    ///
    /// # Errors
    /// [`Error::Internal`] if that is outside the block.
    pub(crate) fn part(&self, offset: usize, len: usize) -> Result<NonNull<u8>> {
        match offset.checked_add(len) {
            // SAFETY: the offset is inside the block.
            Some(end) if end <= self.len => Ok(unsafe { self.start.add(offset) }),
            _ => Err(Error::internal(format!("{len} bytes at {offset} are outside {} bytes", self.len))),
        }
    }
}
