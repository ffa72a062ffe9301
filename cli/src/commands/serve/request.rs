//! What requests ask for: OpenAI's JSON becomes texts to write. Parameters that change nothing here are ignored; those that
//! ask for what cannot be done are refused.

use esolm::{Config, Constraints, Grammar, Message, Model};
use serde_json::{Map, Value};

use super::failure::Failure;
use super::job::Wanted;
use crate::chat_format::ChatFormat;
use crate::seed::Seed;

type Found<T> = Result<T, Failure>;

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

/// Parameters that ask for something else than text, unless they are empty.
const IMPOSSIBLE: [&str; 6] = ["tools", "functions", "suffix", "echo", "audio", "web_search_options"];

impl Request {
    /// Reads the body of `/v1/completions`.
    pub fn completion(body: &[u8], model: &Model, own_name: &str) -> Found<Self> {
        let fields = Fields::parse(body, own_name)?;
        let prompts = prompts(fields.get("prompt"), model)?;
        let top = fields.whole("logprobs", 0..=MOST_LOG_PROBS)?.map(|top| top as usize);
        let most = fields.whole("max_tokens", 1..=1 << 30)?.map_or(COMPLETION_TOKENS, |most| most as usize);
        let n = fields.n()?;
        match fields.whole("best_of", 1..=1 << 30)? {
            Some(best_of) if best_of != n as u64 => {
                Err(Failure::parameter("best_of", "is not supported, unless it is 'n'"))
            }
            _ => fields.finish(prompts, n, most, top, model, None),
        }
    }

    /// Reads the body of `/v1/chat/completions`.
    pub fn chat(body: &[u8], model: &Model, own_name: &str, format: Option<&ChatFormat>) -> Found<Self> {
        let fields = Fields::parse(body, own_name)?;
        let missing = "this model has no chat template that can be used: start the server with --template chatml, or --template FILE";
        let format = format.ok_or_else(|| Failure::wrong(missing))?;
        let messages = messages(fields.get("messages"))?;
        let messages: Vec<Message<'_>> =
            messages.iter().map(|(role, content)| Message { role, content }).collect();
        let prompt = format.template.encode(model.tokenizer()?, &messages)?;
        let top = fields.whole("top_logprobs", 0..=MOST_LOG_PROBS)?.unwrap_or(0) as usize;
        let top = fields.flag("logprobs")?.then_some(top);
        let limit = |name| fields.whole(name, 1..=1 << 30);
        let most = limit("max_completion_tokens")?.or(limit("max_tokens")?).unwrap_or(0) as usize;
        let n = fields.n()?;
        fields.finish(vec![prompt], n, most, top, model, Some(format))
    }
}

/// The fields of a body.
struct Fields(Map<String, Value>);

