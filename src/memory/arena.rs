//! One block of host memory, allocated here or provided by the caller.

use std::ptr::NonNull;

use memmap2::MmapMut;

use crate::error::{Error, Result};

/// Alignment of an arena and of every region in it, in bytes.
pub const ALIGNMENT: usize = 64;

/// Bytes of an arena that may be in main memory though they are not used.
const MOST_UNUSED: usize = 64 << 20;

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
    /// The allocation that `start` points into; `None` if the memory is the caller's.
    _owned: Option<MmapMut>,
}

// SAFETY: an arena is the only user of its bytes, whichever thread owns it.
unsafe impl Send for Arena {}
// SAFETY: through a shared arena bytes are only read and addresses handed out; to write through such an address is
// unsafe and checked there.
unsafe impl Sync for Arena {}

impl AsRef<[u8]> for Arena {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

impl Arena {
    /// Maps `len` zeroed bytes. The operating system provides each page when it is first touched: small ones, unless `len` is
    /// [`MOST_UNUSED`] at most.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn allocate(len: usize) -> Result<Self> {
        Self::map(len, len <= MOST_UNUSED)
    }

    /// As [`Arena::allocate`], in huge pages however large it is: for memory that is used from end to end.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn allocate_in_huge_pages(len: usize) -> Result<Self> {
        Self::map(len, true)
    }

    /// `in_huge_pages`: where the system has them. They are read faster, and take memory where they are used here and there.
    fn map(len: usize, in_huge_pages: bool) -> Result<Self> {
        let mut map = MmapMut::map_anon(len.max(1))
            .map_err(|e| Error::OutOfMemory(format!("{len} bytes could not be allocated ({e})")))?;
        #[cfg(all(target_os = "linux", not(miri)))]
        if in_huge_pages {
            // If the system refuses, pages are small.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        let _ = in_huge_pages;
        let start = NonNull::from(map.as_mut()).cast();
        Ok(Self { start, len, _owned: Some(map) })
    }

    /// Uses `len` bytes at `start` and clears them.
    ///
    /// # Safety
    /// The bytes must be valid for writes and not be used by anyone else while the arena lives.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `start` is not aligned to [`ALIGNMENT`].
    #[cfg_attr(not(feature = "capi"), allow(dead_code, reason = "callers' memory comes through C"))]
    pub(crate) unsafe fn borrow(start: NonNull<u8>, len: usize) -> Result<Self> {
        if !start.addr().get().is_multiple_of(ALIGNMENT) {
            return Err(Error::invalid(format!("the arena must be aligned to {ALIGNMENT} bytes")));
        }
        // SAFETY: the caller guarantees that `len` bytes may be written.
        unsafe { start.write_bytes(0, len) };
        Ok(Self { start, len, _owned: None })
    }

    /// The number of bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the block is initialised, has this length, and is not written while `&self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The bytes, mutable.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the block is initialised, has this length, and `&mut self` makes the slice the only access.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// The address of byte `offset`, from which `len` bytes are inside the block.
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
