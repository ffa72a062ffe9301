//! The layers of the network: embedding, blocks, logits.

use std::cell::Cell;

use crate::error::Result;
use crate::forward::cpu::attention::Queries;
use crate::forward::cpu::kernels::activations::{ActivationBlock, BLOCK, quantize_row};
use crate::forward::cpu::kernels::cache::CacheElement;
use crate::forward::cpu::kernels::matmul::{Activations, matmul};
use crate::forward::cpu::kernels::rowwise::{
    add_to, add_with_bias, gate_by, gelu_with_bias, layer_norm, rms_norm, rope_row, with_bias,
};
use crate::forward::cpu::kernels::weights::{ByteFormat, Matrix};
use crate::forward::cpu::layout::MAX_LOCAL_ROWS;
use crate::forward::cpu::network::{Network, Number, rows_per_piece};
use crate::forward::cpu::threads::Grain;
use crate::forward::cpu::threads::clock::Part;
use crate::forward::cpu::threads::crew::Crew;
use crate::forward::cpu::threads::shared::Shared;
use crate::forward::tensors::{Block, NormTensors, Projection};
use crate::simd::LANES;

/// Where rows come from that are multiplied with weights.
enum Source<'i> {
    /// A function makes one by its number.
    Made(&'i (dyn Fn(usize, &mut [f32]) + Sync)),
    /// An earlier operation wrote them.
    Written(Shared<'i, f32>),
}

/// The rows that one product or several, one after the other, multiply their weights with.
struct Input<'i> {
    source: Source<'i>,
    rows: usize,
    /// How they are in common memory already, for the products that follow.
    ready: Cell<Option<Form>>,
}

/// How the rows of an input are in memory: in single precision, and quantized for weights of a format.
type Form = Option<ByteFormat>;

impl<'i> Input<'i> {
    fn made(rows: usize, make: &'i (dyn Fn(usize, &mut [f32]) + Sync)) -> Self {
        Self { source: Source::Made(make), rows, ready: Cell::new(None) }
    }

    fn written(rows: usize, at: Shared<'i, f32>) -> Self {
        Self { source: Source::Written(at), rows, ready: Cell::new(Some(None)) }
    }

    /// Whether a product with such weights can use what is in memory.
    fn is_ready_for(&self, form: Form) -> bool {
        self.ready.get().is_some_and(|ready| form.is_none() || ready == form)
    }
}

/// Where the input of a product is made: in common memory or in a thread's own.
#[derive(Clone, Copy)]
struct InputMemory<'a> {
    floats: Shared<'a, f32>,
    blocks: Shared<'a, ActivationBlock>,
}

// Shapes in comments: D the width, F the MLP's, V the vocabulary, R the rows of the batch, M of them with logits. The
// safety comments rely on what `Network` says about pieces and operations.
impl<'a> Network<'a> {
    /// The whole network. The logits are in `logits` then.
    pub(super) fn run<T: CacheElement + Number>(&self, crew: &Crew<'_>) -> Result<()> {
        let (rows, outputs) = (self.batch.tokens.len(), self.batch.outputs.len());
        self.embed(crew)?;
        let last = self.config.block_count - 1;
        for number in 0..last {
            let block = self.block(number)?;
            let norm = self.norm(self.x, block.attn_norm);
            let input = Input::made(rows, &norm);
            match block.qkv {
                Projection::Fused(qkv) => self.project(crew, qkv, 0, None, &input)?,
                Projection::Separate(matrices) => {
                    self.project_each(crew, matrices, block.qkv_biases, [0, 1, 2], &input)?;
                }
            }
            self.attend::<T>(crew, number, block.qk_norms, Queries::All)?;
            self.feed_forward(crew, &block, self.x, rows)?;
        }
        // The last block's queries and all that follows are computed for the rows that want logits only.
        let block = self.block(last)?;
        let norm = self.norm(self.x, block.attn_norm);
        let norm_of_output = |row: usize, h: &mut [f32]| norm(self.batch.outputs[row] as usize, h);
        let (all, of_outputs) = (Input::made(rows, &norm), Input::made(outputs, &norm_of_output));
        match block.qkv {
            Projection::Fused(qkv) => {
                let (q, kv) = (self.config.query_length(), 2 * self.config.kv_length());
                self.project(crew, qkv.part(q, kv), q, None, &all)?;
                self.project(crew, qkv.part(0, q), 0, None, &of_outputs)?;
            }
            Projection::Separate(matrices) => {
                self.project_each(crew, matrices, block.qkv_biases, [1, 2], &all)?;
                self.project_each(crew, matrices, block.qkv_biases, [0], &of_outputs)?;
            }
        }
        self.attend::<T>(crew, last, block.qk_norms, Queries::Outputs)?;
        if outputs == 0 {
            return Ok(());
        }
        self.feed_forward(crew, &block, self.x_out, outputs)?;
        self.output(crew, outputs)
    }

