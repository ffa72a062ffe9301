//! The fuzzer's bytes, read as numbers that tend to be hostile.

/// The bytes that are left. When there are none, everything is 0.
pub struct Input<'a>(pub &'a [u8]);

/// Numbers at which sizes and offsets go wrong.
const HOSTILE: [u64; 16] = [
    0,
    1,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fffe,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_fff0,
    0xffff_ffff_ffff_fffe,
    u64::MAX,
];

impl<'a> Input<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    /// One time in four.
    pub fn seldom(&mut self) -> bool {
        self.byte() >= 192
    }

    /// The next bytes, at most `most` of them.
    pub fn take(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Any number: mostly a small one, or one of [`HOSTILE`], or eight bytes.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            small @ ..200 => u64::from(small % 100),
            known @ 200..248 => HOSTILE[usize::from(known) % HOSTILE.len()],
            _ => {
                let mut all = [0; 8];
                self.take(8).iter().zip(&mut all).for_each(|(from, to)| *to = *from);
                u64::from_le_bytes(all)
            }
        }
    }

    pub fn size(&mut self) -> usize {
        self.number() as usize
    }

    /// A number of 32 bits, mostly below `end`.
    pub fn index(&mut self, end: usize) -> u32 {
        if self.seldom() { self.number() as u32 } else { self.below(end) as u32 }
    }

    /// Any float: mostly one in 0 to 2.
    pub fn float(&mut self) -> f64 {
        match self.byte() {
            share @ ..201 => f64::from(share) / 100.0,
            201 => f64::NAN,
            202 => f64::INFINITY,
            203 => f64::NEG_INFINITY,
            204 => -0.0,
            205 => f64::from(f32::MAX),
            206 => f64::MAX,
            207 => f64::MIN_POSITIVE,
            208 => f64::from_bits(1),
            209 => -1.0,
            210 => 1e-45,
            211 => 1.0 + f64::EPSILON,
            212 => 1.0 - f64::EPSILON,
            _ => f64::from_bits(self.number().rotate_left(48)),
        }
    }

    /// At most `most` numbers, mostly below `end`.
    pub fn list(&mut self, most: usize, end: usize) -> Vec<u32> {
        let len = self.below(most + 1);
        (0..len).map(|_| self.index(end)).collect()
    }

    /// A permutation of 0 to `len`, seldom a list that is none.
    pub fn permutation(&mut self, len: usize) -> Vec<u32> {
        let mut all: Vec<u32> = (0..len as u32).collect();
        for at in (1..len).rev() {
            all.swap(at, self.below(at + 1));
        }
        if self.seldom() {
            let at = self.below(len.max(1));
            let number = self.number() as u32;
            all.get_mut(at).into_iter().for_each(|entry| *entry = number);
        }
        all
    }
}
