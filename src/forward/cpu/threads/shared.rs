//! Memory that all threads of a job read and write.

use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;

/// A slice of the arena that all threads have. In an operation each element is either written by one thread or
/// read by any; the callers of its `unsafe` functions see to that.
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

// SAFETY: all access goes through `unsafe` functions, whose callers rule out data races.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as for `Send`.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    /// # Safety
    /// The `len` elements at `start` are initialised, aligned, and used only through this value and its copies
    /// for 'a.
    pub(crate) unsafe fn new(start: NonNull<T>, len: usize) -> Self {
        Self { start, len, arena: PhantomData }
    }

    /// All of a slice, which is borrowed for as long as the value and its copies can be used.
    pub(crate) fn of(slice: &'a mut [T]) -> Self {
        // SAFETY: a slice is initialised and aligned, and its only borrow, for 'a, ends here.
        unsafe { Self::new(NonNull::from(&mut *slice).cast(), slice.len()) }
    }

    /// A range of it.
    pub(crate) fn part(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: the range is inside.
        Self { start: unsafe { self.start.add(range.start) }, len: range.end - range.start, ..self }
    }

    /// Part `index` of `count` parts of the same length.
    pub(crate) fn share(self, index: usize, count: usize) -> Self {
        let len = self.len / count;
        self.part(index * len..(index + 1) * len)
    }

    /// # Safety
    /// No thread writes into the range before the borrow ends.
    #[inline(always)]
    pub(crate) unsafe fn read(self, range: Range<usize>) -> &'a [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: the range is inside; the caller rules out writers.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(range.start), range.end - range.start) }
    }

    /// # Safety
    /// Nobody else reads or writes the range before the borrow ends.
    #[inline(always)]
    pub(crate) unsafe fn write(self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: the range is inside; the caller rules out all other users.
        unsafe {
            std::slice::from_raw_parts_mut(self.start.as_ptr().add(range.start), range.end - range.start)
        }
    }

    /// # Safety
    /// Nobody else reads or writes the element at `index` at the same time.
    #[inline(always)]
    pub(crate) unsafe fn set(self, index: usize, value: T) {
        assert!(index < self.len);
        // SAFETY: the element is inside; the caller rules out all other users.
        unsafe { self.start.as_ptr().add(index).write(value) }
    }
}
