//! Pages of memory: read in before they are needed, and kept in main memory.

use crate::error::Result;

/// A step of [`prefetch`], after which it reports.
const PART: usize = 8 << 20;
/// No page is smaller.
const PAGE: usize = 4096;

/// Has the system read in the pages of `bytes`, such as those of a mapped file; returns when they are there. `report` is called
/// with the fraction that is, 0 to 1; an error of it cancels.
///
/// # Errors
/// What `report` returns.
pub(super) fn prefetch(bytes: &[u8], report: &dyn Fn(f64) -> Result<()>) -> Result<()> {
    will_need(bytes);
    let mut done = 0;
    for part in bytes.chunks(PART) {
        part.iter().step_by(PAGE).for_each(|byte| {
            std::hint::black_box(*byte);
        });
        done += part.len();
        report(done as f64 / bytes.len() as f64)?;
    }
    Ok(())
}

#[cfg(unix)]
fn will_need(bytes: &[u8]) {
    let (start, len) = pages(bytes);
    // SAFETY: the advice changes neither the bytes nor who may use them. If it is refused, pages are read as they are used.
    unsafe { libc::madvise(start, len, libc::MADV_WILLNEED) };
}

#[cfg(not(unix))]
fn will_need(_: &[u8]) {}

/// Bytes that are locked in main memory; dropping this unlocks them. It has to be dropped before their memory is freed.
#[derive(Debug)]
pub(crate) struct LockedPages {
    #[cfg(unix)]
    start: *mut libc::c_void,
    #[cfg(unix)]
    len: usize,
}

// SAFETY: the address is only handed to the system, which takes it from any thread.
unsafe impl Send for LockedPages {}
// SAFETY: as above.
unsafe impl Sync for LockedPages {}

impl LockedPages {
    /// Locks `bytes` in main memory, and has them read in.
    ///
    /// # Errors
    /// Why the system refuses, with its limit.
    #[cfg(unix)]
    pub(super) fn lock(bytes: &[u8]) -> std::result::Result<Self, String> {
        let (start, len) = pages(bytes);
        // SAFETY: the pages hold `bytes`, so they are mapped; locking changes no byte of them.
        if unsafe { libc::mlock(start, len) } == 0 {
            return Ok(Self { start, len });
        }
        let error = std::io::Error::last_os_error();
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the call writes one `rlimit`.
        let known = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) } == 0;
        let hint = match limit.rlim_cur {
            allowed if known && allowed != libc::RLIM_INFINITY => {
                format!("; the limit RLIMIT_MEMLOCK is {allowed} bytes: raise it ('ulimit -l' as root)")
            }
            _ => String::new(),
        };
        Err(format!("{len} bytes could not be locked in main memory: {error}{hint}"))
    }

    /// As on Unix.
    ///
    /// # Errors
    /// Always.
    #[cfg(not(unix))]
    pub(super) fn lock(_: &[u8]) -> std::result::Result<Self, String> {
        Err("memory cannot be locked on this system".into())
    }
}

#[cfg(unix)]
impl Drop for LockedPages {
    fn drop(&mut self) {
        // SAFETY: the memory is still there, by the type's contract. (Another lock of the same pages ends with this one.)
        unsafe { libc::munlock(self.start, self.len) };
    }
}

/// The whole pages that hold `bytes`: address and length. Where the system's pages are larger, it rounds itself.
#[cfg(unix)]
fn pages(bytes: &[u8]) -> (*mut libc::c_void, usize) {
    // SAFETY: asking for a number.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(PAGE).max(1);
    let start = bytes.as_ptr();
    let before = start.addr() % page;
    (start.wrapping_sub(before).cast_mut().cast(), before + bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use std::cell::RefCell;

    #[test]
    fn prefetching_reports_and_can_be_cancelled() {
        let bytes = vec![1; 2 * PART + 10];
        let seen = RefCell::new(Vec::new());
        prefetch(&bytes[1..], &|fraction| {
            seen.borrow_mut().push(fraction);
            Ok(())
        })
        .unwrap();
        let seen = seen.into_inner();
        assert!(seen.len() == 3 && seen.is_sorted() && seen.last() == Some(&1.0), "{seen:?}");
        assert!(matches!(prefetch(&bytes, &|_| Err(Error::Cancelled)), Err(Error::Cancelled)));
        prefetch(&[], &|_| Err(Error::Cancelled)).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn locking_names_bytes_and_reason() {
        let bytes = vec![1; 3 * PAGE];
        match LockedPages::lock(&bytes[100..]) {
            Ok(locked) => assert!(locked.len >= bytes.len() - 100 && locked.start.addr() % PAGE == 0),
            Err(what) => assert!(
                what.contains("bytes could not be locked") && what.contains("RLIMIT_MEMLOCK"),
                "{what}"
            ),
        }
    }
}
