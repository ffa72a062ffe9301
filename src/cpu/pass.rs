//! One pass over some rows of some sequences.

use super::attention::{self, Element, Head, TILE};
use super::matmul::{GROUP, Rows, matmul};
use super::memory::Shared;
use super::norm::{angles, gelu, layer_norm, rotate};
use super::pool::Worker;
use super::rounded::{CHUNK, round_row};
use super::simd::{F32x8, LANES};
use super::unpack::Matrix;
use crate::config::{BLOCK_TENSORS, Config};
use crate::forward::{Pass, Segment};
use crate::ggml::{Memory, Region, Weights};
use crate::kv_cache::{Capacity, Layout};

/// What every thread sees of a pass. With D the width, F the MLP's, Dh a head's, V the vocabulary, R the rows of the
/// pass, M of them with logits; rows follow each other.
pub(super) struct Network<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) weights: &'a Weights,
    pub(super) config: &'a Config,
    pub(super) capacity: &'a Capacity,
    pub(super) pass: &'a Pass,
    pub(super) layout: &'a Layout,
    pub(super) arena: &'a Memory,
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
    /// The rows that the next matrix is multiplied with, rounded, and their chunks' scales.
    pub(super) rounded: Shared<'a, i16>,
    pub(super) scales: Shared<'a, f32>,
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

/// Rows of one piece of work where each row is little.
const FEW_ROWS: usize = 2;

