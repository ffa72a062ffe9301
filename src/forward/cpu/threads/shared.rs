//! Memory that the threads of a pass share.

use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;

/// A part of the arena as numbers of type `T`. Between two gates of the pool a number is either written by one
/// thread or read by any; whoever borrows says so.
#[derive(Debug)]
pub(crate) struct Shared<'a, T> {
    start: NonNull<T>,
    len: usize,
    arena: PhantomData<&'a mut [T]>,
}

impl<T> Clone for Shared<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<'_, T> {}

// SAFETY: access is by `unsafe` functions whose callers rule out conflicts.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    /// # Safety
    /// `len` numbers at `start` are initialised, aligned, and used through this value and its copies alone
    /// for 'a.
    pub(crate) unsafe fn new(start: NonNull<T>, len: usize) -> Self {
        Self { start, len, arena: PhantomData }
    }

    /// # Safety
    /// Whoever has a copy uses it for 'a at most.
    pub(crate) unsafe fn of(all: &'a mut [T]) -> Self {
        // SAFETY: a slice is what is asked for, and it is borrowed for 'a.
        unsafe { Self::new(NonNull::from(&mut *all).cast(), all.len()) }
    }

    /// The numbers of a range.
    pub(crate) fn part(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: the range is inside.
        Self { start: unsafe { self.start.add(range.start) }, len: range.end - range.start, ..self }
    }

    /// One of `count` parts of the same length.
    pub(crate) fn share(self, index: usize, count: usize) -> Self {
        let len = self.len / count;
        self.part(index * len..(index + 1) * len)
    }

    /// # Safety
    /// Nobody writes into the range until the borrow ends.
    #[inline(always)]
    pub(crate) unsafe fn read(self, range: Range<usize>) -> &'a [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: the range is inside; the caller rules out writers.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(range.start), range.end - range.start) }
    }

    /// # Safety
    /// Nobody else uses the range until the borrow ends.
    #[inline(always)]
    pub(crate) unsafe fn write(self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: the range is inside; the caller rules out all other users.
        unsafe {
            std::slice::from_raw_parts_mut(self.start.as_ptr().add(range.start), range.end - range.start)
        }
    }

    /// # Safety
    /// Nobody else uses the number at `index` meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn set(self, index: usize, value: T) {
        assert!(index < self.len);
        // SAFETY: the number is inside; the caller rules out all other users.
        unsafe { self.start.as_ptr().add(index).write(value) }
    }
}