impl Fields {
    fn parse(body: &[u8], own_name: &str) -> Found<Self> {
        let fields = match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Self(fields),
            Ok(_) => return Err(Failure::wrong("the body is no JSON object")),
            Err(error) => return Err(Failure::wrong(format!("the body is no JSON: {error}"))),
        };
        match fields.get("model") {
            Value::Null => (),
            Value::String(name) if name == own_name => (),
            Value::String(name) => return Err(Failure::other_model(name, own_name)),
            _ => return Err(Failure::parameter("model", "is no text")),
        }
        for name in IMPOSSIBLE {
            let value = fields.get(name);
            let is_empty = value.as_array().is_some_and(Vec::is_empty) || value.as_str() == Some("");
            if !(value.is_null() || value == &Value::Bool(false) || is_empty) {
                return Err(Failure::parameter(name, "is not supported"));
            }
        }
        Ok(fields)
    }

    /// A field; null if it is not there.
    fn get(&self, name: &str) -> &Value {
        self.0.get(name).unwrap_or(&Value::Null)
    }

    fn whole(&self, name: &'static str, range: std::ops::RangeInclusive<u64>) -> Found<Option<u64>> {
        match self.get(name) {
            Value::Null => Ok(None),
            value => match value.as_u64() {
                Some(number) if range.contains(&number) => Ok(Some(number)),
                _ => {
                    let (least, most) = (range.start(), range.end());
                    Err(Failure::parameter(
                        name,
                        format!("is {value}, not a whole number from {least} to {most}"),
                    ))
                }
            },
        }
    }

    fn number(&self, name: &'static str, range: std::ops::RangeInclusive<f64>) -> Found<Option<f32>> {
        match self.get(name) {
            Value::Null => Ok(None),
            value => match value.as_f64() {
                Some(number) if range.contains(&number) => Ok(Some(number as f32)),
                _ => {
                    let (least, most) = (range.start(), range.end());
                    Err(Failure::parameter(name, format!("is {value}, not a number from {least} to {most}")))
                }
            },
        }
    }

    fn flag(&self, name: &'static str) -> Found<bool> {
        match self.get(name) {
            Value::Null => Ok(false),
            Value::Bool(flag) => Ok(*flag),
            _ => Err(Failure::parameter(name, "is neither true nor false")),
        }
    }

    fn n(&self) -> Found<usize> {
        Ok(self.whole("n", 1..=MOST_TEXTS as u64)?.unwrap_or(1) as usize)
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
        // OpenAI's 0 is the most likely token.
        let top_p = self.number("top_p", 0.0..=1.0)?.map(|top_p| top_p.max(f32::MIN_POSITIVE));
        let constraints = self.constraints(model.config())?;
        Ok(Request {
            prompts,
            n,
            wanted: Wanted {
                max_tokens,
                temperature: self.number("temperature", 0.0..=100.0)?,
                top_p,
                stop_tokens: format.map(|format| format.stop_tokens.clone()).unwrap_or_default(),
                stop_strings,
                seed,
                constraints: if constraints == Constraints::default() { vec![] } else { vec![constraints] },
                log_probs,
            },
            stream: self.flag("stream")?,
            include_usage: self.get("stream_options").get("include_usage") == Some(&Value::Bool(true)),
            is_chat: format.is_some(),
        })
    }

    fn stop(&self) -> Found<Vec<String>> {
        let wrong =
            || Failure::parameter("stop", "is neither a text nor a list of texts, of which none is empty");
        let texts = match self.get("stop") {
            Value::Null => return Ok(Vec::new()),
            Value::Array(texts) => texts.as_slice(),
            one => std::slice::from_ref(one),
        };
        let text = |text: &Value| text.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        texts.iter().map(text).collect::<Option<Vec<_>>>().ok_or_else(wrong)
    }

    fn constraints(&self, config: &Config) -> Found<Constraints> {
        let (mut bias, mut banned) = (Vec::new(), Vec::new());
        if let Value::Object(entries) = self.get("logit_bias") {
            for (token, value) in entries {
                let wrong = || Failure::parameter("logit_bias", format!("has '{token}': {value}"));
                let token = token.parse::<u32>().ok().filter(|&token| (token as usize) < config.vocab_size);
                let token = token.ok_or_else(wrong)?;
                match value.as_f64().filter(|value| (-100.0..=100.0).contains(value)).ok_or_else(wrong)? {
                    -100.0 => banned.push(token),
                    value => bias.push((token, value as f32)),
                }
            }
        }
        Ok(Constraints {
            bias,
            banned,
            frequency_penalty: self.number("frequency_penalty", -2.0..=2.0)?.unwrap_or(0.0),
            presence_penalty: self.number("presence_penalty", -2.0..=2.0)?.unwrap_or(0.0),
            grammar: self.grammar()?,
            ..Constraints::default()
        })
    }

    /// What `response_format` says.
    fn grammar(&self) -> Found<Option<Grammar>> {
        let format = self.get("response_format");
        match format.get("type").and_then(Value::as_str) {
            None if format.is_null() => Ok(None),
            Some("text") => Ok(None),
            Some("json_object") => Ok(Some(Grammar::JsonSchema(r#"{"type": "object"}"#.into()))),
            Some("json_schema") => match format.pointer("/json_schema/schema") {
                Some(schema) => Ok(Some(Grammar::JsonSchema(schema.to_string()))),
                None => Err(Failure::parameter("response_format", "has no json_schema.schema")),
            },
            _ => Err(Failure::parameter("response_format", "is none of text, json_object, json_schema")),
        }
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
