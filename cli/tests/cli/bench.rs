//! `esolm bench`: what it cannot measure, and what it leaves behind.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::command_line::{built_in, err, esolm, library_file, out};

/// Runs `esolm bench`, which refuses what it is told.
fn refused(args: &[&str], says: &str) {
    let output = esolm(&[&["bench"], args].concat());
    assert_eq!(output.status.code(), Some(2), "{args:?}: {}", err(&output));
    assert!(err(&output).contains(says), "{args:?}: {}", err(&output));
    assert!(out(&output).is_empty());
}

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).unwrap().next().is_none()
}

#[test]
fn numbers_out_of_range_are_said_as_they_were_given() {
    // The second one is 256 in 32 bits.
    for length in ["1048577", "4294967552", "18446744073709551615"] {
        for args in [&["--shape", "stories"][..], &["--shape", "stories", "--write", "no/such/place.gguf"]] {
            let args = [args, &["--length", length]].concat();
            refused(&args, &format!("--length {length}: the context length is {length}, not in 1..=1048576"));
        }
        refused(&["--length", length], length);
    }
    // Numbers that stand for defaults in the library.
    refused(&["--alpha0", "0,-1"], "--alpha0 is -1");
    refused(&["--steps", "4,0"], "--steps must be at least 1");
    for top_p in ["-2", "0", "1.5", "NaN"] {
        refused(&["--top-p", top_p], &format!("--top-p is {top_p}"));
    }
}

