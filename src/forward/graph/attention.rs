//! Attention of a batch: what is seen, the cache, and the weighted values.

use super::inputs::INPUT_GROUP;
use super::rows::{AskingRows, Group};
use super::{Builder, Columns, FLOAT};
use crate::error::{Error, Result};
use crate::ggml::Tensor;
use crate::gguf::TensorType;
use crate::memory::{Region, with_room};

/// What attention of some queries needs on the device.
pub(super) struct OnDevice<'a, 'g> {
    queries: &'a AskingRows,
    gather: Option<(Tensor<'g>, Tensor<'g>)>,
    /// [seen, rows, 1, sequences] of each group.
    masks: Vec<Tensor<'g>>,
}

/// The cache of one block: keys and values, [K, slots * sequences + 1].
pub(super) struct Cache<'g> {
    keys: Tensor<'g>,
    values: Tensor<'g>,
}

impl<'a, 'g> Builder<'a, 'g> {
    /// Indices and masks of all rows (0) or those with logits (1).
    pub(super) fn on_device(&mut self, which: usize) -> Result<OnDevice<'a, 'g>> {
        let (inputs, layout) = (self.inputs, self.layout);
        let queries = if which == 0 { &inputs.all } else { &inputs.out };
        let (Some(&[gather, scatter, limits, own]), Some(&at)) =
            (inputs.queries.get(which), layout.masks.get(which))
        else {
            return Err(Error::internal("no such queries"));
        };
        let gather = match queries.plain {
            true => None,
            false => {
                let gather = self.input(gather, queries.padded)?;
                Some((gather, self.input(scatter, queries.scatter.len())?))
            }
        };
        let mut masks = with_room(queries.groups.len())?;
        let mut offset = at.offset;
        for group in &queries.groups {
            let (seen, rows) = (group.seen, group.padded());
            let slots = self.graph.count_up(seen, layout.counted)?;
            let limits = self.floats(limits + group.first, rows)?;
            let hidden = self.graph.repeat_rows(slots, rows, layout.hidden)?;
            let mut hidden = self.graph.above_inplace(hidden, limits)?;
            if queries.any_own {
                let own = self.floats(own + group.first, rows)?;
                let others = self.graph.repeat_rows(slots, rows, layout.others)?;
                let others = self.graph.differs_inplace(others, own)?;
                hidden = self.graph.mul(hidden, others, layout.hidden)?;
            }
            // Minus infinity in half precision, so that whole blocks can be skipped.
            let hidden = self.graph.scale_inplace(hidden, -1e38)?;
            let len = seen * rows * 2;
            let mask = self.graph.tensor(TensorType::F16, [seen, rows, 1], Region { offset, len })?;
            self.graph.copy(hidden, mask)?;
            offset += len.next_multiple_of(INPUT_GROUP * FLOAT);
            let n = group.rows;
            let dims = [seen, n, 1, group.sequences];
            masks.push(self.graph.view(mask, dims, [seen * 2, seen * n * 2, seen * n * 2], 0)?);
        }
        Ok(OnDevice { queries, gather, masks })
    }

