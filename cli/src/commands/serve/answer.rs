//! Answers as OpenAI's API has them: whole, or in chunks.

use esolm::StopReason;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value, json};

use super::held::Held;
use super::job::{End, Piece, TokenReport};
use crate::allocation::{append, reserve};

/// What all parts of an answer have in common.
pub struct Heading {
    pub id: String,
    pub created: u64,
    pub model: String,
    pub is_chat: bool,
}

/// Who answers in a chat.
const ASSISTANT: &str = "assistant";

/// One of the texts of an answer, as far as it is there.
#[derive(Default)]
pub struct Choice {
    text: String,
    tokens: Vec<TokenReport>,
    end: Option<End>,
    held: Option<Held>,
}

impl Choice {
    /// Adds what follows.
    ///
    /// # Errors
    /// [`esolm::Error::OutOfMemory`].
    pub fn push(&mut self, piece: Piece) -> esolm::Result<()> {
        append(&mut self.text, &piece.text)?;
        reserve(&mut self.tokens, piece.tokens.len())?;
        self.tokens.extend(piece.tokens);
        match &mut self.held {
            Some(held) => held.join(piece.held),
            none => *none = Some(piece.held),
        }
        Ok(())
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

/// An answer or a chunk of one. It becomes text as it is written: a tree of JSON values takes some thirty times as much.
#[derive(serde::Serialize)]
pub struct Answer<'a, C> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: C,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Value>,
}

/// An entry of the choices of an answer.
#[derive(serde::Serialize)]
struct Entry<'a> {
    index: usize,
    /// In chats, of a whole answer and of a chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<Delta<'a>>,
    /// In completions.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    logprobs: Option<LogProbs<'a>>,
    finish_reason: Option<&'static str>,
}

/// The text of a whole answer of a chat.
#[derive(serde::Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
    refusal: (),
}

/// What a chunk adds to it.
#[derive(serde::Serialize, Default)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

impl Heading {
    fn object<C>(&self, kind: &'static str, choices: C, usage: Option<Value>) -> Answer<'_, C> {
        let Self { id, created, model, .. } = self;
        Answer { id, object: kind, created: *created, model, choices, usage }
    }

    /// The whole answer, `n` texts for each prompt.
    pub fn whole(&self, choices: &[Choice], n: usize, with_log_probs: bool) -> impl Serialize {
        let mut usage = Usage::default();
        for (index, choice) in choices.iter().enumerate() {
            if let Some(end) = &choice.end {
                usage.add(end, index.is_multiple_of(n));
            }
        }
        let entries = Each(move || {
            let all = choices.iter().enumerate();
            all.map(move |(index, choice)| self.whole_entry(index, choice, with_log_probs))
        });
        let kind = if self.is_chat { "chat.completion" } else { "text_completion" };
        self.object(kind, entries, Some(usage.json()))
    }

    fn whole_entry<'a>(&self, index: usize, choice: &'a Choice, with_log_probs: bool) -> Entry<'a> {
        let Choice { text, tokens, end, .. } = choice;
        let message = Message { role: ASSISTANT, content: text, refusal: () };
        Entry {
            index,
            message: self.is_chat.then_some(message),
            delta: None,
            text: (!self.is_chat).then_some(text),
            logprobs: with_log_probs.then_some(LogProbs { tokens, is_chat: self.is_chat, offset: 0 }),
            finish_reason: end.as_ref().map(|end| finish_reason(end.reason)),
        }
    }

    /// A chunk with something of one choice; `text` is nothing where a chat's `delta` is.
    fn chunk<'a>(
        &'a self,
        index: usize,
        text: &'a str,
        delta: Delta<'a>,
        logprobs: Option<LogProbs<'a>>,
        finish_reason: Option<&'static str>,
        with_usage: bool,
    ) -> Answer<'a, [Entry<'a>; 1]> {
        let (delta, text) = if self.is_chat { (Some(delta), None) } else { (None, Some(text)) };
        let entry = Entry { index, message: None, delta, text, logprobs, finish_reason };
        self.object(self.chunk_kind(), [entry], with_usage.then_some(Value::Null))
    }

    fn chunk_kind(&self) -> &'static str {
        if self.is_chat { "chat.completion.chunk" } else { "text_completion" }
    }

    /// What comes before the text of a choice, in a chat.
    pub fn beginning(&self, index: usize, with_usage: bool) -> Option<impl Serialize> {
        let delta = Delta { role: Some(ASSISTANT), content: Some("") };
        self.is_chat.then(|| self.chunk(index, "", delta, None, None, with_usage))
    }

    /// A piece of a choice. `offset` is the number of characters before it.
    pub fn piece<'a>(
        &'a self,
        index: usize,
        piece: &'a Piece,
        log_probs: bool,
        offset: usize,
        with_usage: bool,
    ) -> impl Serialize + 'a {
        let Piece { text, tokens, .. } = piece;
        let log_probs = log_probs.then_some(LogProbs { tokens, is_chat: self.is_chat, offset });
        self.chunk(
            index,
            text,
            Delta { content: Some(text), ..Delta::default() },
            log_probs,
            None,
            with_usage,
        )
    }

    /// The end of a choice.
    pub fn end(&self, index: usize, end: &End, with_usage: bool) -> impl Serialize {
        self.chunk(index, "", Delta::default(), None, Some(finish_reason(end.reason)), with_usage)
    }

    /// The last chunk, if it is asked for.
    pub fn usage(&self, usage: Usage) -> impl Serialize {
        let none: [Entry<'_>; 0] = [];
        self.object(self.chunk_kind(), none, Some(usage.json()))
    }
}

