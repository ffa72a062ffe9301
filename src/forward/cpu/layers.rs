//! The layers of the network: embedding, blocks, logits.

use crate::error::Result;
use crate::forward::cpu::attention::Queries;
use crate::forward::cpu::kernels::activations::{ActivationBlock, BLOCK, quantize_row};
use crate::forward::cpu::kernels::attention::CacheElement;
use crate::forward::cpu::kernels::matmul::{Activations, GROUP, matmul, prefetch_first};
use crate::forward::cpu::kernels::rowwise::{gelu, layer_norm, rope_row};
use crate::forward::cpu::kernels::weights::{ByteFormat, Matrix};
use crate::forward::cpu::layout::MAX_LOCAL_ROWS;
use crate::forward::cpu::network::{Network, Number, rows_per_task};
use crate::forward::cpu::threads::clock::Part;
use crate::forward::cpu::threads::shared::Shared;
use crate::forward::cpu::threads::team::Worker;
use crate::forward::tensors::Block;
use crate::simd::{F32x8, LANES};

// Shapes in comments: D the width, F the MLP's, V the vocabulary, R the rows of the batch, M of them with logits. The
// safety comments rely on what `Network` says about tasks and barriers.
impl<'a> Network<'a> {
    /// The whole network. The logits are in `logits` when all threads have returned.
    pub(super) fn run<T: CacheElement + Number>(&self, worker: &Worker<'_>) -> Result<()> {
        let (d, outputs) = (self.config.embedding_length, self.batch.outputs.len());
        let rows = self.batch.tokens.len();
        self.embed(worker)?;
        let last = self.config.block_count - 1;
        for number in 0..last {
            let block = self.block(number)?;
            let h = self.norm(worker, self.x, block.attn_norm, rows, block.attn_qkv)?;
            matmul(self.platform, worker, block.attn_qkv, h, |row, first, y| self.store_qkv(row, first, y));
            self.barrier(worker, Part::Products)?;
            self.attend::<T>(worker, number, Queries::All)?;
            self.feed_forward(worker, &block, self.x, rows)?;
        }
        // The last block's queries and all that follows are computed for the rows that want logits only.
        let block = self.block(last)?;
        let (q, kv) = (block.attn_qkv.part(0, d), block.attn_qkv.part(d, 2 * d));
        let h = self.norm(worker, self.x, block.attn_norm, rows, kv)?;
        matmul(self.platform, worker, kv, h, |row, first, y| self.store_qkv(row, d + first, y));
        self.barrier(worker, Part::Products)?;
        let h = self.gather(worker, h.floats, q)?;
        matmul(self.platform, worker, q, h, |row, first, y| self.store_qkv(row, first, y));
        self.barrier(worker, Part::Products)?;
        self.attend::<T>(worker, last, Queries::Outputs)?;
        if outputs == 0 {
            return Ok(());
        }
        self.feed_forward(worker, &block, self.x_out, outputs)?;
        self.output(worker, outputs)
    }

    /// x = the tokens' embeddings; and each row's rotation.
    fn embed(&self, worker: &Worker<'_>) -> Result<()> {
        let (d, dh) = (self.config.embedding_length, self.config.head_dim());
        let embedding = self.matrix(self.tensors.embedding)?;
        let rows = self.batch.tokens.len();
        for row in worker.ranges(rows, rows_per_task(rows)).flatten() {
            let (token, position) = (self.batch.tokens[row], self.batch.positions[row]);
            // SAFETY: the row is in this thread's task.
            let (x, rope) = unsafe {
                (self.x.write(row * d..(row + 1) * d), self.rope_table.write(row * dh..(row + 1) * dh))
            };
            embedding.dequantize(token as usize, 0, x.as_chunks_mut::<LANES>().0);
            rope_row(position as u32, self.config.rope_freq_base, rope);
        }
        self.barrier(worker, Part::Rest)
    }

