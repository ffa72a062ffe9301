//! What the command writes, where it writes it, and what stays behind when it is stopped.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::command_line::{built_in, err, esolm};

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_esolm"));
    command.args(args).stdin(Stdio::null());
    command
}

fn names(directory: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    fs::read_dir(directory).unwrap().map(name).collect()
}

#[test]
fn messages_that_nobody_can_read_do_not_fail_the_work() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (state, plot, model) = (path("state"), path("plot.svg"), path("q4.gguf"));
    let generate = ["generate", "-n", "8", "--state", &state, "--plot", &plot];
    let quantize = ["quantize", &built_in(), &model, "--type", "q4_0"];
    for args in [&generate[..], &quantize] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let status = command(args).stdout(Stdio::null()).stderr(full).status().unwrap();
        assert_eq!(status.code(), Some(0), "{args:?}");
    }
    assert!([&state, &plot, &model].iter().all(|file| fs::metadata(file).unwrap().len() > 0));
    // Nor is anything lost if the text cannot be printed, which is an error.
    for file in [&state, &plot] {
        fs::remove_file(file).unwrap();
    }
    for json in [false, true] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let args = [&generate[..], if json { &["--json"] } else { &[] }].concat();
        let output = command(&args).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{}", err(&output));
        assert!(err(&output).contains("standard output"), "{}", err(&output));
        for file in [&state, &plot] {
            assert!(fs::metadata(file).unwrap().len() > 0);
            fs::remove_file(file).unwrap();
        }
    }
}

