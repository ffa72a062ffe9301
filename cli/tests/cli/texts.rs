//! Texts and their tokens: tokenize, detokenize, score; and the help.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use crate::command_line::{built_in, err, esolm, esolm_reading, library_file, out};

#[test]
fn tokens_and_back() {
    let stories = library_file("tests/heldout/stories.txt");
    let tale = std::fs::read_to_string(stories).unwrap();
    let strange = "  \r\n\tna\u{ef}ve \u{2591} \u{1f98a}\u{200d}\0 [1, 2] <|endoftext|><|endoftext\n\n";
    for text in ["Once upon a time", strange, "", &tale] {
        for json in [&["--json"][..], &[]] {
            let ids = esolm_reading(&[&["tokenize"], json].concat(), text);
            assert_eq!(ids.status.code(), Some(0), "{}", err(&ids));
            assert_eq!(out(&ids).lines().count(), 1);
            assert_eq!(out(&esolm_reading(&["detokenize"], out(&ids))), text, "to the byte");
        }
    }
    let ids = out(&esolm(&["tokenize", "--special", "The king <|endoftext|>"]));
    assert_eq!(ids.split_whitespace().last(), Some("0"), "special tokens are recognised: {ids}");
    let plain = out(&esolm(&["tokenize", "The king <|endoftext|>[MASK]"]));
    assert!(
        plain.split_whitespace().all(|id| !["0", "4096"].contains(&id)),
        "without it, they are text: {plain}"
    );
    assert_eq!(out(&esolm_reading(&["detokenize"], &plain)), "The king <|endoftext|>[MASK]");
    assert_eq!(out(&esolm(&["tokenize", "--special", "[MASK]"])), "4096\n");
    assert_eq!(out(&esolm(&["detokenize", "4096"])), "[MASK]");
    let ids: Vec<&str> = ids.split_whitespace().collect();
    assert_eq!(out(&esolm(&[&["detokenize"], &ids[..]].concat())), "The king <|endoftext|>");
    assert_eq!(out(&esolm(&["detokenize", "[0,0]"])), "<|endoftext|><|endoftext|>");
    let words = ["tokenize", "Once", "upon a", "time"];
    assert_eq!(out(&esolm(&words)), out(&esolm(&["tokenize", "Once upon a time"])));
    for unknown in ["4097", "-1", "x", "1.5", "4294967296"] {
        let refused = esolm(&["detokenize", "--", unknown]);
        assert!(refused.status.code() == Some(2) && err(&refused).contains(unknown), "{}", err(&refused));
        assert!(out(&refused).is_empty());
    }
}

#[test]
fn a_text_is_scored() {
    let text = "Once upon a time there was a king who had three daughters.\n".repeat(6);
    let small = ["--length", "32", "--windows", "2", "--draws", "4", "--threads", "1"];
    let table = esolm_reading(&[&["score", "-"], &small[..]].concat(), &text);
    assert_eq!(table.status.code(), Some(0), "{}", err(&table));
    for words in ["64 tokens", "2 windows", "left to right", "bound at alpha_0 = 0.5", "+-", "perplexity"] {
        assert!(out(&table).contains(words), "{words} is missing: {}", out(&table));
    }
    let args = ["score", "-", "--json", "--orders", "3", "--alpha0", "1"];
    let json = esolm_reading(&[&args, &small[..]].concat(), &text);
    let report: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(report["log_probabilities"].as_array().unwrap().len(), 64);
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    let nll = number(&report["in_order"]["nll"]);
    assert!((number(&report["in_order"]["perplexity"]) - (nll / 64.0).exp()).abs() < 1e-9);
    let bits = number(&report["in_order"]["bits_per_byte"]);
    let bytes = number(&report["bytes"]);
    assert!((bits * bytes * std::f64::consts::LN_2 - nll).abs() < 1e-6 && bytes > 64.0 && bytes < 360.0);
    assert_eq!((&report["orders"], &report["order"]), (&3.into(), &"random".into()));
    assert_eq!(number(&report["sequential"]["nll"]), 0.0, "alpha_0 = 1 is all diffusion");
    assert_eq!(report["bound"], report["diffusion"]);
    assert_eq!(out(&json), out(&esolm_reading(&[&args, &small[..]].concat(), &text)), "the same seed");
    let code = |args: &[&str], text: &str| esolm_reading(args, text).status.code();
    assert_eq!(code(&["score", "-", "--order", "ltr", "--orders", "2"], "a"), Some(2));
    assert_eq!(code(&["score", "-", "--orders", "0", "--draws", "0"], "a"), Some(2));
    assert_eq!(code(&["score", "-", "--alpha0", "-1"], "a"), Some(2));
    assert_eq!(code(&["score", "-"], ""), Some(2));
    assert_eq!(code(&["score", "no-such-file"], ""), Some(3));
    // Each variant says what it can, and refuses what it cannot when it is asked for.
    let dir = tempfile::tempdir().unwrap();
    for (name, says, wrong) in [
        (
            "mdlm-tiny",
            "bound at alpha_0 = 1",
            [&["--order", "ltr"][..], &["--orders", "2"], &["--alpha0", "0.5"]],
        ),
        ("ar-tiny", "left to right", [&["--order", "random"], &["--draws", "2"], &["--alpha0", "0.5"]]),
    ] {
        let checkpoint = library_file(&format!("tests/golden/{name}/checkpoint.ckpt"));
        let model = dir.path().join(name).display().to_string();
        assert!(esolm(&["convert", &checkpoint, "-o", &model]).status.success());
        let score = ["score", "-", "-m", &model, "--length", "16", "--windows", "1"];
        assert!(out(&esolm_reading(&score, &text)).contains(says), "{name}");
        for wrong in wrong {
            let refused = esolm_reading(&[&score[..], wrong].concat(), &text);
            assert_eq!(refused.status.code(), Some(2), "{name} {wrong:?}: {}", out(&refused));
        }
    }
}

