//! What lies where in the computing memory.

use super::inputs::{INPUT_GROUP, most_numbers};
use super::style::Style;
use crate::error::Result;
use crate::forward::layout::{CacheLayout, Capacity, Regions};
use crate::ggml::DrawRegions;
use crate::memory::Region;
use crate::model::Config;

const FLOAT: usize = size_of::<f32>();

/// Offsets of everything in the computing memory. With D the width, F the MLP's, Q that of queries, K that of keys, H heads of
/// queries of Dh, V the vocabulary, R rows, P gathered rows, S slots, B sequences.
#[derive(Debug, Clone)]
pub(in crate::forward) struct GraphLayout {
    pub(super) style: Style,
    /// Keys and values of each block [K, S * B + 1]: one row per slot, and one for rows that nobody reads.
    pub(in crate::forward) cache: CacheLayout,
    pub(super) inputs: Region,
    /// Tokens that were drawn, [R].
    drawn: Region,
    /// For each sequence a bit for each token that must not be drawn.
    banned: Region,
    /// The numbers of slots [S], and what rows see [S, P].
    pub(super) counted: Region,
    pub(super) masks: [Region; 2],
    /// The residual stream [D, R], and its rows that want logits.
    pub(super) x: Region,
    pub(super) x_out: Region,
    /// A norm's output or a block's contribution [D, R], and its rows that want logits.
    pub(super) h: Region,
    pub(super) h_out: Region,
    /// While a mask is made, [S, P] each.
    pub(super) hidden: Region,
    pub(super) others: Region,
    /// Attention: q, k and v before rotation [Q + 2K, R], or k alone, v [K, R] and q [Q, R]; q and k after it; gathered queries
    /// [Q, P]. Where attention is not one operation: keys in one piece and transposed values [S, K, B], scores [S, P, H],
    /// weighted values [Q, P].
    pub(super) qkv: Region,
    pub(super) v: Region,
    pub(super) q_last: Region,
    pub(super) q: Region,
    pub(super) k: Region,
    pub(super) gathered: Region,
    pub(super) whole_keys: Region,
    pub(super) transposed: Region,
    pub(super) scores: Region,
    pub(super) head_values: Region,
    /// The weighted values of gathered rows [Q, P], and of all [Q, R].
    pub(super) attended: Region,
    pub(super) attention: Region,
    /// MLP: hidden layer and a temporary, [F, R] each.
    pub(super) up: Region,
    pub(super) temp: Region,
    /// Logits [V, R].
    pub(super) logits: Region,
    /// Bytes of all.
    pub(in crate::forward) len: usize,
}

impl GraphLayout {
    /// The layout for a device whose tensors are aligned to `alignment` bytes.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if it is larger than the address space;
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub(in crate::forward) fn new(
        config: &Config,
        capacity: &Capacity,
        style: Style,
        alignment: usize,
    ) -> Result<Self> {
        let (d, f) = (config.embedding_length, config.feed_forward_length);
        let Capacity { sequences, slots, rows: r, kv } = *capacity;
        let together = sequences.min(r);
        let padded = style.most_padded(r, sequences);
        let mut regions = Regions::aligned_to(alignment);
        let cache = CacheLayout::with_spare_slot(config, capacity, &mut regions)?;
        let inputs = regions.take(&[most_numbers(capacity, style)], FLOAT);
        let drawn = regions.take(&[r], FLOAT);
        let banned = regions.take(&[config.vocab_size.div_ceil(32), sequences], FLOAT);
        let counted = regions.take(&[slots], FLOAT);
        // Half precision; each group's begins at a whole group of numbers.
        let mask_bytes = 2 * slots * padded + INPUT_GROUP * FLOAT * together;
        let masks = [(); 2].map(|()| regions.take(&[mask_bytes], 1));
        let [x, x_out, h, h_out] = [(); 4].map(|()| regions.take(&[d, r], FLOAT));
        // Masks are made first; attention, MLP and output follow one another. So they share what comes now.
        let shared = regions.next();
        let [hidden, others] = [(); 2].map(|()| regions.take(&[slots, padded], FLOAT));
        regions.restart(shared);
        let (query, key) = (config.query_length(), config.kv_length());
        // Separate queries take the place of the last block's.
        let fused = if config.architecture.fused_qkv { query + 2 * key } else { key };
        let qkv = regions.take(&[fused, r], FLOAT);
        let v = regions.take(&[usize::from(!config.architecture.fused_qkv), key, r], FLOAT);
        let [q_last, q] = [(); 2].map(|()| regions.take(&[query, r], FLOAT));
        let k = regions.take(&[key, r], FLOAT);
        let gathered = regions.take(&[query, padded], FLOAT);
        let apart = usize::from(!style.flash);
        let copies = [(); 2].map(|()| regions.take(&[slots, key, together, apart], kv.bytes(1)));
        let [whole_keys, transposed] = copies;
        let scores = regions.take(&[slots, padded, config.head_count, apart], FLOAT);
        let head_values = regions.take(&[query, padded, apart], FLOAT);
        let attended = regions.take(&[query, padded], FLOAT);
        let attention = regions.take(&[query, r], FLOAT);
        regions.restart(shared);
        let [up, temp] = [(); 2].map(|()| regions.take(&[f, r], FLOAT));
        regions.restart(shared);
        let logits = regions.take(&[config.vocab_size, r], FLOAT);
        let len = regions.finish()?;
        Ok(Self {
            style,
            cache,
            inputs,
            drawn,
            banned,
            counted,
            masks,
            x,
            x_out,
            h,
            h_out,
            hidden,
            others,
            qkv,
            v,
            q_last,
            q,
            k,
            gathered,
            whole_keys,
            transposed,
            scores,
            head_values,
            attended,
            attention,
            up,
            temp,
            logits,
            len,
        })
    }

    /// Where drawing tokens finds what it needs, if the numbers about it begin at `draws` of the input.
    pub(super) fn draw_regions(&self, draws: usize) -> DrawRegions {
        let Region { offset, len } = self.inputs;
        let skipped = (draws * FLOAT).min(len);
        let rows = Region { offset: offset + skipped, len: len - skipped };
        DrawRegions { logits: self.logits, rows, banned: self.banned, tokens: self.drawn }
    }
}
