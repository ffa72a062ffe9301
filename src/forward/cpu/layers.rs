//! One pass over some rows of some sequences.

use crate::forward::Batch;
use crate::forward::cpu::kernels::activations::{BLOCK, Rounded, round_row};
use crate::forward::cpu::kernels::attention::Element;
use crate::forward::cpu::kernels::isa::Machine;
use crate::forward::cpu::kernels::matmul::{GROUP, Rows, matmul, prepare};
use crate::forward::cpu::kernels::panel::Kind;
use crate::forward::cpu::kernels::rowwise::{angles, gelu, layer_norm};
use crate::forward::cpu::kernels::weights::Matrix;
use crate::forward::cpu::threads::clock::{Clock, Part};
use crate::forward::cpu::threads::pool::Worker;
use crate::forward::cpu::threads::shared::Shared;
use crate::forward::layout::{Capacity, Layout};
use crate::ggml::Weights;
use crate::memory::Arena;
use crate::model::{BLOCK_TENSORS, Config};
use crate::simd::{F32x8, LANES};

/// What every thread sees of a pass. With D the width, F the MLP's, Dh a head's, V the vocabulary, R the rows of the
/// pass, M of them with logits; rows follow each other.
pub(super) struct Network<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) weights: &'a Weights,
    pub(super) config: &'a Config,
    pub(super) capacity: &'a Capacity,
    pub(super) batch: &'a Batch,
    pub(super) layout: &'a Layout,
    pub(super) arena: &'a Arena,
    /// Rotations of each row [Dh, R].
    pub(super) angles: Shared<'a, f32>,
    /// The residual stream [D, R], and of the rows with logits [D, M].
    pub(super) x: Shared<'a, f32>,
    pub(super) x_out: Shared<'a, f32>,
    /// Its norm, likewise.
    pub(super) h: Shared<'a, f32>,
    pub(super) h_out: Shared<'a, f32>,
    /// Queries [D, R]; keys and values [2D, R].
    pub(super) q: Shared<'a, f32>,
    pub(super) kv: Shared<'a, f32>,
    pub(super) attention: Shared<'a, f32>,
    pub(super) up: Shared<'a, f32>,
    pub(super) logits: Shared<'a, f32>,
    /// Attention scores of each thread.
    pub(super) scores: Shared<'a, f32>,
    /// The rows that the next matrix is multiplied with, rounded.
    pub(super) rounded: Shared<'a, Rounded>,
    /// The same for up to [`ALONE`] rows, for each thread its own: h, h_out and rounded rows.
    pub(super) own: [Shared<'a, f32>; 2],
    pub(super) own_rounded: Shared<'a, Rounded>,
    /// The instructions for products and attention.
    pub(super) machine: Machine,
    pub(super) clock: &'a Clock,
}

