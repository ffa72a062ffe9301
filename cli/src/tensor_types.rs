//! The types that a model file can be written in.

use esolm::gguf::TensorType;

/// The types of the weight matrices, largest first.
pub const TENSOR_TYPES: [TensorType; 12] = [
    TensorType::F32,
    TensorType::F16,
    TensorType::Bf16,
    TensorType::Q8_0,
    TensorType::Q6K,
    TensorType::Q5K,
    TensorType::Q5_0,
    TensorType::Q4K,
    TensorType::Q4_0,
    TensorType::Iq4Nl,
    TensorType::Q3K,
    TensorType::Q2K,
];

/// The type of this name.
#[cfg(feature = "hub")]
pub fn tensor_type(name: &str) -> Option<TensorType> {
    TENSOR_TYPES.into_iter().find(|ty| ty.name() == name)
}
