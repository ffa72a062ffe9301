//! The `esolm` command given what it cannot use: it says what is wrong, and where.

use crate::command_line::{built_in, err, esolm, esolm_reading, golden, library_file, out};

/// Runs the command, which fails with `code`, saying `says` and writing nothing.
fn refused(args: &[&str], code: i32, says: &str) {
    let output = esolm(args);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {}", err(&output));
    assert!(err(&output).contains(says), "{args:?}: {}", err(&output));
    assert!(out(&output).is_empty(), "{args:?}: {}", out(&output));
}

#[test]
fn exit_codes_tell_usage_bad_files_and_differences_apart() {
    let code = |args: &[&str]| {
        let output = esolm(args);
        assert!(!err(&output).is_empty(), "{args:?} says nothing");
        output.status.code().unwrap()
    };
    assert_eq!(code(&["generate", "--no-such-option"]), 2);
    assert_eq!(code(&["generate", "--alpha0", "1.5"]), 2);
    assert_eq!(code(&["generate", "--top-p", "0"]), 2);
    assert_eq!(code(&["generate", "--length", "100000"]), 2);
    assert_eq!(code(&["generate", "--steps", "0"]), 2);
    assert_eq!(code(&["generate", "--batch", "0"]), 2);
    assert_eq!(code(&["generate", "-m", "no/such/file.gguf"]), 3);
    assert_eq!(code(&["generate", "-m", &golden("config.json")]), 3);
    assert_eq!(code(&["inspect", &golden("golden.safetensors")]), 3);
    assert_eq!(code(&["generate", "--device", "cuda:99"]), 4);
    let long = "word ".repeat(400);
    assert_eq!(code(&["generate", "-p", &long]), 2, "a prompt longer than the model's context");
    for more in [&["-n", "8"][..], &["--length", "9"], &[]] {
        refused(&[&["generate", "-p", &long], more].concat(), 2, "prompt 0: ");
        refused(&[&["generate", "-p", &long], more].concat(), 2, " tokens; at most ");
    }
}

