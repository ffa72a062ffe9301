#![cfg(unix)]

use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::*;

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Held by tests that have files with temporary names: one of them removes all of the process.
static NAMES: Mutex<()> = Mutex::new(());

fn lock_names() -> MutexGuard<'static, ()> {
    NAMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The two ways: a file without a name, and one with a temporary name as other systems have.
const WAYS: [bool; 2] = [false, true];

fn begin(target: &Path, force: bool, named: bool) -> Result<PendingFile> {
    let mut pending = PendingFile::create(target, force)?;
    if named {
        let (name, file) = TemporaryName::create(&pending.target).map_err(|e| Error::io(target, e))?;
        (pending.file, pending.place) = (file, Place::Named(name));
    }
    Ok(pending)
}

#[test]
fn file_appears_complete_or_not_at_all() {
    let _names = lock_names();
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("a");
    for named in WAYS {
        let pending = begin(&target, false, named).unwrap();
        pending.file().write_all(b"half").unwrap();
        assert!(!target.exists());
        drop(pending);
        assert!(names(folder.path()).is_empty());
    }
    for named in WAYS {
        let pending = begin(&target, false, named).unwrap();
        pending.file().write_all(b"all").unwrap();
        assert_eq!(pending.commit().unwrap(), 3);
        assert_eq!(names(folder.path()), ["a"]);
        assert_eq!(fs::read(&target).unwrap(), b"all");
        fs::remove_file(&target).unwrap();
    }
}

#[test]
fn file_that_appears_meanwhile_is_not_replaced() {
    let _names = lock_names();
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("a");
    for named in WAYS {
        let pending = begin(&target, false, named).unwrap();
        fs::write(&target, "other").unwrap();
        assert!(matches!(pending.commit(), Err(Error::InvalidArgument(_))));
        assert_eq!((fs::read(&target).unwrap(), names(folder.path())), (b"other".to_vec(), vec!["a".into()]));
        fs::remove_file(&target).unwrap();
    }
    assert!(WAYS.iter().all(|&named| begin(folder.path(), true, named).is_err()));
}

#[test]
fn replaced_file_leaves_its_mode_and_its_links() {
    let _names = lock_names();
    let folder = tempfile::tempdir().unwrap();
    let [target, link, dangling] = ["a", "link", "dangling"].map(|name| folder.path().join(name));
    symlink("a", &link).unwrap();
    for named in WAYS {
        fs::write(&target, "old").unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
        let pending = begin(&link, true, named).unwrap();
        pending.file().write_all(b"new").unwrap();
        pending.commit().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(link.symlink_metadata().unwrap().is_symlink());
    }
    symlink("b", &dangling).unwrap();
    write_file(&dangling, b"new").unwrap();
    assert_eq!(fs::read(folder.path().join("b")).unwrap(), b"new");
    let circle = folder.path().join("circle");
    symlink("circle", &circle).unwrap();
    assert!(write_file(&circle, b"new").is_err());
}

#[test]
fn replaced_file_is_readable_by_nobody_else_meanwhile_and_runs_as_nobody_else() {
    let _names = lock_names();
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("a");
    fs::write(&target, "secret").unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o4750)).unwrap();
    for named in WAYS {
        let pending = begin(&target, true, named).unwrap();
        if named {
            assert_eq!(pending.file().metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        }
        pending.commit().unwrap();
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o7777, 0o750);
    }
}

#[test]
fn pipe_that_appears_meanwhile_is_not_replaced() {
    let _names = lock_names();
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("a");
    for named in WAYS {
        let pending = begin(&target, true, named).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(&target).unwrap();
        let refused = pending.commit().unwrap_err().to_string();
        assert!(refused.contains("something else"), "{refused}");
        assert_eq!(names(folder.path()), ["a"]);
        drop(socket);
        fs::remove_file(&target).unwrap();
    }
}

