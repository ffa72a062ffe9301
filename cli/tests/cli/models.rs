//! Model files: convert, inspect, verify, quantize, imatrix, quality.

use std::path::Path;

use crate::command_line::{built_in, err, esolm, esolm_reading, golden, library_file, out};

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
    let supports = report["supports"].as_array().unwrap().iter().map(|name| name.as_str().unwrap());
    let supports = supports.collect::<Vec<_>>();
    assert!(["states", "text", "lookahead"].iter().all(|name| supports.contains(name)), "{supports:?}");
    assert!(shown.contains(&format!("\nsupports {}\n", supports.join(", "))), "{shown}");
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
fn inspect_shows_the_memory_of_the_context_that_is_asked_for() {
    let memory = |more: &[&str]| {
        let shown = out(&esolm(&[&["inspect", "--json"], more].concat()));
        let report: serde_json::Value = serde_json::from_str(&shown).unwrap();
        report["context"]["kv_cache_bytes"].as_u64().unwrap()
    };
    let usual = memory(&[]);
    assert_eq!(memory(&["--length", "256", "--kv-type", "f16"]), usual);
    assert!(memory(&["--kv-type", "f32"]) > usual);
    let (short, small) = (memory(&["--length", "64"]), memory(&["--kv-type", "q8_0"]));
    assert!(0 < short && short < usual && small < usual, "{short} {small} {usual}");
    assert!(
        out(&esolm(&["inspect", "--length", "64"])).contains("a context for one text of 64 tokens takes")
    );
    let beyond = esolm(&["inspect", "--length", "100000"]);
    assert_eq!(beyond.status.code(), Some(2), "{}", err(&beyond));
}

/// A file of llama.cpp's by which a token stands before each text.
#[test]
fn token_before_each_text_is_that_of_llama_cpp_s_key() {
    let mut model = std::fs::read(library_file("fuzz/seeds/gguf/llama-qwen2")).unwrap();
    let key = |name: &str, kind: u32, value: &[u8]| {
        [&(name.len() as u64).to_le_bytes()[..], name.as_bytes(), &kind.to_le_bytes(), value].concat()
    };
    let mut keys = [
        key("tokenizer.ggml.add_bos_token", 7, &[1]),
        key("tokenizer.ggml.bos_token_id", 4, &3u32.to_le_bytes()),
    ]
    .concat();
    // The tensors stay where they are, but for a multiple of the alignment.
    keys.extend(key(&"x".repeat(128 - 13 - keys.len()), 7, &[1]));
    assert_eq!(keys.len(), 128);
    let count = u64::from_le_bytes(model[16..24].try_into().unwrap()) + 3;
    model[16..24].copy_from_slice(&count.to_le_bytes());
    model.splice(24..24, keys);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("model.gguf").display().to_string();
    std::fs::write(&file, model).unwrap();
    let shown = esolm(&["inspect", &file]);
    assert!(out(&shown).contains("token 3 stands before each text"), "{}{}", out(&shown), err(&shown));
    let plain = library_file("fuzz/seeds/gguf/llama-qwen2");
    let shown = out(&esolm(&["inspect", &plain]));
    assert!(shown.contains("supports") && !shown.contains("before each text"), "{shown}");
    let written = |model: &str, prompt: &[&str], count: &str| {
        let args =
            ["generate", "-m", model, "-n", count, "--ignore-eos", "--seed", "1", "--temp", "1", "--json"];
        let output = esolm(&[&args[..], prompt].concat());
        let last = out(&output).lines().last().unwrap_or_else(|| panic!("{}", err(&output))).to_owned();
        let report: serde_json::Value = serde_json::from_str(&last).unwrap();
        report["tokens"][0].as_array().unwrap().clone()
    };
    // The same as where the prompt says it; and no prompt is needed.
    for (prompt, whole) in [(&["--prompt-ids", "5 6"][..], "3 5 6"), (&[], "3")] {
        let found = written(&file, prompt, "9");
        assert!(found.len() >= 9, "{found:?}");
        assert_eq!(found, written(&plain, &["--prompt-ids", whole], "9")[1..]);
    }
    let refused = esolm(&["generate", "-m", &plain, "-n", "4"]);
    assert_eq!(refused.status.code(), Some(2), "{}", err(&refused));
}

