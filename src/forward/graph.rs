//! The network as a ggml graph: one batch to its logits.

use super::batch::{Batch, Segment};
use super::layout::{Capacity, Layout, SLOT_GROUP};
use crate::error::{Error, Result};
use crate::ggml::{Graph, Tensor};
use crate::model::{BLOCK_TENSORS, Config};

/// Most tensors that a graph over `segments` sequences has.
pub(crate) fn most_tensors(config: &Config, segments: usize) -> usize {
    const OUTSIDE: usize = 16;
    const PER_BLOCK: usize = 32;
    const PER_SEGMENT: usize = 24;
    OUTSIDE + config.block_count * (PER_BLOCK + PER_SEGMENT * segments)
}

/// The weights of one block, in the order of [`BLOCK_TENSORS`].
struct Block<'g> {
    attn_norm: [Tensor<'g>; 2],
    qkv: Tensor<'g>,
    attn_output: Tensor<'g>,
    ffn_norm: [Tensor<'g>; 2],
    up: [Tensor<'g>; 2],
    down: [Tensor<'g>; 2],
}

/// The cache of one block: keys [D, S, B] and values [S, D, B], for S slots of B sequences.
struct Cache<'g> {
    keys: Tensor<'g>,
    values: Tensor<'g>,
}

/// The rows that want logits, [M] each.
struct OutputRows<'g> {
    rows: Tensor<'g>,
    positions: Tensor<'g>,
}

/// Everything that the parts of the graph need to know.
struct Builder<'a, 'g> {
    graph: &'a mut Graph<'g>,
    config: &'a Config,
    capacity: &'a Capacity,
    layout: &'a Layout,
    segments: &'a [Segment],
}

/// Builds the graph of `pass`. Returns the logits [V, outputs], or nothing if no row wants any. D is the
/// width, F the MLP's, H heads of Dh, V the vocabulary, R the rows of the pass, M of them with logits.
pub(crate) fn build<'g>(
    graph: &mut Graph<'g>,
    weights: &[Tensor<'g>],
    config: &Config,
    capacity: &Capacity,
    layout: &Layout,
    batch: &Batch,
) -> Result<Option<Tensor<'g>>> {
    let [embedding, blocks @ .., norm_weight, norm_bias, output, output_bias] = weights else {
        return Err(Error::internal("weights are missing"));
    };
    if !batch.is_causal() {
        return Err(Error::internal("the graph has causal attention only"));
    }
    let tokens = graph.input_i32(&batch.tokens, layout.tokens)?;
    let positions = graph.input_i32(&batch.positions, layout.positions)?;
    let mut outputs = match batch.outputs.is_empty() {
        true => None,
        false => Some(OutputRows {
            rows: graph.input_i32(&batch.outputs, layout.outputs)?,
            positions: graph.input_i32(&batch.output_positions, layout.output_positions)?,
        }),
    };
    let mut x = graph.get_rows(*embedding, tokens, layout.x)?; // [D, R]
    let mut b = Builder { graph, config, capacity, layout, segments: &batch.segments };
    let last = config.block_count - 1;
    for (index, weights) in blocks.chunks(BLOCK_TENSORS.len()).enumerate() {
        let &[an_w, an_b, qkv, attn_output, fn_w, fn_b, up_w, up_b, down_w, down_b] = weights else {
            return Err(Error::internal("a block's weights are missing"));
        };
        let block = Block {
            attn_norm: [an_w, an_b],
            qkv,
            attn_output,
            ffn_norm: [fn_w, fn_b],
            up: [up_w, up_b],
            down: [down_w, down_b],
        };
        let attention = if index < last {
            Some(b.attention(index, &block, x, positions)?)
        } else {
            // Behind the last block's keys and values only the rows that want logits go on.
            b.last_attention(index, &block, x, positions, outputs.take())?.map(|(rows, attention)| {
                x = rows; // [D, M] from here
                attention
            })
        };
        let Some(attention) = attention else { return Ok(None) };
        let contribution = b.graph.mul_mat(block.attn_output, attention, layout.h)?; // [D, R]
        x = b.graph.add_inplace(x, contribution)?;
        let contribution = b.mlp(&block, x)?;
        x = b.graph.add_inplace(x, contribution)?;
    }
    let h = b.norm(x, &[*norm_weight, *norm_bias])?; // [D, M]
    let logits = b.graph.mul_mat(*output, h, layout.logits)?; // [V, M]
    b.graph.add_inplace(logits, *output_bias).map(Some)
}

