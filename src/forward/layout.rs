//! What both runners agree on about a context's memory: its limits, the K/V cache, and how regions are laid out. The
//! activations behind the cache are each runner's own: [`super::graph`] and `cpu::layout`.

use crate::error::{Error, Result};
use crate::gguf::TensorType;
use crate::memory::{ALIGNMENT, Region, collected};
use crate::model::Config;

/// Precision of the K/V cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KvType {
    /// Half precision: half the memory to hold and to read. Keys and values of 65520 and more do not fit: the library's
    /// own CPU kernels then fail with [`Error::NotFinite`], ggml's store infinity.
    #[default]
    F16,
    /// Single precision, for exact comparisons and for models with larger keys or values.
    F32,
    /// Bytes, each 32 with a scale in half precision (ggml's q8_0): 0.53 of the memory of [`KvType::F16`], so that longer texts
    /// fit. Keys and values are rounded to 0.4 % of the largest of their 32 (docs/quality.md has what that does). With the
    /// library's own CPU kernels alone, for heads whose width is a multiple of 32.
    Q8_0,
}

impl KvType {
    pub(crate) fn tensor_type(self) -> TensorType {
        match self {
            Self::F16 => TensorType::F16,
            Self::F32 => TensorType::F32,
            Self::Q8_0 => TensorType::Q8_0,
        }
    }

    /// Bytes of so many numbers of keys or values, with their scales.
    pub(super) fn bytes(self, count: usize) -> usize {
        count / self.tensor_type().block_len() * self.tensor_type().block_bytes()
    }

    /// Bytes of one number, without its scale.
    pub(super) fn number_bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
            Self::Q8_0 => 1,
        }
    }

    /// Whether it has scales, and so only runs on the library's own kernels.
    pub(super) fn has_scales(self) -> bool {
        self.tensor_type().is_quantized()
    }
}

/// The number of slots of a sequence is a multiple of this, so that attention reads whole vectors.
pub(crate) const SLOT_GROUP: usize = 32;

/// The limits that a context is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capacity {
    /// Sequences side by side.
    pub(crate) sequences: usize,
    /// Cache slots of a sequence, a multiple of [`SLOT_GROUP`]. A slot is a place in generation order.
    pub(crate) slots: usize,
    /// Most rows of a batch.
    pub(crate) rows: usize,
    /// Precision of the cache.
    pub(crate) kv: KvType,
}

/// Where the K/V cache lies: at the start of the arena. With K the width of keys, S slots, B sequences.
#[derive(Debug, Clone)]
pub(crate) struct CacheLayout {
    /// Keys and values of each block, K * S * B numbers each. The order of the numbers in a region is the runner's own.
    pub(crate) keys: Vec<Region>,
    pub(crate) values: Vec<Region>,
    /// Bytes of all.
    pub(crate) len: usize,
}

impl CacheLayout {
    /// Takes the cache's regions from `regions`, which must be new.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub(super) fn new(config: &Config, capacity: &Capacity, regions: &mut Regions) -> Result<Self> {
        Self::of_slots(config, capacity, capacity.slots.saturating_mul(capacity.sequences), regions)
    }

    /// As [`CacheLayout::new`], with one more slot behind all others.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub(super) fn with_spare_slot(
        config: &Config,
        capacity: &Capacity,
        regions: &mut Regions,
    ) -> Result<Self> {
        let slots = capacity.slots.saturating_mul(capacity.sequences).saturating_add(1);
        Self::of_slots(config, capacity, slots, regions)
    }

    fn of_slots(config: &Config, capacity: &Capacity, slots: usize, regions: &mut Regions) -> Result<Self> {
        let dims = [slots];
        let element = capacity.kv.bytes(config.kv_length());
        let mut blocks = || collected((0..config.block_count).map(|_| regions.take(&dims, element)));
        let (keys, values) = (blocks()?, blocks()?);
        Ok(Self { keys, values, len: regions.next() })
    }
}

/// Lays out regions one after the other. What overflows the address space is reported at the end, by
/// [`Regions::finish`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Regions {
    next: usize,
    /// The largest end of all alternatives.
    end: usize,
    overflow: bool,
    alignment: usize,
}

impl Default for Regions {
    fn default() -> Self {
        Self::aligned_to(ALIGNMENT)
    }
}

impl Regions {
    /// Regions that begin at multiples of `alignment` bytes, [`ALIGNMENT`] at least.
    pub(super) fn aligned_to(alignment: usize) -> Self {
        Self { next: 0, end: 0, overflow: false, alignment: alignment.max(ALIGNMENT) }
    }

    /// A region of `dims` elements of `element` bytes.
    pub(super) fn take(&mut self, dims: &[usize], element: usize) -> Region {
        // ggml indexes in signed 64-bit numbers; no machine has half of the address space anyway.
        let end = dims
            .iter()
            .try_fold(element, |len, &dim| len.checked_mul(dim))
            .and_then(|len| {
                Some((len, self.next.checked_add(len)?.checked_next_multiple_of(self.alignment)?))
            })
            .filter(|&(_, end)| end < isize::MAX as usize);
        let Some((len, end)) = end else {
            self.overflow = true;
            return Region::default();
        };
        let offset = std::mem::replace(&mut self.next, end);
        self.end = self.end.max(end);
        Region { offset, len }
    }

    /// The next region starts at `start`: it shares memory with those taken since, which are used at another time.
    pub(super) fn restart(&mut self, start: usize) {
        self.next = start;
    }

    /// The next region starts behind all others.
    pub(super) fn skip_to_end(&mut self) {
        self.next = self.end;
    }

    /// Where the next region starts.
    pub(super) fn next(&self) -> usize {
        self.next
    }

    /// Bytes of all regions.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if that is more than the address space.
    pub(super) fn finish(self) -> Result<usize> {
        if self.overflow {
            return Err(Error::invalid("the context would be larger than the address space"));
        }
        Ok(self.end)
    }
}

/// The first `count` slots of a sequence.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slots {
    pub(crate) sequence: usize,
    pub(crate) count: usize,
}

impl Slots {
    /// Bytes of their keys and values.
    pub(crate) fn bytes(self, config: &Config, kv: KvType) -> usize {
        2 * config.block_count * kv.bytes(config.kv_length()) * self.count
    }
}