#[test]
fn numbers_out_of_range_are_refused_with_their_option() {
    refused(&["generate", "--length", "257"], 2, "256 tokens");
    refused(&["generate", "--length", "18446744073709551615"], 2, "256 tokens");
    refused(&["generate", "--length", "18446744073709551616"], 2, "--length");
    for count in ["0", "-2", "x", "18446744073709551616"] {
        refused(&["generate", "-n", count], 2, "--max-tokens");
    }
    refused(&["generate", "--stop", ""], 2, "stop strings");
    refused(&["generate", "--stop-token", "4097"], 2, "stop tokens: there is no token 4097");
    refused(&["generate", "--batch", "65537"], 2, "at most 65536");
    refused(&["generate", "--batch", "18446744073709551615"], 2, "at most 65536");
    refused(&["generate", "-p", "a", "-p", "b", "--batch", "3"], 2, "2 prompts for a batch of 3");
    refused(&["bench", "--threads", "513"], 2, "at most 512");
    // The largest numbers, which stand for defaults in the library.
    for count in ["17", "4294967295", "4294967296", "-1"] {
        refused(&["generate", "--lookahead", count], 2, "--lookahead");
        refused(&["generate", "--lookahead", count], 2, "at most 16, or auto");
    }
    // A range of a million positions, each with a list of its own.
    let allow = format!("0-1048575={}", ["#1"; 17].join(","));
    let model = library_file("tests/hostile/files/context-2pow20.gguf");
    refused(&["generate", "-m", &model, "--allow", &allow], 2, "17825792 tokens at all positions; at most");
    // More than there is room for, and sums that are too large.
    for samples in ["1048577", "18446744073709551615"] {
        refused(
            &["evaluate", "--samples", samples, "--steps", "1"],
            2,
            &format!("{samples} samples; at most"),
        );
    }
    let text = library_file("tests/heldout/stories.txt");
    refused(&["score", &text, "--draws", "18446744073709551615"], 2, "orders or draws; at most 1048576");
    // Numbers that stand for defaults in the library, and windows longer than the model's, whatever the text.
    let model = built_in();
    let quality = ["quality", &model, &model, "--text", &golden("config.json")];
    refused(&[&quality[..], &["--steps", "0"]].concat(), 2, "--steps must be at least 1");
    refused(&[&quality[..], &["--alpha0", "-1"]].concat(), 2, "--alpha0 is -1");
    let beyond = "length 100000; the model's context is 256 tokens";
    refused(&[&quality[..], &["--length", "100000"]].concat(), 2, beyond);
    let imatrix = ["imatrix", &model, &golden("config.json"), "-o", "no-such-file", "--length", "100000"];
    refused(&imatrix, 2, beyond);
    refused(&["generate", "--poll", "101"], 2, "--poll");
    for nice in ["41", "-41"] {
        refused(&["generate", "--nice", nice], 2, &format!("nice is {nice}, not in -40..=40"));
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    refused(&["generate", "--threads", "2", "--nice", "1"], 2, "priority of threads on this system");
    refused(&["generate", "--cpus", "a"], 2, "'a' is no number of a processor");
    refused(&["generate", "--cpus", "3-1"], 2, "the first comes after the last");
    #[cfg(target_os = "linux")]
    for cpus in ["900", "0,900", "9999"] {
        let (one, reference) = (golden("config.json"), golden("golden.safetensors"));
        let commands: [&[&str]; 5] =
            [&["generate"], &["score", &one], &["evaluate"], &["verify", &model, &reference], &quality];
        for command in commands {
            let args = [command, &["--threads", "2", "--cpus", cpus]].concat();
            refused(&args, 2, "there is no processor 9");
        }
    }
    // Below 0: no option that nobody knows.
    for (option, says) in
        [("--length", "--length"), ("--seed", "--seed"), ("--alpha0", "-2"), ("--temp", "-2")]
    {
        refused(&["generate", option, "-2"], 2, says);
    }
    refused(&["score", "-", "--draws", "-1"], 2, "--draws");
    refused(&["detokenize", "-1"], 2, "'-1' is no token id");
    for nan in ["NaN", "inf", "-inf"] {
        for option in ["--alpha0", "--top-p", "--temp", "--repetition-penalty"] {
            let says = nan.trim_start_matches('-');
            refused(&["generate", &format!("{option}={nan}")], 2, says);
        }
    }
    for tolerance in ["NaN", "-1"] {
        let file = golden("golden.safetensors");
        refused(&["verify", &built_in(), &file, "--tolerance", tolerance], 2, "--tolerance");
    }
}

#[test]
fn files_that_are_none_or_the_wrong_ones_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (empty, text, cut, folder) = (path("empty"), path("text"), path("cut.gguf"), path("folder"));
    std::fs::write(&empty, "").unwrap();
    std::fs::write(&text, "Once upon a time there was a king.").unwrap();
    std::fs::write(&cut, &std::fs::read(built_in()).unwrap()[..4_000_000]).unwrap();
    std::fs::create_dir(&folder).unwrap();
    let (model, new, missing) = (built_in(), path("new"), path("missing"));
    for (file, says) in [
        (&empty, "is empty"),
        (&text, "not a GGUF file"),
        (&cut, "ends beyond"),
        (&folder, "no regular file"),
    ] {
        refused(&["generate", "-m", file], 3, says);
        refused(&["inspect", file], 3, file);
        refused(&["quantize", file, &new, "--type", "q4_k"], 3, says);
        refused(&["verify", file, &text], 3, file);
    }
    refused(&["convert", &empty, "-o", &new], 3, "neither a training checkpoint nor a safetensors file");
    refused(&["convert", &text, "-o", &new], 3, "not a safetensors file");
    refused(&["convert", &model, "-o", &new], 2, "esolm quantize");
    refused(&["convert", &folder, "-o", &new], 3, "model.safetensors");
    refused(&["verify", &model, &text], 3, "safetensors");
    for args in [&["score", &missing][..], &["imatrix", &model, &missing, "-o", &new]] {
        refused(args, 3, &missing);
    }
    std::fs::write(&text, b"\xff\xfe").unwrap();
    refused(&["score", &text], 3, "not UTF-8");
    refused(&["quality", &model, &model, "--text", &text], 3, "not UTF-8");
    refused(&["generate", "--order", &format!("@{text}")], 3, "not UTF-8");
    refused(&["generate", "--state", &text], 3, &format!("{text}: saved state: "));
    refused(&["generate", "--state", &folder], 3, "no regular file");
    assert!(!std::path::Path::new(&new).exists());
    // A state of another model, before anything is written; it stays.
    let (state, other) = (path("a.state"), path("other.gguf"));
    assert!(esolm(&["generate", "-q", "-n", "4", "--state", &state]).status.success());
    assert!(esolm(&["quantize", &model, &other, "--type", "q4_0"]).status.success());
    let before = std::fs::read(&state).unwrap();
    refused(&["generate", "-m", &other, "-n", "4", "--state", &state], 3, "another model");
    assert_eq!(std::fs::read(&state).unwrap(), before);
    let from_stdin = esolm_reading(&["generate", "--length", "4", "--order", "@-", "-q"], "3 1 2 0");
    assert_eq!(from_stdin.status.code(), Some(0), "{}", err(&from_stdin));
}

