//! What requests say of sampling, of what stands around a text, and of the chat template.

use serde_json::{Value, json};

use super::{CHAT, COMPLETIONS, Server};
use crate::command_line::{esolm, out};

/// A request's parameter, and the command's options for the same.
#[test]
fn parameters_are_those_of_the_command_line() {
    let server = Server::start(&[]);
    let text = |more: &Value| {
        let mut wanted = json!({"prompt": "Once upon a time", "max_tokens": 40, "seed": 3});
        wanted.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (status, answer) = server.post(COMPLETIONS, &wanted);
        assert_eq!(status, 200, "{more}: {answer}");
        answer["choices"][0]["text"].as_str().unwrap().to_owned()
    };
    let plain = text(&json!({}));
    for (more, options) in [
        (json!({"top_k": 5}), "--top-k 5"),
        (
            json!({"top_k": -2, "top_p": 1, "top_n_sigma": -1, "dry_multiplier": 9, "dry_penalty_last_n": 0}),
            "--top-k 0 --top-p 1",
        ),
        (json!({"min_p": 0.2, "temperature": 1.5}), "--min-p 0.2 --temp 1.5"),
        (json!({"typical_p": 0.3}), "--typical 0.3"),
        (json!({"top_n_sigma": 1}), "--top-n-sigma 1"),
        (json!({"repetition_penalty": 1.5}), "--repetition-penalty 1.5"),
        (json!({"repeat_penalty": 1.5}), "--repetition-penalty 1.5"),
        (
            json!({"dry_multiplier": 3, "dry_base": 2, "dry_allowed_length": 1, "dry_penalty_last_n": 30}),
            "--dry-multiplier 3 --dry-base 2 --dry-allowed-length 1 --dry-range 30",
        ),
        (json!({"logit_bias": {"13": 30}, "ignore_eos": true}), "--bias #13=30 --ignore-eos"),
    ] {
        let mut args = vec!["generate", "-p", "Once upon a time", "-n", "40", "--seed", "3", "-q"];
        args.extend(options.split(' '));
        let (own, asked) = (out(&esolm(&args)), text(&more));
        assert_eq!(format!("Once upon a time{asked}").trim_end(), own.trim_end(), "{more}");
        assert_ne!(asked, plain, "{more}");
    }
    for (more, says) in [
        (json!({"top_k": 1.5}), "'top_k'"),
        (json!({"min_p": 2}), "'min_p'"),
        (json!({"repeat_penalty": 0}), "'repeat_penalty'"),
        (
            json!({"repeat_penalty": 2, "repetition_penalty": 3}),
            "'repeat_penalty' is not 'repetition_penalty'",
        ),
        (json!({"dry_base": 0.5}), "'dry_base'"),
        (json!({"ignore_eos": 1}), "'ignore_eos'"),
        (json!({"logit_bias": [[14, -100]]}), "'logit_bias'"),
        (json!({"suffix": "x", "max_tokens": 100_000}), "'max_tokens' of 100000 between"),
    ] {
        let mut wanted = json!({"prompt": "a"});
        wanted.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (status, answer) = server.post(COMPLETIONS, &wanted);
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(status == 400 && message.contains(says), "{more}: {answer}");
    }
}

