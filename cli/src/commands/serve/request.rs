//! What requests ask for: OpenAI's JSON becomes texts to write. Parameters that change nothing here are ignored; those that
//! ask for what cannot be done are refused.

use esolm::{Constraints, Feature, Message, Model, TokenizeOptions};
use serde_json::Value;

use super::failure::Failure;
use super::fields::{Fields, Found};
use super::job::{Suffix, Wanted};
use super::ordered;
use crate::chat_format::ChatFormat;
use crate::seed::Seed;

/// Texts that a request wants, as many as it has prompts times `n`.
pub struct Request {
    pub prompts: Vec<Vec<u32>>,
    pub n: usize,
    pub wanted: Wanted,
    pub stream: bool,
    pub include_usage: bool,
    pub is_chat: bool,
}

/// Default of `max_tokens` for completions, as OpenAI has it.
const COMPLETION_TOKENS: usize = 16;
/// Most log-probabilities of other tokens, as OpenAI has it for chats.
const MOST_LOG_PROBS: u64 = 20;
/// Most texts of one request.
const MOST_TEXTS: usize = 128;

impl Request {
    /// Reads the body of `/v1/completions`.
    pub fn completion(body: &[u8], model: &Model, own_name: &str) -> Found<Self> {
        let fields = Fields::parse(body, own_name)?;
        let prompts = prompts(fields.get("prompt"), model)?;
        let top = fields.whole("logprobs", 0..=MOST_LOG_PROBS)?.map(|top| top as usize);
        let most = fields.max_tokens()?.unwrap_or(COMPLETION_TOKENS);
        let n = fields.n()?;
        match fields.whole("best_of", 1..=1 << 30)? {
            Some(best_of) if best_of != n as u64 => {
                Err(Failure::parameter("best_of", "is not supported, unless it is 'n'"))
            }
            _ => {
                let mut request = fields.finish(prompts, n, most, top, model, None)?;
                request.wanted.suffix = fields.suffix(model)?;
                if request.wanted.suffix.is_some() && most == 0 {
                    return Err(Failure::parameter(
                        "max_tokens",
                        "is -1, but a gap before a 'suffix' has so many tokens",
                    ));
                }
                request.wanted.echo = fields.flag("echo")?;
                if request.wanted.echo && top.is_some() {
                    return Err(Failure::parameter("echo", "is not supported beside 'logprobs'"));
                }
                Ok(request)
            }
        }
    }

    /// Reads the body of `/v1/chat/completions`.
    pub fn chat(body: &[u8], model: &Model, own_name: &str, format: Option<&ChatFormat>) -> Found<Self> {
        let fields = Fields::parse(body, own_name)?;
        let missing = "this model has no chat template that can be used: start the server with --template chatml, or --template FILE";
        let format = format.ok_or_else(|| Failure::wrong(missing))?;
        fields.refuse_in_chats()?;
        let messages = messages(fields.get("messages"))?;
        let messages: Vec<Message<'_>> =
            messages.iter().map(|(role, content)| Message { role, content }).collect();
        let prompt = match ordered::field(body, "chat_template_kwargs")? {
            None => format.template.encode(model.tokenizer()?, &messages)?,
            Some(kwargs) => {
                let template = format.template.clone().with_kwargs(&kwargs)?;
                template.encode(model.tokenizer()?, &messages)?
            }
        };
        let top = fields.whole("top_logprobs", 0..=MOST_LOG_PROBS)?.unwrap_or(0) as usize;
        let top = fields.flag("logprobs")?.then_some(top);
        let most = fields.max_tokens()?.unwrap_or(0);
        let n = fields.n()?;
        fields.finish(vec![prompt], n, most, top, model, Some(format))
    }
}

impl Fields {
    fn n(&self) -> Found<usize> {
        Ok(self.whole("n", 1..=MOST_TEXTS as u64)?.unwrap_or(1) as usize)
    }

    /// Most tokens of a text, by either name; 0 is as many as there is room for, which llama.cpp has -1 for.
    fn max_tokens(&self) -> Found<Option<usize>> {
        let limit = |name| match self.get(name).as_i64() {
            Some(-1) => Ok(Some(0)),
            _ => self.whole(name, 1..=1 << 30),
        };
        let most = limit("max_completion_tokens")?.or(limit("max_tokens")?);
        Ok(most.map(|most| most as usize))
    }

    /// Whether a stream ends with the numbers of tokens.
    fn include_usage(&self) -> Found<bool> {
        match self.get("stream_options") {
            Value::Null => Ok(false),
            Value::Object(options) => match options.get("include_usage") {
                None | Some(Value::Null) => Ok(false),
                Some(Value::Bool(include)) => Ok(*include),
                Some(_) => Err(Failure::parameter(
                    "stream_options",
                    "has an 'include_usage' that is neither true nor false",
                )),
            },
            _ => Err(Failure::parameter("stream_options", "is no object")),
        }
    }

