//! Calls of the system that fail: each that the command makes on a file, one after the other, in every way.
//!
//! `shim.c` is loaded into the command and has call number N fail. Whatever fails, the command ends with a result that is as
//! it would be without, or with a message that names the file, and every file is as it was or complete.
//! `ESOLM_FAULTS=all` tries every N; else the first few are tried.

mod uses;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::command_line::{built_in, err, esolm, golden, library_file, out};
use uses::{USES, Use};

const EINTR: i32 = 4;
const EIO: i32 = 5;
const EAGAIN: i32 = 11;
const ENOMEM: i32 = 12;
const EACCES: i32 = 13;
const ENODEV: i32 = 19;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
const EDQUOT: i32 = 122;
/// Half is read or written; nothing is read, as behind the end of a file.
const SHORT: i32 = 0;
const END: i32 = -1;

/// What is expected of a run in which the fault happened.
#[derive(Clone, Copy, PartialEq)]
enum Expected {
    /// The result is as without it.
    Harmless,
    /// An error that names a file.
    Refused,
    /// Either.
    Any,
}
use Expected::{Any, Harmless, Refused};

/// A call and how it fails. `true`: so does every later one.
type Fault = (&'static str, i32, bool, Expected);

const FAULTS: [Fault; 22] = [
    ("open", EIO, false, Any),
    ("open", EACCES, true, Any),
    ("open", EMFILE, false, Any),
    ("open", EROFS, true, Any),
    ("read", EIO, false, Refused),
    ("read", EINTR, false, Harmless),
    ("read", SHORT, false, Harmless),
    ("read", SHORT, true, Harmless),
    ("read", END, true, Any),
    ("write", EIO, false, Refused),
    ("write", ENOSPC, true, Refused),
    ("write", EDQUOT, false, Refused),
    ("write", EINTR, false, Harmless),
    ("write", SHORT, false, Harmless),
    ("write", SHORT, true, Harmless),
    ("fsync", EIO, true, Any),
    ("close", EIO, true, Harmless),
    ("mmap", ENOMEM, false, Refused),
    ("mmap", ENODEV, true, Harmless),
    // Where more than is needed was looked for, a smaller number is.
    ("memory", ENOMEM, false, Any),
    ("chmod", EIO, false, Refused),
    ("rename", EIO, false, Refused),
];

/// What the uses need, made once.
struct Prepared {
    folder: tempfile::TempDir,
    shim: PathBuf,
}

impl Prepared {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let shim = folder.path().join("shim.so");
        let cc = std::env::var("CC").unwrap_or("cc".into());
        let source = library_file("cli/tests/cli/faults/shim.c");
        let mut compile = Command::new(cc);
        compile.args(["-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", &source, "-o"]).arg(&shim);
        assert!(compile.status().unwrap().success());
        fs::write(path("old.txt"), "as it was").unwrap();
        fs::write(path("text.txt"), "the quick brown fox jumps over the lazy dog and then again").unwrap();
        let (model, text) = (path("tiny.gguf"), path("text.txt"));
        let run = |args: &[&str]| {
            let output = esolm(args);
            assert!(output.status.success(), "{args:?}: {}", err(&output));
        };
        run(&["convert", &golden("checkpoint.ckpt"), "-o", &model, "--type", "f32"]);
        run(&["imatrix", &model, &text, "-o", &path("tiny.imatrix"), "--steps", "2"]);
        run(&["generate", "-m", &model, "-n", "8", "--seed", "1", "--state", &path("old.state")]);
        Self { folder, shim }
    }

    /// Where a file named in [`Use::inputs`] is.
    fn source(&self, name: &str) -> PathBuf {
        match name.strip_prefix('@') {
            Some(made) => self.folder.path().join(made),
            None => golden(name).into(),
        }
    }

    /// Makes a folder with the files of `usage`, empty otherwise.
    fn folder_of(&self, usage: &Use) -> PathBuf {
        let folder = self.folder.path().join("use");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        for (name, from) in usage.inputs {
            fs::copy(self.source(from), folder.join(name)).unwrap();
        }
        folder
    }

    /// The command as `usage` has it, with the shim.
    fn command(&self, usage: &Use, folder: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_esolm"));
        let here = folder.display().to_string();
        command.args(usage.args.iter().map(|arg| arg.replace('@', &here)));
        command.env_remove("ESOLM_MODEL").env("LD_PRELOAD", &self.shim).stdin(Stdio::null());
        if usage.prints {
            command.stdout(fs::File::create(folder.join("out.printed")).unwrap());
        } else {
            command.stdout(Stdio::piped());
        }
        command.stderr(Stdio::piped());
        command
    }
}

/// The files in a folder.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let file = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap())
    };
    fs::read_dir(folder).unwrap().map(file).collect()
}