#[test]
fn name_may_be_as_long_as_the_file_system_allows() {
    let _names = lock_names();
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("n".repeat(255));
    for (named, content) in WAYS.into_iter().zip(["one", "two"]) {
        let pending = begin(&target, true, named).unwrap();
        pending.file().write_all(content.as_bytes()).unwrap();
        pending.commit().unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), content);
        write_file(&target, b"again").unwrap();
    }
    assert_eq!(names(folder.path()).len(), 1);
    assert!(matches!(check_writable(folder.path().join("n".repeat(256))), Err(Error::Io { .. })));
}

#[test]
fn descriptor_of_a_pipe_is_written_to() {
    use std::io::Read;
    use std::os::fd::AsRawFd;

    let (mut reader, writer) = std::io::pipe().unwrap();
    // What /dev/stdout and a shell's `>(command)` are.
    write_file(format!("/dev/fd/{}", writer.as_raw_fd()), b"through").unwrap();
    drop(writer);
    let mut read = String::new();
    reader.read_to_string(&mut read).unwrap();
    assert_eq!(read, "through");
}

#[test]
fn pipe_is_written_to_if_somebody_reads_from_it() {
    use std::io::Read;

    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Without waiting.
    let refused = write_file(&pipe, b"nothing").unwrap_err().to_string();
    assert!(refused.contains("pipe: it is a pipe or a socket that no process reads from"), "{refused}");
    let mut reader = OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    // More than a pipe holds: writing waits for the reader.
    let content = vec![b'x'; 1 << 20];
    std::thread::scope(|scope| {
        let written = scope.spawn(|| write_file(&pipe, &content));
        let mut read = vec![0; content.len()];
        reader.read_exact(&mut read).unwrap();
        written.join().unwrap().unwrap();
        assert!(read == content);
    });
    assert_eq!(names(folder.path()), ["pipe"]);
}

#[test]
fn device_is_written_to() {
    write_file("/dev/null", b"gone").unwrap();
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
    let full = write_file("/dev/full", b"too much");
    assert!(matches!(&full, Err(Error::Io { file, .. }) if file == "/dev/full"), "{full:?}");
}

#[test]
fn files_left_behind_are_removed() {
    let _names = lock_names();
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("a");
    let leave = |process: u32, age: u64| {
        let path = folder.path().join(format!(".a.{process}-0.tmp"));
        let file = File::create(&path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        path
    };
    // No process has this number: Linux's limit is 2^22.
    const NOBODY: u32 = 1 << 30;
    let stale = leave(NOBODY, 3600);
    let recent = leave(NOBODY + 1, 0);
    let alive = leave(std::process::id(), 3600);
    write_file(&target, b"new").unwrap();
    assert_eq!([&stale, &recent, &alive].map(|path| path.exists()), [false, true, true]);
    // Those of this process are removed on request.
    let (name, _) = TemporaryName::create(&target).unwrap();
    assert_eq!(names(folder.path()).len(), 4);
    remove_temporary_files();
    assert_eq!(names(folder.path()).len(), 3);
    drop(name);
}

#[test]
fn temporary_file_has_no_name() {
    use std::io::{Read, Seek};

    let _names = lock_names();
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    for (make, way) in [(temporary_file_in as fn(&Path) -> Result<File>, "none"), (nameless_in, "a moment")] {
        let mut file = make(folder.path()).unwrap();
        assert!(names(folder.path()).is_empty());
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{way}");
        file.write_all(b"content").unwrap();
        file.rewind().unwrap();
        let mut read = String::new();
        file.read_to_string(&mut read).unwrap();
        assert_eq!(read, "content");
        let failed = make(&missing);
        assert!(matches!(&failed, Err(Error::Io { file, .. }) if file.ends_with("missing")), "{failed:?}");
    }
    temporary_file().unwrap();
}

/// The way of file systems that have no files without names.
fn nameless_in(folder: &Path) -> Result<File> {
    temporary::nameless(folder).map_err(|e| Error::io(folder, e))
}