/// Prompts from files, from a pipe and with a dash; what the editor of a file adds is left out.
#[test]
fn prompts_come_from_files_pipes_and_with_dashes() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = dir.path().join(name).display().to_string();
        std::fs::write(&path, content).unwrap();
        path
    };
    let windows = file("windows.txt", b"\xEF\xBB\xBFOnce upon\r\na time\r\n");
    let unix = file("unix.txt", b"Once upon\na time\n");
    let args = ["generate", "-q", "--seed", "1", "-n", "8"];
    let generate = |more: &[&str], piped: &str| {
        let run = esolm_reading(&[&args, more].concat(), piped);
        assert_eq!(run.status.code(), Some(0), "{more:?}: {}", err(&run));
        out(&run)
    };
    let text = generate(&["-p", "Once upon\na time"], "");
    assert!(text.starts_with("Once upon\na time"));
    for more in [["-f", &windows], ["--file", &unix], ["-p", "-"], ["-f", "-"]] {
        assert_eq!(generate(&more, "\u{feff}Once upon\r\na time\r\n"), text, "{more:?}");
    }
    assert_eq!(generate(&[], "Once upon\na time\n"), text, "piped");
    assert_eq!(generate(&[], ""), generate(&["-p", ""], ""), "nothing is piped");
    let two = generate(&["-f", &unix, "-p", "The king"], "not read");
    let first = two.find("===== 1 =====\nThe king").unwrap();
    assert!(first < two.find("===== 2 =====\nOnce upon\na time").unwrap(), "{two}");
    for prompt in ["-foo", "--watch", "-5 apples"] {
        assert!(generate(&["-p", prompt], "").starts_with(prompt));
        assert!(generate(&[&format!("-p={prompt}")], "").starts_with(prompt));
        assert!(generate(&[&format!("--prompt={prompt}")], "").starts_with(prompt));
    }
    assert!(generate(&["-p", "[MASK] <|endoftext|>"], "").starts_with("[MASK] <|endoftext|>"));
    let special = ["-p", "<|endoftext|>The king", "--special"];
    assert!(generate(&special, "").starts_with("The king"));
    let utf16 = file("utf16.txt", b"\xFF\xFEO\0n\0");
    for (bad, code, said) in [(utf16.as_str(), 3, "UTF-16"), ("no-such-file", 3, "no-such-file")] {
        let refused = esolm(&[&args[..], &["-f", bad]].concat());
        assert!(refused.status.code() == Some(code) && err(&refused).contains(said), "{}", err(&refused));
    }
    // The files of score are read in the same way.
    let score = |file: &str| out(&esolm(&["score", file, "--draws", "0"]));
    assert_eq!(score(&windows), score(&unix));
    // And that of imatrix.
    let matrix = |text: &str| {
        let output = dir.path().join("matrix").display().to_string();
        let args = ["imatrix", &built_in(), text, "-o", &output, "--force", "--steps", "1", "--threads", "1"];
        let run = esolm(&args);
        assert_eq!(run.status.code(), Some(0), "{}", err(&run));
        std::fs::read(output).unwrap()
    };
    assert!(matrix(&windows) == matrix(&unix), "imatrix reads what the editor has added");
}