#[test]
fn top_p_is_the_same_for_all_models_or_that_of_each() {
    let small = ["bench", "--shape", "stories", "-n", "8", "--repeat", "1", "--threads", "1", "--json"];
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("own.gguf").display().to_string();
    let made = esolm(&["quantize", &built_in(), &model, "--type", "q8_0", "--default", "top_p=0.5"]);
    assert!(made.status.success(), "{}", err(&made));
    let own = ["bench", "-m", &model, "-n", "8", "--repeat", "1", "--threads", "1", "--json"];
    for (base, top_p, shown) in [
        (small, None, 0.9),
        (own, None, 0.9),
        (small, Some("-1"), 0.9),
        (own, Some("-1"), 0.5),
        (own, Some("1"), 1.0),
    ] {
        let more = top_p.map_or(vec![], |top_p| vec!["--top-p", top_p]);
        let output = esolm(&[&base[..], &["--steps", "1"], &more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        let report: serde_json::Value = serde_json::from_str(&out(&output)).unwrap();
        assert_eq!(report["measured"][0]["top_p"], shown, "{base:?} {top_p:?}");
    }
}

#[test]
fn options_for_models_that_are_not_there_are_refused() {
    let stories = ["--shape", "stories", "-n", "16", "--repeat", "1"];
    refused(&[&stories[..], &["--window", "4"]].concat(), "none of the models is WeDLM");
    refused(&[&stories[..], &["--mdlm-steps", "4"]].concat(), "none of the models is MDLM");
    let dir = tempfile::tempdir().unwrap();
    let wedlm = dir.path().join("wedlm.gguf").display().to_string();
    let converted = esolm(&["convert", &library_file("tests/golden/wedlm-qwen3"), "-o", &wedlm]);
    assert!(converted.status.success(), "{}", err(&converted));
    for option in ["--steps", "--schedule"] {
        let says = format!("{option}: WeDLM has --window in place of it, and an autoregressive model");
        refused(&[&stories[..], &["--variant", "ar", option, "4"]].concat(), &says);
        refused(&["-m", &wedlm, option, "4"], &says);
    }
    // One autoregressive row, whatever numbers of steps and fractions others have, beside which it stands.
    let of = |more: &[&str]| out(&esolm(&[&["bench"], &stories[..], &["-t", "1"], more].concat()));
    let rows = |text: &str| text.lines().filter(|line| line.contains(" own ")).count();
    let alone = of(&["--variant", "ar", "--alpha0", "0,1"]);
    assert_eq!(rows(&alone), 1, "{alone}");
    let beside = of(&["--variant", "b,ar", "--steps", "4,8"]);
    assert_eq!(rows(&beside), 3, "{beside}");
    for steps in [4, 8] {
        assert!(beside.contains(&format!("length 16, alpha_0 1, T {steps}: ar ")), "{beside}");
    }
    let first = of(&["--variant", "ar,b", "--steps", "4,8"]);
    assert!(first.contains("alpha_0 0, T 1/step: b (alpha_0 1, T 4) "), "{first}");
}

#[test]
fn variants_are_measured_beside_one_another() {
    let small =
        ["bench", "--shape", "stories", "--repeat", "1", "-t", "1", "-n", "16,32", "--mdlm-steps", "2"];
    for (amount, name) in [(["--steps", "8"], "8"), (["--schedule", "1"], "1/step")] {
        let args = [&small[..], &["--variant", "b,bd3lm:4,bd3lm:16,mdlm"], &amount].concat();
        let output = esolm(&args);
        assert!(output.status.success(), "{}", err(&output));
        let text = out(&output);
        for length in [16, 32] {
            let line = format!("b q8_0, batch 1, length {length}, alpha_0 1, T {name}: bd3lm:4 ");
            let line = text.lines().find(|l| l.starts_with(&line)).unwrap_or_else(|| panic!("{text}"));
            assert!(line.contains(", bd3lm:16 ") && line.contains(", mdlm about "), "{line}");
        }
        // One token a step takes as many steps in each; what is not run is counted, too.
        if name == "1/step" {
            let steps = text.lines().filter(|line| line.contains(" own ")).map(|line| {
                let columns: Vec<&str> = line.split_whitespace().collect();
                assert_eq!(columns[4], columns[7], "{line}");
            });
            assert_eq!(steps.count(), 8);
        }
    }
    refused(&["--shape", "stories", "--variant", "b:4"], "'b:4' is not b, a, mdlm");
    refused(&["--shape", "stories", "--variant", "bd3lm:400"], "--variant bd3lm:400");
    refused(&["--shape", "stories", "--variant", "b,wedlm"], "no --variant wedlm of this shape");
    refused(
        &["--shape", "stories", "--variant", "b,mdlm", "--write", "no/such/place"],
        "one --type and --variant",
    );
    refused(&["--schedule", "1,0"], "--schedule");
}

#[test]
fn more_threads_than_processors_take_no_longer() {
    let started = Instant::now();
    let args = ["bench", "--threads", "512", "--repeat", "1", "--steps", "1", "--length", "8"];
    let output = esolm(&args);
    assert!(output.status.success(), "{}", err(&output));
    assert!(out(&output).contains(", 512 threads: reads "), "{}", out(&output));
    // It took minutes, 10 ms of each thread at a time.
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    // Those of ggml wait by spinning.
    refused(&["--threads", "512", "--kernels", "own,ggml"], "--threads 512 with --kernels ggml");
    let dir = tempfile::tempdir().unwrap();
    let [text, matrix] = ["text", "matrix"].map(|name| dir.path().join(name).display().to_string());
    std::fs::write(&text, "Once upon a time there was a king.").unwrap();
    let imatrix = ["imatrix", &built_in(), &text, "-o", &matrix, "--steps", "2", "--threads", "512"];
    let output = esolm(&imatrix);
    assert!(output.status.success(), "{}", err(&output));
    assert!(started.elapsed() < Duration::from_secs(120), "{:?}", started.elapsed());
}

#[test]
#[cfg(unix)]
fn temporary_models_are_gone_however_the_command_ends() {
    let temporary = tempfile::tempdir().unwrap();
    for round in 0..12 {
        // Not INT, which is ignored where the tests run in the background of a script.
        let signal = ["KILL", "TERM"][round % 2];
        let mut child = Command::new(env!("CARGO_BIN_EXE_esolm"))
            .args(["bench", "--shape", "stories", "--type", "q8_0,q4_k", "--repeat", "100"])
            .env("TMPDIR", temporary.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(40 * round as u64));
        let sent = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status();
        assert!(sent.is_ok());
        assert_eq!(child.wait().unwrap().code(), None, "{signal}");
        assert!(is_empty(temporary.path()), "{signal}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn full_disks_are_named() {
    let temporary = tempfile::tempdir().unwrap();
    let name = temporary.path().display().to_string();
    let bench = |limit: &str, more: &[&str]| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -f $1; shift; exec \"$@\"", "sh", limit]);
        shell.args([
            env!("CARGO_BIN_EXE_esolm"),
            "bench",
            "--shape",
            "stories",
            "--repeat",
            "1",
            "--steps",
            "1",
        ]);
        shell.args(more).env("TMPDIR", &name).output().unwrap()
    };
    // Of 512 or 1024 bytes each: not the first model, which takes 17 MB; and that one, but not what is made of it.
    for (limit, ty) in [("16", "f16"), ("16", "q8_0"), ("35000", "f32")] {
        let output = bench(limit, &["--type", ty]);
        let said = format!("esolm: temporary file in {name}: File too large");
        assert_eq!(output.status.code(), Some(3), "{ty}: {}", err(&output));
        assert!(err(&output).starts_with(&said), "{ty}: {}", err(&output));
        assert!(is_empty(temporary.path()));
    }
    let missing = temporary.path().join("missing").display().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_esolm"))
        .args(["bench", "--shape", "stories"])
        .env("TMPDIR", &missing)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(err(&output).contains(&missing), "{}", err(&output));
    // What the options name.
    let small = ["bench", "--repeat", "1", "--steps", "1", "--length", "8"];
    for option in ["--plot", "--json-file"] {
        let output = esolm(&[&small[..], &[option, "/dev/full"]].concat());
        assert_eq!(output.status.code(), Some(3), "{option}");
        assert!(err(&output).contains("/dev/full: No space left"), "{option}: {}", err(&output));
    }
    // What was measured is shown all the same, wherever it can be.
    let [plot, json] = ["plot.svg", "figures.json"].map(|name| temporary.path().join(name));
    let both = |json: &Path, plot: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_esolm"));
        command.args(small).arg("--json-file").arg(json).arg("--plot").arg(plot);
        command
    };
    let output = both(Path::new("/dev/full"), &plot).output().unwrap();
    assert!(out(&output).contains("tokens/s") && plot.exists(), "{}", err(&output));
    assert_eq!(output.status.code(), Some(3));
    std::fs::remove_file(&plot).unwrap();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = both(&json, &plot).stdout(full).output().unwrap();
    assert!(output.status.code() == Some(3) && plot.exists() && json.exists(), "{}", err(&output));
    let output = esolm(&["bench", "--shape", "stories", "--force", "--write", "/dev/full"]);
    assert!(err(&output).contains("/dev/full: No space left"), "{}", err(&output));
}

#[test]
#[cfg(target_os = "linux")]
fn memory_that_is_missing_to_measure_its_speed_is_an_error() {
    let bench = |kib: u32| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -v $1; shift; exec \"$@\"", "sh", &kib.to_string()]);
        shell.args([env!("CARGO_BIN_EXE_esolm"), "bench", "--repeat", "1", "--steps", "1", "--length", "8"]);
        shell.args(["--threads", "1"]).output().unwrap()
    };
    // Enough for the command, whatever its threads reserve, and less than the 192 MiB that it asks for.
    let output = bench(180_000);
    assert_eq!(output.status.code(), Some(4), "{}", err(&output));
    assert!(err(&output).contains("to measure how fast memory is read"), "{}", err(&output));
}