#[test]
fn output_that_is_closed_or_full_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state").display().to_string();
    let model = built_in();
    let run = |script: &str, args: &[&str]| {
        let mut shell = Command::new("sh");
        shell.args(["-c", script, env!("CARGO_BIN_EXE_esolm")]).args(args).stdin(Stdio::null());
        shell.stdout(Stdio::null()).output().unwrap()
    };
    let generate = ["generate", "-n", "8", "-q", "--threads", "1", "--state", &state];
    for (closed, said) in
        [(">&-", "it is closed"), ("<&- >&-", "it is closed"), (">/dev/full", "No space left")]
    {
        for args in [&generate[..], &["inspect", &model], &["--version"], &["--help"], &["--licenses"]] {
            let output = run(&format!("exec \"$0\" \"$@\" {closed}"), args);
            assert_eq!(output.status.code(), Some(3), "{args:?} {closed}: {}", err(&output));
            assert!(err(&output).contains("standard output: "), "{args:?} {closed}: {}", err(&output));
            assert!(err(&output).contains(said), "{args:?} {closed}: {}", err(&output));
        }
        // Work is not lost.
        assert!(fs::metadata(&state).unwrap().len() > 0);
        fs::remove_file(&state).unwrap();
    }
    // Where nothing is wanted, that is no error; nor is a closed output that nothing is printed to.
    for other in [">/dev/null", "<>/dev/null >&0", "2>&-"] {
        let output = run(&format!("\"$0\" \"$@\" {other}"), &["inspect", &model]);
        assert_eq!(output.status.code(), Some(0), "{other}: {}", err(&output));
    }
    let copy = dir.path().join("copy.gguf").display().to_string();
    let output = run("exec \"$0\" \"$@\" >&-", &["quantize", &model, &copy, "--type", "q4_0"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
}

#[test]
fn replaced_files_keep_mode_and_links_and_devices_stay_devices() {
    let dir = tempfile::tempdir().unwrap();
    let [state, link] = ["state", "link"].map(|name| dir.path().join(name));
    let generate = |file: &Path| {
        let output = esolm(&["generate", "-q", "-n", "8", "--state", &file.display().to_string()]);
        assert!(output.status.success(), "{}", err(&output));
    };
    generate(&state);
    fs::set_permissions(&state, Permissions::from_mode(0o600)).unwrap();
    symlink("state", &link).unwrap();
    let before = fs::metadata(&state).unwrap().modified().unwrap();
    generate(&link);
    assert!(link.symlink_metadata().unwrap().is_symlink());
    let after = fs::metadata(&state).unwrap();
    assert_eq!(after.permissions().mode() & 0o777, 0o600);
    assert!(after.modified().unwrap() > before);
    let output = esolm(&["quantize", &built_in(), "/dev/null", "--type", "q4_0", "--force"]);
    assert!(output.status.success(), "{}", err(&output));
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
    let output = esolm(&["quantize", &built_in(), "/dev/full", "--type", "q4_0", "--force"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(err(&output).contains("/dev/full: "), "{}", err(&output));
}

#[test]
fn signals_leave_the_old_file_or_the_new_one_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("model.gguf");
    fs::write(&target, "old").unwrap();
    let path = target.display().to_string();
    for round in 0..24 {
        let signal = ["INT", "TERM", "HUP"][round % 3];
        let mut child = command(&["quantize", &built_in(), &path, "--type", "q4_k", "--force"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        sleep(Duration::from_millis(7 * round as u64));
        let sent = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status();
        assert!(sent.is_ok());
        let status = child.wait().unwrap();
        assert_eq!(names(dir.path()), ["model.gguf"], "{signal}");
        let content = fs::read(&target).unwrap();
        assert!(content == b"old" || content.starts_with(b"GGUF"), "{signal}");
        assert!(status.success() || status.code().is_none(), "{signal}: {status}");
    }
}

#[test]
fn what_exceeds_the_largest_size_of_files_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("model.gguf");
    fs::write(&target, "old").unwrap();
    let path = target.display().to_string();
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -f 16; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_esolm")]);
    let output = shell.args(["quantize", &built_in(), &path, "--type", "q4_0", "--force"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", err(&output));
    assert!(err(&output).contains(&format!("{path}: File too large")), "{}", err(&output));
    assert_eq!((names(dir.path()), fs::read(&target).unwrap()), (vec!["model.gguf".into()], b"old".to_vec()));
}

#[test]
fn control_characters_of_arguments_and_files_are_shown_as_escapes() {
    let output = esolm(&["inspect", "\x1b[2Jnowhere"]);
    assert!(err(&output).contains("\\u{1b}[2Jnowhere"), "{}", err(&output));
    assert!(!err(&output).contains('\x1b'));
    // In a file's names and values, and in the messages about them.
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/hostile/files/escape-sequences.gguf");
    assert!(fs::read(file).unwrap().contains(&0x1b));
    for args in [&["inspect", file][..], &["inspect", file, "--json"], &["generate", "-m", file, "-n", "2"]] {
        let output = esolm(args);
        let shown = [output.stdout.as_slice(), &output.stderr].concat();
        assert!(!shown.contains(&0x1b), "{args:?}: {}", String::from_utf8_lossy(&shown));
        assert!(shown.len() > 20, "{args:?}");
    }
}

#[test]
fn plot_shows_the_step_that_wrote_each_token() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("steps.svg").display().to_string();
    // The prompt is read in steps of its own, which write nothing and do not count.
    let prompt = "Once upon a time there was a dog. ".repeat(19);
    let args = ["-p", &prompt, "-n", "16", "--steps", "4", "--alpha0", "1", "--ignore-eos", "--seed", "1"];
    let output = esolm(&[&["generate", "--plot", &file], &args[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let svg = fs::read_to_string(&file).unwrap();
    let attribute = |line: &str, name: &str| {
        let (_, value) = line.split_once(&format!(" {name}=\"")).unwrap();
        value.split_once('"').unwrap().0.to_owned()
    };
    let points: Vec<&str> = svg.lines().filter(|line| line.starts_with("<circle")).collect();
    assert_eq!(points.len(), 16, "{svg}");
    // The places of the axis's numbers, which are those of the steps.
    let ticks: Vec<&str> =
        svg.lines().filter(|line| line.starts_with("<path class=\"grid\" d=\"M84 ")).collect();
    let height = |tick: &str| tick.split_once("M84 ").unwrap().1.split_once('H').unwrap().0.to_owned();
    let ticks: Vec<String> = ticks.into_iter().map(height).collect();
    let mut places: Vec<String> = points.iter().map(|point| attribute(point, "cy")).collect();
    places.dedup();
    // From zero up, a step above the other.
    assert_eq!(ticks.len(), 5, "{svg}");
    assert_eq!(places, ticks[1..], "{svg}");
    assert!(svg.contains(">step</text>") && svg.contains("16 tokens in 4 steps"), "{svg}");
}