/// It would be empty for the second.
#[test]
fn standard_input_is_read_once() {
    let twice = [
        ["-p", "-", "-p", "-"],
        ["-p", "-", "-f", "-"],
        ["-f", "-", "--prompt-ids", "-"],
        ["--template", "-", "--order", "@-"],
        ["-p", "-", "--schedule", "@-"],
        ["-f", "-", "--json-schema", "-"],
    ];
    let evaluate = ["evaluate", "-p", "-", "--text", "-"];
    let generate = twice.map(|options| [&["generate"], &options[..]].concat());
    for args in generate.iter().map(Vec::as_slice).chain([&evaluate[..]]) {
        let refused = esolm_reading(args, "1 2\n");
        assert_eq!(refused.status.code(), Some(2), "{args:?}: {}", err(&refused));
        assert!(err(&refused).contains("standard input can be read once"), "{args:?}: {}", err(&refused));
    }
}

/// What a loop of the shell reads is the loop's; a file at its beginning, and -f -, are the prompt.
#[test]
#[cfg(unix)]
fn list_of_a_loop_is_not_the_prompt() {
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("list");
    std::fs::write(&list, "3\n4\n5\n").unwrap();
    let shell = |script: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", script, env!("CARGO_BIN_EXE_esolm")]).arg(&list).env_remove("ESOLM_MODEL");
        let run = shell.output().unwrap();
        assert_eq!(err(&run), "");
        out(&run)
    };
    let esolm = "\"$0\" generate -q -n 4 -t 1";
    let looped = shell(&format!("while read -r seed; do {esolm} --seed $seed; done <\"$1\""));
    let alone = shell(&format!("for seed in 3 4 5; do {esolm} --seed $seed </dev/null; done"));
    assert_eq!((looped.lines().count() >= 3, &looped), (true, &alone));
    let whole = shell(&format!("{esolm} -s 1 <\"$1\""));
    assert!(whole.starts_with("3\n4\n5"), "{whole}");
    let rest = shell(&format!("{{ read -r first; {esolm} -s 1 -f -; }} <\"$1\""));
    assert!(rest.starts_with("4\n5"), "{rest}");
}

/// A pipe that nobody closes is waited for, but not without a word.
#[test]
fn waiting_for_a_prompt_is_told() {
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_esolm"));
        command
            .args(["generate", "-q", "-n", "4", "-s", "1", "-t", "1"])
            .args(args)
            .env_remove("ESOLM_MODEL");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut waiting = run(&[]);
    let mut said = String::new();
    BufReader::new(waiting.stderr.as_mut().unwrap()).read_line(&mut said).unwrap();
    assert!(said.starts_with("reading the prompt from standard input"), "{said}");
    waiting.stdin.take().unwrap().write_all(b"The king").unwrap();
    let text = out(&waiting.wait_with_output().unwrap());
    assert_eq!(text, out(&run(&["-p", "The king"]).wait_with_output().unwrap()));
}

#[test]
fn text_that_is_missing_is_said() {
    let model = built_in();
    let no_extension = tempfile::tempdir().unwrap();
    let copy = no_extension.path().join("model").display().to_string();
    std::fs::copy(&model, &copy).unwrap();
    for (args, code, says) in [
        (vec!["score", &model], 2, "no text given"),
        (vec!["score", "hf:owner/name"], 2, "no text given"),
        (vec!["score", "-m", &model], 2, "<FILE>"),
        (vec!["score", &copy], 3, "this is a model, not a text"),
    ] {
        let refused = esolm(&args);
        assert!(
            refused.status.code() == Some(code) && err(&refused).contains(says),
            "{args:?}: {}",
            err(&refused)
        );
    }
}

