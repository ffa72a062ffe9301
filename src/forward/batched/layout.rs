//! What lies where on the device.

use super::inputs::{INPUT_GROUP, most_padded};
use crate::error::{Error, Result};
use crate::forward::layout::{Capacity, KvType};
use crate::ggml::DrawRegions;
use crate::memory::Region;
use crate::model::Config;

const FLOAT: usize = size_of::<f32>();

/// Offsets of everything in the computing memory, as in [`super::graph`]; here values lie as keys do.
#[derive(Debug, Clone)]
pub(in crate::forward) struct BatchedLayout {
    /// Whether attention is one operation with keys and values in half precision. Otherwise scores are in memory, and
    /// products in single precision.
    pub(super) flash: bool,
    pub(super) keys: Vec<Region>,
    pub(super) values: Vec<Region>,
    pub(super) inputs: Region,
    pub(super) x: Region,
    pub(super) x_out: Region,
    pub(super) h: Region,
    pub(super) h_out: Region,
    pub(super) counted: Region,
    pub(super) uniforms: Region,
    pub(super) drawn: Region,
    pub(super) masks: [Region; 2],
    pub(super) hidden: Region,
    pub(super) others: Region,
    pub(super) qkv: Region,
    pub(super) q_last: Region,
    pub(super) q: Region,
    pub(super) k: Region,
    pub(super) gathered: Region,
    pub(super) scores: Region,
    pub(super) transposed: Region,
    pub(super) head_values: Region,
    pub(super) attended: Region,
    pub(super) attention: Region,
    pub(super) up: Region,
    pub(super) temp: Region,
    pub(super) logits: Region,
    pub(in crate::forward) cache_len: usize,
    pub(in crate::forward) len: usize,
}

impl BatchedLayout {
    /// # Errors
    /// [`Error::InvalidArgument`] if the sizes overflow.
    pub(in crate::forward) fn new(
        config: &Config,
        capacity: &Capacity,
        flash: bool,
        alignment: usize,
    ) -> Result<Self> {
        let (d, f) = (config.embedding_length, config.feed_forward_length);
        let Capacity { sequences, slots, rows: r, kv } = *capacity;
        let element = kv.tensor_type().block_bytes();
        let padded = most_padded(capacity);
        let mut end = 0usize;
        let mut overflow = false;
        let mut take = |end: &mut usize, dims: &[usize], element: usize| {
            let len = dims.iter().try_fold(element, |len, &dim| len.checked_mul(dim));
            let next = len
                .and_then(|len| end.checked_add(len)?.checked_next_multiple_of(alignment))
                .filter(|&next| next < isize::MAX as usize);
            let region = Region { offset: *end, len: len.unwrap_or(0) };
            match next {
                Some(next) => *end = next,
                None => overflow = true,
            }
            region
        };
        let keys =
            (0..config.block_count).map(|_| take(&mut end, &[d, slots * sequences + 1], element)).collect();
        let values =
            (0..config.block_count).map(|_| take(&mut end, &[d, slots * sequences + 1], element)).collect();
        let cache_len = end;
        let inputs = take(&mut end, &[7 * r + 8 * padded + 16 * INPUT_GROUP], 4);
        let counted = take(&mut end, &[slots], 4);
        let uniforms = take(&mut end, &[r], 8);
        let drawn = take(&mut end, &[r], 4);
        let apart = 2 * slots * padded + INPUT_GROUP * FLOAT * sequences.min(r);
        let masks = [(); 2].map(|()| take(&mut end, &[apart], 1));
        let [x, x_out, h, h_out] = [(); 4].map(|()| take(&mut end, &[d, r], 4));
        // Masks are made first; attention, MLP and output follow one another. So they share what comes now.
        let shared = end;
        let [hidden, others] = [(); 2].map(|()| take(&mut end, &[slots, padded], 4));
        let mut attention_end = shared;
        let a = &mut attention_end;
        let qkv = take(a, &[3, d, r], 4);
        let [q_last, q, k] = [(); 3].map(|()| take(a, &[d, r], 4));
        let gathered = take(a, &[d, padded], 4);
        let whole = usize::from(!flash);
        let scores = take(a, &[slots, padded, config.head_count, whole], 4);
        let transposed = take(a, &[slots, d, sequences.min(r), whole], element);
        let head_values = take(a, &[d, padded, whole], 4);
        let attended = take(a, &[d, padded], 4);
        let attention = take(a, &[d, r], 4);
        let mut mlp_end = shared;
        let [up, temp] = [(); 2].map(|()| take(&mut mlp_end, &[f, r], 4));
        let mut head_end = shared;
        let logits = take(&mut head_end, &[config.vocab_size, r], 4);
        if overflow {
            return Err(Error::invalid("the context would be larger than the address space"));
        }
        let len = end.max(attention_end).max(mlp_end).max(head_end);
        Ok(Self {
            flash,
            keys,
            values,
            inputs,
            x,
            x_out,
            h,
            h_out,
            counted,
            uniforms,
            drawn,
            masks,
            hidden,
            others,
            qkv,
            q_last,
            q,
            k,
            gathered,
            scores,
            transposed,
            head_values,
            attended,
            attention,
            up,
            temp,
            logits,
            cache_len,
            len,
        })
    }

    /// Where the logits of the last graph are, and room for drawing tokens from them.
    pub(in crate::forward) fn draw_regions(&self) -> DrawRegions {
        DrawRegions { logits: self.logits, uniforms: self.uniforms, tokens: self.drawn }
    }
}

/// Whether a device's attention in one operation is wanted: it takes keys and values in half precision.
pub(in crate::forward) fn wants_flash(capacity: &Capacity) -> bool {
    capacity.kv == KvType::F16
}
