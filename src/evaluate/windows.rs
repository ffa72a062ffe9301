//! Windows of a text.

use crate::error::{Error, Result};
use crate::forward::ContextParams;
use crate::model::Config;

/// The length of a window; 0 is given for that of a context by default.
///
/// # Errors
/// [`Error::InvalidArgument`] if it is longer than that, also where the text is not.
pub(crate) fn window_length(given: usize, config: &Config) -> Result<usize> {
    match given {
        0 => Ok(ContextParams::default_length(config)),
        length if length <= config.context_length => Ok(length),
        _ => {
            let longest = config.context_length;
            Err(Error::invalid(format!("length {given}; the model's context is {longest} tokens")))
        }
    }
}

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
