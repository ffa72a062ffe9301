//! Cutting a text into windows.

/// At most `most` pieces of `length` tokens (0: as many as there are), spread over the text and not its beginning only.
/// `length` is 1 to the text's.
pub(crate) fn spread(tokens: &[u32], length: usize, most: usize) -> impl ExactSizeIterator<Item = &[u32]> {
    let all = tokens.len() / length;
    let pieces = if most == 0 { all } else { most.min(all) };
    (0..pieces).map(move |piece| {
        let start = piece * all / pieces * length;
        tokens.get(start..start + length).unwrap_or_default()
    })
}
