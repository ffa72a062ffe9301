//! What is alike in all subcommands: where the model goes, and the names of options that people know from elsewhere.

use std::process::Output;

use crate::command_line::{built_in, err, esolm, golden, library_file, out};

/// What a command that succeeds prints.
fn printed(args: &[&str]) -> String {
    let output = esolm(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", err(&output));
    out(&output)
}

#[test]
fn model_is_the_first_argument_or_that_of_m() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (tiny, text, new) = (path("tiny.gguf"), path("text.txt"), path("new"));
    printed(&["convert", "-m", &golden("checkpoint.ckpt"), "-o", &tiny, "--type", "f32"]);
    std::fs::write(&text, "the quick brown fox jumps over the lazy dog and does it again").unwrap();
    let golden = golden("golden.safetensors");
    let small = ["--length", "16", "--threads", "1"];
    let windows = ["--windows", "1"];
    let quality: Vec<&str> = [&["--text", &text, "--steps", "2"], &small[..], &windows].concat();
    let bench = ["--length", "8", "--steps", "2", "--repeat", "1", "--threads", "1"];
    let cases: [(&str, Vec<&str>, &[&str]); 11] = [
        ("generate", vec!["-q", "-n", "8", "--seed", "1"], &[]),
        ("run", vec!["-q", "-n", "8", "--seed", "1"], &[]),
        ("score", [&["--draws", "0"], &small[..]].concat(), &[&text]),
        ("evaluate", [&["--samples", "2", "--steps", "2", "--alpha0", "1"], &small[..]].concat(), &[]),
        ("inspect", vec![], &[]),
        ("tokenize", vec![], &["the", "fox"]),
        ("detokenize", vec![], &["1", "2"]),
        ("verify", vec![], &[&golden]),
        ("bench", bench.to_vec(), &[]),
        ("quality", quality, &[&tiny]),
        ("imatrix", [&["-o", &new, "--force", "--pieces", "1"], &small[..]].concat(), &[&text]),
    ];
    // Times differ from run to run, what is resident, and on a busy machine which limit is nearest.
    let figures = |text: String| {
        let text = text.replace(|c: char| c.is_ascii_digit(), "").replace([' ', '.'], "");
        ["KiB", "MiB", "memory", "products"].iter().fold(text, |text, word| text.replace(word, ""))
    };
    for (command, options, others) in cases {
        let first = printed(&[&[command, &tiny], others, &options].concat());
        let option = printed(&[&[command], others, &options, &["-m", &tiny]].concat());
        if ["bench", "evaluate", "inspect", "quality"].contains(&command) {
            assert_eq!(figures(first), figures(option), "{command}");
        } else {
            assert_eq!(first, option, "{command}");
        }
        let refused = |output: Output| {
            assert_eq!(output.status.code(), Some(2), "{command}: {}", err(&output));
            assert!(out(&output).is_empty());
        };
        if !["tokenize", "detokenize", "quality"].contains(&command) {
            refused(esolm(&[&[command, &tiny], others, &options, &["-m", &tiny]].concat()));
        }
    }
    // These write a file, and take no default.
    let (a, b) = (path("a.gguf"), path("b.gguf"));
    printed(&["quantize", &tiny, &a, "--type", "q8_0"]);
    printed(&["quantize", &b, "-m", &tiny, "--type", "q8_0"]);
    assert_eq!(std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());
    let none = esolm(&["quantize", &b, "--type", "q8_0"]);
    assert!(none.status.code() == Some(2) && err(&none).contains("no model file"), "{}", err(&none));
    assert_eq!(esolm(&["quality", "-m", &tiny, "--text", &text]).status.code(), Some(2));
    assert_eq!(esolm(&["convert", "a", "-m", "b", "-o", &new]).status.code(), Some(2));
}

