//! The network as a ggml graph: one batch to its logits.

use super::batch::{Batch, Segment};
use super::layout::{CacheLayout, Capacity, Regions, SLOT_GROUP};
use super::tensors::{Block, NetworkTensors};
use crate::error::{Error, Result};
use crate::ggml::{Graph, Tensor};
use crate::memory::Region;
use crate::model::Config;

/// Most tensors that a graph over `segments` sequences has.
pub(super) fn most_tensors(config: &Config, segments: usize) -> usize {
    const OUTSIDE: usize = 16;
    const PER_BLOCK: usize = 32;
    const PER_SEGMENT: usize = 24;
    OUTSIDE + config.block_count * (PER_BLOCK + PER_SEGMENT * segments)
}

/// Where the graph's tensors lie in the arena. With D the width, F the MLP's, H heads, V the vocabulary, R rows, S
/// slots.
#[derive(Debug, Clone)]
pub(super) struct GraphLayout {
    /// Keys of each block [D, S, B]: one row per slot. Values [S, D, B]: transposed, so that attention's second product
    /// reads along slots.
    pub(super) cache: CacheLayout,
    /// Token ids, positions, rows whose logits are wanted, and their positions, [R] each.
    tokens: Region,
    positions: Region,
    outputs: Region,
    output_positions: Region,
    /// The residual stream [D, R], and its rows that want logits.
    x: Region,
    x_out: Region,
    /// A norm's output or a block's contribution [D, R], and its rows that want logits.
    h: Region,
    h_out: Region,
    /// Attention: q, k and v before rotation [3D, R]; q and k after it [D, R]; scores [S, R, H]; the weighted
    /// values [D, R] of one sequence and of all.
    qkv: Region,
    q_last: Region,
    q: Region,
    k: Region,
    scores: Region,
    head_values: Region,
    attention: Region,
    /// MLP: hidden layer and a temporary, [F, R] each. In the same memory as attention's.
    up: Region,
    temp: Region,
    /// Logits [V, R]. In the same memory as attention's.
    logits: Region,
    /// Bytes of all.
    pub(super) len: usize,
}

impl GraphLayout {
    /// # Errors
    /// [`Error::InvalidArgument`] if it is larger than the address space.
    pub(super) fn new(config: &Config, capacity: &Capacity) -> Result<Self> {
        const I32: usize = size_of::<i32>();
        const F32: usize = size_of::<f32>();
        let (d, f, r) = (config.embedding_length, config.feed_forward_length, capacity.rows);
        let mut regions = Regions::default();
        let cache = CacheLayout::new(config, capacity, &mut regions)?;
        let [tokens, positions, outputs, output_positions] = [(); 4].map(|()| regions.take(&[r], I32));
        let [x, x_out, h, h_out] = [(); 4].map(|()| regions.take(&[d, r], F32));
        // Attention, MLP and output follow one another, so they share the memory from here on.
        let start = regions.next();
        let qkv = regions.take(&[3, d, r], F32);
        let [q_last, q, k] = [(); 3].map(|()| regions.take(&[d, r], F32));
        let scores = regions.take(&[capacity.slots, r, config.head_count], F32);
        let [head_values, attention] = [(); 2].map(|()| regions.take(&[d, r], F32));
        regions.restart(start);
        let [up, temp] = [(); 2].map(|()| regions.take(&[f, r], F32));
        regions.restart(start);
        let logits = regions.take(&[config.vocab_size, r], F32);
        let len = regions.finish()?;
        Ok(Self {
            cache,
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
            len,
        })
    }
}

/// The cache of one block: keys [D, S, B] and values [S, D, B], for S slots of B sequences.
struct CacheTensors<'g> {
    keys: Tensor<'g>,
    values: Tensor<'g>,
}

/// Numbers of the rows that want logits, and their positions, [M] each.
struct OutputRows<'g> {
    rows: Tensor<'g>,
    positions: Tensor<'g>,
}

/// What all parts of the graph need.
struct Builder<'a, 'g> {
    graph: &'a mut Graph<'g>,
    config: &'a Config,
    capacity: &'a Capacity,
    layout: &'a GraphLayout,
    segments: &'a [Segment],
}