    /// `len` numbers of the input, one for each row.
    fn floats(&mut self, first: usize, len: usize) -> Result<Tensor<'g>> {
        let at = self.part(first, len);
        self.graph.tensor(TensorType::F32, [1, len, 1], at)
    }

    /// Puts keys, after their norm if there is one, and values into block `index`'s cache.
    pub(super) fn store(
        &mut self,
        index: usize,
        (k, norm): (Columns<'g>, Option<Tensor<'g>>),
        v: Columns<'g>,
        positions: Tensor<'g>,
        slots: Tensor<'g>,
    ) -> Result<Cache<'g>> {
        let (layout, capacity, d) = (self.layout, self.capacity, self.config.kv_length());
        let (Some(&keys), Some(&values)) = (layout.cache.keys.get(index), layout.cache.values.get(index))
        else {
            return Err(Error::internal("a block without a cache"));
        };
        let (ty, count) = (capacity.kv.tensor_type(), capacity.slots * capacity.sequences + 1);
        let keys = self.graph.tensor(ty, [d, count, 1], keys)?;
        let values = self.graph.tensor(ty, [d, count, 1], values)?;
        // One behind the other, which a device can make one operation of.
        let k = self.rotated(k, norm, positions, layout.k)?;
        self.graph.set_rows(keys, k, slots)?;
        let v = self.graph.rows(v.of, [d, v.of.dims()[1]], v.of.strides()[1], v.first * FLOAT)?;
        self.graph.set_rows(values, v, slots)?;
        Ok(Cache { keys, values })
    }

    /// softmax(q k^T / sqrt(Dh)) v over what each row sees. `q` and the result are [Q, rows].
    pub(super) fn attend(
        &mut self,
        cache: &Cache<'g>,
        q: Tensor<'g>,
        on: &OnDevice<'_, 'g>,
    ) -> Result<Tensor<'g>> {
        let (layout, slots) = (self.layout, self.capacity.slots);
        let (d, dh, heads) = (self.config.query_length(), self.config.head_dim(), self.config.head_count);
        let (key, key_heads) = (self.config.kv_length(), self.config.kv_head_count());
        let size = self.capacity.kv.tensor_type().block_bytes();
        let scale = 1.0 / (dh as f32).sqrt();
        let q = match on.gather {
            Some((gather, _)) => self.graph.get_rows(q, gather, layout.gathered)?,
            None => q,
        };
        for (group, &mask) in on.queries.groups.iter().zip(&on.masks) {
            let &Group { sequence, sequences, rows, seen, first, .. } = group;
            let dims = [dh, heads, rows, sequences];
            let strides = [dh * FLOAT, d * FLOAT, rows * d * FLOAT];
            let q = self.graph.view(q, dims, strides, first * d * FLOAT)?;
            let q = self.graph.swap_rows_and_planes(q)?; // [Dh, n, H, B]
            let strides = [key * size, dh * size, slots * key * size];
            let dims = [dh, seen, key_heads, sequences];
            let k = self.graph.view(cache.keys, dims, strides, sequence * slots * key * size)?;
            let v = self.graph.view(cache.values, dims, strides, sequence * slots * key * size)?;
            // A device may want memory behind the result; the next group's comes later.
            let before = first * d * FLOAT;
            let len = layout.attended.len.saturating_sub(before);
            let at = Region { offset: layout.attended.offset + before, len };
            if layout.style.flash {
                let each = layout.style.rows_together(rows, sequences);
                for row in (0..rows).step_by(each) {
                    let skipped = row * d * FLOAT;
                    let strides = [d * FLOAT, dh * FLOAT, rows * d * FLOAT];
                    let q = self.graph.view(q, [dh, each, heads, sequences], strides, skipped)?;
                    let strides = [seen * 2, rows * seen * 2, rows * seen * 2];
                    let mask = self.graph.view(mask, [seen, each, 1, sequences], strides, row * seen * 2)?;
                    let at = Region { offset: at.offset + skipped, len: at.len.saturating_sub(skipped) };
                    self.graph.flash_attention([q, k, v, mask], scale, at)?; // [Dh, H, each, B]
                }
                continue;
            }
            // In one piece each: ggml's Vulkan backend computes with strided ones in half precision. The weighted values
            // are not there yet.
            let q = self.graph.contiguous(q, layout.head_values)?;
            let k = self.graph.contiguous(k, layout.whole_keys)?;
            let scores = self.graph.mul_mat(k, q, layout.scores)?; // [seen, n, H, B]
            let scores = self.graph.masked_soft_max_inplace(scores, mask, scale)?;
            let v = self.graph.transpose(v)?;
            let v = self.graph.contiguous(v, layout.transposed)?; // [seen, Dh, H, B]
            let out = self.graph.mul_mat(v, scores, layout.head_values)?; // [Dh, n, H, B]
            let out = self.graph.swap_rows_and_planes(out)?;
            self.graph.contiguous(out, at)?; // [Dh, H, n, B]
        }
        let all = self.graph.tensor(TensorType::F32, [d, on.queries.padded, 1], layout.attended)?;
        match on.gather {
            Some((_, scatter)) => self.graph.get_rows(all, scatter, layout.attention),
            None => Ok(all),
        }
    }
}