#[test]
#[cfg(target_os = "linux")]
fn what_has_no_end_is_refused() {
    refused(&["score", "/dev/zero"], 3, "/dev/zero: more than 64 MiB of text");
    refused(&["generate", "-m", "/dev/zero"], 3, "/dev/zero: is no regular file");
    // A prompt of which no model of 256 tokens can take all: to make tokens of 64 MiB would take 16 GiB.
    for prompt in [["-f", "/dev/zero"], ["--order", "@/dev/zero"]] {
        refused(&[&["generate"], &prompt[..]].concat(), 3, "/dev/zero: more than ");
    }
    let long = "a ".repeat(600_000);
    for option in ["-p", "-f", "--template", "--prompt-ids"] {
        let output = esolm_reading(&["generate", option, "-"], &long);
        assert_eq!(output.status.code(), Some(3), "{option}: {}", err(&output));
        let says = "standard input: more than 1 MiB of text, which is the limit for a prompt of this model";
        assert!(err(&output).contains(says), "{option}: {}", err(&output));
    }
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe.gguf").to_str().unwrap().to_owned();
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let new = dir.path().join("new.gguf").to_str().unwrap().to_owned();
    for args in [&["inspect", &pipe][..], &["generate", "-m", &pipe], &["convert", &pipe, "-o", &new]] {
        refused(args, 3, "pipe.gguf: is no regular file");
    }
}

#[test]
fn what_a_message_quotes_is_short() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("list").display().to_string();
    std::fs::write(&file, "\u{e9}".repeat(500_000)).unwrap();
    let at = format!("@{file}");
    for args in
        [&["generate", "--schedule", &at][..], &["generate", "--order", &at], &["score", &file, "--ids"]]
    {
        let output = esolm(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(err(&output).len() < 9000, "{args:?}: {} bytes", err(&output).len());
    }
}

#[test]
fn verify_says_what_a_file_lacks_for_a_model() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("ar.gguf").display().to_string();
    let made = esolm(&["bench", "--shape", "stories", "--variant", "ar", "--write", &model]);
    assert!(made.status.success(), "{}", err(&made));
    refused(&["verify", &model, &golden("golden.safetensors")], 3, "not this model's");
}

