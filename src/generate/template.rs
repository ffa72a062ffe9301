//! Templates: texts with holes.

use super::request::Prompt;
use crate::error::{Error, Result};
use crate::memory::{append, push};
use crate::model::{TokenizeOptions, Tokenizer};

/// Most tokens of all holes of a template.
const MOST_TOKENS: usize = 1 << 20;

/// A text with holes for a model to fill: `Once upon a time {{mask 12}} happily ever after.` has one of 12 tokens.
/// `{{{{` stands for two braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<TemplatePart>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum TemplatePart {
    Text(String),
    /// A hole of so many tokens.
    Hole(usize),
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] that names the character where the template is wrong; [`Error::OutOfMemory`].
    pub fn parse(text: &str) -> Result<Self> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut holes = 0;
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            append(&mut literal, before)?;
            if let Some(after) = after.strip_prefix("{{") {
                append(&mut literal, "{{")?;
                rest = after;
                continue;
            }
            let brace = text.len() - after.len() - 2;
            let bad = |what: &str| {
                let place = text.get(..brace).unwrap_or_default().chars().count() + 1;
                Error::invalid(format!("template: at character {place}: {what}"))
            };
            let (hole, after) =
                after.split_once("}}").ok_or_else(|| bad("'{{' without '}}' (two braces are '{{{{')"))?;
            let count = hole.trim().strip_prefix("mask").map(str::trim);
            let count = count.and_then(|count| count.parse::<usize>().ok());
            let count = count.ok_or_else(|| bad("not '{{mask N}}' (two braces are '{{{{')"))?;
            holes += count.min(MOST_TOKENS + 1);
            if count == 0 || holes > MOST_TOKENS {
                return Err(bad(&format!(
                    "a hole has at least 1 token, and all together at most {MOST_TOKENS}"
                )));
            }
            if !literal.is_empty() {
                push(&mut parts, TemplatePart::Text(std::mem::take(&mut literal)))?;
            }
            push(&mut parts, TemplatePart::Hole(count))?;
            rest = after;
        }
        append(&mut literal, rest)?;
        if !literal.is_empty() {
            push(&mut parts, TemplatePart::Text(literal))?;
        }
        Ok(Self { parts })
    }

    /// The known tokens, and the length of the whole text in tokens. The pieces of text between holes are tokenized
    /// separately. A space before a hole belongs to what is written there: tokens begin with the space before their word.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn prompt(&self, tokenizer: &Tokenizer) -> Result<(Prompt, usize)> {
        self.prompt_with(tokenizer, &TokenizeOptions::default())
    }

    /// As [`Template::prompt`], with options for the text: for all of it [`TokenizeOptions::parse_special`], with which a mask is a hole
    /// of one token, for its beginning [`TokenizeOptions::continues`].
    ///
    /// # Errors
    /// As [`Tokenizer::encode_with`].
    pub fn prompt_with(&self, tokenizer: &Tokenizer, options: &TokenizeOptions) -> Result<(Prompt, usize)> {
        let mut prompt = Prompt::default();
        let mut length = 0;
        for (number, part) in self.parts.iter().enumerate() {
            match part {
                TemplatePart::Text(text) => {
                    // The only part behind a text is a hole.
                    let before_hole = number + 1 < self.parts.len();
                    let text = if before_hole { text.strip_suffix(' ').unwrap_or(text) } else { text };
                    let options = TokenizeOptions { continues: options.continues || number > 0, ..*options };
                    let tokens = tokenizer.encode_with(text, &options)?;
                    let known = |&(_, token): &(u32, u32)| !tokenizer.is_mask(token);
                    prompt.known.extend((length as u32..).zip(tokens.iter().copied()).filter(known));
                    length += tokens.len();
                }
                TemplatePart::Hole(count) => length += count,
            }
        }
        Ok((prompt, length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<TemplatePart> {
        Template::parse(text).unwrap().parts
    }

    #[test]
    fn template_is_parsed_into_text_and_holes() {
        let text = |text: &str| TemplatePart::Text(text.into());
        assert_eq!(
            parts("Once {{mask 12}} after."),
            [text("Once "), TemplatePart::Hole(12), text(" after.")]
        );
        assert_eq!(parts("{{mask 1}}{{ mask  7 }}"), [TemplatePart::Hole(1), TemplatePart::Hole(7)]);
        assert_eq!(parts("a } b }} { c"), [text("a } b }} { c")]);
        assert_eq!(parts("{{{{mask 3}} {{mask 3}}"), [text("{{mask 3}} "), TemplatePart::Hole(3)]);
        assert_eq!(parts(""), []);
    }

    #[test]
    fn largest_number_of_holes_is_parsed() {
        assert_eq!(parts(&"{{mask 1}}".repeat(MOST_TOKENS)).len(), MOST_TOKENS);
    }

    #[test]
    fn template_errors_name_their_place() {
        for (bad, place) in [
            ("{{mask 3", 1),
            ("ab {{mask}}", 4),
            ("äö {{mask -1}}", 4),
            ("{{mask 2}} {{hole 2}}", 12),
            ("{{mask 0}}", 1),
            ("{{mask 1048577}}", 1),
            ("{{mask 1048576}}{{mask 1}}", 17),
            ("{{mask 99999999999999999999999}}", 1),
            ("{{{mask 3}}", 1),
            ("x{{mask 3}", 2),
        ] {
            let error = Template::parse(bad).unwrap_err().to_string();
            assert!(error.contains(&format!("at character {place}:")), "{bad}: {error}");
        }
    }
}