#[test]
fn help_teaches() {
    let help = out(&esolm(&["--help"]));
    assert!(help.contains("Examples:") && help.contains("Exit codes:"));
    let help = out(&esolm(&["generate", "--help"]));
    for word in [
        "--alpha0",
        "--steps",
        "--watch",
        "--top-p",
        "ESOLM_MODEL",
        "strided:S",
        "{{mask 12}}",
        "POSITION[-LAST]=TOKEN",
        "Examples:",
    ] {
        assert!(help.contains(word), "{word} is missing from the help");
    }
    // The defaults are the library's.
    let (library, wedlm) = (esolm::SamplingParams::LIBRARY, esolm::Defaults::WEDLM);
    let words: Vec<&str> = help.split_whitespace().collect();
    let help_in_one_line = words.join(" ");
    for (option, default) in [
        ("--top-p", format!("says, else {} (WeDLM: {})", library.top_p, wedlm.top_p.unwrap())),
        ("--temp", format!("says, else {} (WeDLM: {})", library.temperature, wedlm.temperature.unwrap())),
        ("--adaptive", format!("(default {})", esolm::Adaptive::default().window)),
    ] {
        let (_, after) = help_in_one_line.split_once(&format!(" {option} <")).unwrap();
        let own: String = after.chars().take(250).collect();
        assert!(own.contains(&default), "{option}, {default}: {own}");
    }
    let help = out(&esolm(&["quantize", "--help"]));
    for word in
        ["--keep", "--imatrix", "--threads", "q2_k 2.63", "blk.last", "token_embd.weight", "Examples:"]
    {
        assert!(help.contains(word), "{word} is missing from the help of quantize");
    }
    let help = out(&esolm(&["convert", "--help"]));
    assert!(help.contains("iq4_nl") && help.contains("--keep"), "{help}");
    assert!(out(&esolm(&["imatrix", "--help"])).contains("Example:"));
    assert!(out(&esolm(&["score", "--help"])).contains("NELBO"));
    assert!(out(&esolm(&["quality", "--help"])).contains("KL 99.9"));
    assert!(out(&esolm(&["completion", "bash"])).contains("_esolm"));
    assert!(out(&esolm(&["devices"])).contains("cpu"));
}

#[test]
fn help_is_in_groups_and_ends_with_examples() {
    let group = |help: &str, name: &str| -> String {
        let (_, rest) =
            help.split_once(&format!("\n{name}:\n")).unwrap_or_else(|| panic!("no {name}: {help}"));
        // To the next group, whose name stands at the beginning of a line. Descriptions stand further right.
        let lines = rest.lines().take_while(|line| line.is_empty() || line.starts_with(' '));
        let options = lines.filter(|line| line.starts_with("  -") || line.starts_with("      -"));
        let names = options.filter_map(|line| line.split([' ', ',']).find(|word| word.starts_with("--")));
        names.map(|name| format!("{name} ")).collect()
    };
    let help = out(&esolm(&["generate", "-h"]));
    for (name, first, last) in [
        ("Prompt", "--prompt ", "--batch "),
        ("Length and end of the text", "--max-tokens ", "--ignore-eos "),
        ("Diffusion", "--alpha0 ", "--pass-overhead "),
        ("Sampling", "--top-p ", "--seed "),
        ("What may be written", "--allow ", "--json-schema "),
        ("Penalties", "--repetition-penalty ", "--dry-sequence-breaker "),
        ("Device and threads", "--device ", "--kv-type "),
        ("Output", "--state ", "--quiet "),
    ] {
        let names = group(&help, name);
        assert!(names.starts_with(first) && names.ends_with(last), "{name}: {names}");
    }
    for command in ["score", "evaluate", "quality", "verify", "bench"] {
        let help = out(&esolm(&[command, "-h"]));
        assert_eq!(
            group(&help, "Device and threads"),
            group(&out(&esolm(&["score", "-h"])), "Device and threads")
        );
        assert!(group(&help, "Output").starts_with("--json "), "{command}");
    }
    let (_, list) = out(&esolm(&["--help"]))
        .split_once("Commands:\n")
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    let names = list.split("\n\n").next().unwrap().lines();
    let names =
        names.filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).filter(|name| !name.is_empty());
    for command in names.filter(|name| *name != "help") {
        let help = out(&esolm(&[command, "--help"]));
        let (_, examples) = help.rsplit_once("Example").unwrap_or_else(|| panic!("{command}: {help}"));
        assert!(examples.contains("  esolm "), "{command}: {help}");
    }
}
