//! The floating-point environment of a thread.

/// Rounding to nearest, with subnormal numbers and without traps, until it is dropped: the caller's rounding mode or
/// flushing to zero is then set again. Results are the same whatever an audio or interval library has set, and the
/// compiler assumes this environment, too.
#[derive(Debug)]
pub(crate) struct DefaultFloats {
    /// What to set again; `None` if nothing was changed.
    found: Option<Control>,
}

impl DefaultFloats {
    pub(crate) fn set() -> Self {
        let found = read();
        // Flags of past operations are not settings.
        let changed = found & !FLAGS != DEFAULT;
        if changed {
            write(DEFAULT);
        }
        Self { found: changed.then_some(found) }
    }

    /// What a caller may have set: rounding up, flushing results and arguments to zero.
    #[cfg(test)]
    pub(crate) fn strange() -> Self {
        let found = read();
        write(control::STRANGE);
        Self { found: Some(found) }
    }
}

impl Drop for DefaultFloats {
    fn drop(&mut self) {
        if let Some(found) = self.found {
            write(found);
        }
    }
}

use control::{Control, DEFAULT, FLAGS, read, write};

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod control {
    use std::arch::asm;

    /// MXCSR.
    pub(super) type Control = u32;

    /// All exceptions masked.
    pub(super) const DEFAULT: Control = 0x1f80;
    pub(super) const FLAGS: Control = 0x3f;
    #[cfg(test)]
    pub(super) const STRANGE: Control = DEFAULT | 0x4000 | 0x8000 | 0x40;

    pub(super) fn read() -> Control {
        let mut found = 0;
        // SAFETY: stores four bytes to a local; every x86-64 processor has the instruction.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut found, options(nostack, preserves_flags)) };
        found
    }

    pub(super) fn write(control: Control) {
        // SAFETY: loads four bytes from a local. Either they are the default, or what `read` found, so no reserved bit is
        // set; code of Rust between the two has the default that it assumes.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const control, options(nostack, preserves_flags)) };
    }
}

#[cfg(all(target_arch = "aarch64", not(miri)))]
mod control {
    use std::arch::asm;

    /// FPCR.
    pub(super) type Control = u64;

    pub(super) const DEFAULT: Control = 0;
    /// They are in another register.
    pub(super) const FLAGS: Control = 0;
    #[cfg(test)]
    pub(super) const STRANGE: Control = 1 << 22 | 1 << 24;

    pub(super) fn read() -> Control {
        let found;
        // SAFETY: reads a register that every program may read.
        unsafe { asm!("mrs {}, fpcr", out(reg) found, options(nomem, nostack, preserves_flags)) };
        found
    }

    pub(super) fn write(control: Control) {
        // SAFETY: either the default, or what `read` found; code of Rust between the two has the default that it assumes.
        unsafe { asm!("msr fpcr, {}", in(reg) control, options(nomem, nostack, preserves_flags)) };
    }
}

/// Nothing is known of the processor, or Miri has no such instructions: its environment is left alone.
#[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod control {
    pub(super) type Control = u32;

    pub(super) const DEFAULT: Control = 0;
    pub(super) const FLAGS: Control = 0;
    #[cfg(test)]
    pub(super) const STRANGE: Control = DEFAULT;

    pub(super) fn read() -> Control {
        DEFAULT
    }

    pub(super) fn write(_: Control) {}
}

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
mod tests {
    use std::hint::black_box;

    use super::*;

    #[test]
    fn default_holds_until_it_is_dropped() {
        // To the nearest, 0.7 is rounded down.
        let (tiny, ratio) = (f32::MIN_POSITIVE / 2.0, 7.0_f32 / 10.0);
        let results = || black_box((black_box(tiny) * black_box(1.0), black_box(7.0) / black_box(10.0_f32)));
        let outside = DefaultFloats::strange();
        let strange = results();
        let inside = {
            let _floats = DefaultFloats::set();
            let _again = DefaultFloats::set();
            results()
        };
        let after = read() & !FLAGS;
        drop(outside);
        assert_eq!(inside, (tiny, ratio));
        assert_eq!(after, control::STRANGE);
        assert_eq!(strange, (0.0, ratio.next_up()));
    }
}
