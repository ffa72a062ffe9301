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
use super::tensors::{Block, NetworkTensors, NormTensors, Projection};
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
    let tensors = NetworkTensors::new(weights, &config.architecture)?;
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
        let h = b.norm(x, block.attn_norm)?;
        let [query_norm, key_norm] = block.qk_norms.map_or([None; 2], |norms| norms.map(Some));
        if index < last {
            let [q, k, v] = b.project(&block, h)?;
            let q = b.rotated(q, query_norm, positions, layout.q)?;
            let cache = b.store(index, (k, key_norm), v, positions, slots)?;
            let attention = b.attend(&cache, q, &all)?;
            x = b.rest(&block, x, attention, layout.x)?;
            continue;
        }
        let [k, v] = b.project_keys(&block, h)?;
        let cache = b.store(index, (k, key_norm), v, positions, slots)?;
        // Behind the last block's keys and values only the rows that want logits go on.
        let Some(out) = &out else { return Ok(None) };
        let rows = b.input(inputs.outputs, m)?;
        let positions = b.input(inputs.output_positions, m)?;
        let h = b.graph.get_rows(h, rows, layout.h_out)?; // [D, M]
        let q = b.project_queries(&block, h)?;
        let q = b.rotated(q, query_norm, positions, layout.q)?;
        let x_out = b.graph.get_rows(x, rows, layout.x_out)?; // [D, M]
        let attention = b.attend(&cache, q, out)?;
        x = b.rest(&block, x_out, attention, layout.x_out)?;
    }
    let NormTensors { weight, bias } = tensors.output_norm;
    let h = b.norm(x, NormTensors { weight: *weight, bias: bias.copied() })?; // [D, M]
    let logits = b.graph.mul_mat(*tensors.output, h, layout.logits)?; // [V, M]
    match tensors.output_bias {
        Some(bias) if !inputs.draws_there => b.graph.add(logits, *bias, layout.logits).map(Some),
        _ => Ok(Some(logits)),
    }
}

/// Some columns of rows of a product.
#[derive(Clone, Copy)]
struct Columns<'g> {
    of: Tensor<'g>,
    first: usize,
    width: usize,
}

