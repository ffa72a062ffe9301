//! Windows of a text.

/// At most `max` windows of `length` tokens (0: all), spread evenly over the text. `length` is at least 1; what is left
/// over at the end is dropped.
pub(crate) fn spread(tokens: &[u32], length: usize, max: usize) -> impl ExactSizeIterator<Item = &[u32]> {
    let all = tokens.len() / length;
    let count = if max == 0 { all } else { max.min(all) };
    (0..count).map(move |window| {
        // Window `window * all / count` of all; it ends at `all * length` at the latest.
        let (_, rest) = tokens.split_at(window * all / count * length);
        rest.split_at(length).0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_spread_over_the_text() {
        let tokens: Vec<u32> = (0..11).collect();
        let first = |length, max| spread(&tokens, length, max).map(|window| window[0]).collect::<Vec<_>>();
        assert_eq!(first(2, 0), [0, 2, 4, 6, 8]);
        assert_eq!(first(2, 2), [0, 4]);
        assert_eq!(first(11, 9), [0]);
        assert!(first(12, 1).is_empty());
        assert!(spread(&tokens, 3, 2).all(|window| window.len() == 3));
    }
}
