//! Another static Rust library in the same program, with its own copy of std: threads, a caught panic, allocations.

use std::panic::catch_unwind;

/// 1 + 2 + .. + n, computed in a thread. 0 panics: -1 if the panic was caught, -2 if it was not.
#[unsafe(no_mangle)]
pub extern "C" fn second_sum(n: u32) -> i64 {
    let sum = std::thread::spawn(move || catch_unwind(|| sum(n)).unwrap_or(-1));
    sum.join().unwrap_or(-2)
}

fn sum(n: u32) -> i64 {
    assert!(n > 0, "a panic of the second library, which is expected");
    (1..=i64::from(n)).collect::<Vec<_>>().iter().sum()
}
