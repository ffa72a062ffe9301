//! `esolm generate` as a person meets it.

use crate::command_line::{err, esolm, esolm_reading, out};

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
    let output = esolm(&[
        "generate",
        "--json",
        "-n",
        "32",
        "--batch",
        "2",
        "--alpha0",
        "0.5",
        "--steps",
        "4",
        "--ignore-eos",
    ]);
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
        let read = esolm_reading(&[&["generate", "-p", "-"], &args[..]].concat(), format!("{text}\n"));
        assert_eq!(out(&given), out(&read), "{text:?}");
    }
    let read = esolm_reading(&[&["generate", "-p", "-"], &args[..]].concat(), "Long ago");
    assert_eq!(out(&esolm(&[&["generate", "-p", "Long ago"], &args[..]].concat())), out(&read));
}

#[test]
fn templates_orders_and_constraints() {
    let template = "Once upon a time {{mask 30}} happily ever after.";
    let args = ["generate", "-q", "--template", template, "--seed", "2", "--alpha0", "1"];
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
        let args = [
            "generate",
            "-p",
            "The king",
            "--length",
            "24",
            "--seed",
            "2",
            "--steps",
            "6",
            "--json",
            "--ignore-eos",
        ];
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
        (&["5=#4096"], "position 5: token 4096 is the mask, which is never written"),
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
        let args = ["generate", "--json", "-n", "64", "--seed", "5", "--ignore-eos", "--adaptive", adaptive];
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
            "--ignore-eos",
            "--length",
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

/// The last line of --json.
fn report(args: &[&str]) -> serde_json::Value {
    let output = esolm(&[&["generate", "--json"], args].concat());
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", err(&output));
    serde_json::from_str(out(&output).lines().last().unwrap()).unwrap()
}

#[test]
fn text_ends_where_it_is_told_to() {
    let common = ["-p", "Once upon a time", "--seed", "3"];
    let of = |more: &[&str]| report(&[&common[..], more].concat());
    let tokens = |report: &serde_json::Value| -> Vec<u64> {
        report["tokens"][0].as_array().unwrap().iter().map(|token| token.as_u64().unwrap()).collect()
    };
    let whole = of(&["--length", "100", "--ignore-eos"]);
    let prompt = out(&esolm(&["tokenize", "Once upon a time"])).split_whitespace().count();
    assert_eq!((tokens(&whole).len(), &whole["stop_reasons"][0]), (100, &"length".into()));
    // -n counts new tokens, as llama.cpp does.
    let few = of(&["-n", "9", "--ignore-eos"]);
    assert_eq!(tokens(&few), tokens(&whole)[..prompt + 9]);
    assert_eq!(few["tokens_written"], 9);
    assert_eq!(tokens(&of(&["-n", "50", "--length", "20", "--ignore-eos"])), tokens(&whole)[..20]);
    assert_eq!(tokens(&of(&["-n", "9", "--length", "50", "--ignore-eos"])), tokens(&whole)[..prompt + 9]);
    let hole = ["--template", "Once{{mask 3}} end{{mask 8}}", "-n", "2", "--ignore-eos", "--seed", "3"];
    assert_eq!(tokens(&report(&hole)).len(), 1 + 3 + 1 + 2);
    assert_eq!(tokens(&of(&["-n", "-1", "--length", "100", "--ignore-eos"])), tokens(&whole));
    // A token and a string that the text has.
    let token = tokens(&whole)[40];
    let end = prompt + tokens(&whole)[prompt..].iter().position(|&t| t == token).unwrap();
    let stopped = of(&["--stop-token", &token.to_string(), "--ignore-eos"]);
    assert_eq!(
        (&tokens(&stopped)[..], &stopped["stop_reasons"][0]),
        (&tokens(&whole)[..=end], &"stop_token".into())
    );
    assert_eq!(stopped["steps"], end - prompt + 1, "the steps behind the end are not run");
    let text = whole["texts"][0].as_str().unwrap();
    let stop = &text[200..206];
    let stopped = of(&["--stop", "no such text", "--stop", stop, "--ignore-eos"]);
    let shorter = stopped["texts"][0].as_str().unwrap();
    assert_eq!(Some(shorter.len()), text.find(stop));
    assert!(text.starts_with(shorter) && stopped["stop_reasons"][0] == "stop_string");
    // Without --json the same text.
    let plain = esolm(&[&["generate", "-q", "--stop", stop, "--ignore-eos"], &common[..]].concat());
    assert_eq!(out(&plain).trim_end(), shorter.trim_end());
    // The end of text.
    let ids = |report: &serde_json::Value| tokens(report).iter().map(u64::to_string).collect::<Vec<_>>();
    let ended = of(&["--bias", "<|endoftext|>=4"]);
    let eos = *tokens(&ended).last().unwrap();
    assert_eq!(ended["stop_reasons"][0], "end_of_text");
    assert!(!ended["texts"][0].as_str().unwrap().contains("endoftext"), "{ended}");
    assert!(tokens(&ended)[..tokens(&ended).len() - 1].iter().all(|&token| token != eos));
    // In a prompt it ends nothing.
    let begun = format!("{eos} {} {eos}", ids(&few).join(" "));
    let output = esolm(&[
        "generate",
        "-q",
        "--prompt-ids",
        &begun,
        "-n",
        "4",
        "--seed",
        "1",
        "--ban",
        "<|endoftext|>",
    ]);
    assert!(out(&output).starts_with(few["texts"][0].as_str().unwrap()), "{}", out(&output));
    assert!(out(&output).len() > few["texts"][0].as_str().unwrap().len() + 1);
}

#[test]
fn ended_text_is_continued_behind_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("a.state").display().to_string();
    let common = ["--state", &state, "--seed", "4", "--ignore-eos"];
    let first = report(&[&["-p", "The king", "--stop", "."], &common[..]].concat());
    assert_eq!(first["stop_reasons"][0], "stop_string");
    let written = first["tokens"][0].as_array().unwrap();
    let next = report(&[&["-p", " And then", "-n", "6"], &common[..]].concat());
    let tokens = next["tokens"][0].as_array().unwrap();
    assert!(tokens.starts_with(written));
    let text = next["texts"][0].as_str().unwrap();
    let begin = format!("{}. And then", first["texts"][0].as_str().unwrap());
    assert!(text.starts_with(&begin), "{text}");
}