    /// x += attn_output attention; x += down gelu(up norm(x)).
    fn feed_forward(
        &self,
        worker: &Worker<'_>,
        block: &Block<Matrix<'_>>,
        x: Shared<'a, f32>,
        rows: usize,
    ) -> Result<()> {
        let (d, f) = (self.config.embedding_length, self.config.feed_forward_length);
        // SAFETY: `matmul` hands each group of outputs to one thread.
        let group = |to: Shared<'a, f32>, at: usize| unsafe { to.write(at..at + GROUP) };
        let add = |to: Shared<'a, f32>, at: usize, y: F32x8| {
            let to = group(to, at).as_chunks_mut().0;
            to.iter_mut().for_each(|to| F32x8::load(to).add(y).store(to));
        };
        let attention = self.quantized(worker, self.attention, (rows, d), block.attn_output)?;
        matmul(self.platform, worker, block.attn_output, attention, |row, first, y| {
            add(x, row * d + first, F32x8::load(y));
        });
        self.barrier(worker, Part::Products)?;
        let [up, up_bias] = block.ffn_up;
        let h = self.norm(worker, x, block.ffn_norm, rows, up)?;
        matmul(self.platform, worker, up, h, |row, first, y| {
            let y = gelu(F32x8::load(y).add(up_bias.eight(first)));
            let to = group(self.up, row * f + first).as_chunks_mut().0;
            to.iter_mut().for_each(|to| y.store(to));
        });
        self.barrier(worker, Part::Products)?;
        let [down, down_bias] = block.ffn_down;
        let hidden = self.quantized(worker, self.up, (rows, f), down)?;
        matmul(self.platform, worker, down, hidden, |row, first, y| {
            add(x, row * d + first, F32x8::load(y).add(down_bias.eight(first)));
        });
        self.barrier(worker, Part::Products)
    }

    /// logits = output norm(x_out) + bias.
    fn output(&self, worker: &Worker<'_>, outputs: usize) -> Result<()> {
        let vocab = self.config.vocab_size;
        let (output, bias) = (self.matrix(self.tensors.output)?, self.matrix(self.tensors.output_bias)?);
        let [norm, norm_bias] = self.tensors.output_norm;
        let norm = [self.matrix(norm)?, self.matrix(norm_bias)?];
        let h = self.norm(worker, self.x_out, norm, outputs, output)?;
        matmul(self.platform, worker, output, h, |row, first, y| {
            let at = row * vocab + first;
            // SAFETY: `matmul` hands each group of outputs to one thread.
            let to = unsafe { self.logits.write(at..at + GROUP.min(vocab - first)) };
            for (i, (to, y)) in to.iter_mut().zip(y).enumerate() {
                *to = y + bias.value(first + i);
            }
        });
        self.barrier(worker, Part::Vocabulary)
    }

    /// Stores columns `first..` of a row of queries, keys and values. (A group never crosses from one to another, as
    /// their width is a multiple of it.)
    fn store_qkv(&self, row: usize, first: usize, y: &[f32; GROUP]) {
        let d = self.config.embedding_length;
        let (to, at) = if first < d { (self.q, row * d + first) } else { (self.kv, row * 2 * d + first - d) };
        // SAFETY: `matmul` hands each group of outputs to one thread.
        unsafe { to.write(at..at + y.len()) }.copy_from_slice(y);
    }

    /// norm(x) [D, rows], for the product with `next`.
    fn norm(
        &self,
        worker: &Worker<'_>,
        x: Shared<'_, f32>,
        [weight, bias]: [Matrix<'_>; 2],
        rows: usize,
        next: Matrix<'_>,
    ) -> Result<Activations<'a>> {
        let d = self.config.embedding_length;
        self.input(worker, (self.local_h, self.h), rows, next, |row, h| {
            // SAFETY: an earlier operation wrote `x`.
            let x = unsafe { x.read(row * d..(row + 1) * d) };
            layer_norm(x, weight, bias, self.config.layer_norm_epsilon, h);
        })
    }

    /// x_out = the rows of x that want logits. Returns these rows of `h`, for the product with `next`.
    fn gather(&self, worker: &Worker<'_>, h: &[f32], next: Matrix<'_>) -> Result<Activations<'a>> {
        let (d, outputs) = (self.config.embedding_length, self.batch.outputs.len());
        self.input(worker, (self.local_h_out, self.h_out), outputs, next, |row, to| {
            let from = self.batch.outputs[row] as usize;
            let from = from * d..(from + 1) * d;
            to.copy_from_slice(&h[from.clone()]);
            if outputs > MAX_LOCAL_ROWS || worker.index == 0 {
                // SAFETY: the row is in this thread's task, or all threads have all rows and the first one alone does
                // this. An earlier operation wrote `x`.
                unsafe { self.x_out.write(row * d..(row + 1) * d).copy_from_slice(self.x.read(from)) };
            }
        })
    }

    /// The input of the product with `next`: D columns of each row, as `make` computes them from the row's number.
    fn input(
        &self,
        worker: &Worker<'_>,
        (local, all): (Shared<'a, f32>, Shared<'a, f32>),
        rows: usize,
        next: Matrix<'_>,
        make: impl Fn(usize, &mut [f32]),
    ) -> Result<Activations<'a>> {
        let d = self.config.embedding_length;
        let h = local_or_shared(worker, rows, local, all);
        let blocks = local_or_shared(worker, rows, self.local_activations, self.activations);
        self.each_row(worker, rows, next, |row| {
            // SAFETY: the row is in this thread's task, or the memory is its own.
            let h = unsafe { h.write(row * d..(row + 1) * d) };
            make(row, h);
            quantize(h, row, blocks, next);
        })?;
        // SAFETY: `each_row` is done with them.
        Ok(unsafe { Activations { floats: h.read(0..rows * d), blocks: blocks.read(0..rows * (d / BLOCK)) } })
    }

    /// The rows of `x` [width, rows] as the input of the product with `next`.
    fn quantized(
        &self,
        worker: &Worker<'_>,
        x: Shared<'a, f32>,
        (rows, width): (usize, usize),
        next: Matrix<'_>,
    ) -> Result<Activations<'a>> {
        // SAFETY: an earlier operation wrote `x`.
        let floats = unsafe { x.read(0..rows * width) };
        let blocks = local_or_shared(worker, rows, self.local_activations, self.activations);
        if next.ty.is_quantized() {
            self.each_row(worker, rows, next, |row| {
                quantize(&floats[row * width..(row + 1) * width], row, blocks, next);
            })?;
        }
        // SAFETY: `each_row` is done with them.
        Ok(Activations { floats, blocks: unsafe { blocks.read(0..rows * (width / BLOCK)) } })
    }

    /// Calls `make` for each of `rows` rows, which `next` will be multiplied with. Few rows are made by every thread in
    /// memory of its own; of many, every thread makes some.
    fn each_row(
        &self,
        worker: &Worker<'_>,
        rows: usize,
        next: Matrix<'_>,
        make: impl FnMut(usize),
    ) -> Result<()> {
        prefetch_first(worker, next);
        if rows > MAX_LOCAL_ROWS {
            worker.ranges(rows, rows_per_task(rows)).flatten().for_each(make);
            return self.barrier(worker, Part::Rest);
        }
        (0..rows).for_each(make);
        self.lap(worker, Part::Rest);
        Ok(())
    }
}

/// Where a thread puts what it makes of `rows` rows: into its share of `local` if they are few, otherwise into `all`.
fn local_or_shared<'a, T>(
    worker: &Worker<'_>,
    rows: usize,
    local: Shared<'a, T>,
    all: Shared<'a, T>,
) -> Shared<'a, T> {
    if rows <= MAX_LOCAL_ROWS { local.share(worker.index, worker.threads()) } else { all }
}

/// Quantizes row number `row` if `next`, which it will be multiplied with, is quantized.
fn quantize(x: &[f32], row: usize, to: Shared<'_, ActivationBlock>, next: Matrix<'_>) {
    if next.ty.is_quantized() {
        let blocks = x.len() / BLOCK;
        // SAFETY: called by `each_row` for a row of this thread's task, or in memory of its own.
        let to = unsafe { to.write(row * blocks..(row + 1) * blocks) };
        quantize_row(x, ByteFormat::of(next.ty), to);
    }
}