// SAFETY of all borrows below: an operation reads what earlier operations wrote and writes each number in one
// thread only, since pieces go to one thread each; a gate (`wait`) lies between an operation and the next.
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

    pub(super) fn run<T: Element>(&self, worker: &Worker<'_>) -> Option<()> {
        let (d, outputs) = (self.config.embedding_length, self.pass.outputs.len());
        let rows = self.pass.tokens.len();
        self.embed(worker)?;
        let last = self.config.block_count - 1;
        for number in 0..last {
            let block = self.block(number)?;
            self.norm(worker, self.x, block.attn_norm, rows, block.qkv)?;
            matmul(worker, block.qkv, self.rows(self.h, rows, d), |row, first, y| {
                self.store_qkv(row, first, y)
            });
            worker.wait()?;
            self.cache::<T>(worker, number, rows, |row| row)?;
            self.attend::<T>(worker, number, |s| s.rows)?;
            self.feed_forward(worker, &block, self.x, rows)?;
        }
        // Behind the last block's keys and values only the rows that want logits go on.
        let block = self.block(last)?;
        self.norm(worker, self.x, block.attn_norm, rows, block.qkv)?;
        let (q, kv) = (block.qkv.part(0, d), block.qkv.part(d, 2 * d));
        matmul(worker, kv, self.rows(self.h, rows, d), |row, first, y| self.store_qkv(row, d + first, y));
        worker.wait()?;
        self.gather(worker, q)?;
        matmul(worker, q, self.rows(self.h_out, outputs, d), |row, first, y| self.store_qkv(row, first, y));
        worker.wait()?;
        let place = |row: usize| self.pass.outputs.get(row).map_or(0, |&r| r as usize);
        self.cache::<T>(worker, last, outputs, place)?;
        if outputs == 0 {
            return Some(());
        }
        self.attend::<T>(worker, last, |s| s.outputs)?;
        self.feed_forward(worker, &block, self.x_out, outputs)?;
        let end = 1 + self.config.block_count * BLOCK_TENSORS.len();
        let (output, bias, vocab) = (self.matrix(end + 2)?, self.matrix(end + 3)?, self.config.vocab_size);
        self.norm(worker, self.x_out, [self.matrix(end)?, self.matrix(end + 1)?], outputs, output)?;
        matmul(worker, output, self.rows(self.h, outputs, d), |row, first, y| {
            let at = row * vocab + first;
            // SAFETY: see above.
            let to = unsafe { self.logits.write(at..at + GROUP.min(vocab - first)) };
            for (i, (to, y)) in to.iter_mut().zip(y).enumerate() {
                *to = y + bias.value(first + i);
            }
        });
        worker.wait()
    }

    /// The first `rows` rows of `x`, `width` wide, after they have been rounded if that is necessary.
    fn rows(&self, x: Shared<'a, f32>, rows: usize, width: usize) -> Rows<'a> {
        // SAFETY: see above.
        unsafe {
            Rows {
                exact: x.read(0..rows * width),
                rounded: self.rounded.read(0..rows * width),
                scales: self.scales.read(0..rows * width.div_ceil(CHUNK)),
            }
        }
    }

    /// Rounds a row of `x` if `matrix`, which it will be multiplied with, asks for that.
    fn round_row(&self, x: &[f32], row: usize, matrix: Matrix<'_>) {
        let (width, chunks) = (x.len(), x.len().div_ceil(CHUNK));
        if matrix.ty.is_quantized() {
            // SAFETY: see above.
            unsafe {
                let to = self.rounded.write(row * width..(row + 1) * width);
                round_row(x, to, self.scales.write(row * chunks..(row + 1) * chunks));
            }
        }
    }

    /// Rounds rows of `x`.
    fn round(
        &self,
        worker: &Worker<'_>,
        x: Shared<'_, f32>,
        (rows, width): (usize, usize),
        matrix: Matrix<'_>,
    ) -> Option<()> {
        if !matrix.ty.is_quantized() {
            return Some(());
        }
        for row in worker.ranges(rows, FEW_ROWS).flatten() {
            // SAFETY: see above.
            self.round_row(unsafe { x.read(row * width..(row + 1) * width) }, row, matrix);
        }
        worker.wait()
    }

    /// x = the tokens' embeddings, and each row's rotation.
    fn embed(&self, worker: &Worker<'_>) -> Option<()> {
        let (d, dh) = (self.config.embedding_length, self.config.head_dim());
        let embedding = self.matrix(0)?;
        for row in worker.ranges(self.pass.tokens.len(), FEW_ROWS).flatten() {
            let (&token, &position) = (self.pass.tokens.get(row)?, self.pass.positions.get(row)?);
            // SAFETY: see above.
            let (x, turn) = unsafe {
                (self.x.write(row * d..(row + 1) * d), self.angles.write(row * dh..(row + 1) * dh))
            };
            embedding.unpack(token as usize, 0, x.as_chunks_mut::<LANES>().0);
            angles(position as u32, self.config.rope_freq_base, turn);
        }
        worker.wait()
    }

    /// h = norm(x), for the product with `next`.
    fn norm(
        &self,
        worker: &Worker<'_>,
        x: Shared<'_, f32>,
        [weight, bias]: [Matrix<'_>; 2],
        rows: usize,
        next: Matrix<'_>,
    ) -> Option<()> {
        let d = self.config.embedding_length;
        for row in worker.ranges(rows, FEW_ROWS).flatten() {
            // SAFETY: see above.
            let (x, h) = unsafe { (x.read(row * d..(row + 1) * d), self.h.write(row * d..(row + 1) * d)) };
            layer_norm(x, weight, bias, self.config.layer_norm_epsilon, h);
            self.round_row(h, row, next);
        }
        worker.wait()
    }

    /// x_out and h_out = the rows of x and h that want logits, the latter for the product with `next`.
    fn gather(&self, worker: &Worker<'_>, next: Matrix<'_>) -> Option<()> {
        let d = self.config.embedding_length;
        for row in worker.ranges(self.pass.outputs.len(), FEW_ROWS).flatten() {
            let from = *self.pass.outputs.get(row)? as usize;
            let (from, to) = (from * d..(from + 1) * d, row * d..(row + 1) * d);
            // SAFETY: see above.
            unsafe {
                self.x_out.write(to.clone()).copy_from_slice(self.x.read(from.clone()));
                let h = self.h_out.write(to);
                h.copy_from_slice(self.h.read(from));
                self.round_row(h, row, next);
            }
        }
        worker.wait()
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

    /// Block `number`'s keys [8, Dh, S / 8, H, B] and values [Dh, S, H, B].
    fn block_cache<T: Element>(&self, number: usize) -> Option<[Shared<'a, T>; 2]> {
        let shared = |region: &Region| {
            let start = self.arena.part(region.offset, region.len).ok()?.cast::<T>();
            // SAFETY: as for the other parts; the cache holds elements of this type alone.
            Some(unsafe { Shared::new(start, region.len / size_of::<T>()) })
        };
        Some([shared(self.layout.keys.get(number)?)?, shared(self.layout.values.get(number)?)?])
    }

    /// Rotates queries and keys, and puts keys and values into the cache. `place` says which row of the pass each
    /// of the `queries` is.
    fn cache<T: Element>(
        &self,
        worker: &Worker<'_>,
        number: usize,
        queries: usize,
        place: impl Fn(usize) -> usize,
    ) -> Option<()> {
        let (d, dh, heads) = (self.config.embedding_length, self.config.head_dim(), self.config.head_count);
        let slots = self.capacity.slots;
        let [keys, values] = self.block_cache::<T>(number)?;
        let rows = self.pass.tokens.len();
        for task in worker.ranges(rows + queries, FEW_ROWS).flatten() {
            let turn = |row: usize| {
                // SAFETY: see above.
                unsafe { self.angles.read(row * dh..(row + 1) * dh) }
            };
            let Some(row) = task.checked_sub(queries) else {
                // SAFETY: see above.
                let q = unsafe { self.q.write(task * d..(task + 1) * d) };
                q.chunks_exact_mut(dh).for_each(|head| rotate(head, turn(place(task))));
                continue;
            };
            let segment = self.pass.segments.iter().find(|s| row < s.first_row + s.rows)?;
            let slot = segment.first_slot + row - segment.first_row;
            // SAFETY: see above.
            let (k, v) = unsafe { self.kv.write(row * 2 * d..(row + 1) * 2 * d) }.split_at_mut(d);
            k.chunks_exact_mut(dh).for_each(|head| rotate(head, turn(row)));
            let (k, v) = (&*k, &*v);
            for (head, (k, v)) in k.chunks_exact(dh).zip(v.chunks_exact(dh)).enumerate() {
                let first = (segment.sequence * heads + head) * slots * dh;
                let place = first + attention::key_place(slot, dh);
                for (i, k) in k.as_chunks().0.iter().enumerate() {
                    for (lane, k) in T::from(F32x8::load(k)).into_iter().enumerate() {
                        // SAFETY: see above.
                        unsafe { keys.set(place + (i * LANES + lane) * LANES, k) };
                    }
                }
                let at = first + slot * dh;
                // SAFETY: see above.
                let to = unsafe { values.write(at..at + dh) };
                for (v, to) in v.as_chunks().0.iter().zip(to.as_chunks_mut().0) {
                    *to = T::from(F32x8::load(v));
                }
            }
        }
        worker.wait()
    }

    /// Attention of each segment's last rows, as many as `part` says, into `attention`.
    fn attend<T: Element>(
        &self,
        worker: &Worker<'_>,
        number: usize,
        part: impl Fn(&Segment) -> usize,
    ) -> Option<()> {
        let (d, dh, heads) = (self.config.embedding_length, self.config.head_dim(), self.config.head_count);
        let slots = self.capacity.slots;
        let [keys, values] = self.block_cache::<T>(number)?;
        let tiles = |s: &Segment| part(s).div_ceil(TILE);
        let count: usize = self.pass.segments.iter().map(tiles).sum();
        let mine = slots * TILE;
        // SAFETY: each thread has its own.
        let scores = unsafe { self.scores.write(worker.index * mine..(worker.index + 1) * mine) };
        for task in worker.pieces(count * heads) {
            let (head, mut tile) = (task / count, task % count);
            let mut first = 0;
            let mut segments = self.pass.segments.iter();
            let segment = segments.find(|s| {
                let here = tile < tiles(s);
                if !here {
                    tile -= tiles(s);
                    first += part(s);
                }
                here
            })?;
            let rows = (part(segment) - tile * TILE).min(TILE);
            let first = first + tile * TILE;
            let in_pass = segment.first_row + segment.rows - part(segment) + tile * TILE;
            let sees = self.pass.sees.get(in_pass..in_pass + rows)?;
            let seen: [usize; TILE] = std::array::from_fn(|i| sees.get(i).map_or(0, |&s| s as usize));
            let itself = self.pass.and_itself.get(in_pass..in_pass + rows)?;
            let slot = |i: usize| segment.first_slot + in_pass - segment.first_row + i;
            let besides: [Option<usize>; TILE] =
                std::array::from_fn(|i| itself.get(i).and_then(|&yes| yes.then(|| slot(i))));
            let most = seen.into_iter().chain(besides.into_iter().flatten().map(|s| s + 1)).max()?;
            let row = |i: usize| (first + i.min(rows - 1)) * d + head * dh;
            let cache = (segment.sequence * heads + head) * slots * dh;
            let groups = most.div_ceil(LANES);
            // SAFETY: see above.
            let head = unsafe {
                Head {
                    queries: std::array::from_fn(|i| self.q.read(row(i)..row(i) + dh)),
                    seen,
                    besides,
                    keys: keys.read(cache..cache + groups * LANES * dh),
                    values: values.read(cache..cache + most * dh),
                    scores: &mut *scores,
                }
            };
            attention::attend(head, rows, |i, column, values| {
                let at = row(i) + column;
                // SAFETY: see above.
                let to = unsafe { self.attention.write(at..at + LANES) };
                to.as_chunks_mut().0.iter_mut().for_each(|to| values.store(to));
            });
        }
        worker.wait()
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
        self.round(worker, self.attention, (rows, d), block.attn_output)?;
        matmul(worker, block.attn_output, self.rows(self.attention, rows, d), |row, first, y| {
            add(x, row * d + first, F32x8::load(y));
        });
        worker.wait()?;
        let [up, up_bias] = block.up;
        self.norm(worker, x, block.ffn_norm, rows, up)?;
        matmul(worker, up, self.rows(self.h, rows, d), |row, first, y| {
            let y = gelu(F32x8::load(y).add(up_bias.eight(first)));
            let to = eight(self.up, row * f + first).as_chunks_mut().0;
            to.iter_mut().for_each(|to| y.store(to));
        });
        worker.wait()?;
        let [down, down_bias] = block.down;
        self.round(worker, self.up, (rows, f), down)?;
        matmul(worker, down, self.rows(self.up, rows, f), |row, first, y| {
            add(x, row * d + first, F32x8::load(y).add(down_bias.eight(first)));
        });
        worker.wait()
    }
}