#[test]
fn lookahead_takes_fewer_steps() {
    let run = |lookahead: &str| {
        let args = [
            "-n",
            "48",
            "--ignore-eos",
            "--schedule",
            "1",
            "--temp",
            "0",
            "--seed",
            "3",
            "--lookahead",
            lookahead,
        ];
        let plain = esolm(&[&["generate"], &args[..]].concat());
        assert_eq!(plain.status.code(), Some(0), "{}", err(&plain));
        let lines = out(&esolm(&[&["generate", "--json"], &args[..]].concat()));
        let mut lines: Vec<serde_json::Value> =
            lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let report = lines.pop().unwrap();
        for count in ["proposed", "accepted"] {
            let sum: u64 = lines.iter().map(|step| step[count].as_u64().unwrap()).sum();
            assert_eq!(report[count], sum, "{count}");
        }
        (out(&plain), err(&plain), report)
    };
    let (text, statistics, report) = run("0");
    assert!(report["steps"] == 48 && report["proposed"] == 0, "{report}");
    assert!(!statistics.contains("proposed"), "{statistics}");
    // With a small model `auto` tries but now and then.
    for (lookahead, most_steps, least_accepted) in [("4", 40, 10), ("auto", 48, 0)] {
        let (same, statistics, report) = run(lookahead);
        assert_eq!(same, text, "{lookahead}");
        let [steps, proposed, accepted] =
            ["steps", "proposed", "accepted"].map(|key| report[key].as_u64().unwrap());
        assert!(
            steps < most_steps && accepted > least_accepted && accepted <= proposed,
            "{lookahead}: {report}"
        );
        let told = format!("48 tokens in {steps} steps ({accepted} of {proposed} proposed tokens accepted)");
        assert!(statistics.contains(&told), "{statistics}");
    }
    for wrong in ["17", "-1", "some"] {
        let refused = esolm(&["generate", &format!("--lookahead={wrong}")]);
        assert!(
            refused.status.code() == Some(2) && err(&refused).contains("lookahead"),
            "{wrong}: {}",
            err(&refused)
        );
    }
}