#[test]
fn quantize_sets_defaults_that_generate_uses() {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("own.gguf").display().to_string();
    let quantize = ["quantize", &built_in(), &own, "--type", "q8_0"];
    let defaults = ["--default", "temperature=0.5", "--default", "top_p=0.8"];
    assert!(esolm(&[&quantize[..], &defaults].concat()).status.success());
    let write = |model: &str, more: &[&str]| {
        let args = ["generate", "-q", "-m", model, "-p", "The king", "-n", "48", "--seed", "2"];
        out(&esolm(&[&args[..], more].concat()))
    };
    let given = ["--temp", "0.5", "--top-p", "0.8"];
    assert_eq!(write(&own, &[]), write(&built_in(), &given));
    assert_eq!(write(&own, &["--temp", "1", "--top-p", "0.9"]), write(&built_in(), &[]));
    assert_ne!(write(&own, &[]), write(&built_in(), &[]));
    assert!(out(&esolm(&["inspect", &own])).contains("esolm.default.temperature"));
    for (bad, says) in [
        ("temperature", "is not KEY=VALUE"),
        ("warmth=1", "it is none of alpha_0, temperature"),
        ("top_p=2", "top_p is 2"),
        ("steps=x", "'x' is not a whole number"),
    ] {
        let output = esolm(&[&quantize[..], &["--force", "--default", bad]].concat());
        assert_eq!(output.status.code(), Some(2), "{bad}");
        assert!(err(&output).contains(says), "{bad}: {}", err(&output));
    }
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
    assert!(!err(&used).contains("has no entry for"), "{}", err(&used));
    std::fs::write(&text, "").unwrap();
    assert_eq!(esolm(&["imatrix", &built_in, &text, "-o", &path("other")]).status.code(), Some(2));
    std::fs::write(&text, b"\xff\xfe").unwrap();
    assert_eq!(esolm(&["imatrix", &built_in, &text, "-o", &path("other")]).status.code(), Some(3));
    assert!(!Path::new(&path("other")).exists());
}

#[test]
fn quality_is_a_table_figures_and_a_picture() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let built_in = built_in();
    let (small, json, plot) = (path("stories-<2>.gguf"), path("out.json"), path("out.svg"));
    assert!(esolm(&["quantize", &built_in, &small, "--type", "q2_k"]).status.success());
    let text = &library_file("tests/heldout/stories.txt");
    let args = ["quality", &built_in, &small, "--text", text, "--json-file", &json, "--plot", &plot];
    let sizes = ["--length", "32", "--windows", "3", "--steps", "4", "--threads", "1"];
    let measured = esolm(&[&args, &sizes[..]].concat());
    assert_eq!(measured.status.code(), Some(0), "{}", err(&measured));
    let table = out(&measured);
    assert!(table.contains("| stories-q8_0 |") && table.contains("100.00 %"), "{table}");
    assert!(table.contains("|     PPL |"), "{table}");
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let [base, other] = [0, 1].map(|i| report["files"][i].clone());
    assert_eq!((&base["kl_mean"], &base["tokens"]), (&0.0.into(), &96.into()));
    let column =
        |line: &str, number: usize| line.split('|').nth(number).unwrap().trim().parse::<f64>().unwrap();
    let line = table.lines().find(|line| line.starts_with("| stories-q8_0")).unwrap();
    assert!((column(line, 5) - column(line, 4).exp()).abs() < 0.01, "{table}");
    assert!(other["kl_mean"].as_f64().unwrap() > 0.0 && other["bits_per_weight"].as_f64().unwrap() < 4.0);
    let picture = std::fs::read_to_string(plot).unwrap();
    assert!(picture.starts_with("<svg") && picture.ends_with("</svg>\n") && picture.contains("&lt;2&gt;"));
    assert_eq!(esolm(&["quality", &built_in, "--text", text]).status.code(), Some(2), "nothing to compare");
    assert_eq!(esolm(&["quality", &built_in, text, "--text", text]).status.code(), Some(3));
}

