//! The normalizer, pre-tokenizer and decoder of a tokenizer file: which ones are run, and how much they may make of a text.
//!
//! Each part is checked as data before the tokenizer library sees it. A part that is not listed here is refused.

use serde_json::Value;

use super::pattern;

/// Most parts in sequence.
const MAX_PARTS: usize = 16;
/// Most bytes that parts in sequence may make of a byte of text. (NFKC, lower case and a byte-level pre-tokenizer make 44.)
const MAX_GROWTH: usize = 48;
/// Most bytes that all of them together may make of one: each part makes the text anew.
const MAX_MADE: usize = 256;
/// The same of a byte of a token. (Llama's decoder makes 3 and 10.)
const MAX_DECODER_GROWTH: usize = 16;
const MAX_DECODER_MADE: usize = 32;
/// Longest text that a part adds or replaces, in bytes.
const MAX_TEXT: usize = 16;

/// The kinds of parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Normalizer,
    PreTokenizer,
    Decoder,
}

impl Kind {
    /// Most bytes that parts in sequence may make of a byte in the end, and together.
    fn limits(self) -> (usize, usize) {
        match self {
            Self::Normalizer | Self::PreTokenizer => (MAX_GROWTH, MAX_MADE),
            Self::Decoder => (MAX_DECODER_GROWTH, MAX_DECODER_MADE),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Normalizer => "normalizer",
            Self::PreTokenizer => "pre-tokenizer",
            Self::Decoder => "decoder",
        }
    }

    /// Whether a part changes characters as Unicode says. What one of these makes long, the next makes no longer still: in
    /// sequence they make as much as one of them does.
    fn is_unicode(self, ty: &str) -> bool {
        self == Self::Normalizer && !["ByteLevel", "Prepend", "Replace"].contains(&ty)
    }

    /// The key of the list of a sequence.
    fn list(self) -> &'static str {
        match self {
            Self::Normalizer => "normalizers",
            Self::PreTokenizer => "pretokenizers",
            Self::Decoder => "decoders",
        }
    }
}

/// What parts in sequence may do.
pub(super) struct Limits {
    parts: usize,
    /// What the parts make of a byte, but for the last ones if these are [`Kind::is_unicode`].
    before: usize,
    /// What those make of one.
    unicode: usize,
    made: usize,
}

impl Limits {
    pub fn new() -> Self {
        Self { parts: 0, before: 1, unicode: 1, made: 0 }
    }

    /// How many bytes the parts make of a byte at most.
    pub fn growth(&self) -> usize {
        self.before.saturating_mul(self.unicode)
    }

    /// Checks the description of a part. Returns it as the tokenizer library takes it.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&mut self, kind: Kind, part: Value) -> Result<Value, String> {
        let name = kind.name();
        self.part(kind, &part).map_err(|what| format!("{name}: {what}"))?;
        Ok(part)
    }

    fn part(&mut self, kind: Kind, part: &Value) -> Result<(), String> {
        let ty = part.get("type").and_then(Value::as_str).ok_or("a part without a type")?;
        if ty == "Sequence" {
            let list = part.get(kind.list()).and_then(Value::as_array).ok_or("a sequence without parts")?;
            return list.iter().try_for_each(|inner| self.part(kind, inner));
        }
        let growth = match kind {
            Kind::Normalizer => normalizer(ty, part)?,
            Kind::PreTokenizer => pre_tokenizer(ty, part)?,
            Kind::Decoder => decoder(ty, part)?,
        };
        self.parts += 1;
        if kind.is_unicode(ty) {
            self.unicode = self.unicode.max(growth);
        } else {
            (self.before, self.unicode) = (self.growth().saturating_mul(growth), 1);
        }
        self.made = self.made.saturating_add(self.growth());
        if self.parts > MAX_PARTS {
            return Err(format!("more than {MAX_PARTS} parts in sequence"));
        }
        let (most, most_made) = kind.limits();
        if self.growth() > most {
            return Err(format!("up to '{ty}', a byte of text may become more than {most}"));
        }
        if self.made > most_made {
            return Err(format!(
                "up to '{ty}', the parts make more than {most_made} bytes of a byte of text"
            ));
        }
        Ok(())
    }
}

/// How many bytes a normalizer makes of a byte at most.
fn normalizer(ty: &str, part: &Value) -> Result<usize, String> {
    match ty {
        "Strip" | "StripAccents" | "Nmt" => Ok(1),
        "Lowercase" | "ByteLevel" => Ok(2),
        "NFC" | "NFD" => Ok(3),
        // Spaces around Chinese characters; lower case; accents as characters of their own.
        "BertNormalizer" => Ok(6),
        // U+FDFA of 3 bytes becomes 33.
        "NFKC" | "NFKD" => Ok(11),
        "Prepend" => Ok(1 + text(part, "prepend")?.len()),
        "Replace" => replace(part),
        other => Err(unsupported(other)),
    }
}