impl<'g> Builder<'_, 'g> {
    /// `len` numbers of the input, as indices.
    fn input(&mut self, first: usize, len: usize) -> Result<Tensor<'g>> {
        self.graph.indices(len, self.part(first, len))
    }

    fn part(&self, first: usize, len: usize) -> Region {
        Region { offset: self.layout.inputs.offset + first * FLOAT, len: len * FLOAT }
    }

    /// LayerNorm(x) * weight + bias, or RMSNorm(x) * weight.
    fn norm(&mut self, x: Tensor<'g>, norm: NormTensors<Tensor<'g>>) -> Result<Tensor<'g>> {
        let (at, epsilon) = (self.layout.h, self.config.norm_epsilon);
        let h = match norm.bias {
            Some(_) => self.graph.norm(x, epsilon, at)?,
            None => self.graph.rms_norm(x, epsilon, at)?,
        };
        let h = self.graph.mul(h, norm.weight, at)?;
        norm.bias.map_or(Ok(h), |bias| self.graph.add(h, bias, at))
    }

    /// Queries, keys and values of rows `h` [D, R].
    fn project(&mut self, block: &Block<Tensor<'g>>, h: Tensor<'g>) -> Result<[Columns<'g>; 3]> {
        let (q, kv) = (self.config.query_length(), self.config.kv_length());
        match block.qkv {
            Projection::Fused(qkv) => {
                let of = self.graph.mul_mat(qkv, h, self.layout.qkv)?;
                Ok([(0, q), (q, kv), (q + kv, kv)].map(|(first, width)| Columns { of, first, width }))
            }
            Projection::Separate(_) => {
                let q = self.project_queries(block, h)?;
                let [k, v] = self.project_keys(block, h)?;
                Ok([q, k, v])
            }
        }
    }

    /// Keys and values of rows `h` [D, R].
    fn project_keys(&mut self, block: &Block<Tensor<'g>>, h: Tensor<'g>) -> Result<[Columns<'g>; 2]> {
        let (layout, q, kv) = (self.layout, self.config.query_length(), self.config.kv_length());
        match block.qkv {
            Projection::Fused(qkv) => {
                let (d, row) = (self.config.embedding_length, qkv.strides()[1]);
                let matrix = self.graph.rows(qkv, [d, 2 * kv], row, q * row)?;
                let of = self.graph.mul_mat(matrix, h, layout.qkv)?; // [2K, R]
                Ok([0, kv].map(|first| Columns { of, first, width: kv }))
            }
            Projection::Separate([_, k, v]) => {
                let [_, k_bias, v_bias] = block.qkv_biases.map_or([None; 3], |biases| biases.map(Some));
                Ok([
                    self.product_with_bias(k, h, k_bias, layout.qkv)?,
                    self.product_with_bias(v, h, v_bias, layout.v)?,
                ])
            }
        }
    }

    /// Queries of rows `h` [D, R].
    fn project_queries(&mut self, block: &Block<Tensor<'g>>, h: Tensor<'g>) -> Result<Columns<'g>> {
        let (d, q) = (self.config.embedding_length, self.config.query_length());
        let (matrix, bias) = match block.qkv {
            Projection::Fused(qkv) => (self.graph.rows(qkv, [d, q], qkv.strides()[1], 0)?, None),
            Projection::Separate([query, ..]) => (query, block.qkv_biases.map(|[bias, ..]| bias)),
        };
        self.product_with_bias(matrix, h, bias, self.layout.q_last)
    }

    fn product_with_bias(
        &mut self,
        matrix: Tensor<'g>,
        h: Tensor<'g>,
        bias: Option<Tensor<'g>>,
        at: Region,
    ) -> Result<Columns<'g>> {
        let of = self.graph.mul_mat(matrix, h, at)?;
        let of = bias.map_or(Ok(of), |bias| self.graph.add(of, bias, at))?;
        Ok(Columns { of, first: 0, width: matrix.dims()[1] })
    }

    /// What follows attention in a block: its output matrix, and the MLP of norm(x), each added to the residual stream `x`,
    /// which lies `at`.
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
        let hidden = match block.gate {
            Some(gate) => {
                let gate = self.graph.mul_mat(gate, h, layout.temp)?; // [F, R]
                let gate = self.graph.silu_inplace(gate)?;
                let up = self.graph.mul_mat(block.up, h, layout.up)?;
                self.graph.mul(up, gate, layout.up)?
            }
            None => {
                let up = self.graph.mul_mat(block.up, h, layout.up)?;
                let up = block.up_bias.map_or(Ok(up), |bias| self.graph.add(up, bias, layout.up))?;
                match layout.style.exact {
                    true => self.graph.gelu_inplace(up, layout.temp)?,
                    false => self.graph.fused_gelu_inplace(up)?,
                }
            }
        };
        let down = self.graph.mul_mat(block.down, hidden, layout.h)?; // [D, R]
        let down = block.down_bias.map_or(Ok(down), |bias| self.graph.add(down, bias, layout.h))?;
        self.graph.add(down, x, at)
    }

    /// The heads of some columns, rotated, after their norm if there is one: [width, R].
    fn rotated(
        &mut self,
        a: Columns<'g>,
        norm: Option<Tensor<'g>>,
        positions: Tensor<'g>,
        at: Region,
    ) -> Result<Tensor<'g>> {
        let Columns { of, first, width } = a;
        let dh = self.config.head_dim();
        let (rows, row) = (of.dims()[1], of.strides()[1]);
        let dims = [dh, width / dh, rows, 1];
        let mut a = self.graph.view(of, dims, [dh * FLOAT, row, rows * row], first * FLOAT)?;
        if let Some(weight) = norm {
            a = self.graph.rms_norm(a, self.config.norm_epsilon, at)?;
            a = self.graph.mul(a, weight, at)?;
        }
        let a = self.graph.rope(a, positions, self.config.rope_freq_base, at)?;
        self.graph.rows(a, [width, rows], width * FLOAT, 0)
    }
}