/// Converts a golden model's safetensors with a changed setting. Returns the folder and the model file's path.
fn convert_changed(variant: &str, from: &str, to: &str, more: &[&str]) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let golden = |file: &str| library_file(&format!("tests/golden/{variant}/{file}"));
    let config = std::fs::read_to_string(golden("config.json")).unwrap();
    assert!(config.contains(from));
    std::fs::write(dir.path().join("config.json"), config.replace(from, to)).unwrap();
    std::fs::copy(golden("model.safetensors"), dir.path().join("model.safetensors")).unwrap();
    let model = dir.path().join("model.gguf").display().to_string();
    let folder = dir.path().display().to_string();
    let converted = esolm(&[&["convert", &folder, "-o", &model, "--type", "f32"], more].concat());
    assert_eq!(converted.status.code(), Some(0), "{}", err(&converted));
    assert!(err(&converted).contains("no tokenizer") && err(&converted).contains("--tokenizer"));
    assert!(err(&converted).contains("GPT-2's"), "{}", err(&converted));
    (dir, model)
}

#[test]
fn model_without_a_tokenizer_works_on_token_ids() {
    let (_dir, model) = convert_changed("tiny-B", "\"mode\": \"train\"", "\"mode\": \"x\"", &["--eos", "95"]);
    let common = ["--seed", "3", "--length", "12", "--ignore-eos", "-q", "-m", &model, "--steps", "4"];
    let plain = esolm(&[&["generate", "--prompt-ids", "7 8"], &common[..]].concat());
    assert_eq!(plain.status.code(), Some(0), "{}", err(&plain));
    let ids: Vec<u32> = out(&plain).split_whitespace().map(|id| id.parse().unwrap()).collect();
    assert_eq!((ids.len(), &ids[..2]), (12, &[7, 8][..]));
    let json = esolm(&[&["generate", "--prompt-ids", "[7,8]", "--json"], &common[..]].concat());
    let last: serde_json::Value = serde_json::from_str(out(&json).lines().last().unwrap()).unwrap();
    assert_eq!((&last["texts"][0], &last["tokens"][0]), (&serde_json::Value::Null, &serde_json::json!(ids)));
    let step: serde_json::Value = serde_json::from_str(out(&json).lines().next().unwrap()).unwrap();
    assert!(step["updates"][0]["token"].is_u64() && step["updates"][0]["text"].is_null(), "{step}");
    // The output is the input of scoring, which knows no bytes.
    let scored = esolm_reading(&["score", "-", "--ids", "-m", &model, "--draws", "2"], out(&plain));
    assert_eq!(scored.status.code(), Some(0), "{}", err(&scored));
    assert!(
        out(&scored).starts_with("12 tokens, 1 window\n") && !out(&scored).contains("bits"),
        "{}",
        out(&scored)
    );
    let scored = esolm_reading(&["score", "-", "--ids", "-m", &model, "--json"], out(&plain));
    let report: serde_json::Value = serde_json::from_str(&out(&scored)).unwrap();
    assert_eq!(report["tokens"], serde_json::json!(ids));
    assert!(report["bytes"].is_null() && report["in_order"]["bits_per_byte"].is_null());
    let verified = esolm(&["verify", &model, &golden("golden.safetensors")]);
    assert_eq!(verified.status.code(), Some(0), "{}", out(&verified));
    // A text is refused, with the way out.
    for (args, way) in [
        (&["generate", "-p", "a", "-m", &model][..], "--prompt-ids"),
        (&["score", &golden("config.json"), "-m", &model][..], "--ids"),
    ] {
        let refused = esolm(args);
        assert!(refused.status.code() == Some(2) && err(&refused).contains(way), "{}", err(&refused));
    }
    let refused = esolm(&["generate", "--prompt-ids", "97", "-m", &model]);
    assert!(refused.status.code() == Some(2) && err(&refused).contains("'97'"), "{}", err(&refused));
}

