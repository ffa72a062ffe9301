//! What the kernels take on this processor, in nanoseconds of one thread for 64 weights, by type and by rows of activations, with
//! weights that the second-level cache holds and with weights from memory:
//!
//! `cargo run --release --manifest-path benches/cycles/Cargo.toml --example times [-- TYPES [ROWS [COLUMNS]]]`

use esolm_cycles::{TensorType, nanoseconds};

fn main() {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let list = |place: usize, default: &str| -> Vec<String> {
        given.get(place).map_or(default, String::as_str).split(',').map(str::to_owned).collect()
    };
    let rows: Vec<usize> = list(1, "1,2,3,4,5,6,8,9,12,16,17,32,64")
        .iter()
        .map(|n| n.parse().expect("a number of rows"))
        .collect();
    let columns: usize = given.get(2).map_or(Ok(1024), |n| n.parse()).expect("a number of columns");
    // As many weights with any number of columns.
    let weight_rows = |weights: usize| (weights / columns).max(1).next_multiple_of(32);
    println!("{:22}{}", "rows", rows.iter().map(|rows| format!("{rows:7}")).collect::<String>());
    for name in list(0, "q8_0,q4_k,q6_k") {
        let ty = TensorType::from_name(&name).expect("a type such as q4_k");
        for (place, weights, matrices) in [("cache", 512 * 1024, 1), ("memory", 3072 * 1024, 60)] {
            let matrix = [weight_rows(weights), columns];
            let time = |&rows: &usize| nanoseconds(ty, matrix, matrices, rows).expect("a product");
            let times: String = rows.iter().map(time).map(|time| format!("{time:7.2}")).collect();
            println!("{:22}{times}", format!("{name}, from {place}"));
        }
    }
}
