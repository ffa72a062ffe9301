//! Damaged inputs, and rules that fit no tensor.

use esolm::Error;
use esolm::gguf::{Gguf, TensorType};
use esolm::quantize::{Policy, QuantizeOptions, Rule, quantize};

use super::{Scratch, all_tensors, wide};
use crate::reference::{Network, Random, config};

#[test]
fn damaged_inputs_are_refused_and_named() {
    let model = Network::random(config(1, 1), 2);
    let bytes = model.to_gguf();
    let gguf = Gguf::parse(&bytes, "in").unwrap();
    let options = QuantizeOptions { threads: 2, ..QuantizeOptions::new(TensorType::Q4_0) };
    for (value, ty) in [(f32::NAN, "q4_0"), (f32::INFINITY, "q4_0"), (1e6, "q4_0")] {
        let mut bad = bytes.clone();
        let at = gguf.tensor("blk.0.ffn_up.weight").unwrap().range.start + 4 * 5000;
        bad[at..at + 4].copy_from_slice(&value.to_le_bytes());
        let error = Scratch::new(&bad).error(&options);
        assert!(matches!(error, Error::BadFile { .. }), "{error}");
        assert!(
            error.to_string().contains("blk.0.ffn_up.weight") && error.to_string().contains(ty),
            "{error}"
        );
    }
    for len in [0, 3, 24, 1000, bytes.len() - 1] {
        assert!(matches!(Scratch::new(&bytes[..len]).error(&options), Error::BadFile { .. }), "{len}");
    }
    let directory = tempfile::tempdir().unwrap();
    let to = directory.path().join("x.gguf");
    assert!(quantize(directory.path(), &to, &options, &mut |_| ()).is_err());
    assert!(matches!(quantize(&to, &to, &options, &mut |_| ()), Err(Error::Io { .. })));
    // A model of another architecture, and one that lacks a tensor.
    let at = bytes.windows(5).position(|w| w == b"esolm").unwrap();
    let mut other = bytes.clone();
    other[at..at + 5].copy_from_slice(b"llama");
    assert!(matches!(Scratch::new(&other).error(&options), Error::BadFile { .. }));
    let at = bytes.windows(13).position(|w| w == b"output.weight").unwrap();
    let mut other = bytes.clone();
    other[at] = b'O';
    assert!(Scratch::new(&other).error(&options).to_string().contains("output.weight"));
}

#[test]
fn random_blocks_and_damaged_headers_do_not_crash() {
    let scratch = Scratch::new(&Network::random(wide(), 8).to_gguf());
    let mut random = Random(99);
    for ty in TensorType::all() {
        let path = scratch.path("packed.gguf");
        scratch.quantize("packed.gguf", &QuantizeOptions { force: true, ..all_tensors(ty) }).unwrap();
        let good = std::fs::read(&path).unwrap();
        let gguf = Gguf::parse(&good, "packed").unwrap();
        let range = gguf.tensor("blk.1.attn_qkv.weight").unwrap().range.clone();
        for round in 0..8 {
            let mut bad = good.clone();
            bad[range.clone()].iter_mut().for_each(|b| *b = random.next() as u8);
            if round % 2 == 0 {
                // Small scales, so that every number is finite; quants stay random.
                bad[range.clone()].chunks_mut(2).for_each(|pair| pair[pair.len() - 1] &= 0x1f);
            }
            let other = Scratch::new(&bad);
            let to = if ty == TensorType::Q8_0 { TensorType::Q5_0 } else { TensorType::Q8_0 };
            match other.quantize("out.gguf", &QuantizeOptions { threads: 1, ..all_tensors(to) }) {
                Ok(_) => {}
                Err(Error::BadFile { what, .. }) => assert!(what.contains("blk.1.attn_qkv.weight"), "{what}"),
                Err(error) => panic!("{error}"),
            }
        }
    }
    let good = Network::random(config(1, 1), 2).to_gguf();
    let header = Gguf::parse(&good, "in").unwrap().tensors().iter().map(|t| t.range.start).min().unwrap();
    for _ in 0..300 {
        let mut bad = good.clone();
        bad[random.below(header)] = random.next() as u8;
        let scratch = Scratch::new(&bad);
        let _ =
            scratch.quantize("out.gguf", &QuantizeOptions { threads: 1, ..all_tensors(TensorType::Q4_0) });
    }
}

#[test]
fn rules_that_match_no_tensor_are_refused() {
    let scratch = Scratch::new(&Network::random(wide(), 8).to_gguf());
    for pattern in ["blk.2.*", "outputs.weight", "*.bias"] {
        let policy =
            Policy { rules: vec![Rule::new(pattern, TensorType::Q8_0)], ..Policy::new(TensorType::Q4K) };
        let error = scratch.error(&QuantizeOptions { policy, ..QuantizeOptions::new(TensorType::Q4K) });
        assert!(matches!(error, Error::InvalidArgument(_)) && error.to_string().contains(pattern), "{error}");
    }
}
