//! What the network calls of the kernels.

use half::f16;

use super::kernels::activations::{ActivationBlock, quantize_row};
use super::kernels::attention::{Head, attend};
use super::kernels::isa::Platform;
use super::kernels::matmul::{Activations, matmul};
use super::kernels::weights::{ByteFormat, Matrix};
use super::threads::crew::Crew;
use super::threads::pool::{Pool, PoolOptions};
use crate::error::Result;
use crate::gguf::{Layout, TensorInfo, TensorType};

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

/// The time that one thread takes for the products of `rows` rows with `matrices` matrices in panels, one after the other, the best
/// of several: nanoseconds of the processor for 64 weights.
///
/// # Errors
/// Those of a product, and of a pool.
pub fn nanoseconds(
    ty: TensorType,
    [weight_rows, columns]: [usize; 2],
    matrices: usize,
    rows: usize,
) -> Result<f64> {
    const CACHE_LINE: usize = 64;
    const ROUNDS: usize = 7;
    let platform = Platform::detect();
    let len = ty.row_bytes(columns).expect("whole blocks") * weight_rows;
    // Small bytes are small numbers, scales included.
    let bytes =
        |seed: usize| (0..len + CACHE_LINE).map(|i| ((i * 37 + seed) % 61) as u8).collect::<Vec<u8>>();
    let all: Vec<Vec<u8>> = (0..matrices).map(bytes).collect();
    let dims = vec![columns, weight_rows];
    let info = TensorInfo { name: "w".into(), ty, layout: Layout::Panels, dims, range: 0..len };
    let floats: Vec<f32> = (0..rows * columns).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
    let mut blocks = vec![ActivationBlock::default(); rows * columns / 32];
    for (row, to) in floats.chunks(columns).zip(blocks.chunks_mut(columns / 32)) {
        quantize_row(row, ByteFormat::of(ty), to);
    }
    let x = Activations { floats: &floats, blocks: &blocks };
    let pool = Pool::new(&PoolOptions::new(1))?;
    Crew::lead_all(&pool, usize::MAX, |crew| {
        let mut best = f64::INFINITY;
        for _ in 0..ROUNDS {
            let start = processor_seconds();
            for bytes in &all {
                let start = bytes.as_ptr().align_offset(CACHE_LINE);
                let w = Matrix::new(&bytes[start..start + len], &info).expect("as long as it says");
                matmul(
                    platform,
                    crew,
                    w,
                    rows,
                    |_| x,
                    |_, _, products| {
                        std::hint::black_box(products);
                    },
                )?;
            }
            best = best.min(processor_seconds() - start);
        }
        Ok(best * 1e9 * 64.0 / (matrices * weight_rows * columns) as f64)
    })
}

/// Of this thread, so that other processes matter less.
fn processor_seconds() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 * 1e-9
}
