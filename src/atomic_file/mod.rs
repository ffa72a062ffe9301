//! Files that appear under their name only when they are complete.

mod temporary;

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
pub use temporary::remove_temporary_files;
use temporary::{TemporaryName, directory_of, remove_stale};

/// A file that is being written. Dropping it without [`PendingFile::commit`] leaves the target as it was.
#[derive(Debug)]
pub(crate) struct PendingFile {
    file: File,
    /// The file itself, if the name that was given is a symbolic link.
    target: PathBuf,
    place: Place,
    force: bool,
}

/// Where the bytes are until they are complete.
#[derive(Debug)]
enum Place {
    /// In the target's directory without a name: the system removes them whatever ends the process.
    #[cfg(target_os = "linux")]
    Unnamed,
    /// In the target's directory under a temporary name.
    Named(TemporaryName),
    /// In the target, which is a device or a pipe: those are written to, never replaced.
    Target,
    /// In the file that the caller has opened, and syncs.
    #[cfg(feature = "convert")]
    Open,
}

impl PendingFile {
    /// A file that the caller has opened. `name` is what errors call it.
    ///
    /// # Errors
    /// [`Error::Io`].
    #[cfg(feature = "convert")]
    pub fn of_open(file: &File, name: &Path) -> Result<Self> {
        let file = file.try_clone().map_err(|e| Error::io(name, e))?;
        Ok(Self { file, target: name.to_owned(), place: Place::Open, force: true })
    }

    /// Begins a file. `force` allows the target to exist.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the target is a directory, exists without `force`, or has no file name;
    /// [`Error::Io`].
    pub fn create(target: &Path, force: bool) -> Result<Self> {
        // Before links are followed: what `/dev/stdout` and the descriptors of a shell lead to may have no path.
        if is_device(target) {
            let file = open_device(target)?;
            return Ok(Self { file, target: target.to_owned(), place: Place::Target, force });
        }
        let target = follow_links(target)?;
        let io = |e| Error::io(&target, e);
        refuse_existing(&target, force)?;
        if target.file_name().is_none() {
            return Err(Error::invalid(format!("'{}' is not a file name", target.display())));
        }
        remove_stale(&target);
        #[cfg(target_os = "linux")]
        if let Some(file) = unnamed(directory_of(&target)) {
            return Ok(Self { file, target, place: Place::Unnamed, force });
        }
        let (name, file) = TemporaryName::create(&target).map_err(io)?;
        Ok(Self { file, target, place: Place::Named(name), force })
    }

    /// The file to write to.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Syncs the file to the disk and gives it its name; a file that it replaces leaves it its permissions and owner.
    /// Returns its size in bytes, 0 for a device or a pipe.
    ///
    /// # Errors
    /// As [`PendingFile::create`]; the target is then as it was.
    pub fn commit(self) -> Result<u64> {
        let Self { file, target, place, force } = self;
        let io = |e| Error::io(&target, e);
        if matches!(place, Place::Target) {
            // Many cannot be synced.
            let _ = file.sync_all();
            return Ok(0);
        }
        #[cfg(feature = "convert")]
        if matches!(place, Place::Open) {
            return Ok(file.metadata().map_err(io)?.len());
        }
        refuse_existing(&target, force)?;
        if let Ok(replaced) = fs::metadata(&target) {
            if !replaced.is_file() {
                return Err(Error::invalid(format!("{} has become something else", target.display())));
            }
            keep_owner(&file, &replaced);
            file.set_permissions(permissions_of(&replaced)).map_err(io)?;
        }
        file.sync_all().map_err(io)?;
        let bytes = file.metadata().map_err(io)?.len();
        let exists = |e: std::io::Error| match e.kind() {
            ErrorKind::AlreadyExists => exists(&target),
            _ => io(e),
        };
        match place {
            #[cfg(target_os = "linux")]
            Place::Unnamed if !force => link(&file, &target).map_err(exists)?,
            #[cfg(target_os = "linux")]
            Place::Unnamed => {
                TemporaryName::of(&target, |name| link(&file, name))
                    .and_then(|name| name.rename(&target))
                    .map_err(io)?;
            }
            Place::Named(name) if !force => name.link(&target).map_err(exists)?,
            Place::Named(name) => name.rename(&target).map_err(io)?,
            Place::Target => (),
            #[cfg(feature = "convert")]
            Place::Open => (),
        }
        // The new name is durable once the directory is synced. Not every system can open a directory, and the file itself
        // is safe: a failure here is not an error.
        if let Ok(directory) = File::open(directory_of(&target)) {
            let _ = directory.sync_all();
        }
        Ok(bytes)
    }
}

/// A file in the system's folder for temporary ones, for reading and writing. It has no name: nothing of it stays when it is
/// closed, whatever ends the process.
///
/// # Errors
/// [`Error::Io`], naming the folder.
pub fn temporary_file() -> Result<File> {
    temporary_file_in(&std::env::temp_dir())
}

fn temporary_file_in(folder: &Path) -> Result<File> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{Mode, OFlags, open};

        // Exclusively: no other process can give it a name.
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC;
        if let Ok(file) = open(folder, flags, Mode::RUSR | Mode::WUSR) {
            return Ok(file.into());
        }
    }
    remove_stale(&folder.join(temporary::NAMELESS));
    temporary::nameless(folder).map_err(|e| Error::io(folder, e))
}