#[test]
fn prompt_ids_are_those_of_the_text() {
    let common = ["--seed", "3", "-n", "16", "-q", "--steps", "4"];
    let ids = out(&esolm(&["tokenize", "Once upon a time"]));
    let of_ids = esolm(&[&["generate", "--prompt-ids", ids.trim()], &common[..]].concat());
    let of_text = esolm(&[&["generate", "-p", "Once upon a time"], &common[..]].concat());
    assert_eq!(out(&of_ids), out(&of_text));
    assert!(out(&of_ids).starts_with("Once upon a time"));
    let text = "Once upon a time there was a king.";
    let ids = out(&esolm(&["tokenize", text]));
    let small = ["--draws", "0", "--threads", "1"];
    let of_ids = esolm_reading(&[&["score", "-", "--ids"], &small[..]].concat(), &ids);
    let of_text = esolm_reading(&[&["score", "-"], &small[..]].concat(), text);
    assert_eq!(out(&of_ids), out(&of_text));
}

#[test]
fn ar_without_a_token_before_the_text_asks_for_the_first_one() {
    let none = "\"prepend_token\": \"none\"";
    let (_dir, model) = convert_changed("ar-tiny", "\"prepend_token\": \"bos\"", none, &["--bos", "95"]);
    let refused = esolm(&["generate", "-m", &model, "-n", "8"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(err(&refused).contains("--prompt-ids 95"), "{}", err(&refused));
    let args = ["generate", "-m", &model, "-n", "7", "-q", "--prompt-ids", "95", "--temp", "0"];
    let written = esolm(&args);
    assert_eq!(written.status.code(), Some(0), "{}", err(&written));
    assert!(out(&written).starts_with("95 ") && out(&written).split_whitespace().count() == 8);
    // Of 8 tokens the first one is given.
    let scored = esolm_reading(&["score", "-", "--ids", "-m", &model, "--json"], out(&written));
    let report: serde_json::Value = serde_json::from_str(&out(&scored)).unwrap();
    let (nll, per_token) = (&report["in_order"]["nll"], &report["in_order"]["nll_per_token"]);
    assert!((nll.as_f64().unwrap() / 7.0 - per_token.as_f64().unwrap()).abs() < 1e-9, "{report}");
    let alone = esolm_reading(&["score", "-", "--ids", "-m", &model], "95");
    assert!(alone.status.code() == Some(2) && err(&alone).contains("first token"), "{}", err(&alone));
}

#[test]
fn tokenizer_of_a_qwen_is_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model.gguf").display().to_string();
    let converted = esolm(&["convert", &library_file("tests/golden/wedlm-qwen3"), "-o", &model]);
    assert_eq!(converted.status.code(), Some(0), "{}", err(&converted));
    let said = err(&converted);
    assert!(
        said.contains("the tokenizer.json that it was published with") && !said.contains("GPT-2"),
        "{said}"
    );
}

#[test]
fn eso_a_without_a_sequential_phase_says_so() {
    let causal = "\"sequential_attn_mode\": \"causal\"";
    let (_dir, model) = convert_changed("tiny-A", "\"sequential_attn_mode\": \"mixed\"", causal, &[]);
    let refused = esolm(&["generate", "-m", &model, "--alpha0", "0.5"]);
    assert!(
        refused.status.code() == Some(2) && err(&refused).contains("diffusion phase alone"),
        "{}",
        err(&refused)
    );
    let written = esolm(&["generate", "-m", &model, "-n", "8", "-q"]);
    assert_eq!(written.status.code(), Some(0), "{}", err(&written));
    let (_other, judge) = convert_changed("tiny-B", "\"mode\": \"train\"", "\"mode\": \"x\"", &[]);
    let small = ["--samples", "1", "--length", "8", "--threads", "1"];
    let evaluated = esolm(&[&["evaluate", "-m", &model, "--judge", &judge], &small[..]].concat());
    assert_eq!(evaluated.status.code(), Some(0), "{}", err(&evaluated));
    // Its bound is the default.
    let scored = esolm_reading(&["score", "-", "--ids", "-m", &model], out(&written));
    assert!(out(&scored).contains("bound at alpha_0 = 1"));
    assert_eq!(scored.status.code(), Some(0), "{}", err(&scored));
}