/// What is compared of a file. Where a use shows times, its figures are left out.
fn comparable(usage: &Use, name: &str, content: &[u8]) -> Vec<u8> {
    let shown = usage.times && !name.ends_with(".svg");
    content.iter().copied().filter(|byte| !shown || byte.is_ascii_alphabetic()).collect()
}

/// Whether every N is to be tried, and every way of writing files.
fn all() -> bool {
    std::env::var("ESOLM_FAULTS").is_ok_and(|value| value == "all")
}

/// One use, with the files before it and as they are without a fault.
struct Reference<'a> {
    prepared: &'a Prepared,
    usage: &'a Use,
    before: BTreeMap<String, Vec<u8>>,
    after: BTreeMap<String, Vec<u8>>,
}

impl<'a> Reference<'a> {
    fn new(prepared: &'a Prepared, usage: &'a Use) -> Self {
        let folder = prepared.folder_of(usage);
        let before = files(&folder);
        let output = prepared.command(usage, &folder).output().unwrap();
        assert!(output.status.success(), "{}: {}", usage.name, err(&output));
        Self { prepared, usage, before, after: files(&folder) }
    }

    /// Runs the use with a fault in call `n`. Returns whether there were so many.
    fn with_fault(&self, (call, how, stays, expected): Fault, n: u32, unnamed: bool) -> bool {
        let folder = self.prepared.folder_of(self.usage);
        let mark = self.prepared.folder.path().join("mark");
        let _ = fs::remove_file(&mark);
        let last = if stays { u32::MAX } else { n };
        let fault = format!("{call} {how} {n} {last} {}/ {}", folder.display(), mark.display());
        let mut command = self.prepared.command(self.usage, &folder);
        command.env("ESOLM_FAULT", &fault);
        if !unnamed {
            command.env("ESOLM_NO_UNNAMED", "1");
        }
        let output = command.output().unwrap();
        if !mark.exists() {
            return false;
        }
        let what = format!("{}, {call} {how} from {n} to {last}, unnamed {unnamed}", self.usage.name);
        if how == END && self.before.contains_key("in.txt") && matches!(output.status.code(), Some(0 | 2)) {
            // A text that ends early is a shorter text, which may be too short.
            return true;
        }
        self.check(&what, &output, &folder);
        let failed = !output.status.success();
        // The first file that is synced is an output; others are folders, whose failure is no error.
        let expected = if call == "fsync" && n == 1 { Refused } else { expected };
        match expected {
            Harmless => assert!(!failed, "{what}: {}", err(&output)),
            Refused => assert!(failed, "{what}: no error"),
            Any => (),
        }
        let about_a_file =
            [folder.to_str().unwrap(), "standard output"].iter().any(|it| err(&output).contains(it));
        assert!(!failed || about_a_file || call == "memory", "{what}: {}", err(&output));
        true
    }

    /// Checks what must hold whatever happened.
    fn check(&self, what: &str, output: &Output, folder: &Path) {
        let said = err(output);
        let code = output.status.code();
        assert!(matches!(code, Some(0 | 3 | 4)), "{what}: {}: {said}", output.status);
        assert!(
            code == Some(0) || said.starts_with("esolm: ") && !said.contains("internal"),
            "{what}: {said}"
        );
        let found = files(folder);
        for name in found.keys() {
            assert!(self.after.contains_key(name), "{what}: {name} stayed");
        }
        for (name, complete) in &self.after {
            let same =
                |a: &[u8], b: &[u8]| comparable(self.usage, name, a) == comparable(self.usage, name, b);
            let content = found.get(name);
            let is_new = content.is_some_and(|content| same(content, complete));
            let is_old = content == self.before.get(name);
            let printed = name == "out.printed";
            assert!(is_new || code != Some(0), "{what}: {name} is not as without the fault: {said}");
            assert!(is_new || is_old || printed, "{what}: {name} is neither old nor new");
        }
    }
}

#[test]
fn faults_of_files_are_errors_or_without_effect() {
    let prepared = Prepared::new();
    let (all, mut runs) = (all(), 0);
    for usage in &USES {
        let reference = Reference::new(&prepared, usage);
        let writes = usage.args.iter().any(|arg| arg.starts_with("@/out"));
        for unnamed in [true, false] {
            if !unnamed && !(writes && (all || usage.name.starts_with("quantize"))) {
                continue;
            }
            for fault in FAULTS {
                let mut n = 1;
                while (all || n <= 3) && reference.with_fault(fault, n, unnamed) {
                    (n, runs) = (n + 1, runs + 1);
                }
            }
        }
    }
    println!("{runs} faults");
    assert!(runs > 300, "{runs} faults");
}

