//! A model's tensors by name, from their order in a model.

use crate::error::{Error, Result};
use crate::model::{Architecture, BlockTensor, Norm};

/// The tensors of a model. T is whatever a runner has for each of them.
pub(super) struct NetworkTensors<'t, T> {
    architecture: &'t Architecture,
    pub(super) embedding: &'t T,
    blocks: &'t [T],
    pub(super) output_norm: NormTensors<&'t T>,
    /// The embedding, if it is tied.
    pub(super) output: &'t T,
    pub(super) output_bias: Option<&'t T>,
}

/// Weight and bias of a norm.
#[derive(Debug, Clone, Copy)]
pub(super) struct NormTensors<T> {
    pub(super) weight: T,
    /// A LayerNorm's.
    pub(super) bias: Option<T>,
}

/// The matrices that make queries, keys and values.
#[derive(Debug, Clone, Copy)]
pub(super) enum Projection<T> {
    /// One for all.
    Fused(T),
    /// One each.
    Separate([T; 3]),
}

/// The tensors of one block.
pub(super) struct Block<T> {
    pub(super) attn_norm: NormTensors<T>,
    pub(super) qkv: Projection<T>,
    /// Of queries, keys and values.
    pub(super) qkv_biases: Option<[T; 3]>,
    /// The norms' weights of each head's query and key.
    pub(super) qk_norms: Option<[T; 2]>,
    pub(super) attn_output: T,
    pub(super) ffn_norm: NormTensors<T>,
    pub(super) gate: Option<T>,
    pub(super) up: T,
    pub(super) up_bias: Option<T>,
    pub(super) down: T,
    pub(super) down_bias: Option<T>,
}

impl<'t, T> NetworkTensors<'t, T> {
    /// From all tensors in a model's order.
    ///
    /// # Errors
    /// [`Error::Internal`] if some are missing, here and below.
    pub(super) fn new(tensors: &'t [T], architecture: &'t Architecture) -> Result<Self> {
        let missing = || Error::internal("a model's tensors are missing");
        let (embedding, mut rest) = tensors.split_first().ok_or_else(missing)?;
        // From the end on.
        let mut last = |is_there: bool| match rest.split_last() {
            Some((tensor, others)) if is_there => {
                rest = others;
                Ok(Some(tensor))
            }
            None if is_there => Err(missing()),
            _ => Ok(None),
        };
        let output_bias = last(architecture.output_bias)?;
        let output = last(!architecture.tied_output)?.unwrap_or(embedding);
        let bias = last(architecture.norm == Norm::Layer)?;
        let weight = last(true)?.ok_or_else(missing)?;
        let output_norm = NormTensors { weight, bias };
        Ok(Self { architecture, embedding, blocks: rest, output_norm, output, output_bias })
    }

    /// The tensors of block `number`, each as `make` makes it.
    pub(super) fn block<U>(&self, number: usize, make: impl Fn(&'t T) -> Result<U>) -> Result<Block<U>> {
        let missing = || Error::internal(format!("the tensors of block {number} are missing"));
        let per_block = self.architecture.block_tensors().count();
        let of_block = self.blocks.chunks_exact(per_block).nth(number).ok_or_else(missing)?;
        let mut rest = of_block.iter();
        // In the order of `Architecture::block_tensors`.
        let mut any = |tensor: BlockTensor| match tensor.is_in(self.architecture) {
            true => make(rest.next().ok_or_else(missing)?).map(Some),
            false => Ok(None),
        };
        use BlockTensor as B;
        Ok(Block {
            attn_norm: NormTensors {
                weight: any(B::AttnNorm)?.ok_or_else(missing)?,
                bias: any(B::AttnNormBias)?,
            },
            qkv: match any(B::Qkv)? {
                Some(fused) => Projection::Fused(fused),
                None => Projection::Separate([
                    any(B::Query)?.ok_or_else(missing)?,
                    any(B::Key)?.ok_or_else(missing)?,
                    any(B::Value)?.ok_or_else(missing)?,
                ]),
            },
            qkv_biases: three([any(B::QueryBias)?, any(B::KeyBias)?, any(B::ValueBias)?]),
            qk_norms: match [any(B::QueryNorm)?, any(B::KeyNorm)?] {
                [Some(query), Some(key)] => Some([query, key]),
                _ => None,
            },
            attn_output: any(B::AttnOutput)?.ok_or_else(missing)?,
            ffn_norm: NormTensors {
                weight: any(B::FfnNorm)?.ok_or_else(missing)?,
                bias: any(B::FfnNormBias)?,
            },
            gate: any(B::Gate)?,
            up: any(B::Up)?.ok_or_else(missing)?,
            up_bias: any(B::UpBias)?,
            down: any(B::Down)?.ok_or_else(missing)?,
            down_bias: any(B::DownBias)?,
        })
    }
}

fn three<T>(tensors: [Option<T>; 3]) -> Option<[T; 3]> {
    match tensors {
        [Some(a), Some(b), Some(c)] => Some([a, b, c]),
        _ => None,
    }
}
