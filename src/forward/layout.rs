//! What lies where in a context's computing memory: the K/V cache and the activations of one pass.

use crate::error::{Error, Result};
use crate::gguf::TensorType;
use crate::memory::{ALIGNMENT, Region};
use crate::model::Config;

/// Precision of the K/V cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KvType {
    /// Half precision: half the memory, less of it to read. Keys and values from 65520 on do not fit: the library's own
    /// CPU kernels end a pass that has one with [`Error::NotFinite`], ggml's make infinity of it.
    #[default]
    F16,
    /// Single precision, for exact comparisons and for models with larger keys or values.
    F32,
}

impl KvType {
    pub(crate) fn tensor_type(self) -> TensorType {
        match self {
            Self::F16 => TensorType::F16,
            Self::F32 => TensorType::F32,
        }
    }

    /// Bytes of one number.
    pub(super) fn element_bytes(self) -> usize {
        self.tensor_type().block_bytes()
    }
}

/// Attention reads the cache in groups of this many slots, so that matrix kernels get whole vectors.
pub(crate) const SLOT_GROUP: usize = 32;

/// The limits that a context is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capacity {
    /// Sequences side by side.
    pub(crate) sequences: usize,
    /// Cache slots of a sequence, a multiple of [`SLOT_GROUP`]. A slot is a place in generation order.
    pub(crate) slots: usize,
    /// Most rows of one pass.
    pub(crate) rows: usize,
    /// Precision of the cache.
    pub(crate) kv: KvType,
}

/// Offsets of everything in the computing memory. With D the width, F the MLP's, H heads, V the vocabulary,
/// R rows, S slots, B sequences:
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// Keys of each block, [D, S, B]: one row per slot.
    pub(crate) keys: Vec<Region>,
    /// Values of each block, [S, D, B]: transposed, so that attention's second product reads along slots.
    pub(crate) values: Vec<Region>,
    /// Token ids, positions, rows whose logits are wanted, and their positions, [R] each.
    pub(crate) tokens: Region,
    pub(crate) positions: Region,
    pub(crate) outputs: Region,
    pub(crate) output_positions: Region,
    /// The residual stream [D, R], and its rows that reach the output.
    pub(crate) x: Region,
    pub(crate) x_out: Region,
    /// A norm's output or a block's contribution [D, R], and the rows of it that reach the output.
    pub(crate) h: Region,
    pub(crate) h_out: Region,
    /// Attention: q, k and v before rotation [3D, R]; q and k after it [D, R]; scores [S, R, H]; the weighted
    /// values [D, R] of one sequence and of all.
    pub(crate) qkv: Region,
    pub(crate) q_last: Region,
    pub(crate) q: Region,
    pub(crate) k: Region,
    pub(crate) scores: Region,
    pub(crate) head_values: Region,
    pub(crate) attention: Region,
    /// MLP: hidden layer and a temporary, [F, R] each. In the same memory as attention's.
    pub(crate) up: Region,
    pub(crate) temp: Region,
    /// Logits [V, R]. In the same memory as attention's.
    pub(crate) logits: Region,
    /// Bytes of the caches.
    pub(crate) cache_len: usize,
    /// Bytes of all.
    pub(crate) len: usize,
}

impl Layout {
    /// `whole_scores` is whether attention's scores of all rows and heads exist at once.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the sizes overflow.
    pub(crate) fn new(config: &Config, capacity: &Capacity, whole_scores: bool) -> Result<Self> {
        let (d, f) = (config.embedding_length, config.feed_forward_length);
        let (r, s) = (capacity.rows, capacity.slots);
        let mut cursor = Cursor { at: 0, overflow: false };
        let element = capacity.kv.element_bytes();
        let mut cache =
            || (0..config.block_count).map(|_| cursor.take(&[d, s, capacity.sequences], element)).collect();
        let (keys, values) = (cache(), cache());
        let cache_len = cursor.at;
        let [tokens, positions, outputs, output_positions] = [(); 4].map(|()| cursor.take(&[r], 4));
        let [x, x_out, h, h_out] = [(); 4].map(|()| cursor.take(&[d, r], 4));
        // Attention, MLP and output follow one another, so they share what comes now.
        let shared = cursor.at;
        let qkv = cursor.take(&[3, d, r], 4);
        let [q_last, q, k] = [(); 3].map(|()| cursor.take(&[d, r], 4));
        let scores = cursor.take(&[s, r, if whole_scores { config.head_count } else { 0 }], 4);
        let [head_values, attention] = [(); 2].map(|()| cursor.take(&[d, r], 4));
        let mut mlp = Cursor { at: shared, overflow: cursor.overflow };
        let [up, temp] = [(); 2].map(|()| mlp.take(&[f, r], 4));
        let mut head = Cursor { at: shared, overflow: mlp.overflow };
        let logits = head.take(&[config.vocab_size, r], 4);
        if head.overflow {
            return Err(Error::invalid("the context would be larger than the address space"));
        }
        let len = cursor.at.max(mlp.at).max(head.at);
        Ok(Self {
            keys,
            values,
            tokens,
            positions,
            outputs,
            output_positions,
            x,
            x_out,
            h,
            h_out,
            qkv,
            q_last,
            q,
            k,
            scores,
            head_values,
            attention,
            up,
            temp,
            logits,
            cache_len,
            len,
        })
    }
}

/// Hands out regions one after the other.
struct Cursor {
    at: usize,
    overflow: bool,
}

impl Cursor {
    fn take(&mut self, dims: &[usize], element: usize) -> Region {
        // ggml indexes in signed 64-bit numbers; half of the address space is out of reach anyway.
        let end = dims
            .iter()
            .try_fold(element, |len, &dim| len.checked_mul(dim))
            .and_then(|len| Some((len, self.at.checked_add(len)?.checked_next_multiple_of(ALIGNMENT)?)))
            .filter(|&(_, end)| end < isize::MAX as usize);
        let offset = self.at;
        match end {
            Some((len, end)) => {
                self.at = end;
                Region { offset, len }
            }
            None => {
                self.overflow = true;
                Region::default()
            }
        }
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
        2 * config.block_count * config.embedding_length * kv.element_bytes() * self.count
    }
}
