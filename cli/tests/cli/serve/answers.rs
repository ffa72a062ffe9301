//! What a client gets for one request: texts, chats, refusals, keys.

use serde_json::json;

use super::{CHAT, COMPLETIONS, Server, post};
use crate::command_line::{golden_with_words, library_file};

#[test]
fn completions_are_those_of_the_command_line() {
    let server = Server::start(&[]);
    let wanted = json!({"prompt": "Once upon a time", "max_tokens": 20, "temperature": 0, "seed": 1});
    let (status, answer) = server.post(COMPLETIONS, &wanted);
    assert_eq!(status, 200, "{answer}");
    let text = answer["choices"][0]["text"].as_str().unwrap();
    let own = crate::command_line::esolm(&[
        "generate",
        "-p",
        "Once upon a time",
        "-n",
        "20",
        "--temp",
        "0",
        "--seed",
        "1",
        "-q",
    ]);
    let own = crate::command_line::out(&own);
    assert_eq!(format!("Once upon a time{text}").trim_end(), own.trim_end());
    assert_eq!(answer["object"], "text_completion");
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 20);
    let prompt = answer["usage"]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(answer["usage"]["total_tokens"], prompt + 20);
    // Streamed, it is the same text.
    let mut streamed = wanted.clone();
    streamed["stream"] = true.into();
    streamed["stream_options"] = json!({"include_usage": true});
    let events = server.stream(COMPLETIONS, &streamed);
    let (usage, chunks) = events.split_last().unwrap();
    let joined: String = chunks.iter().map(|chunk| chunk["choices"][0]["text"].as_str().unwrap()).collect();
    assert_eq!(joined, text);
    assert_eq!(usage["usage"]["completion_tokens"], 20);
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "length");
    // Several prompts, and several texts of each; token ids are a prompt, too.
    let many = json!({"prompt": ["Once upon a time", "The king"], "n": 2, "max_tokens": 4, "seed": 5});
    let (_, answer) = server.post(COMPLETIONS, &many);
    let choices = answer["choices"].as_array().unwrap();
    assert_eq!(
        choices.iter().map(|choice| choice["index"].as_u64().unwrap()).collect::<Vec<_>>(),
        [0, 1, 2, 3]
    );
    assert_eq!(answer["usage"]["completion_tokens"], 16);
    // As many as there is room for.
    let all = json!({"prompt": "Once upon a time", "max_tokens": -1, "ignore_eos": true});
    let (status, answer) = server.post(COMPLETIONS, &all);
    assert_eq!((status, answer["usage"]["total_tokens"].as_u64()), (200, Some(256)), "{answer}");
    let (status, answer) = server.post(COMPLETIONS, &json!({"prompt": [5, 6, 7], "max_tokens": 3}));
    assert_eq!((status, &answer["usage"]["prompt_tokens"]), (200, &json!(3)));
    // A stop string ends a text before it.
    let stopped =
        json!({"prompt": "Once upon a time", "max_tokens": 60, "temperature": 0, "stop": [".", "!"]});
    let (_, answer) = server.post(COMPLETIONS, &stopped);
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert!(!answer["choices"][0]["text"].as_str().unwrap().contains('.'));
}

#[test]
fn seed_of_minus_one_is_another_one_each_time() {
    let server = Server::start(&[]);
    let text = |seed: i64| {
        let wanted = json!({"prompt": "Once upon a time", "max_tokens": 20, "seed": seed});
        let (status, answer) = server.post(COMPLETIONS, &wanted);
        assert_eq!(status, 200, "{answer}");
        answer["choices"][0]["text"].as_str().unwrap().to_owned()
    };
    let texts = [-1, -1, -1].map(text);
    assert!(texts[0] != texts[1] || texts[1] != texts[2], "{texts:?}");
    assert_eq!(text(-2), text(-2));
}