/// A block's weights, in the order of [`BLOCK_TENSORS`].
#[derive(Clone, Copy)]
struct Block<'a> {
    attn_norm: [Matrix<'a>; 2],
    qkv: Matrix<'a>,
    attn_output: Matrix<'a>,
    ffn_norm: [Matrix<'a>; 2],
    up: [Matrix<'a>; 2],
    down: [Matrix<'a>; 2],
}

/// Up to so many rows, each thread makes for itself whatever a product or a head takes: sooner done than waited for.
pub(super) const ALONE: usize = 4;

/// Rows of one piece of work where each row is little: a piece for every thread even of two rows, and few pieces of many.
pub(super) fn few(rows: usize) -> usize {
    rows.div_ceil(16).max(1)
}

// SAFETY of all borrows below: an operation reads what earlier operations wrote and writes each number in one
// thread only, since pieces go to one thread each; a gate (`wait`) lies between an operation and the next. (But not
// where a thread reads what it wrote into memory of its own.)
impl<'a> Network<'a> {
    fn matrix(&self, index: usize) -> Option<Matrix<'a>> {
        Matrix::new(self.bytes, self.weights.tensors().get(index)?)
    }

    fn block(&self, number: usize) -> Option<Block<'a>> {
        let first = 1 + number * BLOCK_TENSORS.len();
        let m = |i: usize| self.matrix(first + i);
        Some(Block {
            attn_norm: [m(0)?, m(1)?],
            qkv: m(2)?,
            attn_output: m(3)?,
            ffn_norm: [m(4)?, m(5)?],
            up: [m(6)?, m(7)?],
            down: [m(8)?, m(9)?],
        })
    }

    /// Waits until every thread is through with an operation, which counts as `part`. `None` if the pass is to be left.
    pub(super) fn done(&self, worker: &Worker<'_>, part: Part) -> Option<()> {
        worker.wait()?;
        self.lap(worker, part);
        Some(())
    }

    /// What has been done since the last lap counts as `part`.
    pub(super) fn lap(&self, worker: &Worker<'_>, part: Part) {
        if worker.index == 0 {
            self.clock.lap(part);
        }
    }

    pub(super) fn run<T: Element>(&self, worker: &Worker<'_>) -> Option<()> {
        let (d, outputs) = (self.config.embedding_length, self.batch.outputs.len());
        let rows = self.batch.tokens.len();
        self.embed(worker)?;
        let last = self.config.block_count - 1;
        for number in 0..last {
            let block = self.block(number)?;
            let h = self.norm(worker, self.x, block.attn_norm, rows, block.qkv)?;
            matmul(self.machine, worker, block.qkv, h, |row, first, y| self.store_qkv(row, first, y));
            self.done(worker, Part::Products)?;
            self.attend::<T>(worker, number, rows, |row| row, |s| s.rows)?;
            self.feed_forward(worker, &block, self.x, rows)?;
        }
        // Behind the last block's keys and values only the rows that want logits go on.
        let block = self.block(last)?;
        let (q, kv) = (block.qkv.part(0, d), block.qkv.part(d, 2 * d));
        let h = self.norm(worker, self.x, block.attn_norm, rows, kv)?;
        matmul(self.machine, worker, kv, h, |row, first, y| self.store_qkv(row, d + first, y));
        self.done(worker, Part::Products)?;
        let h = self.gather(worker, h.exact, q)?;
        matmul(self.machine, worker, q, h, |row, first, y| self.store_qkv(row, first, y));
        self.done(worker, Part::Products)?;
        let place = |row: usize| self.batch.outputs.get(row).map_or(0, |&r| r as usize);
        self.attend::<T>(worker, last, outputs, place, |s| s.outputs)?;
        if outputs == 0 {
            return Some(());
        }
        self.feed_forward(worker, &block, self.x_out, outputs)?;
        let end = 1 + self.config.block_count * BLOCK_TENSORS.len();
        let (output, bias, vocab) = (self.matrix(end + 2)?, self.matrix(end + 3)?, self.config.vocab_size);
        let h = self.norm(worker, self.x_out, [self.matrix(end)?, self.matrix(end + 1)?], outputs, output)?;
        matmul(self.machine, worker, output, h, |row, first, y| {
            let at = row * vocab + first;
            // SAFETY: see above.
            let to = unsafe { self.logits.write(at..at + GROUP.min(vocab - first)) };
            for (i, (to, y)) in to.iter_mut().zip(y).enumerate() {
                *to = y + bias.value(first + i);
            }
        });
        self.done(worker, Part::Vocabulary)
    }

    /// Where a thread puts what it makes of `rows` rows: into its own memory if they are few.
    fn room<T>(
        &self,
        worker: &Worker<'_>,
        rows: usize,
        own: Shared<'a, T>,
        all: Shared<'a, T>,
    ) -> Shared<'a, T> {
        if rows <= ALONE { own.share(worker.index, worker.threads()) } else { all }
    }

    /// Has `make` called for each of `rows` rows that `next` will be multiplied with: by every thread for all of them if
    /// they are few, otherwise for its share.
    fn each_row(
        &self,
        worker: &Worker<'_>,
        rows: usize,
        next: Matrix<'_>,
        make: impl FnMut(usize) -> Option<()>,
    ) -> Option<()> {
        prepare(worker, next);
        if rows > ALONE {
            worker.ranges(rows, few(rows)).flatten().try_for_each(make)?;
            return self.done(worker, Part::Rest);
        }
        (0..rows).try_for_each(make)?;
        self.lap(worker, Part::Rest);
        Some(())
    }

    /// Rounds a row of `x` if `next`, which it will be multiplied with, asks for that.
    fn round_row(&self, x: &[f32], row: usize, rounded: Shared<'a, Rounded>, next: Matrix<'_>) {
        if next.ty.is_quantized() {
            let blocks = x.len() / BLOCK;
            // SAFETY: see above.
            round_row(x, Kind::of(next.ty), unsafe { rounded.write(row * blocks..(row + 1) * blocks) });
        }
    }

    /// Rows of `x` for the product with `next`.
    fn round(
        &self,
        worker: &Worker<'_>,
        x: Shared<'a, f32>,
        (rows, width): (usize, usize),
        next: Matrix<'_>,
    ) -> Option<Rows<'a>> {
        // SAFETY: see above.
        let exact = unsafe { x.read(0..rows * width) };
        let rounded = self.room(worker, rows, self.own_rounded, self.rounded);
        if next.ty.is_quantized() {
            self.each_row(worker, rows, next, |row| {
                self.round_row(&exact[row * width..(row + 1) * width], row, rounded, next);
                Some(())
            })?;
        }
        // SAFETY: see above.
        Some(Rows { exact, rounded: unsafe { rounded.read(0..rows * (width / BLOCK)) } })
    }

    /// x = the tokens' embeddings, and each row's rotation.
    fn embed(&self, worker: &Worker<'_>) -> Option<()> {
        let (d, dh) = (self.config.embedding_length, self.config.head_dim());
        let embedding = self.matrix(0)?;
        for row in worker.ranges(self.batch.tokens.len(), few(self.batch.tokens.len())).flatten() {
            let (&token, &position) = (self.batch.tokens.get(row)?, self.batch.positions.get(row)?);
            // SAFETY: see above.
            let (x, turn) = unsafe {
                (self.x.write(row * d..(row + 1) * d), self.angles.write(row * dh..(row + 1) * dh))
            };
            embedding.unpack(token as usize, 0, x.as_chunks_mut::<LANES>().0);
            angles(position as u32, self.config.rope_freq_base, turn);
        }
        self.done(worker, Part::Rest)
    }

    /// norm(x), for the product with `next`.
    fn norm(
        &self,
        worker: &Worker<'_>,
        x: Shared<'_, f32>,
        [weight, bias]: [Matrix<'_>; 2],
        rows: usize,
        next: Matrix<'_>,
    ) -> Option<Rows<'a>> {
        let d = self.config.embedding_length;
        self.make(worker, self.own[0], self.h, rows, next, |row, h| {
            // SAFETY: see above.
            let x = unsafe { x.read(row * d..(row + 1) * d) };
            layer_norm(x, weight, bias, self.config.layer_norm_epsilon, h);
            Some(())
        })
    }

    /// x_out = the rows of x that want logits. Returns those of `h`, for the product with `next`.
    fn gather(&self, worker: &Worker<'_>, h: &[f32], next: Matrix<'_>) -> Option<Rows<'a>> {
        let (d, outputs) = (self.config.embedding_length, self.batch.outputs.len());
        self.make(worker, self.own[1], self.h_out, outputs, next, |row, to| {
            let from = *self.batch.outputs.get(row)? as usize;
            let from = from * d..(from + 1) * d;
            to.copy_from_slice(&h[from.clone()]);
            if outputs > ALONE || worker.index == 0 {
                // SAFETY: see above; if each thread makes all rows, the first one does this.
                unsafe { self.x_out.write(row * d..(row + 1) * d).copy_from_slice(self.x.read(from)) };
            }
            Some(())
        })
    }

    /// Rows as wide as the model that `make` makes, in `own` or in `all` memory, for the product with `next`.
    fn make(
        &self,
        worker: &Worker<'_>,
        own: Shared<'a, f32>,
        all: Shared<'a, f32>,
        rows: usize,
        next: Matrix<'_>,
        make: impl Fn(usize, &mut [f32]) -> Option<()>,
    ) -> Option<Rows<'a>> {
        let d = self.config.embedding_length;
        let h = self.room(worker, rows, own, all);
        let rounded = self.room(worker, rows, self.own_rounded, self.rounded);
        self.each_row(worker, rows, next, |row| {
            // SAFETY: see above.
            let h = unsafe { h.write(row * d..(row + 1) * d) };
            make(row, h)?;
            self.round_row(h, row, rounded, next);
            Some(())
        })?;
        // SAFETY: see above.
        Some(unsafe { Rows { exact: h.read(0..rows * d), rounded: rounded.read(0..rows * (d / BLOCK)) } })
    }

    /// Stores columns `first..` of a row of queries, keys and values. (A group of eight never crosses from one
    /// to another, since their width is a multiple of eight.)
    fn store_qkv(&self, row: usize, first: usize, y: &[f32; GROUP]) {
        let d = self.config.embedding_length;
        let (to, at) = match first < d {
            true => (self.q, row * d + first),
            false => (self.kv, row * 2 * d + first - d),
        };
        // SAFETY: see above.
        unsafe { to.write(at..at + y.len()) }.copy_from_slice(y);
    }

    /// x += attn_output attention; x += down gelu(up norm(x)).
    fn feed_forward(
        &self,
        worker: &Worker<'_>,
        block: &Block<'_>,
        x: Shared<'a, f32>,
        rows: usize,
    ) -> Option<()> {
        let (d, f) = (self.config.embedding_length, self.config.feed_forward_length);
        // SAFETY: see above.
        let eight = |to: Shared<'a, f32>, at: usize| unsafe { to.write(at..at + GROUP) };
        let add = |to: Shared<'a, f32>, at: usize, y: F32x8| {
            let to = eight(to, at).as_chunks_mut().0;
            to.iter_mut().for_each(|to| F32x8::load(to).add(y).store(to));
        };
        let attention = self.round(worker, self.attention, (rows, d), block.attn_output)?;
        matmul(self.machine, worker, block.attn_output, attention, |row, first, y| {
            add(x, row * d + first, F32x8::load(y));
        });
        self.done(worker, Part::Products)?;
        let [up, up_bias] = block.up;
        let h = self.norm(worker, x, block.ffn_norm, rows, up)?;
        matmul(self.machine, worker, up, h, |row, first, y| {
            let y = gelu(F32x8::load(y).add(up_bias.eight(first)));
            let to = eight(self.up, row * f + first).as_chunks_mut().0;
            to.iter_mut().for_each(|to| y.store(to));
        });
        self.done(worker, Part::Products)?;
        let [down, down_bias] = block.down;
        let hidden = self.round(worker, self.up, (rows, f), down)?;
        matmul(self.machine, worker, down, hidden, |row, first, y| {
            add(x, row * d + first, F32x8::load(y).add(down_bias.eight(first)));
        });
        self.done(worker, Part::Products)
    }
}