/// Writes a file that appears, or replaces an existing one, only when it is complete and on disk. A device or a pipe is
/// written to. A file that is replaced leaves the new one its permissions.
///
/// # Errors
/// [`Error::Io`]; [`Error::InvalidArgument`] if `path` is a directory or not a file name.
pub fn write_file(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let path = path.as_ref();
    let pending = PendingFile::create(path, true)?;
    pending.file().write_all(bytes).map_err(|e| Error::io(path, e))?;
    pending.commit().map(|_| ())
}

/// Writes what the file `from` has to the file `to`, as [`write_file`] does.
///
/// # Errors
/// As [`write_file`]; [`Error::Io`] naming `from`, if that cannot be opened.
pub fn copy_file(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
    let (from, to) = (from.as_ref(), to.as_ref());
    let mut source = File::open(from).map_err(|e| Error::io(from, e))?;
    let pending = PendingFile::create(to, true)?;
    std::io::copy(&mut source, &mut pending.file()).map_err(|e| Error::io(to, e))?;
    pending.commit().map(|_| ())
}

/// Fails where [`write_file`] would, before the work whose result is to be written. What is there stays as it is. (A device
/// or a pipe is not opened, as that may have an effect.)
///
/// # Errors
/// As [`write_file`].
pub fn check_writable(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    if is_device(path) { Ok(()) } else { PendingFile::create(path, true).map(drop) }
}

/// Whether `path` is, or leads to, a device, a pipe or a socket.
fn is_device(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| !meta.is_file() && !meta.is_dir())
}

/// Opens a device or a pipe for writing, without waiting: a pipe that no process reads from is an error.
fn open_device(path: &Path) -> Result<File> {
    let io = |e| Error::io(path, e);
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    {
        use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
        use std::os::unix::fs::OpenOptionsExt;

        let nobody = "it is a pipe or a socket that no process reads from";
        options.custom_flags(OFlags::NONBLOCK.bits() as i32);
        let file = options.open(path).map_err(|e| match e.raw_os_error() {
            Some(code) if code == rustix::io::Errno::NXIO.raw_os_error() => io(std::io::Error::other(nobody)),
            _ => io(e),
        })?;
        // Writing waits for the reader.
        let flags = fcntl_getfl(&file).map_err(|e| io(e.into()))?;
        fcntl_setfl(&file, flags - OFlags::NONBLOCK).map_err(|e| io(e.into()))?;
        Ok(file)
    }
    #[cfg(not(unix))]
    options.open(path).map_err(io)
}

/// What `path` leads to through symbolic links, of which the last may point to a file that is still to be made.
fn follow_links(path: &Path) -> Result<PathBuf> {
    let mut path = path.to_owned();
    // As many as Linux follows.
    for _ in 0..40 {
        match fs::read_link(&path) {
            Ok(next) => path = directory_of(&path).join(next),
            Err(_) => return Ok(path),
        }
    }
    Err(Error::invalid(format!("{}: too many symbolic links", path.display())))
}

/// A file without a name, where the file system has them and the process can name it later.
#[cfg(target_os = "linux")]
fn unnamed(directory: &Path) -> Option<File> {
    use rustix::fs::{Mode, OFlags, open};

    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = File::from(open(directory, flags, Mode::from_raw_mode(0o666)).ok()?);
    descriptor_path(&file).exists().then_some(file)
}

/// Gives an unnamed file a name, which must not exist.
#[cfg(target_os = "linux")]
fn link(file: &File, name: &Path) -> std::io::Result<()> {
    use rustix::fs::{AtFlags, CWD, linkat};

    Ok(linkat(CWD, descriptor_path(file), CWD, name, AtFlags::SYMLINK_FOLLOW)?)
}

#[cfg(target_os = "linux")]
fn descriptor_path(file: &File) -> PathBuf {
    use std::os::fd::AsRawFd;

    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

/// What may be done with a file, without the bits that have a program run as somebody else: the content is another.
fn permissions_of(replaced: &fs::Metadata) -> fs::Permissions {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;

        fs::Permissions::from_mode(replaced.permissions().mode() & 0o777)
    }
    #[cfg(not(unix))]
    replaced.permissions()
}

/// Gives `file` the owner and group of the file that it replaces, as far as this user may.
fn keep_owner(file: &File, replaced: &fs::Metadata) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, fchown};

        let same =
            file.metadata().is_ok_and(|own| (own.uid(), own.gid()) == (replaced.uid(), replaced.gid()));
        if !same {
            // A user who may not give files away keeps it.
            let _ = fchown(file, Some(replaced.uid()), Some(replaced.gid()));
        }
    }
    #[cfg(not(unix))]
    let _ = (file, replaced);
}

fn refuse_existing(target: &Path, force: bool) -> Result<()> {
    if target.is_dir() {
        return Err(Error::invalid(format!("{} is a directory", target.display())));
    }
    match target.symlink_metadata() {
        Ok(_) if !force => Err(exists(target)),
        // A name that is too long, say: better now than when everything is written.
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(target, error)),
        _ => Ok(()),
    }
}

fn exists(target: &Path) -> Error {
    Error::invalid(format!("{} exists; --force replaces it", target.display()))
}

/// Refuses an output that is the input, even with `force`, also through a link.
#[cfg(feature = "convert")]
pub(crate) fn refuse_input_as_output(input: &Path, output: &Path) -> Result<()> {
    // Mostly there is no output yet, and nothing to look up.
    match output.canonicalize() {
        Ok(output) if input.canonicalize().is_ok_and(|input| input == output) => {
            Err(Error::invalid(format!("{} is both input and output", output.display())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
