//! Which instruction set to use.

#[cfg(all(target_arch = "aarch64", not(miri)))]
use super::neon::AnyNeon;
use super::portable;
use super::traits::WithIsa;
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};

/// The instruction sets that there are kernels for, best first.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Platform {
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
    #[cfg(target_arch = "x86_64")]
    AvxVnni(avx2::AvxVnni),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    Neon(AnyNeon),
    Portable(portable::Portable),
}

impl Platform {
    /// The best one that this processor has.
    pub(crate) fn detect() -> Self {
        Self::all().next().unwrap_or(Self::Portable(portable::Portable))
    }

    /// All that this processor has, best first.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let special = [
            avx512::Avx512::detect().map(Self::Avx512),
            avx2::AvxVnni::detect().map(Self::AvxVnni),
            avx2::Avx2::detect().map(Self::Avx2),
        ];
        #[cfg(all(target_arch = "aarch64", not(miri)))]
        let special = AnyNeon::all().map(|neon| neon.map(Self::Neon));
        #[cfg(not(any(target_arch = "x86_64", all(target_arch = "aarch64", not(miri)))))]
        let special = [None; 0];
        special.into_iter().flatten().chain([Self::Portable(portable::Portable)])
    }

    /// Its name, for people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "AVX-512 VNNI",
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni(_) => "AVX-VNNI",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "AVX2",
            #[cfg(all(target_arch = "aarch64", not(miri)))]
            Self::Neon(neon) => neon.name(),
            Self::Portable(_) => "portable",
        }
    }

    /// Runs `task` with these instructions.
    pub(crate) fn run(self, task: impl WithIsa) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(isa) => isa.run(task),
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni(isa) => isa.run(task),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(isa) => isa.run(task),
            #[cfg(all(target_arch = "aarch64", not(miri)))]
            Self::Neon(neon) => neon.run(task),
            Self::Portable(isa) => task.run(isa),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::cpu::kernels::isa::{ByteRange, Columns, Isa, WIDTH};

    /// The largest weights times the largest activations, all of one sign.
    struct Largest;

    /// The same numbers everywhere.
    struct Same<I: Isa>(I::Bytes, i8);

    impl<I: Isa> Columns<I> for Same<I> {
        #[inline(always)]
        fn weights(&self, _: usize, _: usize) -> I::Bytes {
            self.0
        }

        #[inline(always)]
        fn activations(&self, _: usize, _: usize) -> [i8; 4] {
            [self.1; 4]
        }
    }

    fn check<I: Isa, const M: usize, const P: usize>(isa: I, range: ByteRange, fours: usize) {
        // Of signed numbers -128 is the largest.
        let (byte, weight) = match range {
            ByteRange::Signed => (128, -128),
            ByteRange::Small(max) => (max, i32::from(max)),
        };
        for x in [127, -127] {
            let sum = 4 * fours as i32 * i32::from(x);
            let start = if range == ByteRange::Signed { -128 * sum } else { 0 };
            let same = Same::<I>(isa.splat_byte(byte), x);
            let products = isa.products::<M, P>(range, fours, &same, [start; M]);
            for products in products.into_iter().flatten() {
                let mut floats = [0.0; WIDTH];
                isa.store_f32(isa.to_f32(products), &mut floats);
                assert_eq!(floats, [(weight * sum) as f32; WIDTH], "{range:?}, {M} rows");
            }
        }
    }

    impl WithIsa for Largest {
        fn run<I: Isa>(self, isa: I) {
            // The last as `limits` has it.
            let ranges = [(31, 8), (15, 8), (63, 4), (7, 4), (3, 4), (15, 64)];
            let ranges = ranges.map(|(max, fours)| (ByteRange::Small(max), fours));
            for (range, fours) in [(ByteRange::Signed, 8)].into_iter().chain(ranges) {
                check::<I, 1, 2>(isa, range, fours);
                check::<I, 2, 1>(isa, range, fours);
                check::<I, 4, 1>(isa, range, fours);
            }
        }
    }

    #[test]
    fn largest_products_do_not_overflow() {
        Platform::all().for_each(|platform| platform.run(Largest));
    }
}
