//! Matrices and noise for the tests of this module's parts.

use super::weights::Matrix;
use crate::gguf::{Layout, TensorInfo, TensorType, convert};

/// Pseudo-random numbers in -1..1.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut rng = crate::rng::Rng::new(seed, 0, crate::rng::Purpose::Token);
    (0..len).map(|_| (2.0 * rng.uniform() - 1.0) as f32).collect()
}

/// A matrix in the form of a model file.
pub(crate) struct Packed {
    pub(crate) bytes: Vec<u8>,
    info: TensorInfo,
}

impl Packed {
    pub(crate) fn matrix(&self) -> Matrix<'_> {
        Matrix::new(&self.bytes, &self.info).unwrap()
    }

    /// The same matrix in panels.
    pub(crate) fn in_panels(&self) -> Self {
        let bytes = convert(self.info.ty, &self.info.dims, &self.bytes, Layout::Panels).unwrap();
        let info = TensorInfo { layout: Layout::Panels, range: 0..bytes.len(), ..self.info.clone() };
        Self { bytes, info }
    }
}

/// Rows of `columns` values, packed as `ty`.
pub(crate) fn packed(ty: TensorType, values: &[f32], columns: usize) -> Packed {
    let mut bytes = vec![0; ty.row_bytes(columns).unwrap() * (values.len() / columns)];
    crate::ggml::quantize(ty, values, columns, None, &mut bytes).unwrap();
    of_bytes(ty, bytes, columns)
}

/// Rows of `columns` values of `ty` from random bits: the scales may be of any size, infinite or NaN.
pub(crate) fn random(ty: TensorType, rows: usize, columns: usize, seed: u64) -> Packed {
    let mut rng = crate::rng::Rng::new(seed, 0, crate::rng::Purpose::Token);
    let len = ty.row_bytes(columns).unwrap() * rows;
    of_bytes(ty, (0..len).map(|_| (256.0 * rng.uniform()) as u8).collect(), columns)
}

fn of_bytes(ty: TensorType, bytes: Vec<u8>, columns: usize) -> Packed {
    let dims = vec![columns, bytes.len() / ty.row_bytes(columns).unwrap()];
    let info = TensorInfo { name: "w".into(), ty, layout: Layout::Plain, dims, range: 0..bytes.len() };
    Packed { bytes, info }
}
