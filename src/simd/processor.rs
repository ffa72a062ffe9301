//! Whether the processor has the instructions that this build was compiled for.

/// The instruction sets of a kind of processor: SETS, and the functions that ask for them. `$report` is what the processor or the
/// system says of itself; a row of the table has a name, what the kind's macro `has!` finds it in the report by, and ggml's
/// function if it can be asked whether its kernels were compiled for it. `std`'s detection cannot be asked: where the build has an
/// instruction set, it says so of the processor, too. `$rust` and `$ggml` say how to build without.
#[allow(unused_macros, reason = "where nothing is looked for, nothing is said")]
macro_rules! instruction_sets {
    ($report:ident, $rust:literal, $ggml:literal; $($name:literal ($($bits:tt)*) $($function:ident)?;)*) => {
        pub(super) const SETS: &[InstructionSet] = &[$(InstructionSet {
            name: $name,
            message: text(concat!(
                "this build of esolm needs instructions that the processor lacks, such as ",
                $name,
                "; build it for this machine, or portably (",
                $rust,
                ")\0"
            )),
            message_of_ggml: text(concat!(
                "this build of ggml, in esolm, needs instructions that the processor lacks, such as ",
                $name,
                "; build it for this machine, or portably (",
                $ggml,
                ")\0"
            )),
        }),*];

        /// The number in [`SETS`] of one that the compiler may use anywhere, or in ggml's kernels, and that the processor or the
        /// operating system lacks. This has to run without them itself.
        #[inline(never)]
        pub(super) fn missing() -> Option<(u8, Compiled)> {
            missing_of(&$report::new())
        }

        #[inline(never)]
        fn missing_of(report: &$report) -> Option<(u8, Compiled)> {
            let mut number = 0;
            $(
                let of_ggml = false $(|| ggml::$function())?;
                if (cfg!(target_feature = $name) || of_ggml) && !has!(report, $($bits)*) {
                    let of = if cfg!(target_feature = $name) { Compiled::Rust } else { Compiled::Ggml };
                    return Some((number, of));
                }
                number += 1;
            )*
            let _ = number;
            None
        }

        /// The instruction sets that the compiler may use anywhere in this build.
        pub(crate) fn compiled_instructions() -> Vec<&'static str> {
            let mut names = Vec::new();
            $(if cfg!(target_feature = $name) { names.push($name); })*
            names
        }

        /// The instruction sets that the processor and the operating system have.
        pub(crate) fn processor_instructions() -> Vec<&'static str> {
            let report = $report::new();
            let mut names = Vec::new();
            $(if has!(report, $($bits)*) { names.push($name); })*
            names
        }

        /// The instruction sets that ggml's kernels were compiled for, of those that it can be asked for.
        #[cfg(test)]
        fn ggml_instructions() -> Vec<&'static str> {
            let mut names = Vec::new();
            $($(if ggml::$function() { names.push($name); })?)*
            names
        }
    };
}

/// Functions of ggml that say what its kernels were compiled for: constants of their compiler.
#[allow(unused_macros, reason = "as above")]
macro_rules! ask_ggml {
    ($($name:ident)*) => { $(
        pub(super) fn $name() -> bool {
            #[cfg(not(miri))]
            // SAFETY: it takes nothing, and returns a constant.
            let has = unsafe { ggml_sys::$name() } != 0;
            #[cfg(miri)]
            let has = false;
            has
        }
    )* };
}

#[cfg(all(target_arch = "aarch64", any(target_os = "linux", target_os = "android")))]
mod arm;
#[cfg(not(any(
    target_arch = "x86_64",
    all(target_arch = "aarch64", any(target_os = "linux", target_os = "android"))
)))]
mod other;
mod set;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(all(target_arch = "aarch64", any(target_os = "linux", target_os = "android")))]
use arm as kind;
#[cfg(not(any(
    target_arch = "x86_64",
    all(target_arch = "aarch64", any(target_os = "linux", target_os = "android"))
)))]
use other as kind;
#[cfg(target_arch = "x86_64")]
use x86 as kind;

use std::ffi::CStr;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::error::{Error, Result};
pub(crate) use kind::{compiled_instructions, processor_instructions};
use set::{Compiled, InstructionSet};

/// An instruction set that the compiler was allowed to use anywhere in this build, or in ggml's kernels, and that the processor
/// lacks, as after `-C target-cpu=native` on another machine; `None` if there is none. [`Model::open`](crate::Model::open) fails
/// then, but a program of which all is compiled so may not come that far: it can ask this first, and only print what it is told.
#[inline]
pub fn missing_instructions() -> Option<&'static str> {
    found().map(|(set, _)| set.name)
}

/// What is said of [`missing_instructions`].
#[inline]
#[cfg_attr(not(feature = "capi"), allow(dead_code, reason = "programs in C are told so"))]
pub(crate) fn missing_message() -> Option<&'static CStr> {
    found().map(|(set, of)| match of {
        Compiled::Rust => set.message,
        Compiled::Ggml => set.message_of_ggml,
    })
}

/// Fails if there are [`missing_instructions`].
///
/// # Errors
/// [`Error::Unsupported`] naming one.
pub(crate) fn check_processor() -> Result<()> {
    match missing_message() {
        None => Ok(()),
        Some(message) => Err(Error::Unsupported(message.to_string_lossy().into_owned())),
    }
}

/// Whether an instruction set is missing: 0 is not known yet, 1 none, 2 the first of the table. With [`OF_GGML`], that ggml needs it.
static MISSING: AtomicU8 = AtomicU8::new(0);
const OF_GGML: u8 = 0x80;

/// The instruction set that is missing, and of what.
#[inline]
fn found() -> Option<(&'static InstructionSet, Compiled)> {
    let known = match MISSING.load(Ordering::Relaxed) {
        0 => look(),
        known => known,
    };
    let set = kind::SETS.get(usize::from(known & !OF_GGML).wrapping_sub(2))?;
    Some((set, if known & OF_GGML == 0 { Compiled::Rust } else { Compiled::Ggml }))
}

#[cold]
#[inline(never)]
fn look() -> u8 {
    let known = match kind::missing() {
        None => 1,
        Some((number, Compiled::Rust)) => number + 2,
        Some((number, Compiled::Ggml)) => (number + 2) | OF_GGML,
    };
    MISSING.store(known, Ordering::Relaxed);
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_processor_has_what_the_build_needs() {
        check_processor().unwrap();
    }
}
