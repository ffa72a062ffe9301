//! The GGUF reader against files made to break it: an error every time, no panic, no large allocation.

use esolm::gguf::{Array, Gguf, TensorType, Value, Writer};

/// A small well-formed file.
fn good() -> Vec<u8> {
    let mut w = Writer::new();
    w.set("general.architecture", Value::Str("esolm".into()));
    w.set("a.number", Value::U32(7));
    w.set("a.list", Value::Array(Array::new(&[Value::Str("x".into()), Value::Str("yz".into())]).unwrap()));
    w.declare("one", TensorType::F32, &[4, 2]).unwrap();
    w.declare("two", TensorType::Q8_0, &[64]).unwrap();
    let mut out = Vec::new();
    w.write(&mut out, |name, bytes| {
        bytes.resize(if name == "one" { 32 } else { 68 }, 1);
        Ok(())
    })
    .unwrap();
    out
}

fn error(bytes: &[u8]) -> String {
    match Gguf::parse(bytes, "f.gguf") {
        Ok(_) => panic!("accepted"),
        Err(e) => e.to_string(),
    }
}

/// The position just after the first occurrence of `needle`.
fn after(bytes: &[u8], needle: &[u8]) -> usize {
    bytes.windows(needle.len()).position(|w| w == needle).unwrap() + needle.len()
}

fn with(at: usize, patch: &[u8]) -> Vec<u8> {
    let mut bytes = good();
    bytes[at..at + patch.len()].copy_from_slice(patch);
    bytes
}

#[test]
fn written_file_is_read_back() {
    let bytes = good();
    let gguf = Gguf::parse(&bytes, "f.gguf").unwrap();
    assert_eq!(gguf.text("general.architecture").unwrap(), "esolm");
    assert_eq!(gguf.u64_in("a.number", 0..=9).unwrap(), 7);
    assert_eq!(gguf.get("a.list").unwrap().to_string(), "(2 values)");
    let two = gguf.tensor("two").unwrap();
    assert_eq!((two.ty, two.dims.as_slice(), two.range.len()), (TensorType::Q8_0, &[64][..], 68));
    assert_eq!(two.range.start % 32, 0);
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = good();
    for len in 0..bytes.len() {
        error(&bytes[..len]);
    }
}

#[test]
fn no_changed_byte_crashes() {
    let bytes = good();
    for at in 0..bytes.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bad = bytes.clone();
            bad[at] = value;
            let _ = Gguf::parse(&bad, "f.gguf");
        }
    }
}

#[test]
fn wrong_magic_and_versions_are_refused() {
    assert!(error(b"GGML").contains("not a GGUF file"));
    assert!(error(&with(4, &2u32.to_le_bytes())).contains("version 2"));
    assert!(error(&with(4, &3u32.to_be_bytes())).contains("big-endian"));
}

#[test]
fn absurd_counts_and_lengths_are_refused() {
    assert!(error(&with(8, &u64::MAX.to_le_bytes())).contains("tensors"));
    assert!(error(&with(16, &u64::MAX.to_le_bytes())).contains("metadata keys"));
    assert!(error(&with(24, &u64::MAX.to_le_bytes())).contains("metadata key"));
    let list = after(&good(), b"a.list") + 4 + 4;
    assert!(error(&with(list, &u64::MAX.to_le_bytes())).contains("do not fit"));
    assert!(error(&with(list, &(1u64 << 40).to_le_bytes())).contains("do not fit"));
    let text = after(&good(), b"general.architecture") + 4;
    assert!(error(&with(text, &(u64::MAX - 3).to_le_bytes())).contains("ends inside"));
}

#[test]
fn shapes_that_overflow_or_disagree_with_the_file_are_refused() {
    let one = after(&good(), b"one");
    assert!(error(&with(one, &0u32.to_le_bytes())).contains("0 dimensions"));
    assert!(error(&with(one, &5u32.to_le_bytes())).contains("5 dimensions"));
    assert!(error(&with(one + 4, &0u64.to_le_bytes())).contains("dimension of 0"));
    assert!(error(&with(one + 4, &u64::MAX.to_le_bytes())).contains("dimension of"));
    // 2^31-1 rows of 4 floats: the size does not overflow, the file is too short.
    assert!(error(&with(one + 12, &(i32::MAX as u64).to_le_bytes())).contains("ends beyond the file"));
    let two = after(&good(), b"two");
    assert!(error(&with(two + 4, &63u64.to_le_bytes())).contains("does not fit the type q8_0"));
    assert!(error(&with(two + 12, &4u32.to_le_bytes())).contains("unsupported type number 4"));
}

#[test]
fn offsets_that_overlap_overflow_or_are_unaligned_are_refused() {
    let offset = after(&good(), b"two") + 4 + 8 + 4;
    assert!(error(&with(offset, &0u64.to_le_bytes())).contains("overlap"));
    assert!(error(&with(offset, &33u64.to_le_bytes())).contains("not aligned"));
    assert!(error(&with(offset, &(u64::MAX - 31).to_le_bytes())).contains("ends beyond the file"));
}

#[test]
fn duplicate_keys_and_tensors_are_refused() {
    let name = after(&good(), b"two") - 3;
    assert!(error(&with(name, b"one")).contains("tensor 'one' appears twice"));
    let key = after(&good(), b"a.number");
    let mut w = good();
    // Two keys of one name have the same length, so they are written by hand below.
    w[key - 8..key].copy_from_slice(b"a.number");
    assert!(Gguf::parse(&w, "f").is_ok());
    let mut bytes = Vec::new();
    bytes.extend(b"GGUF");
    bytes.extend(3u32.to_le_bytes());
    bytes.extend(0u64.to_le_bytes());
    bytes.extend(2u64.to_le_bytes());
    for _ in 0..2 {
        bytes.extend(1u64.to_le_bytes());
        bytes.extend(b"k");
        bytes.extend(7u32.to_le_bytes());
        bytes.push(1);
    }
    assert!(error(&bytes).contains("key 'k' appears twice"));
}

#[test]
fn values_outside_their_type_are_refused() {
    let mut w = Writer::new();
    w.set("flag", Value::Bool(true));
    w.set("general.alignment", Value::U32(32));
    let mut bytes = Vec::new();
    w.write(&mut bytes, |_, _| Ok(())).unwrap();
    let alignment = after(&bytes, b"general.alignment") + 4;
    bytes[alignment] = 24;
    assert!(error(&bytes).contains("power of two"));
    let flag = after(&bytes, b"flag") + 4;
    bytes[flag] = 2;
    assert!(error(&bytes).contains("2 is not 0 or 1"));
    bytes[flag - 4] = 99;
    assert!(error(&bytes).contains("unknown type number 99"));
}
