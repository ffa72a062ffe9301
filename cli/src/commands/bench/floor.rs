//! The least time that a generation can take: what its steps must read from memory, and what they must multiply.

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

/// The matrices of a model, and what a step takes of them.
struct Matrices {
    /// Bytes of the blocks' matrices, and of the vocabulary's.
    block_bytes: f64,
    vocabulary_bytes: f64,
    /// Multiplications for a row: in all blocks, in the vocabulary's matrix, and what the last block does not do for a row of a
    /// known token, which ends with its keys and values.
    blocks: f64,
    vocabulary: f64,
    last: f64,
    /// Whether those of the blocks, and the vocabulary's, are multiplied as bytes.
    quantized: [bool; 2],
}

impl Matrices {
    fn of(model: &Model) -> Self {
        let config = model.config();
        let mut all = Self {
            block_bytes: 0.0,
            vocabulary_bytes: 0.0,
            blocks: 0.0,
            vocabulary: 0.0,
            last: 0.0,
            quantized: [false; 2],
        };
        // The embedding is looked up, unless it is the output matrix, too.
        let is_read = |name: &str| name != "token_embd.weight" || config.architecture.tied_output;
        for tensor in model.tensors().iter().filter(|t| t.dims.len() > 1 && is_read(&t.name)) {
            let products = tensor.dims.iter().product::<usize>() as f64;
            let bytes = tensor.range.len() as f64;
            if tensor.name.starts_with("blk.") {
                all.block_bytes += bytes;
                all.blocks += products;
                all.quantized[0] |= tensor.ty.is_quantized();
            } else {
                all.vocabulary_bytes += bytes;
                all.vocabulary += products;
                all.quantized[1] |= tensor.ty.is_quantized();
            }
        }
        let keys_and_values = 2 * config.embedding_length * config.kv_head_count() * config.head_dim();
        all.last = all.blocks / config.block_count as f64 - keys_and_values as f64;
        all
    }
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
    let (config, matrices) = (model.config(), Matrices::of(model));
    if config.variant == Variant::EsoA {
        return None;
    }
    let [block_peak, vocabulary_peak] = matrices
        .quantized
        .map(|bytes| if bytes { machine.byte_operations } else { machine.float_operations });
    let (mut memory, mut arithmetic, mut seconds) = (0.0, 0.0, 0.0);
    let (mut blocks, mut vocabulary) = (Least::default(), Least::default());
    let reading = |bytes: f64| bytes / machine.bandwidth;
    let Workload { sequences, length, window } = workload;
    let (mut known, mut before) = (0, 0);
    for &now in written {
        // Rows of masks, and of tokens that the step before has written.
        let (masks, tokens, cached) = match config.variant {
            Variant::Mdlm => (length * sequences, 0, 0),
            Variant::Ar => (now, 0, known),
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
        let products = (masks + tokens) as f64 * matrices.blocks - tokens as f64 * matrices.last;
        blocks.reading += reading(matrices.block_bytes);
        let multiplying_blocks = 2.0 * products / block_peak;
        blocks.multiplying += multiplying_blocks;
        vocabulary.reading += reading(matrices.vocabulary_bytes);
        // At least the logits of what was written: a window that slides has those of its other masks, too.
        let multiplying_vocabulary = 2.0 * now as f64 * matrices.vocabulary / vocabulary_peak;
        vocabulary.multiplying += multiplying_vocabulary;
        let bytes =
            matrices.block_bytes + matrices.vocabulary_bytes + cached as f64 * token_bytes(config, kv_type);
        memory += reading(bytes);
        arithmetic += multiplying_blocks + multiplying_vocabulary;
        seconds += f64::max(reading(bytes), multiplying_blocks + multiplying_vocabulary);
        known += now;
        before = now;
    }
    let by = if memory > arithmetic { "memory" } else { "products" };
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
    use esolm::{LoadOptions, Result};

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
        for (variant, masks, tokens) in [
            (Variant::EsoB, 8, 7),
            (Variant::Ar, 8, 0),
            (Variant::Mdlm, 64, 0),
            // Blocks of four: 4 + 3 + 2 + 1 twice; those of the block that are there, and the first block once more.
            (Variant::Bd3Lm, 20, 16),
        ] {
            let block_length = if variant == Variant::Bd3Lm { 4 } else { 0 };
            let config = Config { block_length, ..Shape::Stories.config(variant, 8) };
            let file = SyntheticModel::write(&config, &QuantizeOptions::new(TensorType::F32))?;
            let model = file.open(&LoadOptions { device: "cpu".into(), ..LoadOptions::default() })?;
            let workload = Workload { sequences: 1, length: 8, window: None };
            let found = floor(&model, KvType::F32, workload, &[1; 8], &machine).expect("a floor");
            let all = Matrices::of(&model);
            let rows = f64::from(masks + tokens) * all.blocks - f64::from(tokens) * all.last;
            assert_eq!(found.seconds, rows + 8.0 * all.vocabulary, "{variant:?}");
            assert_eq!(found.blocks.multiplying, rows, "{variant:?}");
            assert_eq!(found.vocabulary.multiplying, 8.0 * all.vocabulary, "{variant:?}");
            // What is read: all matrices in each step, and nothing of a machine that multiplies at once.
            let reader = Machine {
                bandwidth: 1.0,
                byte_operations: f64::INFINITY,
                float_operations: f64::INFINITY,
                processor: String::new(),
                threads: 1,
            };
            let found = floor(&model, KvType::F32, workload, &[1; 8], &reader).expect("a floor");
            assert_eq!(found.part("blocks").map(|part| part.reading), Some(8.0 * all.block_bytes));
            assert_eq!(found.part("vocabulary").map(|part| part.reading), Some(8.0 * all.vocabulary_bytes));
            assert_eq!(found.blocks.multiplying + found.vocabulary.multiplying, 0.0);
        }
        Ok(())
    }
}
