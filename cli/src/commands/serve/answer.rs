//! Answers as OpenAI's API has them: whole, or in chunks.

use esolm::StopReason;
use serde_json::{Map, Value, json};

use super::job::{End, Piece, TokenReport};

/// What all parts of an answer have in common.
pub struct Heading {
    pub id: String,
    pub created: u64,
    pub model: String,
    pub is_chat: bool,
}

/// One of the texts of an answer, as far as it is there.
#[derive(Default)]
pub struct Choice {
    text: String,
    tokens: Vec<TokenReport>,
    end: Option<End>,
}

impl Choice {
    pub fn push(&mut self, piece: Piece) {
        self.text.push_str(&piece.text);
        self.tokens.extend(piece.tokens);
    }

    pub fn end(&mut self, end: End) {
        self.end = Some(end);
    }
}

/// Tokens of an answer: those of each prompt once, and those that were written.
#[derive(Default, Clone, Copy)]
pub struct Usage {
    prompt: usize,
    cached: usize,
    written: usize,
}

impl Usage {
    /// Adds a text, which is the first of its prompt or not.
    pub fn add(&mut self, end: &End, is_first: bool) {
        self.written += end.written_tokens;
        if is_first {
            self.prompt += end.prompt_tokens;
            self.cached += end.cached_tokens;
        }
    }

    fn json(self) -> Value {
        let Self { prompt, cached, written } = self;
        json!({
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
            "prompt_tokens_details": { "cached_tokens": cached },
        })
    }
}

impl Heading {
    fn object(&self, kind: &str, choices: Vec<Value>) -> Value {
        let Self { id, created, model, .. } = self;
        json!({ "id": id, "object": kind, "created": created, "model": model, "choices": choices })
    }

    /// The whole answer, `n` texts for each prompt.
    pub fn whole(&self, choices: &[Choice], n: usize, with_log_probs: bool) -> Value {
        let mut usage = Usage::default();
        let made = choices.iter().enumerate().map(|(index, choice)| {
            if let Some(end) = &choice.end {
                usage.add(end, index.is_multiple_of(n));
            }
            let reason = choice.end.as_ref().map(|end| finish_reason(end.reason));
            let log_probs = if with_log_probs { self.log_probs(&choice.tokens, &mut 0) } else { Value::Null };
            if self.is_chat {
                let message = json!({ "role": "assistant", "content": choice.text, "refusal": null });
                json!({ "index": index, "message": message, "logprobs": log_probs, "finish_reason": reason })
            } else {
                json!({ "index": index, "text": choice.text, "logprobs": log_probs, "finish_reason": reason })
            }
        });
        let made = made.collect();
        let mut answer = self.object(if self.is_chat { "chat.completion" } else { "text_completion" }, made);
        answer["usage"] = usage.json();
        answer
    }

    fn chunk(&self, choices: Vec<Value>, with_usage: bool) -> Value {
        let kind = if self.is_chat { "chat.completion.chunk" } else { "text_completion" };
        let mut chunk = self.object(kind, choices);
        if with_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    /// What comes before the text of a choice, in a chat.
    pub fn beginning(&self, index: usize, with_usage: bool) -> Option<Value> {
        let delta = json!({ "role": "assistant", "content": "" });
        let choice = json!({ "index": index, "delta": delta, "logprobs": null, "finish_reason": null });
        self.is_chat.then(|| self.chunk(vec![choice], with_usage))
    }

    /// A piece of a choice. `offset` is the number of characters before it.
    pub fn piece(
        &self,
        index: usize,
        piece: &Piece,
        log_probs: bool,
        offset: &mut usize,
        with_usage: bool,
    ) -> Value {
        let log_probs = if log_probs { self.log_probs(&piece.tokens, offset) } else { Value::Null };
        let choice = if self.is_chat {
            let delta = json!({ "content": piece.text });
            json!({ "index": index, "delta": delta, "logprobs": log_probs, "finish_reason": null })
        } else {
            json!({ "index": index, "text": piece.text, "logprobs": log_probs, "finish_reason": null })
        };
        self.chunk(vec![choice], with_usage)
    }

    /// The end of a choice.
    pub fn end(&self, index: usize, end: &End, with_usage: bool) -> Value {
        let reason = finish_reason(end.reason);
        let choice = if self.is_chat {
            json!({ "index": index, "delta": {}, "logprobs": null, "finish_reason": reason })
        } else {
            json!({ "index": index, "text": "", "logprobs": null, "finish_reason": reason })
        };
        self.chunk(vec![choice], with_usage)
    }

    /// The last chunk, if it is asked for.
    pub fn usage(&self, usage: Usage) -> Value {
        let mut chunk = self.chunk(vec![], true);
        chunk["usage"] = usage.json();
        chunk
    }

    fn log_probs(&self, tokens: &[TokenReport], offset: &mut usize) -> Value {
        if self.is_chat {
            let entry = |bytes: &[u8], log_prob: f64| json!({ "token": text(bytes), "logprob": finite(log_prob), "bytes": bytes });
            let content = tokens.iter().map(|token| {
                let mut one = entry(&token.bytes, token.log_prob);
                one["top_logprobs"] =
                    token.top.iter().map(|(bytes, log_prob)| entry(bytes, *log_prob)).collect();
                one
            });
            return json!({ "content": content.collect::<Value>(), "refusal": null });
        }
        let top = |token: &TokenReport| {
            let entries = token.top.iter().map(|(bytes, log_prob)| (text(bytes), json!(finite(*log_prob))));
            Value::Object(entries.collect::<Map<_, _>>())
        };
        let offsets = tokens.iter().map(|token| {
            let at = *offset;
            *offset += text(&token.bytes).chars().count();
            at
        });
        json!({
            "text_offset": offsets.collect::<Vec<_>>(),
            "tokens": tokens.iter().map(|token| text(&token.bytes)).collect::<Vec<_>>(),
            "token_logprobs": tokens.iter().map(|token| finite(token.log_prob)).collect::<Vec<_>>(),
            "top_logprobs": tokens.iter().map(top).collect::<Vec<_>>(),
        })
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// JSON has no infinity; OpenAI's API has this number for it.
fn finite(log_prob: f64) -> f64 {
    log_prob.max(-9999.0)
}

fn finish_reason(reason: StopReason) -> &'static str {
    match reason {
        StopReason::Length => "length",
        _ => "stop",
    }
}
