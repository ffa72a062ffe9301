//! How many tokens a pass writes: options of the server.

use serde_json::{Value, json};

use super::{COMPLETIONS, Server};
use crate::command_line::{err, esolm, golden_with_words, out};

#[test]
fn texts_are_those_of_generate_with_the_same_options() {
    let dir = tempfile::tempdir().unwrap();
    let wedlm = golden_with_words("wedlm-qwen3", dir.path());
    let built_in = ("Once upon a time", &[][..]);
    let words = ("w7 w9", &["-m", wedlm.as_str()][..]);
    for ((prompt, model), options) in [
        (built_in, &["--window", "4"][..]),
        (built_in, &["--alpha0", "1", "--steps", "12"]),
        (built_in, &["--lookahead", "3"]),
        (built_in, &["--window", "auto", "--pass-overhead", "40"]),
        (words, &["--window", "3:0.8"]),
        (words, &["--lookahead", "3"]),
    ] {
        let given = [model, options].concat();
        let server = Server::start(&given);
        let wanted = json!({"prompt": prompt, "max_tokens": 20, "temperature": 0, "seed": 1});
        let (status, answer) = server.post(COMPLETIONS, &wanted);
        assert_eq!(status, 200, "{given:?}: {answer}");
        let text = answer["choices"][0]["text"].as_str().unwrap();
        assert!(!text.trim().is_empty(), "{given:?}: {answer}");
        let own = ["generate", "-q", "-p", prompt, "-n", "20", "--temp", "0", "--seed", "1"];
        let own = esolm(&[&own[..], &given].concat());
        assert_eq!(format!("{prompt}{text}").trim_end(), out(&own).trim_end(), "{given:?}: {}", err(&own));
    }
}

#[test]
fn rows_are_those_of_the_options_and_do_not_change_the_text() {
    let wanted = json!({"prompt": "Once upon a time there was a little girl.", "max_tokens": 20, "seed": 1});
    let text = |options: &[&str]| {
        let (status, answer) = Server::start(options).post(COMPLETIONS, &wanted);
        assert_eq!(status, 200, "{options:?}: {answer}");
        answer["choices"][0]["text"].clone()
    };
    assert_eq!(text(&["--batch-rows", "4", "--prompt-rows", "2"]), text(&[]));
    // A pass that looks ahead by 3 tokens takes 10 rows.
    let refused = esolm(&["serve", "--port", "0", "--lookahead", "3", "--batch-rows", "9"]);
    assert_eq!(refused.status.code(), Some(2), "{}", err(&refused));
    assert!(err(&refused).contains("batch_rows of 10; the context has 9"), "{}", err(&refused));
}

/// The texts of a request come in one stream, in the order of the steps that wrote them.
#[test]
fn prompt_rows_say_how_many_steps_read_a_long_prompt_beside_a_text() {
    let long: Vec<u32> = (0..150).map(|place| 300 + place * 7 % 900).collect();
    let wanted = json!({"prompt": [[300], long], "max_tokens": 40, "seed": 1, "stream": true, "logit_bias": {"0": -100}});
    let written = |options: &[&str]| {
        let events = Server::start(options).stream(COMPLETIONS, &wanted);
        let choices: Vec<&Value> = events.iter().map(|event| &event["choices"][0]).collect();
        let text = |choice: &Value| choice["text"].as_str().unwrap_or_default().to_owned();
        let ends =
            choices.iter().position(|choice| choice["index"] == 0 && choice["finish_reason"] == "length");
        let begins = choices.iter().position(|choice| choice["index"] == 1 && !text(choice).is_empty());
        let of = |index: u64| -> String {
            choices.iter().filter(|choice| choice["index"] == index).map(|choice| text(choice)).collect()
        };
        (begins.unwrap() < ends.unwrap(), [of(0), of(1)])
    };
    // It is read in three steps, or in more than the other text has.
    let (beside, texts) = written(&[]);
    assert!(beside, "{texts:?}");
    assert_eq!(written(&["--batch-rows", "4", "--prompt-rows", "2"]), (false, texts));
}

#[test]
fn grammar_is_written_one_by_one_whatever_the_server_says() {
    for options in [&["--alpha0", "1", "--steps", "8"][..], &["--window", "4"], &["--lookahead", "2"]] {
        let server = Server::start(options);
        let schema = json!({"type": "json_schema", "json_schema": {"schema": {"enum": ["cat", "dog"]}}});
        let wanted = json!({"prompt": "A pet: ", "response_format": schema, "max_tokens": 20, "seed": 1});
        let (status, answer) = server.post(COMPLETIONS, &wanted);
        assert_eq!(status, 200, "{options:?}: {answer}");
        let text = answer["choices"][0]["text"].as_str().unwrap();
        assert!(["\"cat\"", "\"dog\""].contains(&text), "{options:?}: {text}");
    }
}

#[test]
fn what_the_model_does_not_have_is_refused_before_it_serves() {
    let dir = tempfile::tempdir().unwrap();
    let wedlm = golden_with_words("wedlm-qwen3", dir.path());
    for (options, says) in [
        (&["--window", "4", "--steps", "8"][..], "--steps has no effect with --window"),
        (&["--window", "4:x"], "--window: '4:x'"),
        (&["--alpha0", "1.5"], "--alpha0 is 1.5"),
        (&["-m", &wedlm, "--alpha0", "0.5"], "this model has only 0 and 1"),
        (&["-m", &wedlm, "--steps", "8"], "WeDLM slides a window"),
    ] {
        let output = esolm(&[&["serve", "--port", "0"], options].concat());
        assert_eq!(output.status.code(), Some(2), "{options:?}: {}", err(&output));
        assert!(err(&output).contains(says), "{options:?}: {}", err(&output));
    }
}
