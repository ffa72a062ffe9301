//! The element types of tensors and the geometry of their blocks.

/// How a tensor's elements are stored. Quantized types pack `block_len` elements of a row in `block_bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are ggml's own and say all there is to say")]
pub enum TensorType {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Iq4Nl,
}

/// What ggml and llama.cpp say about a type.
struct Description {
    /// Number in files: ggml's `enum ggml_type`.
    code: u32,
    name: &'static str,
    block_len: usize,
    block_bytes: usize,
    /// `general.file_type` of a file that is mostly of this type: llama.cpp's `enum llama_ftype`.
    file_type: u32,
}

impl TensorType {
    /// By code.
    const ALL: [Self; 14] = [
        Self::F32,
        Self::F16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
        Self::Iq4Nl,
        Self::Bf16,
    ];

    const fn description(self) -> Description {
        let (code, name, block_len, block_bytes, file_type) = match self {
            Self::F32 => (0, "f32", 1, 4, 0),
            Self::F16 => (1, "f16", 1, 2, 1),
            Self::Q4_0 => (2, "q4_0", 32, 18, 2),
            Self::Q4_1 => (3, "q4_1", 32, 20, 3),
            Self::Q5_0 => (6, "q5_0", 32, 22, 8),
            Self::Q5_1 => (7, "q5_1", 32, 24, 9),
            Self::Q8_0 => (8, "q8_0", 32, 34, 7),
            Self::Q2K => (10, "q2_k", 256, 84, 10),
            Self::Q3K => (11, "q3_k", 256, 110, 12),
            Self::Q4K => (12, "q4_k", 256, 144, 15),
            Self::Q5K => (13, "q5_k", 256, 176, 17),
            Self::Q6K => (14, "q6_k", 256, 210, 18),
            Self::Iq4Nl => (20, "iq4_nl", 32, 18, 25),
            Self::Bf16 => (30, "bf16", 1, 2, 32),
        };
        Description { code, name, block_len, block_bytes, file_type }
    }

    /// Every type, in the order of their numbers in files.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter()
    }

    /// The type with this number in files, if esolm supports it.
    pub fn from_code(code: u32) -> Option<Self> {
        Self::all().find(|ty| ty.code() == code)
    }

    /// The type with this lower-case name (`q8_0`).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::all().find(|ty| ty.name() == name)
    }

    /// The type's number in files and in ggml.
    pub fn code(self) -> u32 {
        self.description().code
    }

    /// The type's lower-case name.
    pub fn name(self) -> &'static str {
        self.description().name
    }

    /// Elements per block; a row's length is a multiple of it.
    pub fn block_len(self) -> usize {
        self.description().block_len
    }

    /// Bytes of one block.
    pub fn block_bytes(self) -> usize {
        self.description().block_bytes
    }

    /// Where the blocks of a type have their scale, if they are not a multiple of four bytes long without it.
    pub(crate) fn half_field(self) -> Option<usize> {
        match self {
            Self::Q4_0 | Self::Q5_0 | Self::Q8_0 | Self::Iq4Nl => Some(0),
            Self::Q3K | Self::Q6K => Some(self.block_bytes() - 2),
            _ => None,
        }
    }

    /// The `general.file_type` of a file whose large tensors are of this type.
    pub fn file_type(self) -> u32 {
        self.description().file_type
    }

    /// Whether a block of elements shares a scale, so that every element loses precision.
    pub fn is_quantized(self) -> bool {
        self.block_len() > 1
    }

    /// Bytes of a row of `len` elements; `None` if `len` is not a multiple of the block's or the size overflows.
    pub fn row_bytes(self, len: usize) -> Option<usize> {
        if !len.is_multiple_of(self.block_len()) {
            return None;
        }
        (len / self.block_len()).checked_mul(self.block_bytes())
    }

    /// Bytes of a tensor of this shape, fastest dimension first; `None` as for [`TensorType::row_bytes`], or if `dims` is
    /// empty.
    pub fn tensor_bytes(self, dims: &[usize]) -> Option<usize> {
        let (&row, rest) = dims.split_first()?;
        rest.iter().try_fold(self.row_bytes(row)?, |bytes, &dim| bytes.checked_mul(dim))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_found_by_code_and_name() {
        for t in TensorType::all() {
            assert_eq!(TensorType::from_code(t.code()), Some(t));
            assert_eq!(TensorType::from_name(t.name()), Some(t));
        }
        assert!(TensorType::ALL.is_sorted_by_key(|t| t.code()), "each once");
        assert_eq!(TensorType::from_code(4), None, "q4_2 was removed from ggml");
        assert_eq!(TensorType::from_code(u32::MAX), None);
    }

    #[test]
    fn row_bytes_are_of_whole_blocks() {
        assert_eq!(TensorType::Q8_0.row_bytes(64), Some(68));
        assert_eq!(TensorType::Q8_0.row_bytes(33), None);
        assert_eq!(TensorType::F32.row_bytes(usize::MAX), None);
    }
}