    /// What is to stand behind a text.
    fn suffix(&self, model: &Model) -> Found<Option<Suffix>> {
        let text = match self.get("suffix") {
            Value::Null => return Ok(None),
            Value::String(text) if text.is_empty() => return Ok(None),
            Value::String(text) => text,
            _ => return Err(Failure::parameter("suffix", "is no text")),
        };
        if !model.supports(Feature::Holes) {
            return Err(Failure::parameter(
                "suffix",
                "needs a model that fills gaps; this one writes behind a prompt",
            ));
        }
        if !self.stop()?.is_empty() {
            return Err(Failure::parameter("stop", "is not supported beside 'suffix'"));
        }
        let tokenizer = model.tokenizer()?;
        let tokens =
            tokenizer.encode_with(text, &TokenizeOptions { parse_special: false, continues: true })?;
        // As it comes behind other text.
        let mut bytes = Vec::new();
        for &token in &tokens {
            bytes.extend(tokenizer.token_bytes(token)?);
        }
        Ok(Some(Suffix { tokens, text: String::from_utf8_lossy(&bytes).into_owned() }))
    }

    /// The parameters that completions and chats share.
    fn finish(
        &self,
        prompts: Vec<Vec<u32>>,
        n: usize,
        max_tokens: usize,
        log_probs: Option<usize>,
        model: &Model,
        format: Option<&ChatFormat>,
    ) -> Found<Request> {
        if prompts.len().saturating_mul(n) > MOST_TEXTS {
            return Err(Failure::wrong(format!("a request has at most {MOST_TEXTS} texts")));
        }
        let mut stop_strings = self.stop()?;
        stop_strings.extend(format.iter().flat_map(|format| format.stop_strings.iter().cloned()));
        let seed = match self.get("seed") {
            Value::Null => Seed::random().value,
            // As in llama.cpp and on the command line.
            value if value.as_i64() == Some(-1) => Seed::random().value,
            value => {
                let number = value.as_u64().or(value.as_i64().map(|number| number as u64));
                number.ok_or_else(|| Failure::parameter("seed", "is no whole number"))?
            }
        };
        let constraints = self.constraints(model.config())?;
        Ok(Request {
            prompts,
            n,
            wanted: Wanted {
                max_tokens,
                sampling: self.sampling()?,
                stop_tokens: format.map(|format| format.stop_tokens.clone()).unwrap_or_default(),
                ignore_eos: self.flag("ignore_eos")?,
                suffix: None,
                echo: false,
                stop_strings,
                seed,
                constraints: if constraints == Constraints::default() { vec![] } else { vec![constraints] },
                log_probs,
            },
            stream: self.flag("stream")?,
            include_usage: self.include_usage()?,
            is_chat: format.is_some(),
        })
    }
}

/// One prompt or several, each a text or a list of tokens.
fn prompts(given: &Value, model: &Model) -> Found<Vec<Vec<u32>>> {
    let wrong = || Failure::parameter("prompt", "is no text, list of tokens, or list of these");
    let tokens = |list: &Vec<Value>| -> Option<Vec<u32>> {
        list.iter().map(|token| token.as_u64().and_then(|token| u32::try_from(token).ok())).collect()
    };
    let one = |prompt: &Value| match prompt {
        Value::String(text) => Ok(model.tokenizer()?.encode(text)?),
        Value::Array(list) => tokens(list).ok_or_else(wrong),
        _ => Err(wrong()),
    };
    match given {
        Value::Array(list) if list.is_empty() => Err(wrong()),
        Value::Array(list) if list.iter().any(|entry| !entry.is_number()) => list.iter().map(one).collect(),
        given => Ok(vec![one(given)?]),
    }
}

/// The messages of a conversation: role and content.
fn messages(given: &Value) -> Found<Vec<(String, String)>> {
    let wrong = |what: &str| Failure::parameter("messages", what);
    let list = given.as_array().filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| wrong("is no list of messages"))?;
    let part = |part: &Value| match (part.get("type").and_then(Value::as_str), part.get("text")) {
        (Some("text"), Some(Value::String(text))) => Ok(text.clone()),
        _ => Err(wrong("has a part that is no text")),
    };
    list.iter()
        .map(|message| {
            let role =
                message.get("role").and_then(Value::as_str).ok_or_else(|| wrong("has one without a role"))?;
            let content = match message.get("content") {
                Some(Value::String(text)) => text.clone(),
                None | Some(Value::Null) => String::new(),
                Some(Value::Array(parts)) => parts.iter().map(part).collect::<Found<Vec<_>>>()?.concat(),
                _ => return Err(wrong("has a content that is no text")),
            };
            Ok((role.to_owned(), content))
        })
        .collect()
}