/// A list that is made while it is written.
struct Each<F>(F);

impl<I: Iterator<Item: Serialize>, F: Fn() -> I> Serialize for Each<F> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq((self.0)())
    }
}

/// The log-probabilities of a run of tokens.
struct LogProbs<'a> {
    tokens: &'a [TokenReport],
    is_chat: bool,
    /// Characters before the first.
    offset: usize,
}

impl Serialize for LogProbs<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let tokens = self.tokens;
        let mut map = to.serialize_map(None)?;
        if self.is_chat {
            map.serialize_entry("content", &Each(|| tokens.iter().map(chat_token)))?;
            map.serialize_entry("refusal", &())?;
        } else {
            let offsets = || {
                tokens.iter().scan(self.offset, |offset, token| {
                    let at = *offset;
                    *offset += token.characters();
                    Some(at)
                })
            };
            map.serialize_entry("text_offset", &Each(offsets))?;
            map.serialize_entry("tokens", &Each(|| tokens.iter().map(|token| text(&token.bytes))))?;
            map.serialize_entry(
                "token_logprobs",
                &Each(|| tokens.iter().map(|token| finite(token.log_prob))),
            )?;
            map.serialize_entry("top_logprobs", &Each(|| tokens.iter().map(top)))?;
        }
        map.end()
    }
}

/// A token of a chat, with the most likely ones in its place.
fn chat_token(token: &TokenReport) -> Value {
    let entry = |bytes: &[u8], log_prob: f64| json!({ "token": text(bytes), "logprob": finite(log_prob), "bytes": bytes });
    let mut one = entry(&token.bytes, token.log_prob);
    one["top_logprobs"] = token.top.iter().map(|(bytes, log_prob)| entry(bytes, *log_prob)).collect();
    one
}

/// The most likely tokens in the place of one of a completion.
fn top(token: &TokenReport) -> Value {
    let entries = token.top.iter().map(|(bytes, log_prob)| (text(bytes), json!(finite(*log_prob))));
    Value::Object(entries.collect::<Map<_, _>>())
}

impl TokenReport {
    /// Characters that begin in it: one may be spread over several tokens.
    pub fn characters(&self) -> usize {
        self.bytes.iter().filter(|&&byte| byte & 0xC0 != 0x80).count()
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
