//! Another Rust library in the same program, with a runtime of its own: threads, a panic that is caught, allocations.

use std::panic::catch_unwind;

/// 1 + 2 + .. + n, summed by a thread; -1 for 0, by way of a panic that is caught, -2 if it was not.
#[unsafe(no_mangle)]
pub extern "C" fn second_sum(n: u32) -> i64 {
    let sum = std::thread::spawn(move || catch_unwind(|| sum(n)).unwrap_or(-1));
    sum.join().unwrap_or(-2)
}

fn sum(n: u32) -> i64 {
    assert!(n > 0, "a panic of the second library, which is expected");
    (1..=i64::from(n)).collect::<Vec<_>>().iter().sum()
}