    /// x = the tokens' embeddings; and each row's rotation.
    fn embed(&self, crew: &Crew<'_>) -> Result<()> {
        let (d, dh) = (self.config.embedding_length, self.config.head_dim());
        let embedding = self.matrix(self.tensors.embedding)?;
        let rows = self.batch.tokens.len();
        crew.share(rows, Grain::Fixed(rows_per_piece(rows)), (rows * d / 2) as u64, &|pieces| {
            for row in pieces.flatten() {
                let (token, position) = (self.batch.tokens[row], self.batch.positions[row]);
                // SAFETY: the row is in this thread's piece.
                let (x, rope) = unsafe {
                    (self.x.write(row * d..(row + 1) * d), self.rope_table.write(row * dh..(row + 1) * dh))
                };
                embedding.dequantize(token as usize, 0, x.as_chunks_mut::<LANES>().0);
                rope_row(position as u32, self.config.rope_freq_base, rope);
            }
            Ok(())
        })?;
        self.clock.lap(Part::Rest);
        Ok(())
    }

    /// Some of queries (0), keys (1) and values (2).
    fn project_each<const N: usize>(
        &self,
        crew: &Crew<'_>,
        matrices: [Matrix<'_>; 3],
        biases: Option<[Matrix<'_>; 3]>,
        which: [usize; N],
        input: &Input<'_>,
    ) -> Result<()> {
        let (q, kv) = (self.config.query_length(), self.config.kv_length());
        which.into_iter().try_for_each(|part| {
            let (at, bias) = ([0, q, q + kv][part], biases.map(|biases| biases[part]));
            self.project(crew, matrices[part], at, bias, input)
        })
    }

    /// Columns `at..` of queries, keys and values.
    fn project(
        &self,
        crew: &Crew<'_>,
        w: Matrix<'_>,
        at: usize,
        bias: Option<Matrix<'_>>,
        input: &Input<'_>,
    ) -> Result<()> {
        match bias {
            None => self.product(Part::Products, crew, w, input, |row, first, y| {
                self.store_qkv(row, at + first, y.len(), |to, done| {
                    to.copy_from_slice(&y[done..][..to.len()])
                });
            }),
            Some(bias) => self.product(Part::Products, crew, w, input, |row, first, y| {
                self.store_qkv(row, at + first, y.len(), |to, done| {
                    with_bias(to, &y[done..], bias, first + done);
                });
            }),
        }
    }

    /// x += attn_output attention; x += down gelu(up norm(x)), or down (silu(gate norm(x)) * up norm(x)).
    fn feed_forward(
        &self,
        crew: &Crew<'_>,
        block: &Block<Matrix<'_>>,
        x: Shared<'a, f32>,
        rows: usize,
    ) -> Result<()> {
        let (d, f) = (self.config.embedding_length, self.config.feed_forward_length);
        // SAFETY: `matmul` hands each group of outputs to one thread.
        let group = |to: Shared<'a, f32>, at: usize, len: usize| unsafe { to.write(at..at + len) };
        let attention = Input::written(rows, self.attention);
        self.product(Part::Products, crew, block.attn_output, &attention, |row, first, y| {
            add_to(group(x, row * d + first, y.len()), y);
        })?;
        let norm = self.norm(x, block.ffn_norm);
        let input = Input::made(rows, &norm);
        if let Some(gate) = block.gate {
            self.product(Part::Products, crew, gate, &input, |row, first, y| {
                group(self.up, row * f + first, y.len()).copy_from_slice(y);
            })?;
        }
        self.product(Part::Products, crew, block.up, &input, |row, first, y| {
            let to = group(self.up, row * f + first, y.len());
            match block.up_bias {
                Some(bias) => gelu_with_bias(to, y, bias, first),
                None => gate_by(to, y),
            }
        })?;
        let up = Input::written(rows, self.up);
        self.product(Part::Products, crew, block.down, &up, |row, first, y| {
            let to = group(x, row * d + first, y.len());
            match block.down_bias {
                Some(bias) => add_with_bias(to, y, bias, first),
                None => add_to(to, y),
            }
        })
    }

    /// logits = output norm(x_out) + bias.
    fn output(&self, crew: &Crew<'_>, outputs: usize) -> Result<()> {
        let vocab = self.config.vocab_size;
        let output = self.matrix(self.tensors.output)?;
        let bias = self.tensors.output_bias.map(|bias| self.matrix(bias)).transpose()?;
        let NormTensors { weight, bias: norm_bias } = self.tensors.output_norm;
        let norm_bias = norm_bias.map(|bias| self.matrix(bias)).transpose()?;
        let norm = self.norm(self.x_out, NormTensors { weight: self.matrix(weight)?, bias: norm_bias });
        let input = Input::made(outputs, &norm);
        self.product(Part::Vocabulary, crew, output, &input, |row, first, y| {
            let at = row * vocab + first;
            // SAFETY: `matmul` hands each group of outputs to one thread.
            let to = unsafe { self.logits.write(at..at + y.len()) };
            match bias {
                Some(bias) => with_bias(to, y, bias, first),
                None => to.copy_from_slice(y),
            }
        })?;
        Ok(())
    }

    /// Has `store` write `count` columns from `first` on of a row of queries, keys and values: it gets the memory, and how many
    /// of the columns were written before. (They may cross from the queries to the keys.)
    fn store_qkv(&self, row: usize, first: usize, count: usize, store: impl Fn(&mut [f32], usize)) {
        let (q, kv) = (self.config.query_length(), 2 * self.config.kv_length());
        let of_queries = q.saturating_sub(first).min(count);
        // SAFETY: `matmul` hands each group of outputs to one thread.
        let part = |to: Shared<'a, f32>, at: usize, len: usize| unsafe { to.write(at..at + len) };
        if of_queries > 0 {
            store(part(self.q, row * q + first, of_queries), 0);
        }
        if of_queries < count {
            let at = row * kv + first + of_queries - q;
            store(part(self.kv, at, count - of_queries), of_queries);
        }
    }

    /// Makes a row of norm(x) [D].
    fn norm(
        &self,
        x: Shared<'a, f32>,
        NormTensors { weight, bias }: NormTensors<Matrix<'a>>,
    ) -> impl Fn(usize, &mut [f32]) + Sync + use<'a> {
        let (d, epsilon) = (self.config.embedding_length, self.config.norm_epsilon);
        move |row, h| {
            // SAFETY: an earlier operation wrote `x`.
            let x = unsafe { x.read(row * d..(row + 1) * d) };
            match bias {
                Some(bias) => layer_norm(x, weight, bias, epsilon, h),
                None => rms_norm(x, weight, epsilon, h),
            }
        }
    }

    /// The product of `w` with the rows of an input, whose time counts as `part`. Few rows are made by every thread that takes
    /// part, in memory of its own; many in an operation of their own, once for all products that want them in the same form.
    fn product(
        &self,
        part: Part,
        crew: &Crew<'_>,
        w: Matrix<'_>,
        input: &Input<'_>,
        store: impl Fn(usize, usize, &[f32]) + Sync,
    ) -> Result<()> {
        let form = w.ty.is_quantized().then(|| ByteFormat::of(w.ty));
        let Input { source, rows, ready } = input;
        let rows = *rows;
        if rows <= MAX_LOCAL_ROWS {
            let made = |thread: usize| {
                let share = |memory: Shared<'a, f32>| memory.share(thread, self.layout.threads);
                let blocks = self.local_activations.share(thread, self.layout.threads);
                let memory = InputMemory { floats: share(self.local_h), blocks };
                // SAFETY: the memory is the thread's own.
                (0..rows).for_each(|row| unsafe { make_row(row, source, memory, w.columns, form) });
                // SAFETY: as before, and nobody writes it from here on.
                unsafe { activations(source, rows, memory, w.columns, form) }
            };
            matmul(self.platform, crew, w, rows, made, store)?;
            self.clock.lap(part);
            return Ok(());
        }
        let memory = InputMemory { floats: self.h, blocks: self.activations };
        if !input.is_ready_for(form) {
            let nanoseconds = (rows * w.columns / 2) as u64;
            crew.share(rows, Grain::Fixed(rows_per_piece(rows)), nanoseconds, &|pieces| {
                // SAFETY: the row is in this thread's piece.
                pieces.flatten().for_each(|row| unsafe { make_row(row, source, memory, w.columns, form) });
                Ok(())
            })?;
            ready.set(Some(form));
            self.clock.lap(Part::Rest);
        }
        // SAFETY: the operation before is done with them.
        let made = unsafe { activations(source, rows, memory, w.columns, form) };
        matmul(self.platform, crew, w, rows, |_| made, store)?;
        self.clock.lap(part);
        Ok(())
    }
}

/// Makes a row of an input in a form.
///
/// # Safety
/// No other thread uses this row of the memory.
unsafe fn make_row(row: usize, source: &Source<'_>, memory: InputMemory<'_>, columns: usize, form: Form) {
    let range = row * columns..(row + 1) * columns;
    let floats = match source {
        Source::Made(make) => {
            // SAFETY: by the caller.
            let floats = unsafe { memory.floats.write(range) };
            make(row, floats);
            &*floats
        }
        // SAFETY: an earlier operation wrote it.
        Source::Written(floats) => unsafe { floats.read(range) },
    };
    if let Some(format) = form {
        let blocks = columns / BLOCK;
        // SAFETY: by the caller.
        let to = unsafe { memory.blocks.write(row * blocks..(row + 1) * blocks) };
        quantize_row(floats, format, to);
    }
}

/// The rows that [`make_row`] has made.
///
/// # Safety
/// Nobody writes them as long as they are borrowed.
unsafe fn activations<'i>(
    source: &Source<'i>,
    rows: usize,
    memory: InputMemory<'i>,
    columns: usize,
    form: Form,
) -> Activations<'i> {
    let floats = match source {
        Source::Made(_) => memory.floats,
        Source::Written(floats) => *floats,
    };
    let blocks = if form.is_some() { rows * (columns / BLOCK) } else { 0 };
    Activations {
        // SAFETY: by the caller.
        floats: unsafe { floats.read(0..rows * columns) },
        // SAFETY: by the caller.
        blocks: unsafe { memory.blocks.read(0..blocks) },
    }
}
