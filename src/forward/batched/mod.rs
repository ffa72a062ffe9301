//! The network as a graph for devices: attention of many sequences in one operation, with what a row sees as data.
//!
//! [`super::graph`] has operations for each sequence. A device is slow at many small operations, so here rows of
//! neighbouring sequences are one operation: their queries are gathered into a block of equally many rows for each
//! sequence, a mask made on the device says what each sees, and the results are scattered back. Masks are data, so this
//! graph serves every variant.

mod inputs;
mod layout;

use super::layout::Capacity;
use super::tensors::NetworkTensors;
use crate::error::{Error, Result};
use crate::ggml::{Graph, Tensor};
use crate::gguf::TensorType;
use crate::memory::Region;
use crate::model::Config;
use inputs::{AskingRows, Group, INPUT_GROUP};

pub(super) use inputs::Inputs;
pub(super) use layout::{BatchedLayout, wants_flash};

/// Most tensors that a graph over `segments` sequences has.
pub(super) fn most_tensors(config: &Config, segments: usize) -> usize {
    const OUTSIDE: usize = 48;
    const PER_BLOCK: usize = 48;
    const PER_SEGMENT: usize = 16;
    OUTSIDE + 2 * PER_SEGMENT * segments + config.block_count * (PER_BLOCK + PER_SEGMENT * segments)
}

/// What attention of some queries needs on the device.
struct OnDevice<'a, 'g> {
    queries: &'a AskingRows,
    gather: Option<(Tensor<'g>, Tensor<'g>)>,
    /// [seen, rows, 1, sequences] of each group.
    masks: Vec<Tensor<'g>>,
}

/// The cache of one block: keys and values, [D, slots * sequences].
struct Cache<'g> {
    keys: Tensor<'g>,
    values: Tensor<'g>,
}

struct Builder<'a, 'g> {
    graph: &'a mut Graph<'g>,
    config: &'a Config,
    capacity: &'a Capacity,
    layout: &'a BatchedLayout,
    inputs: &'a Inputs,
}

const FLOAT: usize = size_of::<f32>();

/// Builds the graph of the batch that `inputs` were filled from. Returns as [`super::graph::build`] does, with more rows
/// perhaps than the batch has outputs.
pub(super) fn build<'g>(
    graph: &mut Graph<'g>,
    weights: &[Tensor<'g>],
    config: &Config,
    capacity: &Capacity,
    layout: &BatchedLayout,
    inputs: &Inputs,
) -> Result<Option<Tensor<'g>>> {
    let tensors = NetworkTensors::new(weights)?;
    graph.set_exact(!layout.flash);
    graph.input_i32(&inputs.numbers, layout.inputs)?;
    let (r, m) = (inputs.rows, inputs.output_rows);
    let mut b = Builder { graph, config, capacity, layout, inputs };
    let tokens = b.input(inputs.tokens, r)?;
    let positions = b.input(inputs.positions, r)?;
    let slots = b.input(inputs.slots, r)?;
    let all = b.on_device(0)?;
    let out = if m > 0 { Some(b.on_device(1)?) } else { None };
    let mut x = b.graph.get_rows(*tensors.embedding, tokens, layout.x)?; // [D, R]
    let (d, last) = (config.embedding_length, config.block_count - 1);
    for index in 0..config.block_count {
        let block = tensors.block(index, |&tensor| Ok(tensor))?;
        let qkv = block.attn_qkv;
        let h = b.norm(x, block.attn_norm)?;
        let attention = if index < last {
            let a = b.graph.mul_mat(qkv, h, layout.qkv)?; // [3D, R]
            let q = b.rotated(a, 0, positions, layout.q)?;
            let cache = b.store(index, a, 1, positions, slots)?;
            b.attend(&cache, q, &all)?
        } else {
            let row = qkv.strides()[1];
            let kv_weight = b.graph.view(qkv, [d, 2 * d, 1], [row, 2 * d * row], d * row)?;
            let a = b.graph.mul_mat(kv_weight, h, layout.qkv)?; // [2D, R]
            let cache = b.store(index, a, 0, positions, slots)?;
            // Behind the last block's keys and values only the rows that want logits go on.
            let Some(out) = &out else { return Ok(None) };
            let rows = b.input(inputs.outputs, m)?;
            let positions = b.input(inputs.output_positions, m)?;
            let q_weight = b.graph.view(qkv, [d, d, 1], [row, d * row], 0)?;
            let h = b.graph.get_rows(h, rows, layout.h_out)?; // [D, M]
            let q = b.graph.mul_mat(q_weight, h, layout.q_last)?;
            let q = b.rotated(q, 0, positions, layout.q)?;
            x = b.graph.get_rows(x, rows, layout.x_out)?; // [D, M] from here
            b.attend(&cache, q, out)?
        };
        let contribution = b.graph.mul_mat(block.attn_output, attention, layout.h)?;
        x = b.graph.add_inplace(x, contribution)?;
        let h = b.norm(x, block.ffn_norm)?;
        let up = b.graph.mul_mat(block.ffn_up[0], h, layout.up)?; // [F, R]
        let up = b.graph.add_inplace(up, block.ffn_up[1])?;
        let up = if layout.flash {
            b.graph.fused_gelu_inplace(up)?
        } else {
            b.graph.gelu_inplace(up, layout.temp)?
        };
        let down = b.graph.mul_mat(block.ffn_down[0], up, layout.h)?; // [D, R]
        let down = b.graph.add_inplace(down, block.ffn_down[1])?;
        x = b.graph.add_inplace(x, down)?;
    }
    let h = b.norm(x, tensors.output_norm.map(|&tensor| tensor))?; // [D, M]
    let logits = b.graph.mul_mat(*tensors.output, h, layout.logits)?; // [V, M]
    b.graph.add_inplace(logits, *tensors.output_bias).map(Some)
}