/// How many bytes a pre-tokenizer makes of a byte at most.
fn pre_tokenizer(ty: &str, part: &Value) -> Result<usize, String> {
    match ty {
        "BertPreTokenizer" | "CharDelimiterSplit" | "Digits" | "Punctuation" | "UnicodeScripts"
        | "Whitespace" | "WhitespaceSplit" => Ok(1),
        "FixedLength" => match part.get("length").and_then(Value::as_u64) {
            Some(1..) => Ok(1),
            _ => Err("a fixed length of 0".into()),
        },
        // Some bytes become characters of two, and a word of one byte may get a space.
        "ByteLevel" if part.get("add_prefix_space") == Some(&Value::Bool(false)) => Ok(2),
        "ByteLevel" => Ok(4),
        // A space becomes a character, and a word of one byte gets one before it.
        "Metaspace" => Ok(1 + text(part, "replacement")?.len()),
        "Split" => match (part.pointer("/pattern/Regex"), part.pointer("/pattern/String")) {
            (Some(Value::String(regex)), None) => pattern::check(regex).map(|_| 1),
            (None, Some(Value::String(text))) if (1..=MAX_TEXT).contains(&text.len()) => Ok(1),
            _ => Err(format!("a split has to have a pattern, or a text of 1 to {MAX_TEXT} bytes")),
        },
        other => Err(unsupported(other)),
    }
}

/// How many bytes a decoder makes of a byte of a token at most, not counting a space before each.
fn decoder(ty: &str, part: &Value) -> Result<usize, String> {
    match ty {
        "Fuse" | "Metaspace" => Ok(1),
        // A byte that is no character becomes U+FFFD.
        "ByteFallback" | "ByteLevel" => Ok(3),
        "BPEDecoder" if !text(part, "suffix")?.is_empty() => Ok(1),
        "WordPiece" => text(part, "prefix").map(|_| 1),
        // The library counts beyond the start of a token that is shorter than what is to be cut off its end.
        "Strip" if part.get("stop").and_then(Value::as_u64) == Some(0) => Ok(1),
        "Replace" => replace(part),
        other => Err(unsupported(other)),
    }
}

/// How many bytes replacing makes of a byte at most.
fn replace(part: &Value) -> Result<usize, String> {
    let content = text(part, "content")?.len();
    let shortest = match (part.pointer("/pattern/Regex"), part.pointer("/pattern/String")) {
        (Some(Value::String(regex)), None) => pattern::check(regex)?,
        (None, Some(Value::String(text))) if (1..=MAX_TEXT).contains(&text.len()) => text.len(),
        _ => return Err(format!("what is replaced has to be a pattern, or a text of 1 to {MAX_TEXT} bytes")),
    };
    // An empty match is before every character.
    Ok(if shortest == 0 { 1 + content } else { content.div_ceil(shortest).max(1) })
}

/// A short text of a part.
fn text<'a>(part: &'a Value, key: &str) -> Result<&'a str, String> {
    let text =
        part.get(key).and_then(Value::as_str).ok_or_else(|| format!("'{key}' is missing or not text"))?;
    if text.len() > MAX_TEXT {
        return Err(format!("'{key}' has {} bytes, more than {MAX_TEXT}", text.len()));
    }
    Ok(text)
}

