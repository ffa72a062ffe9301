//! What the network calls of the kernels.

use half::f16;

use super::kernels::attention::{Head, attend};
use super::kernels::isa::Platform;
use super::kernels::matmul::{Activations, matmul};
use super::kernels::weights::Matrix;
use super::threads::crew::Crew;

type Store<'a> = &'a (dyn Fn(usize, usize, &[f32]) + Sync);

pub fn products(crew: &Crew<'_>, w: Matrix<'_>, rows: usize, x: Activations<'_>, store: Store<'_>) -> bool {
    matmul(Platform::detect(), crew, w, rows, |_| x, store).is_ok()
}

pub fn attend_f16(head: Head<'_, f16>, rows: usize, store: &mut dyn FnMut(usize, usize, &[f32])) {
    attend(Platform::detect(), head, rows, store);
}

pub fn attend_f32(head: Head<'_, f32>, rows: usize, store: &mut dyn FnMut(usize, usize, &[f32])) {
    attend(Platform::detect(), head, rows, store);
}