impl<'a, 'g> Builder<'a, 'g> {
    /// `len` numbers of the input, as indices.
    fn input(&mut self, first: usize, len: usize) -> Result<Tensor<'g>> {
        self.graph.indices(len, self.part(first, len))
    }

    fn part(&self, first: usize, len: usize) -> Region {
        Region { offset: self.layout.inputs.offset + first * FLOAT, len: len * FLOAT }
    }

    /// LayerNorm(x) * weight + bias.
    fn norm(&mut self, x: Tensor<'g>, [weight, bias]: [Tensor<'g>; 2]) -> Result<Tensor<'g>> {
        let h = self.graph.norm(x, self.config.layer_norm_epsilon, self.layout.h)?;
        let h = self.graph.mul_inplace(h, weight)?;
        self.graph.add_inplace(h, bias)
    }

    /// Indices and masks of all rows (0) or those with logits (1).
    fn on_device(&mut self, which: usize) -> Result<OnDevice<'a, 'g>> {
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
        let mut masks = Vec::with_capacity(queries.groups.len());
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
                hidden = self.graph.mul_inplace(hidden, others)?;
            }
            // Minus infinity in half precision, so that whole blocks can be skipped.
            let hidden = self.graph.scale_inplace(hidden, -1e38)?;
            let len = seen * rows * 2;
            let mask = self.graph.tensor(TensorType::F16, [seen, rows, 1], Region { offset, len })?;
            self.graph.copy(hidden, mask)?;
            offset += len.next_multiple_of(INPUT_GROUP * FLOAT);
            let n = group.rows;
            let dims = [seen, n, 1, group.sequences];
            masks.push(self.graph.view_4d(mask, dims, [seen * 2, seen * n * 2, seen * n * 2], 0)?);
        }
        Ok(OnDevice { queries, gather, masks })
    }

    /// `len` numbers of the input, one for each row.
    fn floats(&mut self, first: usize, len: usize) -> Result<Tensor<'g>> {
        let at = self.part(first, len);
        self.graph.tensor(TensorType::F32, [1, len, 1], at)
    }

    /// Part `part` (of width D) of each row of `a`, rotated: [D, R].
    fn rotated(
        &mut self,
        a: Tensor<'g>,
        part: usize,
        positions: Tensor<'g>,
        at: Region,
    ) -> Result<Tensor<'g>> {
        let (dh, heads, d) = (self.config.head_dim(), self.config.head_count, self.config.embedding_length);
        let rows = a.dims()[1];
        let a = self.graph.view(a, [dh, heads, rows], [dh * FLOAT, a.strides()[1]], part * d * FLOAT)?;
        let a = self.graph.rope(a, positions, self.config.rope_freq_base, at)?;
        self.graph.view(a, [d, rows, 1], [d * FLOAT; 2], 0)
    }

    /// Puts keys, part `part` of the rows of `a`, and values, the part after it, into block `index`'s cache.
    fn store(
        &mut self,
        index: usize,
        a: Tensor<'g>,
        part: usize,
        positions: Tensor<'g>,
        slots: Tensor<'g>,
    ) -> Result<Cache<'g>> {
        let (layout, capacity, d) = (self.layout, self.capacity, self.config.embedding_length);
        let (Some(&keys), Some(&values)) = (layout.keys.get(index), layout.values.get(index)) else {
            return Err(Error::internal("a block without a cache"));
        };
        let (ty, count) = (capacity.kv.tensor_type(), capacity.slots * capacity.sequences + 1);
        let keys = self.graph.tensor(ty, [d, count, 1], keys)?;
        let values = self.graph.tensor(ty, [d, count, 1], values)?;
        let k = self.rotated(a, part, positions, layout.k)?;
        self.graph.set_rows(keys, k, slots)?;
        let row = a.strides()[1];
        let v = self.graph.view(a, [d, a.dims()[1], 1], [row; 2], (part + 1) * d * FLOAT)?;
        self.graph.set_rows(values, v, slots)?;
        Ok(Cache { keys, values })
    }

    /// softmax(q k^T / sqrt(Dh)) v over what each row sees. `q` and the result are [D, rows].
    fn attend(&mut self, cache: &Cache<'g>, q: Tensor<'g>, on: &OnDevice<'_, 'g>) -> Result<Tensor<'g>> {
        let (layout, slots) = (self.layout, self.capacity.slots);
        let (d, dh, heads) = (self.config.embedding_length, self.config.head_dim(), self.config.head_count);
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
            let q = self.graph.view_4d(q, dims, strides, first * d * FLOAT)?;
            let q = self.graph.swap_rows_and_planes(q)?; // [Dh, n, H, B]
            let strides = [d * size, dh * size, slots * d * size];
            let dims = [dh, seen, heads, sequences];
            let k = self.graph.view_4d(cache.keys, dims, strides, sequence * slots * d * size)?;
            let v = self.graph.view_4d(cache.values, dims, strides, sequence * slots * d * size)?;
            // A device may want memory behind the result; the next group's comes later.
            let before = first * d * FLOAT;
            let len = layout.attended.len.saturating_sub(before);
            let at = Region { offset: layout.attended.offset + before, len };
            if layout.flash {
                self.graph.flash_attention([q, k, v, mask], scale, at)?; // [Dh, H, n, B]
                continue;
            }
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
