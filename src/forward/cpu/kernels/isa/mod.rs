//! Vectors of sixteen numbers, one for each row of a panel or slot of a key group, with the best instructions of the
//! processor that the program runs on.
//!
//! A value of a type that implements [`Isa`] is the proof that the processor has its instructions, so its methods are
//! safe. [`Platform::detect`] makes one when a context is made. All of them give the same bits, except [`portable`] in a
//! build for processors without fused multiply-add.
//!
//! From below: [`traits`], [`x86`] (what the two x86 files share), a file for each instruction set, [`platform`].

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod platform;
mod portable;
mod traits;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use platform::Platform;
pub(crate) use traits::{ByteRange, FourColumns, Isa, Task, WIDTH, WithIsa};