#[test]
fn a_synthetic_model_does_not_overwrite_a_file_without_force() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let model = path.display().to_string();
    std::fs::write(&path, "dear").unwrap();
    let write = ["bench", "--shape", "stories", "--write", &model];
    refused(&write, 2, "--force");
    refused(&[&write[..], &["--force", "--type", "q8_0,q4_k"]].concat(), 2, "one --type");
    refused(&["bench", "--shape", "stories", "--force"], 2, "--write");
    refused(&["bench", "--type", "q4_k"], 2, "--shape");
    assert_eq!(std::fs::read(&path).unwrap(), b"dear");
    for ty in ["q4_k", "f16"] {
        let made = esolm(&[&write[..], &["--force", "--type", ty]].concat());
        assert!(made.status.success(), "{}", err(&made));
        let about = out(&esolm(&["inspect", &model]));
        assert!(about.lines().any(|l| l.contains("ffn") && l.contains(ty)), "{about}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_prompt_without_its_option_is_told_where_it_goes() {
    refused(&["generate", "Once upon"], 2, "-p \"Once upon\"");
    refused(&["generate", "-n", "8", "-p", "Once", "upon"], 2, "in quotes");
    // Where no prompt can be meant there is no such advice.
    for args in [&["generate", "--upon"][..], &["devices", "Once upon"], &["generate", "-n"]] {
        let output = esolm(args);
        assert_eq!(output.status.code(), Some(2));
        assert!(!err(&output).contains("-p"), "{}", err(&output));
    }
}

#[test]
fn files_that_cannot_be_written_are_refused_before_the_work() {
    let dir = tempfile::tempdir().unwrap();
    let no_place = dir.path().join("no/place").display().to_string();
    // The model is not even looked for.
    let none = ["-m", "no-such-model.gguf"];
    for (command, options) in [
        (&["generate"][..], &["--plot", "--state"][..]),
        (&["evaluate"], &["--plot", "--json-file"]),
        (&["bench"], &["--plot", "--json-file"]),
        (&["quality", "a", "--text", "b"], &["--plot", "--json-file"]),
    ] {
        for option in options {
            refused(&[command, &none[..], &[option, &no_place]].concat(), 3, &no_place);
        }
    }
    // Nothing is left behind but what was asked for.
    let state = dir.path().join("a.state").display().to_string();
    for length in ["8", "12"] {
        assert!(esolm(&["generate", "-n", length, "--state", &state]).status.success());
    }
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["a.state"]);
}

#[test]
fn what_is_written_replaces_no_other_file_of_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (model, text, new, link) = (path("model.gguf"), path("text"), path("new"), path("link"));
    std::fs::copy(built_in(), &model).unwrap();
    std::fs::write(&text, "Once upon a time there was a king.").unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(&model, &link).unwrap();
    #[cfg(not(unix))]
    std::fs::hard_link(&model, &link).unwrap();
    let generate = ["generate", "-n", "2", "-m", &model];
    let evaluate = ["evaluate", "--samples", "1", "--judge", &model];
    let quality = ["quality", &model, &link, "--text", &text];
    let bench = ["bench", "-m", &model];
    for (command, options) in [
        (&generate[..], &["--plot", &model][..]),
        (&generate, &["--plot", &link]),
        (&generate, &["-f", &text, "--plot", &text]),
        (&generate, &["--state", &new, "--plot", &new]),
        (&evaluate, &["--json-file", &model]),
        (&evaluate, &["--text", &text, "--plot", &text]),
        (&evaluate, &["--plot", &new, "--json-file", &new]),
        (&quality, &["--plot", &link]),
        (&quality, &["--json-file", &text]),
        (&bench, &["--json-file", &model]),
        (&bench, &["--json-file", &new, "--plot", &new]),
    ] {
        refused(&[command, options].concat(), 2, "is given twice");
    }
    assert!(std::fs::read(&model).unwrap() == std::fs::read(built_in()).unwrap());
    assert!(std::fs::read(&text).unwrap().starts_with(b"Once") && !std::path::Path::new(&new).exists());
    // Nothing replaces a device.
    #[cfg(unix)]
    {
        let both =
            ["bench", "--json-file", "/dev/null", "--plot", "/dev/null", "--repeat", "1", "--steps", "1"];
        assert!(esolm(&both).status.success());
    }
}

