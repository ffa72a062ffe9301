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

/// One line per type: the number in files (ggml's `enum ggml_type`), name, elements and bytes per block, and
/// `general.file_type` of a file that is mostly of this type (llama.cpp's `enum llama_ftype`).
const TABLE: [(TensorType, u32, &str, usize, usize, u32); 14] = [
    (TensorType::F32, 0, "f32", 1, 4, 0),
    (TensorType::F16, 1, "f16", 1, 2, 1),
    (TensorType::Q4_0, 2, "q4_0", 32, 18, 2),
    (TensorType::Q4_1, 3, "q4_1", 32, 20, 3),
    (TensorType::Q5_0, 6, "q5_0", 32, 22, 8),
    (TensorType::Q5_1, 7, "q5_1", 32, 24, 9),
    (TensorType::Q8_0, 8, "q8_0", 32, 34, 7),
    (TensorType::Q2K, 10, "q2_k", 256, 84, 10),
    (TensorType::Q3K, 11, "q3_k", 256, 110, 12),
    (TensorType::Q4K, 12, "q4_k", 256, 144, 15),
    (TensorType::Q5K, 13, "q5_k", 256, 176, 17),
    (TensorType::Q6K, 14, "q6_k", 256, 210, 18),
    (TensorType::Iq4Nl, 20, "iq4_nl", 32, 18, 25),
    (TensorType::Bf16, 30, "bf16", 1, 2, 32),
];

impl TensorType {
    /// Every type, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.0)
    }

    /// The type with this number in a file, if it is one that esolm computes with.
    pub fn from_code(code: u32) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == code).map(|row| row.0)
    }

    /// The type with this lower-case name (`q8_0`).
    pub fn from_name(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.2 == name).map(|row| row.0)
    }

    fn row(self) -> &'static (TensorType, u32, &'static str, usize, usize, u32) {
        // The table has a line for every variant (a test counts them), so the fallback is never taken.
        TABLE.iter().find(|row| row.0 == self).unwrap_or(&TABLE[0])
    }

    /// The type's number in files and in ggml.
    pub fn code(self) -> u32 {
        self.row().1
    }

    /// The type's lower-case name.
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// Elements of a row that are packed together; a row's length is a multiple of it.
    pub fn block_len(self) -> usize {
        self.row().3
    }

    /// Bytes of one block.
    pub fn block_bytes(self) -> usize {
        self.row().4
    }

    /// The `general.file_type` of a file whose large tensors are of this type.
    pub fn file_type(self) -> u32 {
        self.row().5
    }

    /// Whether elements share a block and its scale, so that packing loses something everywhere.
    pub fn is_quantized(self) -> bool {
        self.block_len() > 1
    }

    /// Bytes of a row of `len` elements; `None` if `len` is no multiple of the block or the size overflows.
    pub fn row_bytes(self, len: usize) -> Option<usize> {
        if !len.is_multiple_of(self.block_len()) {
            return None;
        }
        (len / self.block_len()).checked_mul(self.block_bytes())
    }

    /// Bytes of a tensor of this shape, fastest dimension first; `None` as for [`TensorType::row_bytes`], or
    /// if there is no dimension at all.
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
            assert_eq!(t.row().0, t);
        }
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