impl<'g> Builder<'_, 'g> {
    /// LayerNorm(x) * weight + bias.
    fn norm(&mut self, x: Tensor<'g>, [weight, bias]: &[Tensor<'g>; 2]) -> Result<Tensor<'g>> {
        let h = self.graph.norm(x, self.config.layer_norm_epsilon, self.layout.h)?;
        let h = self.graph.mul_inplace(h, *weight)?;
        self.graph.add_inplace(h, *bias)
    }

    /// down(gelu(up(norm(x)))), [D, R].
    fn mlp(&mut self, block: &Block<'g>, x: Tensor<'g>) -> Result<Tensor<'g>> {
        let h = self.norm(x, &block.ffn_norm)?;
        let up = self.graph.mul_mat(block.up[0], h, self.layout.up)?; // [F, R]
        let up = self.graph.add_inplace(up, block.up[1])?;
        let up = self.graph.gelu_inplace(up, self.layout.temp)?;
        let down = self.graph.mul_mat(block.down[0], up, self.layout.h)?; // [D, R]
        self.graph.add_inplace(down, block.down[1])
    }

    /// Attention of every row, [D, R], before the output matrix.
    fn attention(
        &mut self,
        index: usize,
        block: &Block<'g>,
        x: Tensor<'g>,
        positions: Tensor<'g>,
    ) -> Result<Tensor<'g>> {
        let h = self.norm(x, &block.attn_norm)?;
        let qkv = self.graph.mul_mat(block.qkv, h, self.layout.qkv)?; // [3D, R]
        let q = self.heads(qkv, 0)?;
        let q = self.graph.rope(q, positions, self.config.rope_freq_base, self.layout.q)?;
        let cache = self.store(index, qkv, 1, positions)?;
        let rows = x.dims()[1];
        self.attend(&cache, q, rows, |s| (s.first_row, s.rows))
    }

    /// As [`Builder::attention`] for the rows `outputs` alone: their residual stream [D, M] and attention
    /// [D, M]. Keys and values are made and stored for all rows. Nothing if there are no outputs.
    fn last_attention(
        &mut self,
        index: usize,
        block: &Block<'g>,
        x: Tensor<'g>,
        positions: Tensor<'g>,
        outputs: Option<OutputRows<'g>>,
    ) -> Result<Option<(Tensor<'g>, Tensor<'g>)>> {
        let d = self.config.embedding_length;
        let row = block.qkv.strides()[1];
        let h = self.norm(x, &block.attn_norm)?;
        let kv_weight = self.graph.view(block.qkv, [d, 2 * d, 1], [row, 2 * d * row], d * row)?;
        let kv = self.graph.mul_mat(kv_weight, h, self.layout.qkv)?; // [2D, R]
        let cache = self.store(index, kv, 0, positions)?;
        let Some(outputs) = outputs else { return Ok(None) };
        let q_weight = self.graph.view(block.qkv, [d, d, 1], [row, d * row], 0)?;
        let h = self.graph.get_rows(h, outputs.rows, self.layout.h_out)?; // [D, M]
        let q = self.graph.mul_mat(q_weight, h, self.layout.q_last)?;
        let q = self.heads(q, 0)?;
        let q = self.graph.rope(q, outputs.positions, self.config.rope_freq_base, self.layout.q)?;
        let x = self.graph.get_rows(x, outputs.rows, self.layout.x_out)?; // [D, M]
        let mut first = 0;
        let m = x.dims()[1];
        let attention = self.attend(&cache, q, m, |s| {
            first += s.outputs;
            (first - s.outputs, s.outputs)
        })?;
        Ok(Some((x, attention)))
    }

    /// Part `part` (of width D) of each row, split into heads: [Dh, H, R].
    fn heads(&mut self, a: Tensor<'g>, part: usize) -> Result<Tensor<'g>> {
        let (dh, heads, d) = (self.config.head_dim(), self.config.head_count, self.config.embedding_length);
        let float = size_of::<f32>();
        self.graph.view(a, [dh, heads, a.dims()[1]], [dh * float, a.strides()[1]], part * d * float)
    }

    /// Rotates the keys, which are part `key_part` of each row of `a`, and puts them and the values, the part
    /// after it, into block `index`'s cache, which is returned.
    fn store(
        &mut self,
        index: usize,
        a: Tensor<'g>,
        key_part: usize,
        positions: Tensor<'g>,
    ) -> Result<Cache<'g>> {
        let Capacity { slots, sequences, kv, .. } = *self.capacity;
        let (d, float) = (self.config.embedding_length, size_of::<f32>());
        let ty = kv.tensor_type();
        let size = ty.block_bytes();
        let (Some(&key_region), Some(&value_region)) =
            (self.layout.keys.get(index), self.layout.values.get(index))
        else {
            return Err(Error::internal("a block without a cache"));
        };
        let keys = self.graph.tensor(ty, [d, slots, sequences], key_region)?;
        let values = self.graph.tensor(ty, [slots, d, sequences], value_region)?;
        let k = self.heads(a, key_part)?;
        let k = self.graph.rope(k, positions, self.config.rope_freq_base, self.layout.k)?; // [Dh, H, R]
        for s in self.segments {
            let from = self.graph.view(k, [d, s.rows, 1], [d * float; 2], s.first_row * d * float)?;
            let offset = (s.sequence * slots + s.first_slot) * d * size;
            let to = self.graph.view(keys, [d, s.rows, 1], [d * size; 2], offset)?;
            self.graph.copy(from, to)?;
            let row = a.strides()[1];
            let offset = s.first_row * row + (key_part + 1) * d * float;
            let from = self.graph.view(a, [d, s.rows, 1], [row; 2], offset)?;
            let from = self.graph.transpose(from)?; // [rows, D]
            let offset = (s.sequence * d * slots + s.first_slot) * size;
            let to = self.graph.view(values, [s.rows, d, 1], [slots * size; 2], offset)?;
            self.graph.copy(from, to)?;
        }
        Ok(Cache { keys, values })
    }

    /// softmax(q k^T / sqrt(Dh)) v over what each row may see, [D, M]. `q` is [Dh, H, M]; `part` gives the
    /// first row and the number of rows in `q` of each segment in turn, which are the segment's last ones.
    fn attend(
        &mut self,
        &Cache { keys, values }: &Cache<'g>,
        q: Tensor<'g>,
        rows: usize,
        mut part: impl FnMut(&Segment) -> (usize, usize),
    ) -> Result<Tensor<'g>> {
        use crate::gguf::TensorType::F32;
        let Capacity { slots, kv, .. } = *self.capacity;
        let (d, dh, heads) = (self.config.embedding_length, self.config.head_dim(), self.config.head_count);
        let (size, float) = (kv.tensor_type().block_bytes(), size_of::<f32>());
        let all = self.graph.tensor(F32, [dh, heads, rows], self.layout.attention)?;
        for s in self.segments {
            let (first, n) = part(s);
            if n == 0 {
                continue;
            }
            let seen = (s.first_slot + s.rows).next_multiple_of(SLOT_GROUP);
            let q = self.graph.view(q, [dh, heads, n], [dh * float, d * float], first * d * float)?;
            let q = self.graph.swap_rows_and_planes(q)?; // [Dh, n, H]
            let k = self.graph.view(
                keys,
                [dh, seen, heads],
                [d * size, dh * size],
                s.sequence * slots * d * size,
            )?;
            let scores = self.graph.mul_mat(k, q, self.layout.scores)?; // [seen, n, H]
            let scores = self.graph.causal_mask_inplace(scores, s.first_slot + s.rows - n)?;
            let scores = self.graph.soft_max_inplace(scores, 1.0 / (dh as f32).sqrt())?;
            let strides = [slots * size, dh * slots * size];
            let v = self.graph.view(values, [seen, dh, heads], strides, s.sequence * d * slots * size)?;
            let out = self.graph.mul_mat(v, scores, self.layout.head_values)?; // [Dh, n, H]
            let out = self.graph.swap_rows_and_planes(out)?; // [Dh, H, n]
            let place = self.graph.view(all, [dh, heads, n], [dh * float, d * float], first * d * float)?;
            self.graph.copy(out, place)?;
        }
        self.graph.view(all, [d, rows, 1], [d * float; 2], 0)
    }
}
