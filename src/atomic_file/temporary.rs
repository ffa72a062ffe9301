//! Temporary names: `.NAME.PID-N.tmp` beside NAME.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The temporary names that this process uses now.
static IN_USE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Without a write for so long, the file of a process that is not found is taken as left behind. (The process may run in
/// another container, on the same volume.)
const STALE_AFTER: Duration = Duration::from_secs(600);

/// Removes the temporary files of this process. For a program that is about to end on a signal: files that the library
/// was writing are then incomplete and under temporary names, where the file system has no unnamed ones.
pub fn remove_temporary_files() {
    for path in IN_USE.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        let _ = fs::remove_file(path);
    }
}

/// A temporary name, whose file is removed when this is dropped.
#[derive(Debug)]
pub(super) struct TemporaryName(PathBuf);

impl TemporaryName {
    /// Creates an empty file under a temporary name beside `target`.
    pub(super) fn create(target: &Path) -> io::Result<(Self, File)> {
        let mut file = None;
        let name = Self::of(target, |name| {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true);
            // It gets the permissions of the file that it replaces, which others may not be allowed to read.
            #[cfg(unix)]
            if target.exists() {
                std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            }
            file = Some(options.open(name)?);
            Ok(())
        })?;
        Ok((name, file.ok_or(ErrorKind::NotFound)?))
    }

    /// A temporary name beside `target` under which `make` has put a file. It is given another one where there is one
    /// already.
    pub(super) fn of(target: &Path, mut make: impl FnMut(&Path) -> io::Result<()>) -> io::Result<Self> {
        let name = beginning(target.file_name().unwrap_or_default());
        for attempt in 0..100 {
            let mut temporary = OsString::from(".");
            temporary.push(name);
            temporary.push(format!(".{}-{attempt}.tmp", std::process::id()));
            let path = target.with_file_name(temporary);
            // Noted first, so that a signal between the two leaves nothing.
            let mut in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
            if in_use.contains(&path) {
                continue;
            }
            match make(&path) {
                Ok(()) => {
                    in_use.push(path.clone());
                    return Ok(Self(path));
                }
                Err(e) if e.kind() == ErrorKind::AlreadyExists => (),
                Err(e) => return Err(e),
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    /// Renames the file to `target`, replacing what is there.
    pub(super) fn rename(self, target: &Path) -> io::Result<()> {
        fs::rename(&self.0, target)
    }

    /// Gives the file the name `target`, which must not exist.
    pub(super) fn link(self, target: &Path) -> io::Result<()> {
        match fs::hard_link(&self.0, target) {
            // A file system without hard links.
            Err(e) if e.kind() != ErrorKind::AlreadyExists => fs::rename(&self.0, target),
            other => other,
        }
    }
}

impl Drop for TemporaryName {
    fn drop(&mut self) {
        // Gone already if it was renamed.
        let _ = fs::remove_file(&self.0);
        IN_USE.lock().unwrap_or_else(PoisonError::into_inner).retain(|path| *path != self.0);
    }
}

/// What the names of [`nameless`] files are made from.
pub(super) const NAMELESS: &str = "esolm";

/// A file of this user's alone in `folder`, for reading and writing, that has a name only until this returns.
pub(super) fn nameless(folder: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = None;
    TemporaryName::of(&folder.join(NAMELESS), |name| {
        file = Some(options.open(name)?);
        Ok(())
    })?;
    file.ok_or(ErrorKind::NotFound.into())
}

/// Removes temporary files of `target` that processes left behind which are gone.
pub(super) fn remove_stale(target: &Path) {
    let Ok(entries) = fs::read_dir(directory_of(target)) else { return };
    let name = beginning(target.file_name().unwrap_or_default());
    for entry in entries.flatten() {
        let is_stale = || {
            let modified = entry.metadata().ok()?.modified().ok()?;
            Some(modified.elapsed().ok()? > STALE_AFTER)
        };
        if owner(&entry.file_name(), name).is_some_and(is_gone) && is_stale() == Some(true) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The directory that `path` is in.
pub(super) fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// As much of a file's name as a temporary one has room for: file systems have names of at most 255 bytes.
fn beginning(name: &OsStr) -> &OsStr {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;

        const LONGEST: usize = 255 - ".".len() - ".4294967295-99.tmp".len();
        OsStr::from_bytes(name.as_bytes().get(..LONGEST).unwrap_or(name.as_bytes()))
    }
    #[cfg(not(unix))]
    name
}

/// The process that made the temporary file `temporary` of `name`; `None` if it is none.
fn owner(temporary: &OsStr, name: &OsStr) -> Option<u32> {
    let rest = temporary.as_encoded_bytes().strip_prefix(b".")?.strip_prefix(name.as_encoded_bytes())?;
    let middle = rest.strip_prefix(b".")?.strip_suffix(b".tmp")?;
    let (process, attempt) = std::str::from_utf8(middle).ok()?.split_once('-')?;
    attempt.parse::<u32>().ok()?;
    process.parse().ok()
}

/// Whether there is no such process.
fn is_gone(process: u32) -> bool {
    #[cfg(unix)]
    {
        use rustix::process::{Pid, test_kill_process};

        let pid = i32::try_from(process).ok().and_then(Pid::from_raw);
        pid.is_some_and(|pid| test_kill_process(pid) == Err(rustix::io::Errno::SRCH))
    }
    #[cfg(not(unix))]
    {
        let _ = process;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_names_are_told_from_others() {
        let owner = |temporary: &str| owner(OsStr::new(temporary), OsStr::new("a.gguf"));
        assert_eq!(owner(".a.gguf.12-0.tmp"), Some(12));
        for other in [
            "a.gguf",
            ".b.gguf.12-0.tmp",
            ".a.gguf.12.tmp",
            ".a.gguf.x-0.tmp",
            ".a.gguf.12-0.tmp.gz",
            ".a.gguf-12-0.tmp",
        ] {
            assert_eq!(owner(other), None, "{other}");
        }
        assert!(!is_gone(std::process::id()));
    }
}
