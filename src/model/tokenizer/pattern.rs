//! Which regular expressions of a tokenizer are run: those whose matches are found in time linear in the text.

use regex_syntax::hir::{Hir, HirKind};

/// The pattern of Qwen 2 and 3.
pub(super) const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The patterns of GPT-2, of cl100k_base (also Llama 3) and of Qwen 2. They look ahead, in one place and over white space
/// only, which is linear.
const WELL_KNOWN: [&str; 3] = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    QWEN2,
];
/// Longest pattern, in bytes.
const MAX_PATTERN: usize = 512;
/// Longest text, in bytes, that a part with an end may match.
const MAX_BOUNDED: usize = 64;

/// Checks that the matches of `pattern` are found in linear time. Returns the bytes of its shortest match.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(pattern: &str) -> Result<usize, String> {
    if WELL_KNOWN.contains(&pattern) {
        return Ok(1);
    }
    if pattern.len() > MAX_PATTERN {
        return Err(format!("a pattern of {} bytes, more than {MAX_PATTERN}", pattern.len()));
    }
    // What the tokenizer library's own syntax adds and runs by backtracking; lookaround and references to groups are
    // errors in the syntax below.
    let bare = without_properties(pattern);
    if ["++", "*+", "?+", "}+", "\\<", "\\>"].iter().any(|sign| bare.contains(sign)) {
        return Err(format!("the pattern '{pattern}' needs backtracking"));
    }
    let groups = pattern.split("(?").skip(1);
    if !groups.clone().all(|rest| rest.starts_with(':') || rest.starts_with("i:")) {
        return Err(format!("the pattern '{pattern}' has groups other than '(..)', '(?:..)' and '(?i:..)'"));
    }
    let parsed = regex_syntax::parse(pattern).map_err(|_| format!("the pattern '{pattern}' is damaged"))?;
    if !wastes_nothing(&parsed) {
        return Err(format!(
            "the pattern '{pattern}' may take time beyond the length of the text: an unbounded repetition has to be the end \
             of an alternative"
        ));
    }
    Ok(parsed.properties().minimum_len().unwrap_or(0))
}

/// The pattern with `x` in place of the properties of characters, such as `\p{L}`, whose braces repeat nothing.
fn without_properties(pattern: &str) -> String {
    let same = pattern.replace("\\P{", "\\p{");
    let mut parts = same.split("\\p{");
    let mut bare = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        bare.push('x');
        bare.push_str(part.split_once('}').map_or(part, |(_, rest)| rest));
    }
    bare
}

/// Whether all of the text that a match looks at belongs to it, but for a bounded part: a search that looks far ahead and
/// then matches little would look at the same text again and again.
fn wastes_nothing(part: &Hir) -> bool {
    match part.kind() {
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => true,
        HirKind::Capture(group) => wastes_nothing(&group.sub),
        HirKind::Alternation(parts) => parts.iter().all(wastes_nothing),
        HirKind::Concat(parts) => match parts.split_last() {
            Some((last, before)) => before.iter().all(is_bounded) && wastes_nothing(last),
            None => true,
        },
        HirKind::Repetition(repetition) if repetition.max.is_none() => is_bounded(&repetition.sub),
        HirKind::Repetition(_) => is_bounded(part),
    }
}

fn is_bounded(part: &Hir) -> bool {
    part.properties().maximum_len().is_some_and(|len| len <= MAX_BOUNDED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_tokenizers_are_allowed() {
        let plain = [
            r"\s+",
            r"\w+|[^\w\s]+",
            r" ?\p{L}+|\s",
            r"\p{N}{1,3}",
            r" {2,}",
            r"(?i:a|bc)+",
            r"[0-9]",
            "\u{2581}",
        ];
        for pattern in WELL_KNOWN.into_iter().chain(plain) {
            assert!(check(pattern).is_ok(), "{pattern}");
        }
        assert_eq!(check(" {2,}"), Ok(2));
        assert_eq!(check("a*"), Ok(0));
    }

    #[test]
    fn patterns_that_may_take_longer_are_refused() {
        let slow = [
            "(?=(a*)*b)x",
            "a*b|a",
            r"(a+)+",
            r"(a)\1",
            "(?<=a)b",
            "(?>a+)",
            "a++b",
            "(?!b)a",
            r"\s+(?!\S)",
            r"a+$",
            "a.*b",
            "(?x)a",
            r"\Ka",
            "(",
            "a{65}b",
            r"\w{1000}",
            "(?(1)a|b)",
        ];
        for pattern in slow {
            let refused = check(pattern);
            assert!(refused.as_ref().is_err_and(|what| what.contains(pattern)), "{pattern}: {refused:?}");
        }
        assert!(check(&"a".repeat(MAX_PATTERN + 1)).is_err());
    }
}