/// Builds the graph of `batch`. Returns the logits [V, M], or nothing if no row wants any. D is the width, F the
/// MLP's, H heads of Dh, V the vocabulary, R the rows of the batch, M of them with logits.
pub(super) fn build<'g>(
    graph: &mut Graph<'g>,
    weights: &[Tensor<'g>],
    config: &Config,
    capacity: &Capacity,
    layout: &GraphLayout,
    batch: &Batch,
) -> Result<Option<Tensor<'g>>> {
    let tensors = NetworkTensors::new(weights)?;
    if !batch.is_causal() {
        return Err(Error::internal("the graph has causal attention only"));
    }
    let tokens = graph.input_i32(&batch.tokens, layout.tokens)?;
    let positions = graph.input_i32(&batch.positions, layout.positions)?;
    let mut outputs = if batch.outputs.is_empty() {
        None
    } else {
        Some(OutputRows {
            rows: graph.input_i32(&batch.outputs, layout.outputs)?,
            positions: graph.input_i32(&batch.output_positions, layout.output_positions)?,
        })
    };
    let mut x = graph.get_rows(*tensors.embedding, tokens, layout.x)?; // [D, R]
    let mut b = Builder { graph, config, capacity, layout, segments: &batch.segments };
    let last = config.block_count - 1;
    for index in 0..config.block_count {
        let block = tensors.block(index, |&tensor| Ok(tensor))?;
        let attention = if index < last {
            Some(b.attention(index, &block, x, positions)?)
        } else {
            // The last block's queries and all that follows are computed for the rows that want logits only.
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
    let h = b.norm(x, &tensors.output_norm.map(|&tensor| tensor))?; // [D, M]
    let logits = b.graph.mul_mat(*tensors.output, h, layout.logits)?; // [V, M]
    b.graph.add_inplace(logits, *tensors.output_bias).map(Some)
}

impl<'g> Builder<'_, 'g> {
    /// LayerNorm(x) * weight + bias.
    fn norm(&mut self, x: Tensor<'g>, [weight, bias]: &[Tensor<'g>; 2]) -> Result<Tensor<'g>> {
        let h = self.graph.norm(x, self.config.layer_norm_epsilon, self.layout.h)?;
        let h = self.graph.mul_inplace(h, *weight)?;
        self.graph.add_inplace(h, *bias)
    }

    /// down(gelu(up(norm(x)))), [D, R].
    fn mlp(&mut self, block: &Block<Tensor<'g>>, x: Tensor<'g>) -> Result<Tensor<'g>> {
        let h = self.norm(x, &block.ffn_norm)?;
        let up = self.graph.mul_mat(block.ffn_up[0], h, self.layout.up)?; // [F, R]
        let up = self.graph.add_inplace(up, block.ffn_up[1])?;
        let up = self.graph.gelu_inplace(up, self.layout.temp)?;
        let down = self.graph.mul_mat(block.ffn_down[0], up, self.layout.h)?; // [D, R]
        self.graph.add_inplace(down, block.ffn_down[1])
    }

    /// Attention of every row, [D, R], before the output matrix.
    fn attention(
        &mut self,
        index: usize,
        block: &Block<Tensor<'g>>,
        x: Tensor<'g>,
        positions: Tensor<'g>,
    ) -> Result<Tensor<'g>> {
        let h = self.norm(x, &block.attn_norm)?;
        let qkv = self.graph.mul_mat(block.attn_qkv, h, self.layout.qkv)?; // [3D, R]
        let q = self.heads(qkv, 0)?;
        let q = self.graph.rope(q, positions, self.config.rope_freq_base, self.layout.q)?;
        let cache = self.store(index, qkv, 1, positions)?;
        let rows = x.dims()[1];
        self.attend(&cache, q, rows, |s| (s.first_row, s.rows))
    }

    /// As [`Builder::attention`] for the rows of `outputs` only: their residual stream [D, M] and attention [D, M].
    /// Keys and values are computed and stored for all rows. Nothing if there are no outputs.
    fn last_attention(
        &mut self,
        index: usize,
        block: &Block<Tensor<'g>>,
        x: Tensor<'g>,
        positions: Tensor<'g>,
        outputs: Option<OutputRows<'g>>,
    ) -> Result<Option<(Tensor<'g>, Tensor<'g>)>> {
        let d = self.config.embedding_length;
        let row = block.attn_qkv.strides()[1];
        let h = self.norm(x, &block.attn_norm)?;
        let kv_weight = self.graph.view(block.attn_qkv, [d, 2 * d, 1], [row, 2 * d * row], d * row)?;
        let kv = self.graph.mul_mat(kv_weight, h, self.layout.qkv)?; // [2D, R]
        let cache = self.store(index, kv, 0, positions)?;
        let Some(outputs) = outputs else { return Ok(None) };
        let q_weight = self.graph.view(block.attn_qkv, [d, d, 1], [row, d * row], 0)?;
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

    /// Rotates the keys, which are part `key_part` of each row of `a`, and stores them and the values, which are the
    /// next part, in the cache of block `index`. Returns that cache.
    fn store(
        &mut self,
        index: usize,
        a: Tensor<'g>,
        key_part: usize,
        positions: Tensor<'g>,
    ) -> Result<CacheTensors<'g>> {
        let Capacity { slots, sequences, kv, .. } = *self.capacity;
        let (d, float) = (self.config.embedding_length, size_of::<f32>());
        let ty = kv.tensor_type();
        let size = ty.block_bytes();
        let (Some(&key_region), Some(&value_region)) =
            (self.layout.cache.keys.get(index), self.layout.cache.values.get(index))
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
        Ok(CacheTensors { keys, values })
    }

    /// softmax(q k^T / sqrt(Dh)) v over the slots that each row attends to, [D, M]. `q` is [Dh, H, M]; `part` returns,
    /// called for one segment after the other, the first of its rows in `q` and their number. They are its last rows.
    fn attend(
        &mut self,
        &CacheTensors { keys, values }: &CacheTensors<'g>,
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
            let visible = (s.first_slot + s.rows).next_multiple_of(SLOT_GROUP);
            let q = self.graph.view(q, [dh, heads, n], [dh * float, d * float], first * d * float)?;
            let q = self.graph.swap_rows_and_planes(q)?; // [Dh, n, H]
            let k = self.graph.view(
                keys,
                [dh, visible, heads],
                [d * size, dh * size],
                s.sequence * slots * d * size,
            )?;
            let scores = self.graph.mul_mat(k, q, self.layout.scores)?; // [visible, n, H]
            let scores = self.graph.causal_mask_inplace(scores, s.first_slot + s.rows - n)?;
            let scores = self.graph.soft_max_inplace(scores, 1.0 / (dh as f32).sqrt())?;
            let strides = [slots * size, dh * slots * size];
            let v = self.graph.view(values, [visible, dh, heads], strides, s.sequence * d * slots * size)?;
            let out = self.graph.mul_mat(v, scores, self.layout.head_values)?; // [Dh, n, H]
            let out = self.graph.swap_rows_and_planes(out)?; // [Dh, H, n]
            let place = self.graph.view(all, [dh, heads, n], [dh * float, d * float], first * d * float)?;
            self.graph.copy(out, place)?;
        }
        self.graph.view(all, [d, rows, 1], [d * float; 2], 0)
    }
}
