use super::*;
use crate::forward::cpu::kernels::cache::{KEY_GROUP, key_index, scale_index};
use crate::forward::cpu::kernels::testing::noise;

/// softmax(q k^T / sqrt(Dh)) v of one row over some slots.
fn definition(query: &[f32], keys: &[f32], values: &[f32], slots: &[usize]) -> Vec<f64> {
    let dh = query.len();
    let score = |&slot: &usize| {
        let products = query.iter().zip(&keys[slot * dh..]);
        products.map(|(&q, &k)| f64::from(q) * f64::from(k)).sum::<f64>() / (dh as f64).sqrt()
    };
    let weights: Vec<f64> = slots.iter().map(|slot| score(slot).exp()).collect();
    let total: f64 = weights.iter().sum();
    let column = |i: usize| {
        let values = slots.iter().map(|slot| f64::from(values[slot * dh + i]));
        values.zip(&weights).map(|(v, w)| v * w / total).sum()
    };
    (0..dh).map(column).collect()
}

/// Keys or values as they are in the cache, where `interleaved` says whether neighbouring slots are, with their scales; and what
/// they are worth. Behind the last slot are NaNs, which must not be read.
fn cached<T: CacheElement>(
    x: &[f32],
    dh: usize,
    interleaved: bool,
    (nan, value): (T, fn(T) -> f32),
) -> (Vec<T>, Vec<f16>, Vec<f32>) {
    let slots = x.len() / dh;
    let padded = slots.next_multiple_of(KEY_GROUP) * dh;
    let (mut numbers, mut scales) = (vec![nan; padded], vec![f16::NAN; padded / SCALED]);
    let mut worth = x.to_vec();
    for (slot, x) in x.chunks_exact(dh).enumerate() {
        let (mut row, mut of_row) = (vec![T::ZERO; dh], vec![f16::ONE; dh.div_ceil(SCALED)]);
        T::convert(x, &mut row, &mut of_row);
        for (i, &x) in row.iter().enumerate() {
            let at = if interleaved { key_index(slot, dh) + i * KEY_GROUP } else { slot * dh + i };
            numbers[at] = x;
            worth[slot * dh + i] = value(x) * of_row[i / SCALED].to_f32();
        }
        for (i, &scale) in of_row[..dh / SCALED].iter().enumerate() {
            scales[scale_index(slot, dh) + i * KEY_GROUP] = scale;
        }
    }
    (numbers, if T::HAS_SCALES { scales } else { vec![] }, worth)
}

fn check<T: CacheElement>(dh: usize, slots: usize, number: (T, fn(T) -> f32)) {
    let queries: Vec<f32> = noise(TILE * dh, 1).iter().map(|q| 4.0 * q).collect();
    let (keys, key_scales, exact_keys) = cached(&noise(slots * dh, 2), dh, true, number);
    let (values, value_scales, exact_values) = cached(&noise(slots * dh, 3), dh, false, number);
    let visible_slots = [slots, slots.div_ceil(2), 1, slots - slots / 4];
    let own_slots = [None, Some(slots - 1), Some(slots / 2), None];
    let mut single = vec![];
    for rows in 1..=TILE {
        let first: Vec<usize> = if rows == 1 { (0..TILE).collect() } else { vec![0] };
        for first in first {
            let at = |i: usize| (first + i).min(TILE - 1);
            let attended = |platform| {
                let mut out = vec![0.0; rows * dh];
                let head = Head {
                    queries: std::array::from_fn(|i| &queries[at(i) * dh..(at(i) + 1) * dh]),
                    visible_slots: std::array::from_fn(|i| visible_slots[at(i)]),
                    own_slots: std::array::from_fn(|i| own_slots[at(i)]),
                    keys: &keys,
                    values: &values[..slots * dh],
                    key_scales: &key_scales,
                    value_scales: &value_scales,
                    next_keys: &keys,
                    scores: &mut vec![0.0; TILE * slots.next_multiple_of(KEY_GROUP)],
                };
                attend(platform, head, rows, |row, column, y| {
                    out[row * dh + column..][..y.len()].copy_from_slice(y);
                });
                out
            };
            let out = attended(Platform::detect());
            for platform in Platform::all() {
                assert!(attended(platform) == out, "{platform:?}, {slots} slots of {dh}");
            }
            for (i, row) in out.chunks_exact(dh).enumerate() {
                let own = own_slots[at(i)].filter(|&slot| slot >= visible_slots[at(i)]);
                let visible: Vec<usize> = (0..visible_slots[at(i)]).chain(own).collect();
                let query = &queries[at(i) * dh..(at(i) + 1) * dh];
                let exact = definition(query, &exact_keys, &exact_values, &visible);
                for (own, exact) in row.iter().zip(exact) {
                    assert!((f64::from(*own) - exact).abs() < 1e-5, "{dh} {slots}: {own} {exact}");
                }
                match rows {
                    1 => single.push(row.to_vec()),
                    _ => assert!(row == single[i], "row {i} of {rows}, {slots} slots of {dh}"),
                }
            }
        }
    }
}

#[test]
fn attention_matches_its_definition_whatever_the_other_rows_see() {
    for (dh, slots) in [(8, 1), (24, 5), (64, 8), (40, 16), (64, 37), (64, 128), (80, 130)] {
        check(dh, slots, (f32::NAN, |x| x));
        check(dh, slots, (f16::NAN, f16::to_f32));
    }
    for (dh, slots) in [(32, 1), (32, 16), (64, 37), (96, 18), (96, 48), (128, 130)] {
        check(dh, slots, (i8::MIN, f32::from));
    }
}
