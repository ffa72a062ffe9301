//! The least time that a generation can take: what its steps must read from memory, and what they must multiply.

use std::ops::AddAssign;

use esolm::{Config, KvType, Model, Variant};

use super::machine::Machine;

/// The least time of a generation, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Floor {
    pub seconds: f64,
    /// What takes most of it: reading `memory`, or `products`.
    pub by: &'static str,
    /// What the blocks' matrices and the vocabulary's take of it, all steps together.
    pub blocks: Least,
    pub vocabulary: Least,
}

/// The least seconds in which matrices are read, and multiplied.
#[derive(Debug, Clone, Copy, Default)]
pub struct Least {
    pub reading: f64,
    pub multiplying: f64,
}

impl AddAssign for Least {
    fn add_assign(&mut self, other: Self) {
        self.reading += other.reading;
        self.multiplying += other.multiplying;
    }
}

impl Floor {
    /// The least times of a part of a step that is matrices, by the part's name.
    pub fn part(&self, name: &str) -> Option<Least> {
        match name {
            "blocks" => Some(self.blocks),
            "vocabulary" => Some(self.vocabulary),
            _ => None,
        }
    }
}

/// The matrices of a part of a model.
#[derive(Default)]
struct Matrices {
    bytes: f64,
    /// Multiplications for a row.
    products: f64,
    /// Whether they are multiplied as bytes.
    quantized: bool,
}

impl Matrices {
    /// Those of the blocks, and of the vocabulary.
    fn of(model: &Model) -> [Self; 2] {
        let [mut blocks, mut vocabulary] = [Self::default(), Self::default()];
        // The embedding is looked up, unless it is the output matrix, too.
        let is_read = |name: &str| name != "token_embd.weight" || model.config().architecture.tied_output;
        for tensor in model.tensors().iter().filter(|t| t.dims.len() > 1 && is_read(&t.name)) {
            let part = if tensor.name.starts_with("blk.") { &mut blocks } else { &mut vocabulary };
            part.bytes += tensor.range.len() as f64;
            part.products += tensor.dims.iter().product::<usize>() as f64;
            part.quantized |= tensor.ty.is_quantized();
        }
        [blocks, vocabulary]
    }

    /// The least time to read them once, and for so many multiplications with them.
    fn least(&self, products: f64, machine: &Machine) -> Least {
        let peak = if self.quantized { machine.byte_operations } else { machine.float_operations };
        Least { reading: self.bytes / machine.bandwidth, multiplying: 2.0 * products / peak }
    }
}

/// What the last block does not multiply for a row of a known token, which ends with its keys and values.
fn not_in_last_block(config: &Config, blocks: &Matrices) -> f64 {
    let keys_and_values = 2 * config.embedding_length * config.kv_head_count() * config.head_dim();
    blocks.products / config.block_count as f64 - keys_and_values as f64
}

/// Texts that are generated side by side.
#[derive(Clone, Copy)]
pub struct Workload {
    pub sequences: usize,
    /// Tokens of each.
    pub length: usize,
    /// Positions of a window that slides, if one does: each step is fed all of them.
    pub window: Option<usize>,
}

/// Of a generation of texts whose steps write so many tokens. `None` for Eso-LM (A), which reads the known tokens anew in some
/// steps.
pub fn floor(
    model: &Model,
    kv_type: KvType,
    workload: Workload,
    written: &[usize],
    machine: &Machine,
) -> Option<Floor> {
    let config = model.config();
    if config.variant == Variant::EsoA {
        return None;
    }
    let [of_blocks, of_vocabulary] = Matrices::of(model);
    let last = not_in_last_block(config, &of_blocks);
    let (mut all, mut seconds) = (Least::default(), 0.0);
    let (mut blocks, mut vocabulary) = (Least::default(), Least::default());
    let Workload { sequences, length, window } = workload;
    let (mut known, mut before) = (0, 0);
    for &now in written {
        // Rows of masks, and of tokens that the step before has written.
        let (masks, tokens, cached) = match config.variant {
            Variant::Mdlm => (length * sequences, 0, 0),
            Variant::Ar => (now, 0, known),
            // The row of a token predicts the next one.
            Variant::WeDlm if window.is_none() => (now, 0, known),
            // A block as a whole in each of its steps, and once more when it is complete.
            Variant::Bd3Lm => {
                let block = config.block_length.max(1) * sequences;
                let finished = known / block * block;
                let complete = if known == finished && known > 0 { block } else { 0 };
                let rows = block.min((length * sequences).saturating_sub(finished));
                let inside = (known - finished).min(rows);
                (rows - inside, inside + complete, finished - complete)
            }
            Variant::WeDlm | Variant::EsoB | Variant::EsoA => {
                let left = (length * sequences).saturating_sub(known);
                let masks = window.map_or(now, |window| (window * sequences).min(left).max(now));
                (masks, before, known)
            }
        };
        let products = (masks + tokens) as f64 * of_blocks.products - tokens as f64 * last;
        let now_blocks = of_blocks.least(products, machine);
        // At least the logits of what was written: a window that slides has those of its other masks, too.
        let now_vocabulary = of_vocabulary.least(now as f64 * of_vocabulary.products, machine);
        blocks += now_blocks;
        vocabulary += now_vocabulary;
        let cache = cached as f64 * token_bytes(config, kv_type) / machine.bandwidth;
        let mut step = Least { reading: cache, multiplying: 0.0 };
        step += now_blocks;
        step += now_vocabulary;
        all += step;
        seconds += f64::max(step.reading, step.multiplying);
        known += now;
        before = now;
    }
    let by = if all.reading > all.multiplying { "memory" } else { "products" };
    Some(Floor { seconds, by, blocks, vocabulary })
}

