//! Another Rust library in the same program, with a runtime of its own: threads, a panic that is caught, allocations.

/// 1 + 2 + .. + n, summed by a thread; -1 for 0, by way of a panic.
#[unsafe(no_mangle)]
pub extern "C" fn second_sum(n: u32) -> i64 {
    let sum = std::thread::spawn(move || {
        assert!(n > 0, "a panic of the second library, which is expected");
        (1..=i64::from(n)).collect::<Vec<_>>().iter().sum()
    });
    sum.join().unwrap_or(-1)
}