#[test]
fn words_are_a_model_only_if_they_look_like_one() {
    let model = built_in();
    let text = "Once upon a time";
    let expected = printed(&["tokenize", text]);
    assert_eq!(printed(&["tokenize", &model, text]), expected);
    assert_eq!(printed(&["tokenize", "-m", &model, text]), expected);
    let words = printed(&["tokenize", "-m", &model, "Once.gguf", "upon"]);
    assert_eq!(words, printed(&["tokenize", "Once.gguf upon"]));
    assert_eq!(printed(&["detokenize", "-m", &model, expected.trim()]), text);
    assert_eq!(
        printed(&[&["detokenize", &model], &expected.split_whitespace().collect::<Vec<_>>()[..]].concat()),
        text
    );
    // A prompt is none.
    let refused = esolm(&["run", "Once upon a time"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(err(&refused).contains("-p \"Once upon a time\""), "{}", err(&refused));
    let refused = esolm(&["run", &model, "Once upon a time"]);
    assert!(err(&refused).contains("-p \"Once upon a time\""), "{}", err(&refused));
    assert_eq!(esolm(&["generate", "no-such-file.gguf"]).status.code(), Some(3));
}

#[test]
fn names_that_people_type_are_known() {
    let base = ["run", "-q", "-p", "The king"];
    let text = |more: &[&str]| printed(&[&base, more].concat());
    let expected = text(&["--temp", "0.8", "--max-tokens", "24", "--seed", "3", "--threads", "1"]);
    assert_eq!(text(&["--temperature", "0.8", "-n", "24", "-s", "3", "-t", "2"]), expected);
    assert_eq!(text(&["--temperature", "0.8", "--n-predict", "24", "-s", "3"]), expected);
    assert_eq!(text(&["--temp", "0.8", "--predict", "24", "-s", "3"]), expected);
    assert_eq!(text(&["--length", "20", "-s", "3"]), text(&["-c", "20", "-s", "3"]));
    assert_eq!(text(&["--length", "20", "-s", "3"]), text(&["--ctx-size", "20", "-s", "3", "-n", "-1"]));
    assert_eq!(text(&["--stop", ".", "-s", "3"]), text(&["-r", ".", "-s", "3"]));
    let penalty = ["-n", "24", "-s", "3"];
    let of = |name: &'static str| text(&[&[name, "1.3"], &penalty[..]].concat());
    assert_eq!(of("--repeat-penalty"), of("--repetition-penalty"));
    let dir = tempfile::tempdir().unwrap();
    let (schema, file) = (r#"{"enum": ["Spot", "Max"]}"#, dir.path().join("pet.json").display().to_string());
    std::fs::write(&file, schema).unwrap();
    let pet = text(&["--json-schema", schema, "-s", "3"]);
    assert!(pet.contains("Spot\"") || pet.contains("Max\""), "{pet}");
    assert_eq!(text(&["--json-schema", &file, "-s", "3"]), pet);
    assert_eq!(text(&["--json-schema-file", &file, "-s", "3"]), pet);
    // -t is a type where files are written.
    let file = dir.path().join("a.gguf").display().to_string();
    printed(&["quantize", &built_in(), &file, "-t", "q4_0", "--threads", "1"]);
    printed(&["convert", &library_file("tests/golden/tiny-B"), "-o", &file, "-t", "f32", "--force"]);
}

#[test]
fn minus_one_is_a_default_or_leaves_to_chance() {
    let base = ["generate", "-q", "-p", "The king", "-n", "24"];
    let text = |more: &[&str]| printed(&[&base, more].concat());
    let plain = text(&["-s", "3"]);
    for option in ["--temp", "--top-p", "--top-k", "--min-p", "--typical", "--top-n-sigma"] {
        assert_eq!(text(&["-s", "3", option, "-1"]), plain, "{option}");
        let refused = esolm(&["generate", option, "-2"]);
        assert!(refused.status.code() == Some(2) && err(&refused).contains(option), "{}", err(&refused));
    }
    // The number that stands for it in the library means what it says: all tokens, whatever the file's default is.
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("greedy.gguf").display().to_string();
    printed(&["quantize", &built_in(), &model, "--type", "q8_0", "--default", "top_k=1"]);
    let of = |top_k: &str| text(&["-m", &model, "-s", "3", "--top-k", top_k]);
    assert_eq!(of("-1"), of("1"));
    assert_eq!(of("4294967295"), of("0"));
    assert_ne!(of("4294967295"), of("1"));
    let help = printed(&["generate", "--help"]).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(help.matches("Default, or -1:").count(), 7, "six of sampling, and the seed: {help}");
    // A seed that is told, and makes the same text.
    let run = |seed: &str| {
        let output = esolm(&["generate", "-p", "The king", "-n", "24", "--seed", seed]);
        let (_, seed) =
            err(&output).trim().rsplit_once("seed ").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        (out(&output), seed)
    };
    let (first, seed) = run("-1");
    assert_eq!(run(&seed), (first, seed.clone()));
    let others: Vec<String> = (0..4).map(|_| run("-1").1).collect();
    assert!(others.iter().any(|other| *other != seed), "{others:?}");
    let refused = esolm(&["generate", "--seed", "-2"]);
    assert!(refused.status.code() == Some(2) && err(&refused).contains("--seed"), "{}", err(&refused));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("text").display().to_string();
    std::fs::write(&file, "Once upon a time there was a king.").unwrap();
    let scored = esolm(&["score", &file, "--draws", "2", "--seed", "-1", "--threads", "1"]);
    let seed = err(&scored).trim().strip_prefix("seed ").unwrap().to_owned();
    assert_eq!(out(&scored), printed(&["score", &file, "--draws", "2", "-s", &seed, "--threads", "1"]));
}

#[test]
fn version_says_what_this_build_is() {
    let short = printed(&["--version"]);
    assert_eq!(short, format!("esolm {}\n", env!("CARGO_PKG_VERSION")));
    let version = printed(&["version"]);
    assert!(version.starts_with(&short));
    for (feature, has) in [
        ("embed-model", true),
        ("grammar", cfg!(feature = "grammar")),
        ("chat", cfg!(feature = "chat")),
        ("hub", cfg!(feature = "hub")),
        ("serve", cfg!(feature = "serve")),
        ("cuda", cfg!(feature = "cuda")),
    ] {
        assert_eq!(version.split_whitespace().any(|word| word == feature), has, "{feature}: {version}");
    }
    for part in [std::env::consts::ARCH, "kernels = ", "compiled for: ", "processor: ", "ggml "] {
        assert!(version.contains(part), "{part}: {version}");
    }
}

#[test]
fn values_may_begin_with_a_dash() {
    let run = ["run", "-q", "-n", "5", "--seed", "1"];
    for options in [
        &["-p", "-x"][..],
        &["-p", "x", "--stop", "-", "--dry-multiplier", "1", "--dry-sequence-breaker", "-y"],
        &["-p", "x", "--ban", "-", "--bias", "-=-3"],
        &["--template", "-x{{mask 3}}"],
    ] {
        printed(&[&run[..], options].concat());
    }
    let number = printed(&[&run[..], &["-p", "x", "--regex", "-[0-9]+"]].concat());
    assert!(number.starts_with("x-") && number.trim()[2..].bytes().all(|b| b.is_ascii_digit()), "{number}");
}

#[test]
fn steps_without_effect_are_refused() {
    for command in ["run", "chat", "evaluate"] {
        for other in
            [["--schedule", "2"], ["--adaptive", "conf:0.5"], ["--window", "4"], ["--order", "strided:4"]]
        {
            let template: &[&str] = if command == "chat" { &["--template", "chatml"] } else { &[] };
            let output = esolm(&[&[command, "--steps", "8", "--alpha0", "1"], &other[..], template].concat());
            assert_eq!(output.status.code(), Some(2), "{command} {other:?}");
            assert!(
                err(&output).contains(&format!("--steps has no effect with {}", other[0])),
                "{}",
                err(&output)
            );
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let ar = dir.path().join("ar.gguf").display().to_string();
    printed(&["convert", &library_file("tests/golden/ar-tiny/checkpoint.ckpt"), "-o", &ar]);
    let output = esolm(&["run", "-m", &ar, "--steps", "8", "--prompt-ids", "1"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("an autoregressive model writes one token a step"), "{}", err(&output));
}

#[test]
fn measured_overhead_is_told_and_leads_to_the_same_text() {
    let run = ["generate", "-q", "-p", "Once upon a time", "--seed", "1", "--ignore-eos", "-n", "60"];
    let with = |options: &[&str]| esolm(&[&run[..], &["--threads", "1"], options].concat());
    for auto in [&["--lookahead", "auto"][..], &["--window", "auto"], &["--window", "auto:0.5"]] {
        let measured = with(&[auto, &["--pass-overhead", "measured"]].concat());
        assert!(measured.status.success(), "{}", err(&measured));
        let said = err(&measured);
        let number = said.trim().strip_prefix("pass overhead ").unwrap_or_else(|| panic!("{said}"));
        assert!((0.1..=256.0).contains(&number.parse::<f32>().unwrap()), "{number}");
        let again = with(&[auto, &["--pass-overhead", number]].concat());
        assert_eq!((out(&again), err(&again)), (out(&measured), String::new()));
        let usual = with(&[auto, &["--pass-overhead", "0"]].concat());
        assert_eq!(out(&usual), out(&with(auto)));
    }
    let wrong: [(&[&str], &str); 6] = [
        (&["--pass-overhead", "2"], "no effect without"),
        (&["--pass-overhead", "measured", "--window", "4", "--lookahead", "0"], "no effect without"),
        (&["--pass-overhead", "300", "--window", "auto"], "0 to 256"),
        (&["--pass-overhead", "nan", "--lookahead", "auto"], "0 to 256"),
        (&["--pass-overhead", "much", "--lookahead", "auto"], "not a number of rows"),
        (
            &[
                "--lookahead",
                "auto",
                "--pass-overhead",
                "measured",
                "--count",
                "2",
                "--shard",
                "1/2",
                "-o",
                "x",
            ],
            "a number",
        ),
    ];
    for (options, message) in wrong {
        let output = with(options);
        assert_eq!(output.status.code(), Some(2), "{options:?}: {}", err(&output));
        assert!(err(&output).contains(message), "{options:?}: {}", err(&output));
    }
}

#[test]
fn plot_says_what_it_is_of() {
    let dir = tempfile::tempdir().unwrap();
    let [file, own] = ["steps.svg", "own.gguf"].map(|name| dir.path().join(name).display().to_string());
    let defaults = ["--default", "alpha_0=0.5", "--default", "steps=16"];
    printed(&[&["quantize", &built_in(), &own, "--type", "q8_0"], &defaults[..]].concat());
    let options = ["-n", "20", "--ignore-eos", "--seed", "7", "--plot", &file];
    for (given, note) in [
        (&[][..], ">seed 7, 20 tokens in 20 steps<"),
        (
            &["--steps", "4", "--alpha0", "1"],
            ">seed 7, T = 4 diffusion steps, alpha_0 = 1, 20 tokens in 4 steps<",
        ),
        // The number that is meant where none is given.
        (&["--alpha0", "1"], ">seed 7, T = 128 diffusion steps, alpha_0 = 1, 20 tokens in "),
        // One that nothing is divided into.
        (&["--schedule", "5"], ">seed 7, 20 tokens in 4 steps<"),
        (&["--order", "strided:10"], ">seed 7, 20 tokens in "),
        (&["--steps", "4", "--alpha0", "0"], ">seed 7, alpha_0 = 0, 20 tokens in 20 steps<"),
        (&["-m", &own], ">seed 7, T = 16 diffusion steps, 20 tokens in "),
        (&["--adaptive", "conf:0.5"], ">seed 7, 20 tokens in "),
        (&["--window", "4"], ">seed 7, 20 tokens in "),
    ] {
        printed(&[&["run", "-q", "-p", "Once"], &options[..], given].concat());
        let plot = std::fs::read_to_string(&file).unwrap();
        assert!(plot.contains(note), "{given:?}: {plot}");
    }
    // A model that does nothing else, one that divides each block, and one that writes one token in each step.
    for (variant, given, note) in [
        ("mdlm", &[][..], ">seed 7, T = 128 diffusion steps, 20 tokens in "),
        ("bd3lm:4", &["--steps", "2"], ">seed 7, T = 2 diffusion steps a block, 20 tokens in "),
        ("ar", &[], ">seed 7, 20 tokens in 20 steps<"),
    ] {
        let model = dir.path().join(format!("{variant}.gguf")).display().to_string();
        printed(&["bench", "--shape", "stories", "--variant", variant, "--write", &model]);
        printed(&[&["run", "-q", "-m", &model], &options[..], given].concat());
        let plot = std::fs::read_to_string(&file).unwrap();
        assert!(plot.contains(note), "{variant}: {plot}");
    }
}

/// What a program in Rust writes that sets nothing. (ffi-tests/defaults: so do those in the other languages.)
#[test]
fn text_without_options_is_the_library_s() {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("own.gguf").display().to_string();
    let defaults = ["top_p=0.3", "temperature=0.7", "min_p=0.05", "alpha_0=0.5", "steps=16"];
    let model = built_in();
    let mut quantize = vec!["quantize", &model, &own, "--type", "q8_0"];
    quantize.extend(defaults.iter().flat_map(|default| ["--default", default]));
    printed(&quantize);
    let mut written = vec![];
    for file in [&model, &own] {
        let model = esolm::Model::open(file, &esolm::LoadOptions::default()).unwrap();
        let mut context = esolm::Context::new(&model, &esolm::ContextParams::default()).unwrap();
        let prompt = model.tokenizer().unwrap().encode("Once upon a time").unwrap();
        let prompt = esolm::Prompt::prefix(&prompt).unwrap();
        context.begin(&[prompt], &esolm::GenerateParams::default()).unwrap();
        while context.step().unwrap().is_some() {}
        let text = context.text(0).unwrap();
        assert_eq!(
            printed(&["generate", "-m", file, "-p", "Once upon a time", "--seed", "0", "-q"]).trim_end(),
            text.trim_end()
        );
        written.push(text);
    }
    assert_ne!(written[0], written[1], "the file's defaults");
}
