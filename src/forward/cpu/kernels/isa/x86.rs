//! What the instruction sets of x86 share.

use super::traits::WIDTH;

/// Gives a proof type a method that runs a [`super::WithIsa`] compiled for its instructions. That the proof exists means
/// that the processor has them.
macro_rules! run_with {
    ($proof:ident, $features:literal) => {
        impl $proof {
            #[inline(always)]
            pub(super) fn run(self, task: impl WithIsa) {
                #[target_feature(enable = $features)]
                fn run(isa: $proof, task: impl WithIsa) {
                    task.run(isa);
                }
                // SAFETY: `self` proves that the processor has the instructions.
                unsafe { run(self, task) }
            }
        }
    };
}

/// [`super::Isa::call`] for a proof type.
macro_rules! call_with {
    ($proof:ident, $features:literal) => {
        #[inline(always)]
        fn call(self, task: impl Task<Self>) {
            #[target_feature(enable = $features)]
            #[inline(never)]
            fn call(isa: $proof, task: impl Task<$proof>) {
                task.run(isa);
            }
            // SAFETY: `self` proves that the processor has the instructions.
            unsafe { call(self, task) }
        }
    };
}

/// Calls intrinsics that only need the processor to have them, which the proof in the first argument shows. (Those that
/// take pointers are not called with this.)
macro_rules! intrinsic {
    ($proof:ident, $call:expr) => {{
        let _: Self = $proof;
        // SAFETY: a value of this type proves that the processor has the instructions, and there are no pointers.
        unsafe { $call }
    }};
}

pub(super) use {call_with, intrinsic, run_with};

/// For shuffles: the index of the first byte of each row, four times; for two rows and the next two.
pub(super) const FIRST_BYTES: [i64; 2] = [0x0404_0404_0000_0000, 0x0c0c_0c0c_0808_0808];
/// A mask of one of four bits in each byte.
pub(super) const FOUR_BITS: i32 = 0x0804_0201;

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
