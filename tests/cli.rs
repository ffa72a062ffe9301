//! The `esolm` command as a person meets it: output, messages, exit codes.
#![cfg(all(feature = "cli", feature = "embed-model"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod command_line;

use std::path::Path;

use command_line::{built_in, err, esolm, esolm_reading, golden, out};

#[test]
fn it_writes_at_once_without_a_model_given() {
    let args = ["generate", "-p", "Once upon a time", "-n", "64", "--steps", "16", "--seed", "3"];
    let first = esolm(&args);
    assert_eq!(first.status.code(), Some(0), "{}", err(&first));
    assert!(out(&first).starts_with("Once upon a time"), "{}", out(&first));
    assert!(err(&first).contains("tokens/s") && err(&first).contains("seed 3"));
    assert_eq!(out(&first), out(&esolm(&args)), "the same seed writes the same text");
    let watched = esolm(&[&args[..], &["--watch"]].concat());
    assert_eq!(out(&first), out(&watched), "without a terminal --watch prints plainly");
}

#[test]
fn json_says_everything() {
    let output =
        esolm(&["generate", "--json", "-n", "32", "--batch", "2", "--alpha0", "0.5", "--steps", "4"]);
    let lines: Vec<serde_json::Value> =
        out(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (report, steps) = lines.split_last().unwrap();
    assert_eq!(report["texts"].as_array().unwrap().len(), 2);
    // A line per step, whose tokens are the text's.
    assert_eq!(steps.len() as u64, report["steps"].as_u64().unwrap());
    let updates: Vec<_> = steps.iter().flat_map(|step| step["updates"].as_array().unwrap()).collect();
    assert_eq!(updates.len(), 64);
    for update in &updates {
        let [sequence, position] = ["sequence", "position"].map(|key| update[key].as_u64().unwrap() as usize);
        assert_eq!(update["token"], report["tokens"][sequence][position]);
        assert!(update["log_prob"].as_f64().unwrap() <= 0.0 && update["text"].is_string());
    }
    let own = updates.iter().filter(|update| update["sequence"] == 1).map(|update| &update["position"]);
    assert!(own.eq(report["orders"][1].as_array().unwrap()));
    assert_eq!(report["tokens"][1].as_array().unwrap().len(), 32);
    assert_eq!(report["tokens_written"], 64);
    assert!(report["seed"].is_u64() && report["tokens_per_second"].as_f64().unwrap() > 0.0);
}

#[test]
fn several_prompts_and_standard_input() {
    let output = esolm(&["generate", "-q", "-n", "24", "-p", "The king", "-p", "A fox", "--steps", "4"]);
    let text = out(&output);
    assert!(text.contains("===== 1 =====\nThe king") && text.contains("===== 2 =====\nA fox"), "{text}");
    assert!(err(&output).is_empty());
    // The newline at the end of what is read is nobody's; another one is.
    let args = ["-q", "-n", "24", "--steps", "4", "--seed", "3"];
    for text in ["Long ago", "Long ago\n", ""] {
        let given = esolm(&[&["generate", "-p", text], &args[..]].concat());
        assert!(out(&given).starts_with(text.trim_end()), "{}", out(&given));
        let read = esolm_reading(&[&["generate", "-p", "-"], &args[..]].concat(), &format!("{text}\n"));
        assert_eq!(out(&given), out(&read), "{text:?}");
    }
    let read = esolm_reading(&[&["generate", "-p", "-"], &args[..]].concat(), "Long ago");
    assert_eq!(out(&esolm(&[&["generate", "-p", "Long ago"], &args[..]].concat())), out(&read));
}

#[test]
fn templates_orders_and_constraints() {
    let template = "Once upon a time {{mask 30}} happily ever after.";
    let args = ["generate", "-q", "--template", template, "--seed", "2", "--steps", "8"];
    let plain = out(&esolm(&args));
    assert!(
        plain.starts_with("Once upon a time") && plain.trim_end().ends_with("happily ever after."),
        "{plain}"
    );
    let report = |more: &[&str]| -> serde_json::Value {
        let output = esolm(&[&args[..], &["--json"], more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        serde_json::from_str(out(&output).lines().last().unwrap()).unwrap()
    };
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        format!("@{}", path.display())
    };
    let length = report(&[])["tokens"][0].as_array().unwrap().len();
    let backwards = (0..length).rev().map(|p| p.to_string()).collect::<Vec<_>>().join(" ");
    let (order, schedule) = (file("order", &backwards), file("schedule", "10,\n 15 5\n"));
    for order in ["random", "ltr", "strided:6", "strided:6:shuffle", "blocks:7", &order] {
        let texts = report(&["--order", order])["texts"][0].as_str().unwrap().to_owned();
        assert!(texts.starts_with("Once") && texts.ends_with("after."), "{order}: {texts}");
    }
    assert_eq!(report(&["--schedule", "1"])["steps"], 30);
    assert_eq!(report(&["--schedule", "2,4"])["steps"], 8);
    assert_eq!(report(&["--schedule", &schedule])["steps"], 3);
    // A token that is much liked is everywhere, a banned one nowhere.
    let liked = report(&["--bias", "#11=100"]);
    let tokens = |report: &serde_json::Value| report["tokens"][0].as_array().unwrap().clone();
    assert!(tokens(&liked).iter().filter(|&token| *token == 11).count() >= 30);
    let banned = report(&["--bias", "#11=100", "--ban", "#11"]);
    assert!(tokens(&banned).iter().filter(|&token| *token == 11).count() <= 2);
    report(&["--repetition-penalty", "1.3", "--ban", "the", "--bias", ".=-1.5"]);
    for wrong in [
        &["--order", "sideways"][..],
        &["--order", "strided:x"],
        &["--order", "strided:0"],
        &["--order", "blocks:0"],
        &["--order", "@/no/such/file"],
        &["--schedule", "1,0"],
        &["--schedule", ""],
        &["--schedule", "1,x"],
        &["--ban", "happily ever after"],
        &["--ban", "#9999999"],
        &["--bias", "the"],
        &["--bias", "#11=NaN"],
        &["--repetition-penalty", "0"],
        &["-p", "both"],
    ] {
        let output = esolm(&[&args[..], wrong].concat());
        let code = if wrong[1].starts_with("@/") { 3 } else { 2 };
        assert_eq!(output.status.code(), Some(code), "{wrong:?}: {}", err(&output));
        assert!(!err(&output).is_empty());
    }
    assert_eq!(esolm(&["generate", "--template", "a {{mask}}"]).status.code(), Some(2));
    assert!(err(&esolm(&["generate", "--template", "a {{mask}}"])).contains("at character 3"));
}

#[test]
fn allowed_tokens_are_all_that_is_written_there() {
    let run = |allow: &[&str]| {
        let allow = allow.iter().flat_map(|rule| ["--allow", rule]);
        let args = ["generate", "-p", "The king", "-n", "24", "--seed", "2", "--steps", "6", "--json"];
        esolm(&args.into_iter().chain(allow).collect::<Vec<_>>())
    };
    let tokens = |allow: &[&str]| -> Vec<u64> {
        let output = run(allow);
        assert_eq!(output.status.code(), Some(0), "{allow:?}: {}", err(&output));
        let report: serde_json::Value = serde_json::from_str(out(&output).lines().last().unwrap()).unwrap();
        report["tokens"][0].as_array().unwrap().iter().map(|token| token.as_u64().unwrap()).collect()
    };
    let id = |text: &str| out(&esolm(&["tokenize", text])).trim().parse::<u64>().unwrap();
    let free = tokens(&[]);
    let [and, the, equals] = [" and", " the", "="].map(id);
    let bound = tokens(&["4= and, the", "9-12==,#7", " 14 - 14 =="]);
    assert!([and, the].contains(&bound[4]), "{bound:?}");
    assert!(bound[9..=12].iter().all(|token| [equals, 7].contains(token)), "{bound:?}");
    assert_eq!(bound[14], equals);
    assert!(free[9..=12].iter().all(|token| ![equals, 7].contains(token)), "{free:?}");
    // What the prompt has there may be among the allowed.
    assert_eq!(tokens(&[&format!("1=#5,#{}", bound[1])])[..2], free[..2]);
    let all = tokens(&["2-23=#7"]);
    assert!(all[2..].iter().all(|&token| token == 7) && all.len() == 24, "{all:?}");
    for (allow, says) in [
        (&["5"][..], "'5' is not POSITION="),
        (&["=the"], "'=the' is not"),
        (&["x=the"], "'x=the' is not"),
        (&["5-=the"], "'5-=the' is not"),
        (&["1-2-3=the"], "'1-2-3=the' is not"),
        (&["99999999999=the"], "is not POSITION="),
        (&["9-3=the"], "9 comes after 3"),
        (&["0-4294967295=the"], "position 4294967295 is beyond the model's 256 tokens"),
        (&["24=the"], "position 24: beyond the length of 24"),
        (&["5="], "--allow: '' is not a token"),
        (&["5=the,"], "--allow: '' is not a token"),
        (&["5=the,happily ever after"], "--allow: 'happily ever after' is"),
        (&["5=#4096"], "position 5: there is no token 4096"),
        (&["5=the", "3-7=a"], "position 5: the position is given twice"),
        (&["1=#5"], "position 1: the prompt has token"),
    ] {
        let output = run(allow);
        assert_eq!(output.status.code(), Some(2), "{allow:?}: {}", err(&output));
        assert!(err(&output).contains(says) && out(&output).is_empty(), "{allow:?}: {}", err(&output));
    }
    let banned = ["generate", "-n", "9", "--allow", "5=the", "--ban", "the"];
    assert!(err(&esolm(&banned)).contains("position 5: every one is banned"));
}

#[test]
fn adaptive_steps_and_states() {
    let steps = |adaptive: &str| {
        let args = ["generate", "--json", "-n", "64", "--seed", "5", "--adaptive", adaptive];
        let output = esolm(&args);
        assert_eq!(output.status.code(), Some(0), "{adaptive}: {}", err(&output));
        let report: serde_json::Value = serde_json::from_str(out(&output).lines().last().unwrap()).unwrap();
        assert_eq!(report["tokens_written"], 64);
        report["steps"].as_u64().unwrap()
    };
    assert_eq!((steps("conf:0:16"), steps("margin:2"), steps("entropy:100")), (4, 64, 8));
    assert!((9..64).contains(&steps("conf:0.05")));
    for wrong in ["conf", "conf:", "sure:0.5", "conf:x", "conf:0.5:0", "conf:0.5:1:1", "conf:NaN"] {
        assert_eq!(esolm(&["generate", "--adaptive", wrong]).status.code(), Some(2), "{wrong}");
    }

    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("king.state").display().to_string();
    let write = |prompt: &str, length: &str| {
        esolm(&[
            "generate",
            "-q",
            "-p",
            prompt,
            "-n",
            length,
            "--state",
            &state,
            "--seed",
            "4",
            "--schedule",
            "2",
        ])
    };
    let first = out(&write("The king", "40"));
    let longer = out(&write(" And then", "80"));
    let begin = first.trim_end();
    assert!(longer.starts_with(begin), "{longer}");
    assert!(longer[begin.len()..].trim_start().starts_with("And then"), "{longer}");
    assert_eq!(write("", "70").status.code(), Some(2), "shorter than what is there");
    assert_eq!(
        esolm(&["generate", "-m", &dir.path().join("no").display().to_string(), "--state", &state])
            .status
            .code(),
        Some(3)
    );
    let mut bytes = std::fs::read(&state).unwrap();
    let place = bytes.len() / 2;
    bytes[place] ^= 1;
    std::fs::write(&state, &bytes).unwrap();
    let damaged = write("", "90");
    assert_eq!(damaged.status.code(), Some(3));
    assert!(err(&damaged).contains("checksum"), "{}", err(&damaged));
    assert_eq!(std::fs::read(&state).unwrap(), bytes, "what was refused is left as it is");
}

#[test]
fn convert_inspect_verify() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("tiny.gguf").display().to_string();
    let converted = esolm(&["convert", &golden("checkpoint.ckpt"), "-o", &model, "--type", "f32"]);
    assert_eq!(converted.status.code(), Some(0), "{}", err(&converted));
    let again = esolm(&["convert", &golden("checkpoint.ckpt"), "-o", &model]);
    assert_eq!(again.status.code(), Some(2), "an output that exists is not replaced");
    assert!(err(&again).contains("exist"));

    let shown = out(&esolm(&["inspect", &model]));
    assert!(shown.contains("blk.2.ffn_down.bias") && shown.contains("esolm.context_length"), "{shown}");
    let report: serde_json::Value =
        serde_json::from_str(&out(&esolm(&["inspect", &model, "--json"]))).unwrap();
    assert_eq!(report["metadata"]["esolm.vocab_size"], 97);
    assert!(report["load_seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(report["tensors"].as_array().unwrap().len(), 35);

    let golden_file = golden("golden.safetensors");
    let verified = esolm(&["verify", &model, &golden_file]);
    assert_eq!(verified.status.code(), Some(0), "{}", out(&verified));
    assert!(out(&verified).contains("agrees"));
    let strict = esolm(&["verify", &model, &golden_file, "--tolerance", "1e-9", "--json"]);
    assert_eq!(strict.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&strict.stdout).unwrap();
    assert_eq!((report["agrees"].as_bool(), report["differing_tokens"].as_u64()), (Some(false), Some(0)));
    let raw = dir.path().join("raw.gguf").display().to_string();
    esolm(&["convert", &golden("checkpoint.ckpt"), "-o", &raw, "--type", "f32", "--raw-weights"]);
    assert_eq!(esolm(&["verify", &raw, &golden_file]).status.code(), Some(1), "raw weights are others");
}

#[test]
fn quantize_makes_a_smaller_model_that_writes() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let built_in = built_in();
    let small = path("small.gguf");
    let keep = ["--keep", "blk.0.*=q5_k", "--keep", "blk.last.ffn_down.weight=q8_0"];
    let run = esolm(&[&["quantize", &built_in, &small, "--type", "q4_k"], &keep[..]].concat());
    assert_eq!(run.status.code(), Some(0), "{}", err(&run));
    let said = err(&run);
    assert!(said.contains("bits per weight") && said.contains("note: ") && said.contains("before"), "{said}");
    let shown: serde_json::Value =
        serde_json::from_str(&out(&esolm(&["inspect", &small, "--json"]))).unwrap();
    let type_of = |name: &str| {
        let tensors = shown["tensors"].as_array().unwrap();
        tensors.iter().find(|t| t["name"] == name).unwrap()["type"].as_str().unwrap().to_owned()
    };
    assert_eq!(type_of("blk.0.attn_qkv.weight"), "q5_k");
    assert_eq!(type_of("blk.1.attn_qkv.weight"), "q4_k");
    assert_eq!(type_of("blk.7.ffn_down.weight"), "q8_0");
    assert_eq!(type_of("output.weight"), "q6_k");
    assert_eq!(shown["metadata"]["general.file_type"], 15);
    let text = esolm(&["generate", "-m", &small, "-q", "-p", "Once upon a time", "-n", "48", "--ban", "#0"]);
    assert!(out(&text).starts_with("Once upon a time") && out(&text).len() > 60, "{}", out(&text));

    let code = |args: &[&str]| {
        let output = esolm(args);
        (output.status.code().unwrap(), err(&output))
    };
    let (exists, said) = code(&["quantize", &built_in, &small, "--type", "q4_k"]);
    assert!(exists == 2 && said.contains("--force"), "{said}");
    let (same, said) = code(&["quantize", &small, &small, "--type", "q4_k", "--force"]);
    assert!(same == 2 && said.contains("both input and output"), "{said}");
    let new = path("new.gguf");
    assert_eq!(code(&["quantize", &built_in, &new]).0, 2, "a type is needed");
    assert_eq!(code(&["quantize", &built_in, &new, "--type", "q9"]).0, 2);
    let (typo, said) = code(&["quantize", &built_in, &new, "--type", "q8_0", "--keep", "blk.8.*=f16"]);
    assert!(typo == 2 && said.contains("blk.8.*") && said.contains("inspect"), "{said}");
    assert_eq!(code(&["quantize", &built_in, &new, "--type", "q8_0", "--keep", "nothing"]).0, 2);
    assert_eq!(code(&["quantize", &golden("config.json"), &new, "--type", "q8_0"]).0, 3);
    assert_eq!(code(&["quantize", &built_in, &new, "--type", "q4_k", "--imatrix", &built_in]).0, 3);
    assert!(!Path::new(&new).exists());
}

#[test]
fn an_importance_matrix_is_made_and_used() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let built_in = built_in();
    let (text, matrix, small) = (path("text.txt"), path("model.imatrix"), path("small.gguf"));
    std::fs::write(&text, "Once upon a time there was a king who had three daughters. ".repeat(20)).unwrap();
    let sizes = ["--length", "32", "--pieces", "3", "--steps", "4", "--threads", "1"];
    let made = esolm(&[&["imatrix", &built_in, &text, "-o", &matrix], &sizes[..]].concat());
    assert_eq!(made.status.code(), Some(0), "{}", err(&made));
    assert!(err(&made).contains("33 matrices, from 3 pieces of 32 tokens"), "{}", err(&made));
    let args = ["quantize", &built_in, &small, "--type", "q2_k", "--imatrix", &matrix];
    let used = esolm(&args);
    assert_eq!(used.status.code(), Some(0), "{}", err(&used));
    assert!(!err(&used).contains("does not know"), "{}", err(&used));
    std::fs::write(&text, "").unwrap();
    assert_eq!(esolm(&["imatrix", &built_in, &text, "-o", &path("other")]).status.code(), Some(2));
    std::fs::write(&text, b"\xff\xfe").unwrap();
    assert_eq!(esolm(&["imatrix", &built_in, &text, "-o", &path("other")]).status.code(), Some(3));
    assert!(!Path::new(&path("other")).exists());
}

#[test]
fn tokens_and_back() {
    let excerpt = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/heldout/excerpt.txt");
    let tale = std::fs::read_to_string(excerpt).unwrap();
    let strange = "  \r\n\tna\u{ef}ve \u{2591} \u{1f98a}\u{200d}\0 [1, 2] <|endoftext|><|endoftext\n\n";
    for text in ["Once upon a time", strange, "", &tale] {
        for json in [&["--json"][..], &[]] {
            let ids = esolm_reading(&[&["tokenize"], json].concat(), text);
            assert_eq!(ids.status.code(), Some(0), "{}", err(&ids));
            assert_eq!(out(&ids).lines().count(), 1);
            assert_eq!(out(&esolm_reading(&["detokenize"], &out(&ids))), text, "to the byte");
        }
    }
    let ids = out(&esolm(&["tokenize", "The king <|endoftext|>"]));
    assert_eq!(ids.split_whitespace().last(), Some("0"), "special tokens are recognised: {ids}");
    let ids: Vec<&str> = ids.split_whitespace().collect();
    assert_eq!(out(&esolm(&[&["detokenize"], &ids[..]].concat())), "The king <|endoftext|>");
    assert_eq!(out(&esolm(&["detokenize", "--json", "[0,0]"])), "\"<|endoftext|><|endoftext|>\"\n");
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
        let checkpoint = format!("{}/tests/golden/{name}/checkpoint.ckpt", env!("CARGO_MANIFEST_DIR"));
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

#[test]
fn quality_is_a_table_figures_and_a_picture() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let built_in = built_in();
    let (small, json, plot) = (path("fairy-<2>.gguf"), path("out.json"), path("out.svg"));
    assert!(esolm(&["quantize", &built_in, &small, "--type", "q2_k"]).status.success());
    let text = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/heldout/excerpt.txt");
    let args = ["quality", &built_in, &small, "--text", text, "--json", &json, "--plot", &plot];
    let sizes = ["--length", "32", "--windows", "3", "--steps", "4", "--threads", "1"];
    let measured = esolm(&[&args, &sizes[..]].concat());
    assert_eq!(measured.status.code(), Some(0), "{}", err(&measured));
    let table = out(&measured);
    assert!(table.contains("| fairy-q8_0 |") && table.contains("100.00 %"), "{table}");
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let [base, other] = [0, 1].map(|i| report["files"][i].clone());
    assert_eq!((&base["kl_mean"], &base["tokens"]), (&0.0.into(), &96.into()));
    assert!(other["kl_mean"].as_f64().unwrap() > 0.0 && other["bits_per_weight"].as_f64().unwrap() < 4.0);
    let picture = std::fs::read_to_string(plot).unwrap();
    assert!(picture.starts_with("<svg") && picture.ends_with("</svg>\n") && picture.contains("&lt;2&gt;"));
    assert_eq!(esolm(&["quality", &built_in, "--text", text]).status.code(), Some(2), "nothing to compare");
    assert_eq!(esolm(&["quality", &built_in, text, "--text", text]).status.code(), Some(3));
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