#[test]
fn an_empty_name_of_a_file_is_said_to_be_that() {
    for args in [&["-f", ""][..], &["--json-schema", ""], &["--order", "@"], &["--schedule", "@"]] {
        refused(&[&["generate", "-n", "2"], args].concat(), 2, "the name of a file to read is empty");
    }
    for args in [&["inspect", ""][..], &["bench", ""], &["score", "", &golden("config.json")]] {
        refused(args, 2, "the name of the model is empty");
    }
    refused(&["generate", ""], 2, "'' is no model file");
}

#[test]
#[cfg(unix)]
fn words_are_text_as_it_is_given() {
    use std::os::unix::ffi::OsStrExt;

    // Also where they are empty: `esolm tokenize "$text"`.
    for command in ["tokenize", "detokenize"] {
        let none = esolm_reading(&[command], "");
        let empty = esolm(&[command, ""]);
        assert!(empty.status.success(), "{}", err(&empty));
        assert_eq!(out(&empty), out(&none));
    }
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_esolm"))
        .arg("tokenize")
        .arg(std::ffi::OsStr::from_bytes(b"a\xff"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("is not UTF-8") && out(&output).is_empty(), "{}", err(&output));
}

#[test]
fn an_empty_esolm_model_is_none() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_esolm"))
        .args(["tokenize", "The king"])
        .env("ESOLM_MODEL", "")
        .output()
        .unwrap();
    assert_eq!(out(&output), out(&esolm(&["tokenize", "The king"])));
    assert!(output.status.success() && !out(&output).is_empty());
}

#[test]
fn help_fits_a_terminal_of_any_width() {
    for command in
        ["generate", "score", "evaluate", "quality", "quantize", "imatrix", "bench", "convert", "verify"]
    {
        let help = out(&esolm(&[command, "--help"]));
        let (_, after) = help.split_once("-h, --help").unwrap();
        // What is cut by hand is short; what is long is left to be wrapped.
        for line in after.lines() {
            assert!(line.chars().count() <= 100, "{command}: {line}");
        }
        let examples = help.lines().filter(|line| line.starts_with("  esolm "));
        for line in examples {
            assert!(line.chars().count() <= 82, "{command}: {line}");
        }
    }
}

#[test]
fn a_state_of_more_or_fewer_texts_says_which_options_it_takes() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (one, two) = (path("one.state"), path("two.state"));
    for (state, batch) in [(&one, "1"), (&two, "2")] {
        let made = esolm(&["generate", "-q", "-n", "4", "--batch", batch, "--state", state]);
        assert!(made.status.success(), "{}", err(&made));
    }
    let before = std::fs::read(&two).unwrap();
    let takes = |state: &str, takes: &str| format!("{state}: a state of {takes}");
    let two_texts = takes(&two, "2 texts; it takes --batch 2 and at most 2 prompts");
    refused(&["generate", "-n", "8", "--state", &two], 2, &two_texts);
    refused(&["generate", "-n", "8", "--batch", "3", "--state", &two], 2, &two_texts);
    // So small a context that the state is not read but for its head.
    refused(&["generate", "--length", "1", "--state", &two], 2, &two_texts);
    let one_text = takes(&one, "1 text; it takes --batch 1 and at most 1 prompt");
    refused(&["generate", "-n", "8", "-p", "a", "-p", "b", "--state", &one], 2, &one_text);
    refused(&["generate", "--length", "2", "--batch", "2", "--state", &two], 2, "--length");
    assert_eq!(std::fs::read(&two).unwrap(), before);
    let resumed = esolm(&["generate", "-q", "-n", "4", "--batch", "2", "--state", &two]);
    assert!(resumed.status.success(), "{}", err(&resumed));
}