fn unsupported(ty: &str) -> String {
    let short: String = ty.chars().take(40).collect();
    format!("'{short}' is not supported with these settings")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: Kind, json: &str) -> Result<Value, String> {
        let crate::json::SmallJson(part) = serde_json::from_str(json).map_err(|e| e.to_string())?;
        Limits::new().check(kind, part)
    }

    #[test]
    fn parts_of_known_tokenizers_are_allowed() {
        for (kind, json) in [
            (
                Kind::Normalizer,
                r#"{"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true}"#,
            ),
            (
                Kind::Normalizer,
                r#"{"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}"#,
            ),
            (
                Kind::Normalizer,
                r#"{"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}]}"#,
            ),
            (Kind::PreTokenizer, r#"{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true}"#),
            (Kind::PreTokenizer, r#"{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}"#),
            (Kind::PreTokenizer, r#"{"type": "BertPreTokenizer"}"#),
            (Kind::Decoder, r###"{"type": "WordPiece", "prefix": "##", "cleanup": true}"###),
            (
                Kind::Decoder,
                r#"{"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
                {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}"#,
            ),
        ] {
            let checked = check(kind, json);
            assert!(checked.is_ok(), "{json}: {checked:?}");
        }
    }

    #[test]
    fn growth_of_known_chains_is_within_the_limit() {
        let nfkc = r#"{"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}, {"type": "StripAccents"}]}"#;
        let llama = r#"{"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}"#;
        let metaspace = r#"{"type": "Metaspace", "replacement": "▁"}"#;
        for (normalizer, pre_tokenizer, growth) in [
            (nfkc, r#"{"type": "ByteLevel", "add_prefix_space": true}"#, 44),
            (nfkc, metaspace, 44),
            (llama, metaspace, 48),
            (r#"{"type": "NFC"}"#, r#"{"type": "ByteLevel", "add_prefix_space": false}"#, 6),
            (r#"{"type": "BertNormalizer"}"#, r#"{"type": "BertPreTokenizer"}"#, 6),
        ] {
            let mut limits = Limits::new();
            limits.check(Kind::Normalizer, serde_json::from_str(normalizer).unwrap()).unwrap();
            limits.check(Kind::PreTokenizer, serde_json::from_str(pre_tokenizer).unwrap()).unwrap();
            assert_eq!(limits.growth(), growth, "{normalizer} {pre_tokenizer}");
        }
    }

    /// As [`Kind::is_unicode`] says.
    #[test]
    fn normalizers_of_unicode_in_sequence_make_no_more_than_one_of_them() {
        use tokenizers::{NormalizedString, Normalizer, NormalizerWrapper};
        let json = r#"{"type": "Sequence", "normalizers": [{"type": "Lowercase"}, {"type": "NFKD"}, {"type": "Lowercase"},
            {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": false,
             "lowercase": true}, {"type": "NFKD"}]}"#;
        let chain: NormalizerWrapper = serde_json::from_str(json).unwrap();
        for c in ('\u{80}'..'\u{33480}').chain('\u{e0000}'..'\u{e0200}') {
            let mut text = NormalizedString::from(c.to_string());
            chain.normalize(&mut text).unwrap();
            assert!(text.len() <= 11 * c.len_utf8(), "{c:?} becomes {:?}", text.get());
        }
    }

    #[test]
    fn parts_without_a_bound_are_refused() {
        let tenfold = r#"{"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaa"}"#;
        let same = r#"{"type": "Replace", "pattern": {"Regex": "."}, "content": "a"}"#;
        let fourfold = r#"{"type": "Replace", "pattern": {"String": "a"}, "content": "aaaa"}"#;
        let longer = [&[tenfold, fourfold][..], &[same; 6]].concat().join(", ");
        let then_as_it_is = [&[tenfold][..], &[same; 3]].concat().join(", ");
        let chain = |kind: Kind, part: &str, count: usize| {
            format!(r#"{{"type": "Sequence", "{}": [{}]}}"#, kind.list(), vec![part; count].join(", "))
        };
        let cases = [
            (Kind::Normalizer, chain(Kind::Normalizer, tenfold, 10), "more than 48"),
            (Kind::Normalizer, chain(Kind::Normalizer, &longer, 1), "more than 256 bytes"),
            (Kind::Decoder, chain(Kind::Decoder, tenfold, 3), "more than 16"),
            (Kind::Decoder, chain(Kind::Decoder, &then_as_it_is, 1), "more than 32 bytes"),
            (Kind::Normalizer, chain(Kind::Normalizer, r#"{"type": "Strip"}"#, 17), "16 parts"),
            (
                Kind::Normalizer,
                r#"{"type": "Replace", "pattern": {"String": ""}, "content": "a"}"#.into(),
                "1 to",
            ),
            (
                Kind::Normalizer,
                r#"{"type": "Replace", "pattern": {"Regex": "(?=a*b)"}, "content": "a"}"#.into(),
                "groups",
            ),
            (
                Kind::Normalizer,
                format!(r#"{{"type": "Prepend", "prepend": "{}"}}"#, "a".repeat(1000)),
                "1000 bytes",
            ),
            (
                Kind::Normalizer,
                r#"{"type": "Precompiled", "precompiled_charsmap": "//////////8="}"#.into(),
                "Precompiled",
            ),
            (Kind::Normalizer, r#"{"prepend": "a"}"#.into(), "without a type"),
            (Kind::PreTokenizer, r#"{"type": "FixedLength", "length": 0}"#.into(), "length of 0"),
            (Kind::PreTokenizer, r#"{"type": "Split", "pattern": {"Regex": "(a+)+b"}}"#.into(), "(a+)+b"),
            (Kind::Decoder, r#"{"type": "Strip", "content": "a", "start": 0, "stop": 1}"#.into(), "Strip"),
            (Kind::Decoder, r#"{"type": "CTC"}"#.into(), "CTC"),
            (Kind::Decoder, r#"{"type": "BPEDecoder", "suffix": ""}"#.into(), "BPEDecoder"),
            (Kind::Decoder, format!(r#"{{"type": "Fuse", "x": "{}"}}"#, "a".repeat(70_000)), "bytes"),
        ];
        for (kind, json, what) in cases {
            let refused = check(kind, &json);
            assert!(refused.as_ref().is_err_and(|e| e.contains(what)), "{json:.100}: {refused:?}");
        }
    }
}
