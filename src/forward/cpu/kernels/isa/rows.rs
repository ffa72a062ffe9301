//! Rows of bytes that are read with pointers.

use super::traits::WIDTH;

/// Panics unless `rows` has sixteen bytes of each of sixteen rows that lie `stride` apart.
#[inline(always)]
pub(super) fn check_rows(rows: &[u8], stride: usize) {
    assert!(stride.saturating_mul(WIDTH - 1).saturating_add(16) <= rows.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_rows_are_refused() {
        let reads = |len: usize, stride: usize| {
            std::panic::catch_unwind(|| check_rows(&vec![0; len], stride)).is_ok()
        };
        assert!(reads(15 * 16 + 16, 16) && reads(15 * 34 + 16, 34) && reads(16, 0));
        assert!(!reads(15 * 16 + 15, 16) && !reads(15, 0));
        // Fifteen rows are longer than the data.
        assert!(!reads(100, 50) && !reads(100, usize::MAX));
    }
}