/// Whose own template writes no answers.
#[test]
fn model_with_a_template_of_no_use_completes_texts() {
    let server = Server::start(&["-m", &library_file("fuzz/seeds/gguf/llama-wedlm")]);
    let (status, answer) = server.post(COMPLETIONS, &json!({"prompt": "ab", "max_tokens": 3}));
    assert_eq!(status, 200, "{answer}");
    let (status, answer) = server.post(CHAT, &json!({"messages": [{"role": "user", "content": "a"}]}));
    assert_eq!(status, 400, "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("no chat template"), "{answer}");
}

#[test]
fn chats_are_answered_with_a_template() {
    let server = Server::start(&["--template", "chatml", "--name", "stories"]);
    let (_, models) = server.get("/v1/models");
    assert_eq!(models["data"][0]["id"], "stories");
    assert_eq!(server.get("/v1/models/stories").0, 200);
    assert_eq!(server.get("/v1/models/other").0, 404);
    let parts = json!([{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]);
    let wanted = json!({"model": "stories", "messages": [{"role": "user", "content": parts}],
        "max_completion_tokens": 12, "temperature": 0, "logprobs": true, "top_logprobs": 2, "user": "ignored"});
    let (status, answer) = server.post(CHAT, &wanted);
    assert_eq!(status, 200, "{answer}");
    let choice = &answer["choices"][0];
    let text = choice["message"]["content"].as_str().unwrap();
    assert_eq!(
        (&answer["object"], &choice["message"]["role"]),
        (&json!("chat.completion"), &json!("assistant"))
    );
    let tokens = choice["logprobs"]["content"].as_array().unwrap();
    assert_eq!(tokens.len(), 12);
    assert_eq!(tokens.iter().map(|token| token["token"].as_str().unwrap()).collect::<String>(), text);
    for token in tokens {
        // The most likely tokens were written.
        assert_eq!(token["token"], token["top_logprobs"][0]["token"]);
        assert!(
            (token["logprob"].as_f64().unwrap() - token["top_logprobs"][0]["logprob"].as_f64().unwrap())
                .abs()
                < 1e-3
        );
        assert_eq!(token["top_logprobs"].as_array().unwrap().len(), 2);
    }
    let mut streamed = wanted;
    streamed["stream"] = true.into();
    let events = server.stream(CHAT, &streamed);
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    let joined: String =
        events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(joined, text);
    assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "length");
    // The same messages again: their keys and values are there.
    let again = json!({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2});
    let (_, answer) = server.post(CHAT, &again);
    let cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert!(cached > 20, "{answer}");
}

#[test]
fn wrong_requests_are_refused_as_openai_refuses_them() {
    let server = Server::start(&["--max-body", "4000"]);
    let long = "word ".repeat(400);
    for (path, body, status, says) in [
        (CHAT, json!({"messages": [{"role": "user", "content": "a"}]}), 400, "no chat template"),
        (COMPLETIONS, json!({}), 400, "'prompt'"),
        (COMPLETIONS, json!({"prompt": "a", "max_tokens": 0}), 400, "'max_tokens'"),
        (COMPLETIONS, json!({"prompt": "a", "max_tokens": -2}), 400, "'max_tokens'"),
        (COMPLETIONS, json!({"prompt": "a", "suffix": "b", "max_tokens": -1}), 400, "'max_tokens'"),
        (COMPLETIONS, json!({"prompt": "a", "stream_options": true}), 400, "'stream_options'"),
        (COMPLETIONS, json!({"prompt": "a", "stream_options": {"include_usage": 1}}), 400, "'include_usage'"),
        (COMPLETIONS, json!({"prompt": "a", "temperature": -1}), 400, "'temperature'"),
        (COMPLETIONS, json!({"prompt": "a", "top_p": "much"}), 400, "'top_p'"),
        (COMPLETIONS, json!({"prompt": "a", "stop": [""]}), 400, "'stop'"),
        (COMPLETIONS, json!({"prompt": "a", "n": 1000}), 400, "'n'"),
        // More than wait and run by default, however long one tries.
        (COMPLETIONS, json!({"prompt": "a", "n": 73}), 400, "73 texts; at most 72"),
        (COMPLETIONS, json!({"prompt": "a", "suffix": 1}), 400, "'suffix'"),
        (COMPLETIONS, json!({"prompt": "a", "suffix": "b", "stop": "c"}), 400, "'stop'"),
        (COMPLETIONS, json!({"prompt": "a", "suffix": "b", "max_tokens": 255}), 400, "the context has 256"),
        (COMPLETIONS, json!({"prompt": "a", "echo": true, "logprobs": 1}), 400, "'echo'"),
        (COMPLETIONS, json!({"prompt": "a", "tools": [{}]}), 400, "'tools'"),
        (COMPLETIONS, json!({"prompt": "a", "grammar": "root ::= \"a\""}), 400, "'grammar'"),
        (COMPLETIONS, json!({"prompt": "a", "logit_bias": {"99999": 1}}), 400, "'logit_bias'"),
        (COMPLETIONS, json!({"prompt": [99999]}), 400, "no such token"),
        (COMPLETIONS, json!({"prompt": "a", "model": "gpt-4"}), 404, "gpt-4"),
        (COMPLETIONS, json!({"prompt": long}), 400, "the context has 256"),
        (COMPLETIONS, json!({"prompt": "a".repeat(5000)}), 413, "4000 bytes"),
        (COMPLETIONS, json!([1]), 400, "no JSON object"),
        ("/v1/embeddings", json!({}), 404, "/v1/embeddings"),
        ("/v1/models", json!({}), 405, "another method"),
    ] {
        let (found, answer) = server.post(path, &body);
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(found == status && message.contains(says), "{body}: {found} {answer}");
        assert!(answer["error"]["type"].is_string());
    }
    let text =
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(server.send(text).0, 415);
    // A grammar that is none: all texts of the request are refused, and none waits.
    let schema =
        json!({"type": "json_schema", "json_schema": {"schema": {"type": "string", "pattern": "("}}});
    let (status, answer) =
        server.post(COMPLETIONS, &json!({"prompt": "a", "n": 60, "response_format": schema}));
    assert_eq!(status, 400, "{answer}");
    server.wait_for(0, 0);
    assert_eq!(server.send(&post(COMPLETIONS, "{", "")).0, 400);
    assert_eq!(server.send(b"nonsense\r\n\r\n").0, 400);
    assert_eq!(server.get("/health").1["status"], "ok");
}

/// The site whose name the browser took for this machine's.
#[test]
fn pages_of_other_sites_are_refused_where_there_is_no_key() {
    let (open, locked) = (Server::start(&["--name", "a b/é"]), Server::start(&["--api-key", "secret"]));
    let body = json!({"prompt": "a", "max_tokens": 1}).to_string();
    for (origin, status) in [
        ("http://evil.example:8080", 403),
        ("http://localhost.evil.example", 403),
        ("null", 403),
        ("http://localhost:3000", 200),
        ("https://app.localhost", 200),
        ("http://127.0.0.1:8080", 200),
        ("http://[::1]:8080", 200),
    ] {
        let header = format!("Origin: {origin}\r\n");
        let (found, head, answer) = open.send(&post(COMPLETIONS, &body, &header));
        assert_eq!(found, status, "{origin}: {answer}");
        // The browser asks first, without a key, and is told that the page may send and read.
        let permits = |head: &str| head.contains(&format!("access-control-allow-origin: {origin}\r\n"));
        assert_eq!(permits(&head), status == 200, "{origin}: {head}");
        let asked = format!(
            "OPTIONS {COMPLETIONS} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}Access-Control-Request-Method: POST\r\n\r\n"
        );
        let (found, head, _) = open.send(asked.as_bytes());
        assert_eq!(
            (found, permits(&head)),
            (if status == 200 { 204 } else { 403 }, status == 200),
            "{origin}: {head}"
        );
        let (found, head, _) = locked.send(asked.as_bytes());
        assert!(
            found == 204 && permits(&head) && head.contains("access-control-allow-headers: authorization"),
            "{head}"
        );
        let with_key = format!("{header}Authorization: Bearer secret\r\n");
        let (found, head, _) = locked.send(&post(COMPLETIONS, &body, &with_key));
        assert!(found == 200 && permits(&head), "{origin}: {head}");
        let (found, head, _) = locked.send(&post(COMPLETIONS, &body, &header));
        assert!(found == 401 && permits(&head), "{origin}: {head}");
    }
    // Names in paths are as browsers and clients write them.
    assert_eq!(open.get("/v1/models/a%20b%2F%C3%A9").1["id"], "a b/é");
    assert_eq!(open.get("/v1/models/a%20b").0, 404);
}

/// Behind the end of a text a model that writes in any order may have written others.
#[test]
fn log_probabilities_are_those_of_the_text() {
    let dir = tempfile::tempdir().unwrap();
    let model = golden_with_words("mdlm-tiny/model.safetensors", dir.path());
    let server = Server::start(&["-m", &model]);
    let stop: Vec<String> = (1..9).map(|n| format!("w{n}")).collect();
    let wanted =
        json!({"prompt": "w30 w50", "max_tokens": 24, "n": 16, "logprobs": 1, "stop": stop, "seed": 1});
    let (status, answer) = server.post(COMPLETIONS, &wanted);
    assert_eq!(status, 200, "{answer}");
    let choices = answer["choices"].as_array().unwrap();
    assert!(choices.iter().any(|choice| choice["finish_reason"] == "stop"), "{answer}");
    let reported = choices.iter().map(|choice| choice["logprobs"]["tokens"].as_array().unwrap().len());
    assert_eq!(answer["usage"]["completion_tokens"], reported.sum::<usize>(), "{answer}");
}

#[test]
fn key_is_asked_for() {
    for server in [
        Server::start(&["--api-key", "secret", "--api-key", "other"]),
        Server::start_with(&[], &[("ESOLM_API_KEY", "secret")]),
    ] {
        let body = json!({"prompt": "a", "max_tokens": 1}).to_string();
        for (header, status) in [
            ("", 401),
            ("Authorization: Bearer secre\r\n", 401),
            ("Authorization: Bearer secretx\r\n", 401),
            ("Authorization: secret\r\n", 401),
            ("Authorization: Bearer secret\r\n", 200),
        ] {
            let (found, _, answer) = server.send(&post(COMPLETIONS, &body, header));
            assert_eq!(found, status, "{header}: {answer}");
        }
        assert_eq!(server.get("/health").0, 200);
        assert_eq!(server.get("/v1/models").0, 401);
    }
}
