//! The network as a ggml graph: one batch to its logits. What a row attends to is data, so one graph serves every variant.
//!
//! A device is slow at many small operations. So rows of neighbouring sequences are one operation: their queries are
//! gathered into a block of equally many rows for each sequence ([`rows`]), a mask made on the device says what each sees
//! ([`attention`]), and the results are scattered back. [`style`] says what differs between host memory and a device,
//! [`inputs`] what is copied there for a batch, [`layout`] where everything lies. [`GraphRunner`] builds and runs it.

mod attention;
mod cache_bytes;
mod inputs;
mod layout;
mod rows;
mod runner;
mod style;
#[cfg(test)]
mod tests;

use super::layout::Capacity;
use super::tensors::{Block, NetworkTensors};
use crate::error::Result;
use crate::ggml::{Graph, Tensor};
use crate::gguf::TensorType;
use crate::memory::Region;
use crate::model::Config;

pub(super) use inputs::{Inputs, graph_sizes, most_key};
pub(super) use layout::GraphLayout;
pub(super) use runner::GraphRunner;
pub(super) use style::Style;

const FLOAT: usize = size_of::<f32>();

/// What all parts of the graph need.
struct Builder<'a, 'g> {
    graph: &'a mut Graph<'g>,
    config: &'a Config,
    capacity: &'a Capacity,
    layout: &'a GraphLayout,
    inputs: &'a Inputs,
}

/// Builds the graph of the batch that `inputs` were filled from. Returns the logits [V, M], or nothing if no row wants any;
/// M may be more than the batch has outputs. Where the device draws, they lack the output's bias. D is the width, F the MLP's, V the vocabulary, R the rows of the graph.
pub(super) fn build<'g>(
    graph: &mut Graph<'g>,
    weights: &[Tensor<'g>],
    config: &Config,
    capacity: &Capacity,
    layout: &GraphLayout,
    inputs: &Inputs,
) -> Result<Option<Tensor<'g>>> {
    let tensors = NetworkTensors::new(weights)?;
    graph.set_exact(layout.style.exact);
    graph.input(inputs.numbers.len(), layout.inputs)?;
    let (r, m) = (inputs.rows, inputs.output_rows);
    let mut b = Builder { graph, config, capacity, layout, inputs };
    let tokens = b.input(inputs.tokens, r)?;
    let positions = b.input(inputs.positions, r)?;
    let slots = b.graph.long_indices(r, b.part(inputs.slots, 2 * r))?;
    let all = b.on_device(0)?;
    let out = if m > 0 { Some(b.on_device(1)?) } else { None };
    let mut x = b.graph.get_rows(*tensors.embedding, tokens, layout.x)?; // [D, R]
    let (d, last) = (config.embedding_length, config.block_count - 1);
    for index in 0..config.block_count {
        if layout.style.cuts(r) {
            b.graph.cut()?;
            x = b.graph.tensor(TensorType::F32, [d, r, 1], layout.x)?;
        }
        let block = tensors.block(index, |&tensor| Ok(tensor))?;
        let qkv = block.attn_qkv;
        let h = b.norm(x, block.attn_norm)?;
        if index < last {
            let a = b.graph.mul_mat(qkv, h, layout.qkv)?; // [3D, R]
            let q = b.rotated(a, 0, positions, layout.q)?;
            let cache = b.store(index, a, 1, positions, slots)?;
            let attention = b.attend(&cache, q, &all)?;
            x = b.rest(&block, x, attention, layout.x)?;
            continue;
        }
        let row = qkv.strides()[1];
        let kv_weight = b.graph.rows(qkv, [d, 2 * d], row, d * row)?;
        let a = b.graph.mul_mat(kv_weight, h, layout.qkv)?; // [2D, R]
        let cache = b.store(index, a, 0, positions, slots)?;
        // Behind the last block's keys and values only the rows that want logits go on.
        let Some(out) = &out else { return Ok(None) };
        let rows = b.input(inputs.outputs, m)?;
        let positions = b.input(inputs.output_positions, m)?;
        let q_weight = b.graph.rows(qkv, [d, d], row, 0)?;
        let h = b.graph.get_rows(h, rows, layout.h_out)?; // [D, M]
        let q = b.graph.mul_mat(q_weight, h, layout.q_last)?;
        let q = b.rotated(q, 0, positions, layout.q)?;
        let x_out = b.graph.get_rows(x, rows, layout.x_out)?; // [D, M]
        let attention = b.attend(&cache, q, out)?;
        x = b.rest(&block, x_out, attention, layout.x_out)?;
    }
    let h = b.norm(x, tensors.output_norm.map(|&tensor| tensor))?; // [D, M]
    let logits = b.graph.mul_mat(*tensors.output, h, layout.logits)?; // [V, M]
    if inputs.draws_there {
        return Ok(Some(logits));
    }
    b.graph.add(logits, *tensors.output_bias, layout.logits).map(Some)
}

impl<'g> Builder<'_, 'g> {
    /// `len` numbers of the input, as indices.
    fn input(&mut self, first: usize, len: usize) -> Result<Tensor<'g>> {
        self.graph.indices(len, self.part(first, len))
    }

    fn part(&self, first: usize, len: usize) -> Region {
        Region { offset: self.layout.inputs.offset + first * FLOAT, len: len * FLOAT }
    }

    /// LayerNorm(x) * weight + bias.
    fn norm(&mut self, x: Tensor<'g>, [weight, bias]: [Tensor<'g>; 2]) -> Result<Tensor<'g>> {
        let at = self.layout.h;
        let h = self.graph.norm(x, self.config.layer_norm_epsilon, at)?;
        let h = self.graph.mul(h, weight, at)?;
        self.graph.add(h, bias, at)
    }

    /// What follows attention in a block: its output matrix, and down(gelu(up(norm(x)))), each added to the residual
    /// stream `x`, which lies `at`.
    fn rest(
        &mut self,
        block: &Block<Tensor<'g>>,
        x: Tensor<'g>,
        attention: Tensor<'g>,
        at: Region,
    ) -> Result<Tensor<'g>> {
        let layout = self.layout;
        let contribution = self.graph.mul_mat(block.attn_output, attention, layout.h)?;
        let x = self.graph.add(contribution, x, at)?;
        let h = self.norm(x, block.ffn_norm)?;
        let up = self.graph.mul_mat(block.ffn_up[0], h, layout.up)?; // [F, R]
        let up = self.graph.add(up, block.ffn_up[1], layout.up)?;
        let up = match layout.style.exact {
            true => self.graph.gelu_inplace(up, layout.temp)?,
            false => self.graph.fused_gelu_inplace(up)?,
        };
        let down = self.graph.mul_mat(block.ffn_down[0], up, layout.h)?; // [D, R]
        let down = self.graph.add(down, block.ffn_down[1], layout.h)?;
        self.graph.add(down, x, at)
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
        let (rows, row) = (a.dims()[1], a.strides()[1]);
        let dims = [dh, heads, rows, 1];
        let a = self.graph.view(a, dims, [dh * FLOAT, row, rows * row], part * d * FLOAT)?;
        let a = self.graph.rope(a, positions, self.config.rope_freq_base, at)?;
        self.graph.rows(a, [d, rows], d * FLOAT, 0)
    }
}
