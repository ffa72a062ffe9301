//! What the instruction sets of x86 share.

pub(super) use super::rows::check_rows;

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

/// Four numbers as one, the first in its lowest byte.
#[inline(always)]
pub(super) fn four_bytes(x: [i8; 4]) -> i32 {
    i32::from_le_bytes([x[0] as u8, x[1] as u8, x[2] as u8, x[3] as u8])
}

/// For shuffles: the index of the first byte of each row, four times; for two rows and the next two.
pub(super) const FIRST_BYTES: [i64; 2] = [0x0404_0404_0000_0000, 0x0c0c_0c0c_0808_0808];
/// A mask of one of four bits in each byte.
pub(super) const FOUR_BITS: i32 = 0x0804_0201;