/// Bytes of a token in the K/V cache.
fn token_bytes(config: &Config, kv: KvType) -> f64 {
    let number = match kv {
        KvType::F16 => 2.0,
        KvType::F32 => 4.0,
        KvType::Q8_0 => 34.0 / 32.0,
    };
    (2 * config.block_count * config.kv_head_count() * config.head_dim()) as f64 * number
}

#[cfg(test)]
mod tests {
    use esolm::gguf::TensorType;
    use esolm::quantize::QuantizeOptions;
    use esolm::{Architecture, LoadOptions, Result};

    use super::super::synthetic::{Shape, SyntheticModel};
    use super::*;

    /// Rows of masks, rows of tokens and logits of a text of eight tokens, written one by one.
    #[test]
    fn rows_of_each_variant_are_counted() -> Result<()> {
        let machine = Machine {
            processor: String::new(),
            threads: 1,
            bandwidth: f64::INFINITY,
            byte_operations: 2.0,
            float_operations: 2.0,
        };
        for (variant, window, masks, tokens) in [
            (Variant::EsoB, None, 8, 7),
            (Variant::Ar, None, 8, 0),
            (Variant::WeDlm, None, 8, 0),
            (Variant::Mdlm, None, 64, 0),
            // Blocks of four: 4 + 3 + 2 + 1 twice; those of the block that are there, and the first block once more.
            (Variant::Bd3Lm, None, 20, 16),
            // Three masks in each step, at the end as many as are left.
            (Variant::EsoB, Some(3), 6 * 3 + 2 + 1, 7),
            (Variant::WeDlm, Some(3), 6 * 3 + 2 + 1, 7),
        ] {
            let block_length = if variant == Variant::Bd3Lm { 4 } else { 0 };
            let shape = Shape::Stories.config(variant, 8);
            // WeDLM is a Qwen; here one whose heads share keys and values, and whose embedding is its output matrix.
            let qwen = Architecture { tied_output: true, kv_head_count: Some(2), ..Architecture::QWEN3 };
            let architecture = if variant == Variant::WeDlm { qwen } else { shape.architecture };
            let config = Config { block_length, architecture, ..shape };
            let file = SyntheticModel::write(&config, &QuantizeOptions::new(TensorType::F32))?;
            let model = file.open(&LoadOptions { device: "cpu".into(), ..LoadOptions::default() })?;
            let workload = Workload { sequences: 1, length: 8, window };
            let found = floor(&model, KvType::F32, workload, &[1; 8], &machine).expect("a floor");
            let [blocks, vocabulary] = Matrices::of(&model);
            let last = not_in_last_block(&config, &blocks);
            let rows = f64::from(masks + tokens) * blocks.products - f64::from(tokens) * last;
            assert_eq!(found.seconds, rows + 8.0 * vocabulary.products, "{variant:?} {window:?}");
            assert_eq!(found.blocks.multiplying, rows, "{variant:?}");
            assert_eq!(found.vocabulary.multiplying, 8.0 * vocabulary.products, "{variant:?}");
            // What is read: all matrices in each step, and nothing of a machine that multiplies at once.
            let reader = Machine {
                bandwidth: 1.0,
                byte_operations: f64::INFINITY,
                float_operations: f64::INFINITY,
                processor: String::new(),
                threads: 1,
            };
            let found = floor(&model, KvType::F32, workload, &[1; 8], &reader).expect("a floor");
            assert_eq!(found.part("blocks").map(|part| part.reading), Some(8.0 * blocks.bytes));
            assert_eq!(found.part("vocabulary").map(|part| part.reading), Some(8.0 * vocabulary.bytes));
            assert_eq!(found.blocks.multiplying + found.vocabulary.multiplying, 0.0);
        }
        Ok(())
    }
}
