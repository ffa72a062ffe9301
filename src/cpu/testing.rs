//! Matrices and noise for the tests of this module's parts.

use crate::cpu::unpack::Matrix;
use crate::gguf::{TensorInfo, TensorType};

/// Numbers in -1..1 that look random.
pub(super) fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut rng = crate::rng::Rng::new(seed, 0, crate::rng::Purpose::Token);
    (0..len).map(|_| (2.0 * rng.uniform() - 1.0) as f32).collect()
}

/// A matrix as a file has it.
pub(super) struct Packed {
    pub(super) bytes: Vec<u8>,
    info: TensorInfo,
}

impl Packed {
    pub(super) fn matrix(&self) -> Matrix<'_> {
        Matrix::new(&self.bytes, &self.info).unwrap()
    }
}

/// Rows of `columns` values, packed as `ty`.
pub(super) fn packed(ty: TensorType, values: &[f32], columns: usize) -> Packed {
    let rows = values.len() / columns;
    let mut bytes = vec![0; ty.row_bytes(columns).unwrap() * rows];
    crate::ggml::quantize(ty, values, columns, None, &mut bytes).unwrap();
    let info = TensorInfo { name: "w".into(), ty, dims: vec![columns, rows], range: 0..bytes.len() };
    Packed { bytes, info }
}