#[test]
fn chat_template_knows_what_the_server_and_a_request_say() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("template.jinja");
    // So many words as tokens of the prompt.
    let template = "{% if words %}{% for word in words %} {{ word }}{% endfor %}{% endif %}{% for message in messages %}\
        {{ message.content }}|{% endfor %}{{ end }}";
    std::fs::write(&file, template).unwrap();
    let server = Server::start(&[
        "--template",
        file.to_str().unwrap(),
        "--template-kwargs",
        r#"{"end": " the end of it"}"#,
    ]);
    let tokens = |kwargs: Value| {
        let messages = json!([{"role": "user", "content": "Hello"}]);
        let wanted = json!({"messages": messages, "max_tokens": 1, "chat_template_kwargs": kwargs});
        let (status, answer) = server.post(CHAT, &wanted);
        assert_eq!(status, 200, "{answer}");
        answer["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    let plain = tokens(Value::Null);
    assert_eq!(tokens(json!({})), plain);
    assert_eq!(tokens(json!({"words": ["the", "old", "king"]})), plain + 3);
    // A request's counts more.
    assert!(tokens(json!({"end": ""})) < plain);
    let wrong =
        json!({"messages": [{"role": "user", "content": "a"}], "chat_template_kwargs": {"messages": []}});
    let (status, answer) = server.post(CHAT, &wrong);
    assert!(status == 400 && answer.to_string().contains("'messages' is not to be given"), "{answer}");
    // Names of special tokens are characters there, too: as many tokens as in a message.
    let named = tokens(json!({"end": "[MASK]"})) - tokens(json!({"end": ""}));
    assert!(named > 1, "{named}");
}

/// A gap between two texts, as a template of the command has one.
#[test]
fn suffix_stands_behind_a_text() {
    let server = Server::start(&[]);
    let wanted =
        json!({"prompt": "Once upon a time", "suffix": " happily ever after.", "max_tokens": 12, "seed": 4});
    let (status, answer) = server.post(COMPLETIONS, &wanted);
    assert_eq!(status, 200, "{answer}");
    let text = answer["choices"][0]["text"].as_str().unwrap();
    let template = "Once upon a time{{mask 12}} happily ever after.";
    let own = out(&esolm(&["generate", "--template", template, "--alpha0", "0", "--seed", "4", "-q"]));
    assert_eq!(format!("Once upon a time{text} happily ever after."), own.trim_end());
    let usage = &answer["usage"];
    assert_eq!(
        (&usage["completion_tokens"], &answer["choices"][0]["finish_reason"]),
        (&json!(12), &json!("length"))
    );
    assert!(usage["prompt_tokens"].as_u64().unwrap() > 6, "{usage}");
    // By diffusion, streamed, several of them, with the prompt before them.
    let diffusing = Server::start(&["--alpha0", "1", "--steps", "4"]);
    let mut wanted = wanted;
    wanted["n"] = 3.into();
    wanted["echo"] = true.into();
    let (_, whole) = diffusing.post(COMPLETIONS, &wanted);
    wanted["stream"] = true.into();
    let events = diffusing.stream(COMPLETIONS, &wanted);
    for (index, choice) in whole["choices"].as_array().unwrap().iter().enumerate() {
        let text = choice["text"].as_str().unwrap();
        assert!(text.starts_with("Once upon a time") && !text.contains(" happily ever after."), "{text}");
        let pieces = events.iter().filter(|event| event["choices"][0]["index"] == index);
        let streamed: String = pieces.filter_map(|event| event["choices"][0]["text"].as_str()).collect();
        assert_eq!(streamed, text);
    }
}

#[test]
fn echo_is_the_prompt_and_the_text() {
    let server = Server::start(&[]);
    let wanted = json!({"prompt": ["Once upon a time", [5, 6, 7]], "max_tokens": 5, "seed": 4});
    let (_, plain) = server.post(COMPLETIONS, &wanted);
    let mut echo = wanted.clone();
    echo["echo"] = true.into();
    let (_, with) = server.post(COMPLETIONS, &echo);
    let text = |answer: &Value, index: usize| answer["choices"][index]["text"].as_str().unwrap().to_owned();
    assert_eq!(text(&with, 0), format!("Once upon a time{}", text(&plain, 0)));
    assert!(text(&with, 1).ends_with(&text(&plain, 1)) && text(&with, 1).len() > text(&plain, 1).len());
    assert_eq!(with["usage"]["completion_tokens"], plain["usage"]["completion_tokens"]);
    // A prompt that ends inside a character, whose rest is written: bytes are tokens of their own.
    let inside = json!({"prompt": [551, 173, 254, 247], "max_completion_tokens": 1, "logit_bias": {"223": 100}, "echo": true});
    let (_, answer) = server.post(COMPLETIONS, &inside);
    assert_eq!(text(&answer, 0), "Once😀");
}

#[test]
fn offsets_count_characters_of_the_text() {
    let server = Server::start(&[]);
    let schema = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "string", "enum": ["😀 ok é then"]}}});
    let wanted =
        json!({"prompt": "a", "max_tokens": 40, "seed": 1, "logprobs": 0, "response_format": schema});
    let (_, answer) = server.post(COMPLETIONS, &wanted);
    let choice = &answer["choices"][0];
    let text: Vec<char> = choice["text"].as_str().unwrap().chars().collect();
    let (tokens, offsets) = (&choice["logprobs"]["tokens"], &choice["logprobs"]["text_offset"]);
    let mut whole = 0;
    for (token, offset) in tokens.as_array().unwrap().iter().zip(offsets.as_array().unwrap()) {
        let (token, offset) = (token.as_str().unwrap(), offset.as_u64().unwrap() as usize);
        // (The token that ends it is none of it.)
        if !token.contains('\u{fffd}') && offset < text.len() {
            assert!(
                text[offset..].iter().collect::<String>().starts_with(token),
                "{token} at {offset}: {choice}"
            );
            whole += 1;
        }
    }
    assert!(whole > 5, "{choice}");
}
