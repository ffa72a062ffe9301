//! One pass over some rows of some sequences.

use std::sync::atomic::AtomicBool;

use half::f16;

use super::attention::{self, Element, Head, TILE};
use super::matmul::matmul;
use super::memory::Shared;
use super::norm::{angles, gelu, layer_norm, rotate};
use super::pool::{Pool, Worker};
use super::simd::LANES;
use super::unpack::Matrix;
use crate::config::{BLOCK_TENSORS, Config};
use crate::error::{Error, Result};
use crate::forward::{Pass, Segment};
use crate::ggml::{Memory, Region, Weights};
use crate::kv_cache::{Capacity, KvType, Layout};

/// Threads and memory for passes on the CPU.
#[derive(Debug)]
pub(crate) struct Engine {
    pool: Pool,
    pub(super) arena: Memory,
    pub(super) layout: Layout,
    /// Room for one thread's attention scores, and where they lie.
    scores: Region,
}

impl Engine {
    /// Whether a model of this shape can be computed here: everything in whole vectors.
    pub(crate) fn supports(config: &Config) -> bool {
        [config.embedding_length, config.feed_forward_length, config.head_dim()]
            .iter()
            .all(|n| n.is_multiple_of(LANES))
    }

    /// Bytes of memory that an engine of `threads` needs.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if that is larger than the address space.
    pub(crate) fn memory(layout: &Layout, capacity: &Capacity, threads: usize) -> Result<usize> {
        let scores = capacity.slots.checked_mul(TILE * threads * size_of::<f32>());
        scores
            .and_then(|s| s.checked_add(layout.len))
            .filter(|&len| len < isize::MAX as usize)
            .ok_or_else(|| Error::invalid("the context would be larger than the address space"))
    }

    /// An engine in `arena`, with `threads` threads.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`] if the arena is; those of starting threads.
    pub(crate) fn new(layout: Layout, capacity: &Capacity, threads: usize, arena: Memory) -> Result<Self> {
        let pool = Pool::new(threads)?;
        let needed = Self::memory(&layout, capacity, pool.threads())?;
        if arena.len() < needed {
            return Err(Error::BufferTooSmall { given: arena.len(), needed });
        }
        let scores = Region { offset: layout.len, len: needed - layout.len };
        Ok(Self { pool, arena, layout, scores })
    }

    pub(crate) fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Runs `pass`, whose numbers the caller has checked. Returns the logits [V, outputs].
    ///
    /// # Errors
    /// [`Error::Cancelled`] when `cancel` is set; [`Error::Internal`].
    pub(crate) fn run(
        &mut self,
        weights: &Weights,
        config: &Config,
        capacity: &Capacity,
        pass: &Pass,
        cancel: &AtomicBool,
    ) -> Result<&[f32]> {
        let bytes = weights.host_bytes().ok_or_else(|| Error::internal("the weights are not in memory"))?;
        let Self { pool, arena, layout, scores } = self;
        let floats = |region: Region| {
            let start = arena.part(region.offset, region.len)?.cast::<f32>();
            // SAFETY: the arena is zeroed memory, its parts are aligned, and `&mut self` makes this call its
            // only user. (Parts that share memory are used one after the other.)
            Ok::<_, Error>(unsafe { Shared::new(start, region.len / size_of::<f32>()) })
        };
        let network = Network {
            bytes,
            weights,
            config,
            capacity,
            pass,
            layout,
            arena,
            angles: floats(layout.k)?,
            x: floats(layout.x)?,
            x_out: floats(layout.x_out)?,
            h: floats(layout.h)?,
            h_out: floats(layout.h_out)?,
            q: floats(layout.q)?,
            kv: floats(layout.qkv)?,
            attention: floats(layout.attention)?,
            up: floats(layout.up)?,
            logits: floats(layout.logits)?,
            scores: floats(*scores)?,
        };
        pool.run(cancel, &|worker| match capacity.kv {
            KvType::F16 => network.run::<f16>(worker),
            KvType::F32 => network.run::<f32>(worker),
        })?;
        let len = pass.outputs.len() * config.vocab_size;
        let logits = floats(layout.logits)?;
        // SAFETY: the pool is through; the borrow of `self` keeps the next pass away.
        Ok(unsafe { logits.read(0..len) })
    }
}

