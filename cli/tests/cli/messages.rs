//! What the command says on standard error while it works.

use std::process::Command;

use serde_json::Value;

use crate::command_line::{err, esolm, library_file, out};

#[test]
fn verbose_shows_what_the_library_says() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("a.state").display().to_string();
    let generate = ["generate", "-q", "-n", "4", "-s", "1", "--state", &state];
    // A cache of another precision is computed again, which is worth a message.
    for verbose in [&[][..], &["-v"], &["-vv"], &["--verbose"]] {
        let _ = std::fs::remove_file(&state);
        assert!(esolm(&generate).status.success());
        let output = esolm(&[&generate[..], &["--kv-type", "f32"], verbose].concat());
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        let said = err(&output).lines().any(|line| line.contains("computed again"));
        assert_eq!(said, !verbose.is_empty(), "{verbose:?}: {}", err(&output));
    }
    let before = esolm(&[&["-v"], &generate[..]].concat());
    assert!(before.status.success() && err(&before).contains("info: context: "), "{}", err(&before));
}

#[test]
fn opening_is_described_and_memory_is_locked_and_prefetched() {
    let model = library_file("models/stories-q8_0.gguf");
    let generate = ["generate", "-q", "-n", "4", "-s", "1", "-m", &model];
    let plain = esolm(&generate);
    let told = esolm(&[&generate[..], &["-v", "--mlock", "--prefetch"]].concat());
    assert_eq!((told.status.code(), out(&told)), (Some(0), out(&plain)), "{}", err(&told));
    for said in ["info: ", ": mapped", "variant b,", "context: 1 x ", "kernels"] {
        assert!(err(&told).contains(said), "{said}: {}", err(&told));
    }
    assert!(!err(&told).contains("tensors:"));
    // Locked, or a warning that it is not possible here.
    let unlocked = esolm(&[&generate[..], &["-v"]].concat());
    assert!(err(&told).contains("locked") && !err(&unlocked).contains("locked"), "{}", err(&told));
    let all = esolm(&[&generate[..], &["-vv", "--no-mmap"]].concat());
    assert!(err(&all).contains("debug: ") && err(&all).contains("tensors:"), "{}", err(&all));
    assert!(err(&all).contains("in memory"), "{}", err(&all));
    // The line for reports, and what says which device there is and which is used.
    let version = out(&esolm(&["version"]));
    let json = |args: &[&str]| serde_json::from_str::<Value>(&out(&esolm(args))).unwrap();
    let listed = json(&["devices", "--json"]);
    let names = listed["devices"].as_array().unwrap().iter().map(|device| device["name"].as_str().unwrap());
    let names: Vec<&str> = names.collect();
    assert!(version.lines().any(|line| line == format!("devices: {}", names.join(" "))), "{version}");
    let used = json(&["inspect", "--json"])["device"].as_str().unwrap().to_owned();
    assert!(names.contains(&used.as_str()) && err(&told).contains(&format!(" on {used},")), "{}", err(&told));
    assert!(version.contains("kernels = ") && version.contains("ggml 0."), "{version}");
    let json: Value = serde_json::from_str(&out(&esolm(&["version", "--json"]))).unwrap();
    let info = json["system_info"].as_str().unwrap();
    // The library's features are among the command's.
    let (features, others): (Vec<&str>, Vec<&str>) =
        info.split(" | ").skip(1).partition(|part| part.starts_with("features: "));
    assert!(others.iter().all(|part| version.contains(part)), "{version}");
    assert_eq!(features[0].contains("grammar"), version.contains("grammar"), "{info}");
}

/// Long enough for a bar to be drawn.
fn slow_commands() -> [Vec<String>; 2] {
    let text = library_file("tests/heldout/stories.txt");
    let own = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect();
    [
        own(&["score", &text, "--windows", "2", "--length", "64", "-t", "1"]),
        own(&["bench", "--steps", "4", "--length", "64", "--repeat", "2", "-t", "1"]),
    ]
}

#[test]
fn progress_is_for_terminals_alone() {
    for args in slow_commands() {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = esolm(&args);
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        assert!(err(&output).is_empty() && !out(&output).contains('\u{1b}'), "{args:?}: {}", err(&output));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn progress_is_shown_on_a_terminal() {
    for (args, words) in slow_commands().into_iter().zip(["/2 windows", "/2 generations"]) {
        let dir = tempfile::tempdir().unwrap();
        let results = dir.path().join("out");
        // `script` runs it on a terminal of its own, here with standard error alone.
        let command =
            format!("'{}' '{}' >'{}'", env!("CARGO_BIN_EXE_esolm"), args.join("' '"), results.display());
        let shown = Command::new("script")
            .args(["--quiet", "--return", "--command", &command, "/dev/null"])
            .env("TERM", "xterm")
            .stdin(std::process::Stdio::null())
            .output()
            .expect("script, of util-linux");
        assert!(shown.status.success(), "{}", out(&shown));
        assert!(out(&shown).contains(words), "{words}: {}", out(&shown));
        assert!(!std::fs::read_to_string(results).unwrap().contains('\u{1b}'));
    }
}

/// Masks are shown as `[MASK]`, also by --watch.
#[test]
#[cfg(target_os = "linux")]
fn watched_text_has_masks_until_they_are_written() {
    let options = "-n 6 -p 'The king' --alpha0 1 --schedule 1 --seed 1 -t 1";
    let command = format!("'{}' generate --watch {options}", env!("CARGO_BIN_EXE_esolm"));
    let shown = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(std::process::Stdio::null())
        .output()
        .expect("script, of util-linux");
    assert!(shown.status.success(), "{}", out(&shown));
    let frames = out(&shown);
    let masks = |frame: &str| -> usize {
        frame
            .split("[MASK]")
            .skip(1)
            .map(|rest| match rest.strip_prefix('×') {
                Some(count) => {
                    count.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
                }
                None => 1,
            })
            .sum()
    };
    let left: Vec<usize> = frames.split("step ").skip(1).map(masks).collect();
    assert_eq!(left.get(..6), Some(&[5, 4, 3, 2, 1, 0][..]), "{frames}");
}

#[test]
#[cfg(target_os = "linux")]
fn free_memory_is_what_the_system_can_give() {
    let report: Value = serde_json::from_str(&out(&esolm(&["devices", "--json"]))).unwrap();
    let devices = report["devices"].as_array().unwrap();
    let cpu = devices.iter().find(|device| device["kind"] == "cpu").unwrap();
    let [free, total] = ["memory_free_bytes", "memory_total_bytes"].map(|name| cpu[name].as_u64().unwrap());
    let info = std::fs::read_to_string("/proc/meminfo").unwrap();
    let bytes = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    };
    assert!(total <= bytes("MemTotal:") && free < total, "{free} of {total}");
    // What is available changes.
    assert!(free <= bytes("MemAvailable:") + (1 << 30), "{free}");
    assert!(out(&esolm(&["devices"])).contains(" free of "));
}