#[test]
fn file_that_cannot_be_linked_is_an_error_and_the_old_one_stays() {
    let prepared = Prepared::new();
    for usage in USES.iter().filter(|usage| usage.args.iter().any(|arg| arg.starts_with("@/out"))) {
        let reference = Reference::new(&prepared, usage);
        let folder = prepared.folder_of(usage);
        let fault = format!("link {EIO} 1 1 / /nowhere");
        let output = prepared.command(usage, &folder).env("ESOLM_FAULT", fault).output().unwrap();
        reference.check(usage.name, &output, &folder);
        assert_eq!(output.status.code(), Some(3), "{}: {}", usage.name, err(&output));
        assert!(err(&output).contains(folder.to_str().unwrap()), "{}", err(&output));
    }
}

#[test]
fn read_only_folder_is_an_error() {
    let prepared = Prepared::new();
    let readonly = prepared.folder.path().join("readonly");
    fs::create_dir(&readonly).unwrap();
    fs::set_permissions(&readonly, fs::Permissions::from_mode(0o555)).unwrap();
    // The administrator may write everywhere; then it is only a folder that is not there.
    let target = readonly.join("nowhere/out").display().to_string();
    let model = prepared.source("@tiny.gguf").display().to_string();
    let text = prepared.source("@text.txt").display().to_string();
    let generate = ["generate", "-m", &model, "-n", "8", "--threads", "1"];
    for args in [
        &["convert", &golden("checkpoint.ckpt"), "-o", &target][..],
        &["quantize", &model, &target, "--type", "q4_0"],
        &["imatrix", &model, &text, "-o", &target],
        &[&generate[..], &["--state", &target]].concat(),
        &[&generate[..], &["--plot", &target]].concat(),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_esolm")).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{args:?}: {}", err(&output));
        assert!(err(&output).contains(&target), "{args:?}: {}", err(&output));
        assert!(files(&readonly).is_empty());
    }
}

#[test]
fn kills_leave_the_old_file_or_the_new_one() {
    let prepared = Prepared::new();
    let target = prepared.folder.path().join("kills/out.gguf");
    let folder = target.parent().unwrap();
    let rounds = if all() { 400 } else { 32 };
    for round in 0..rounds {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir(folder).unwrap();
        fs::write(&target, "as it was").unwrap();
        let unnamed = round % 2 == 0;
        let signal = ["INT", "TERM", "HUP", "KILL"][round / 2 % 4];
        let mut command = Command::new(env!("CARGO_BIN_EXE_esolm"));
        command.args(["quantize", &built_in()]).arg(&target).args(["--type", "q4_k", "--force"]);
        command.env("LD_PRELOAD", &prepared.shim).stdout(Stdio::null()).stderr(Stdio::null());
        if !unnamed {
            command.env("ESOLM_NO_UNNAMED", "1");
        }
        let mut child = command.spawn().unwrap();
        // Spread over the time that it takes, a different moment each.
        sleep(Duration::from_micros(1000 + round as u64 * 7919 % 160_000));
        assert!(Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().is_ok());
        child.wait().unwrap();
        let mut found = files(folder);
        let content = found.remove("out.gguf").unwrap();
        let complete = content.starts_with(b"GGUF") && content.len() > 4 << 20;
        assert!(content == b"as it was" || complete, "{signal}, unnamed {unnamed}");
        // What KILL leaves under a temporary name, a later run removes.
        let may_stay = signal == "KILL" && !unnamed;
        assert!(found.is_empty() || may_stay, "{signal}, unnamed {unnamed}: {:?}", found.keys());
    }
}

#[test]
fn threads_that_the_system_does_not_give_are_done_without() {
    let prepared = Prepared::new();
    let here = prepared.folder.path().display().to_string();
    let new = format!("{here}/new.gguf");
    let (model, text) = (format!("{here}/tiny.gguf"), format!("{here}/text.txt"));
    // The text is piped in, which a thread says where it takes long.
    let generate = ["generate", "-n", "4", "-q", "--seed", "1", "--threads", "4"];
    for args in [
        &generate[..],
        &["score", &text, "--threads", "4"],
        &["bench", "--repeat", "1", "--steps", "1", "--length", "8", "--threads", "2"],
        &["quantize", &model, &new, "--type", "q4_0", "--threads", "4"],
    ] {
        let run = |fault: &str| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_esolm"));
            command.args(args).env_remove("ESOLM_MODEL").env("LD_PRELOAD", &prepared.shim);
            command.env("ESOLM_FAULT", fault).stdin(fs::File::open(&text).unwrap()).output().unwrap()
        };
        let mark = format!("{here}/mark");
        let output = run(&format!("thread {EAGAIN} 1 {} / {mark}", u32::MAX));
        assert!(output.status.success(), "{args:?}: {}", err(&output));
        assert!(fs::remove_file(&mark).is_ok(), "{args:?} has asked for no thread");
        let _ = fs::remove_file(&new);
        if args[0] != "bench" {
            assert_eq!(out(&output), out(&run("none 0 0 0 / /nowhere")), "{args:?}");
        }
    }
}
