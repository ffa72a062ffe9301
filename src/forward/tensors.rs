//! A model's tensors by name, from their order in a model.

use crate::error::{Error, Result};
use crate::model::BLOCK_TENSORS;

/// The tensors of a model. T is whatever a runner has for each of them.
pub(super) struct NetworkTensors<'t, T> {
    pub(super) embedding: &'t T,
    blocks: &'t [T],
    /// Weight and bias, here and below.
    pub(super) output_norm: [&'t T; 2],
    pub(super) output: &'t T,
    pub(super) output_bias: &'t T,
}

/// The tensors of one block.
pub(super) struct Block<T> {
    pub(super) attn_norm: [T; 2],
    pub(super) attn_qkv: T,
    pub(super) attn_output: T,
    pub(super) ffn_norm: [T; 2],
    pub(super) ffn_up: [T; 2],
    pub(super) ffn_down: [T; 2],
}

impl<'t, T> NetworkTensors<'t, T> {
    /// From all tensors in a model's order.
    ///
    /// # Errors
    /// [`Error::Internal`] if some are missing, here and below.
    pub(super) fn new(tensors: &'t [T]) -> Result<Self> {
        let [embedding, blocks @ .., norm, norm_bias, output, output_bias] = tensors else {
            return Err(Error::internal("a model's tensors are missing"));
        };
        Ok(Self { embedding, blocks, output_norm: [norm, norm_bias], output, output_bias })
    }

    /// The tensors of block `number`, each as `make` makes it.
    pub(super) fn block<U>(&self, number: usize, make: impl Fn(&'t T) -> Result<U>) -> Result<Block<U>> {
        let mut blocks = self.blocks.chunks_exact(BLOCK_TENSORS.len());
        // In the order of `BLOCK_TENSORS`.
        let Some([norm, norm_bias, qkv, attn_output, ffn_norm, ffn_norm_bias, up, up_bias, down, down_bias]) =
            blocks.nth(number)
        else {
            return Err(Error::internal(format!("the tensors of block {number} are missing")));
        };
        Ok(Block {
            attn_norm: [make(norm)?, make(norm_bias)?],
            attn_qkv: make(qkv)?,
            attn_output: make(attn_output)?,
            ffn_norm: [make(ffn_norm)?, make(ffn_norm_bias)?],
            ffn_up: [make(up)?, make(up_bias)?],
            ffn_down: [make(down)?, make(down_bias)?],
        })
    }
}