/// What every thread sees of a pass. With D the width, F the MLP's, Dh a head's, V the vocabulary, R the rows of the
/// pass, M of them with logits; rows follow each other.
struct Network<'a> {
    bytes: &'a [u8],
    weights: &'a Weights,
    config: &'a Config,
    capacity: &'a Capacity,
    pass: &'a Pass,
    layout: &'a Layout,
    arena: &'a Memory,
    /// Rotations of each row [Dh, R].
    angles: Shared<'a, f32>,
    /// The residual stream [D, R], and of the rows with logits [D, M].
    x: Shared<'a, f32>,
    x_out: Shared<'a, f32>,
    /// Its norm, likewise.
    h: Shared<'a, f32>,
    h_out: Shared<'a, f32>,
    /// Queries [D, R]; keys and values [2D, R].
    q: Shared<'a, f32>,
    kv: Shared<'a, f32>,
    attention: Shared<'a, f32>,
    up: Shared<'a, f32>,
    logits: Shared<'a, f32>,
    /// Attention scores of each thread.
    scores: Shared<'a, f32>,
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

    fn run<T: Element>(&self, worker: &Worker<'_>) -> Option<()> {
        let (d, outputs) = (self.config.embedding_length, self.pass.outputs.len());
        let rows = self.pass.tokens.len();
        self.embed(worker)?;
        let last = self.config.block_count - 1;
        for number in 0..last {
            let block = self.block(number)?;
            self.norm(worker, self.x, block.attn_norm, rows)?;
            // SAFETY: see above.
            let h = unsafe { self.h.read(0..rows * d) };
            matmul(worker, block.qkv, h, |row, first, y| self.store_qkv(row, first, y));
            worker.wait()?;
            self.cache::<T>(worker, number, rows, |row| row)?;
            self.attend::<T>(worker, number, |s| s.rows)?;
            self.feed_forward(worker, &block, self.x, rows)?;
        }
        // Behind the last block's keys and values only the rows that want logits go on.
        let block = self.block(last)?;
        self.norm(worker, self.x, block.attn_norm, rows)?;
        self.gather(worker)?;
        // SAFETY: see above.
        let (h, h_out) = unsafe { (self.h.read(0..rows * d), self.h_out.read(0..outputs * d)) };
        let (q, kv) = (block.qkv.part(0, d), block.qkv.part(d, 2 * d));
        matmul(worker, kv, h, |row, first, y| self.store_qkv(row, d + first, y));
        worker.wait()?;
        matmul(worker, q, h_out, |row, first, y| self.store_qkv(row, first, y));
        worker.wait()?;
        let place = |row: usize| self.pass.outputs.get(row).map_or(0, |&r| r as usize);
        self.cache::<T>(worker, last, outputs, place)?;
        if outputs == 0 {
            return Some(());
        }
        self.attend::<T>(worker, last, |s| s.outputs)?;
        self.feed_forward(worker, &block, self.x_out, outputs)?;
        let end = 1 + self.config.block_count * BLOCK_TENSORS.len();
        self.norm(worker, self.x_out, [self.matrix(end)?, self.matrix(end + 1)?], outputs)?;
        let (output, bias, vocab) = (self.matrix(end + 2)?, self.matrix(end + 3)?, self.config.vocab_size);
        // SAFETY: see above.
        let h = unsafe { self.h.read(0..outputs * d) };
        matmul(worker, output, h, |row, first, y| {
            let at = row * vocab + first;
            // SAFETY: see above.
            let to = unsafe { self.logits.write(at..at + y.len()) };
            for (i, (to, y)) in to.iter_mut().zip(y).enumerate() {
                *to = y + bias.value(first + i);
            }
        });
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

    /// h = norm(x).
    fn norm(
        &self,
        worker: &Worker<'_>,
        x: Shared<'_, f32>,
        [weight, bias]: [Matrix<'_>; 2],
        rows: usize,
    ) -> Option<()> {
        let d = self.config.embedding_length;
        for row in worker.ranges(rows, FEW_ROWS).flatten() {
            // SAFETY: see above.
            let (x, h) = unsafe { (x.read(row * d..(row + 1) * d), self.h.write(row * d..(row + 1) * d)) };
            layer_norm(x, weight, bias, self.config.layer_norm_epsilon, h);
        }
        worker.wait()
    }

    /// x_out and h_out = the rows of x and h that want logits.
    fn gather(&self, worker: &Worker<'_>) -> Option<()> {
        let d = self.config.embedding_length;
        for row in worker.ranges(self.pass.outputs.len(), FEW_ROWS).flatten() {
            let from = *self.pass.outputs.get(row)? as usize;
            let (from, to) = (from * d..(from + 1) * d, row * d..(row + 1) * d);
            // SAFETY: see above.
            unsafe {
                self.x_out.write(to.clone()).copy_from_slice(self.x.read(from.clone()));
                self.h_out.write(to).copy_from_slice(self.h.read(from));
            }
        }
        worker.wait()
    }

    /// Stores columns `first..` of a row of queries, keys and values. (A piece of four never crosses from one
    /// to another, since their width is a multiple of eight.)
    fn store_qkv(&self, row: usize, first: usize, y: &[f32]) {
        let d = self.config.embedding_length;
        let (to, at) = match first < d {
            true => (self.q, row * d + first),
            false => (self.kv, row * 2 * d + first - d),
        };
        // SAFETY: see above.
        unsafe { to.write(at..at + y.len()) }.copy_from_slice(y);
    }

    /// Block `number`'s keys and values [Dh, S, H, B].
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
                let at = ((segment.sequence * heads + head) * slots + slot) * dh;
                for (from, cache) in [(k, keys), (v, values)] {
                    // SAFETY: see above.
                    let to = unsafe { cache.write(at..at + dh) };
                    for (from, to) in from.as_chunks().0.iter().zip(to.as_chunks_mut().0) {
                        T::store(super::simd::F32x8::load(from), to);
                    }
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
            let (mut tile, head) = (task / heads, task % heads);
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
            let cache = cache..cache + most * dh;
            // SAFETY: see above.
            let head = unsafe {
                Head {
                    queries: std::array::from_fn(|i| self.q.read(row(i)..row(i) + dh)),
                    seen,
                    besides,
                    keys: keys.read(cache.clone()),
                    values: values.read(cache),
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
        x: Shared<'_, f32>,
        rows: usize,
    ) -> Option<()> {
        let (d, f) = (self.config.embedding_length, self.config.feed_forward_length);
        // SAFETY: see above.
        let attention = unsafe { self.attention.read(0..rows * d) };
        matmul(worker, block.attn_output, attention, |row, first, y| {
            let at = row * d + first;
            // SAFETY: see above.
            let to = unsafe { x.write(at..at + y.len()) };
            to.iter_mut().zip(y).for_each(|(to, y)| *to += y);
        });
        worker.wait()?;
        self.norm(worker, x, block.ffn_norm, rows)?;
        let [up, up_bias] = block.up;
        // SAFETY: see above.
        let h = unsafe { self.h.read(0..rows * d) };
        matmul(worker, up, h, |row, first, y| {
            let at = row * f + first;
            // SAFETY: see above.
            let to = unsafe { self.up.write(at..at + y.len()) };
            for (i, (to, y)) in to.iter_mut().zip(y).enumerate() {
                *to = gelu(y + up_bias.value(first + i));
            }
        });
        worker.wait()?;
        let [down, down_bias] = block.down;
        // SAFETY: see above.
        let hidden = unsafe { self.up.read(0..rows * f) };
        matmul(worker, down, hidden, |row, first, y| {
            let at = row * d + first;
            // SAFETY: see above.
            let to = unsafe { x.write(at..at + y.len()) };
            for (i, (to, y)) in to.iter_mut().zip(y).enumerate() {
                *to += y + down_bias.value(first + i);
            }
        });
        worker.wait()
    }
}
