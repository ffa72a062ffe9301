//! Vectors of sixteen numbers, one for each row of a panel or slot of a key group, with the best instructions of the
//! processor that the program runs on.
//!
//! A value of a type that implements [`Isa`] is the proof that the processor has its instructions, so its methods are
//! safe. [`Platform::detect`] makes one when a context is made. All of them give the same bits, except [`portable`] in a
//! build for processors without fused multiply-add.
//!
//! From below: [`traits`], `rows`, `unroll`, `x86` (what the two x86 files share), a file or folder for each instruction set,
//! [`platform`].

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(all(target_arch = "aarch64", not(miri)))]
mod neon;
mod platform;
mod portable;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", not(miri))))]
mod rows;
mod traits;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", not(miri))))]
mod unroll;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use platform::Platform;
pub(crate) use traits::{ByteRange, Columns, FourColumns, Isa, Task, WIDTH, WithIsa};
