//! How a request's texts are drawn: sampling, penalties, and what restricts tokens, in the words of OpenAI, llama.cpp and vLLM.

use esolm::{Config, Constraints, Dry, Grammar, SamplingParams};
use serde_json::Value;

use super::failure::Failure;
use super::fields::{Fields, Found};

impl Fields {
    /// Filters and temperature. What is not given is the model file's to say, or the library's.
    pub fn sampling(&self) -> Found<SamplingParams> {
        let default = SamplingParams::DEFAULT;
        // 0 is the most likely token for OpenAI.
        let above_0 = |value: f32| value.max(f32::MIN_POSITIVE);
        // 0 and negative numbers are all tokens for llama.cpp and vLLM.
        let top_k = match self.get("top_k").as_i64() {
            Some(..0) => Some(0),
            _ => self.whole("top_k", 0..=i32::MAX as u64)?,
        };
        Ok(SamplingParams {
            temperature: self.number("temperature", 0.0..=100.0)?.unwrap_or(default.temperature),
            top_k: top_k.map_or(default.top_k, |count| count as u32),
            top_p: self.number("top_p", 0.0..=1.0)?.map_or(default.top_p, above_0),
            min_p: self.number("min_p", 0.0..=1.0)?.unwrap_or(default.min_p),
            typical_p: self.number("typical_p", 0.0..=1.0)?.map_or(default.typical_p, above_0),
            // -1 is off for llama.cpp.
            top_n_sigma: self
                .number("top_n_sigma", -1.0..=100.0)?
                .map_or(default.top_n_sigma, |n| n.max(0.0)),
        })
    }

    /// A number that has two names.
    fn either(
        &self,
        name: &'static str,
        other: &'static str,
        range: std::ops::RangeInclusive<f64>,
    ) -> Found<Option<f32>> {
        match (self.number(name, range.clone())?, self.number(other, range)?) {
            (Some(a), Some(b)) if a != b => Err(Failure::parameter(other, format!("is not '{name}'"))),
            (a, b) => Ok(a.or(b)),
        }
    }

    /// The penalty for repeated runs, without breakers.
    fn dry(&self) -> Found<Dry> {
        let default = Dry::DEFAULT;
        // -1 is all tokens for llama.cpp, and 0 is none.
        let range = match self.get("dry_penalty_last_n").as_i64() {
            Some(-1) => Some(0),
            Some(0) => return Ok(default),
            _ => self.whole("dry_penalty_last_n", 1..=i32::MAX as u64)?,
        };
        Ok(Dry {
            multiplier: self.number("dry_multiplier", 0.0..=100.0)?.unwrap_or(default.multiplier),
            base: self.number("dry_base", 1.0..=100.0)?.unwrap_or(default.base),
            allowed_length: self
                .whole("dry_allowed_length", 1..=i32::MAX as u64)?
                .map_or(default.allowed_length, |length| length as u32),
            range: range.map_or(default.range, |range| range as u32),
            breakers: default.breakers,
        })
    }

    pub fn stop(&self) -> Found<Vec<String>> {
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

    pub fn constraints(&self, config: &Config) -> Found<Constraints> {
        let (mut bias, mut banned) = (Vec::new(), Vec::new());
        let given = self.get("logit_bias");
        if !(given.is_null() || given.is_object()) {
            return Err(Failure::parameter("logit_bias", "is no object of tokens and numbers"));
        }
        if let Value::Object(entries) = given {
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
            repetition_penalty: self
                .either("repetition_penalty", "repeat_penalty", 0.01..=100.0)?
                .unwrap_or(1.0),
            frequency_penalty: self.number("frequency_penalty", -2.0..=2.0)?.unwrap_or(0.0),
            presence_penalty: self.number("presence_penalty", -2.0..=2.0)?.unwrap_or(0.0),
            dry: self.dry()?,
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
