//! Products with small matrices of any bits, of every type: the tests in the library have large ones, which ggml packs.

use std::sync::Mutex;

use super::kernels::activations::{ActivationBlock, BLOCK, quantize_row};
use super::kernels::isa::Platform;
use super::kernels::matmul::{Activations, matmul};
use super::kernels::testing::{noise, random};
use super::kernels::weights::ByteFormat;
use super::threads::crew::Crew;
use super::threads::pool::{Pool, PoolOptions};
use crate::gguf::TensorType;

fn products(
    platform: Platform,
    ty: TensorType,
    (rows, columns): (usize, usize),
    count: usize,
    threads: usize,
) -> Vec<u32> {
    let packed = random(ty, rows, columns, 7);
    let (w, x) = (packed.matrix(), noise(count * columns, 3));
    let mut blocks = vec![ActivationBlock::default(); x.len() / BLOCK];
    if ty.is_quantized() {
        quantize_row(&x, ByteFormat::of(ty), &mut blocks);
    }
    let x = Activations { floats: &x, blocks: &blocks };
    let out = Mutex::new(vec![0; count * rows]);
    let store = |row: usize, first: usize, y: &[f32]| {
        for (i, &y) in (first..rows).zip(y) {
            // Not a number is one number here: its bits may be any.
            out.lock().unwrap()[row * rows + i] = if y.is_nan() { 1 } else { y.to_bits() };
        }
    };
    let pool = Pool::new(&PoolOptions::new(threads)).unwrap();
    Crew::lead_all(&pool, threads, |crew| matmul(platform, crew, w, count, |_| x, store)).unwrap();
    out.into_inner().unwrap()
}

#[test]
fn products_of_any_bits_are_the_same_in_one_and_two_threads() {
    for ty in TensorType::all() {
        let columns = ty.block_len().max(BLOCK);
        // One whole panel and a part of the next.
        let of = |threads| products(Platform::detect(), ty, (17, columns), 3, threads);
        let one = of(1);
        // A kind of each kernel: how threads share the panels does not depend on the type, and miri is slow.
        if [TensorType::F32, TensorType::Q8_0, TensorType::Q4K].contains(&ty) {
            assert_eq!(one, of(2), "{}", ty.name());
        }
        assert!(one.iter().any(|&bits| bits != 0), "{}", ty.name());
    }
}

/// Of one to nine rows: the kernels multiply several at once.
#[test]
fn every_instruction_set_gives_the_same_bits() {
    for ty in TensorType::all() {
        let columns = 2 * ty.block_len().max(BLOCK);
        for count in 1..10 {
            let all: Vec<_> = Platform::all()
                .map(|platform| (platform.name(), products(platform, ty, (33, columns), count, 1)))
                .collect();
            for (name, bits) in &all {
                assert_eq!(bits, &all[0].1, "{} with {name} and {}", ty.name(), all[0].0);
            }
        }
    }
}
