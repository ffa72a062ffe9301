//! Small files with every byte changed, and cut off at every byte: a result or an error.

use std::io::Write;

use super::pickle::Pickle;
use super::zip;
use crate::gguf::{Gguf, TensorType, Value, Writer};

/// `file` with each byte changed in some ways, and each of its beginnings.
fn damaged(file: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let changed = (0..file.len()).flat_map(|at| [0x01, 0x80, 0xff].map(|bits| (at, bits)));
    let changed = changed.map(|(at, bits)| {
        let mut file = file.to_vec();
        file[at] ^= bits;
        file
    });
    changed.chain((0..file.len()).map(|len| file[..len].to_vec()))
}

fn gguf() -> Vec<u8> {
    let mut writer = Writer::new();
    writer.set("a", Value::U32(7));
    writer.set("text", Value::Str("some text".into()));
    writer.declare("w", TensorType::F32, &[8, 2]).unwrap();
    let mut file = Vec::new();
    let tensor = |_: &str, bytes: &mut Vec<u8>| {
        bytes.extend([0; 64]);
        Ok(())
    };
    writer.write(&mut file, tensor).unwrap();
    file
}

#[test]
fn damaged_gguf_is_read_or_refused() {
    let whole = gguf();
    let read = Gguf::parse(&whole, "whole").unwrap();
    assert_eq!((read.text("text").unwrap(), read.tensors().len()), ("some text", 1));
    let header = whole.len() - 64;
    let mut refused = 0;
    for file in damaged(&whole[..header]) {
        let file = if file.len() == header { [&file[..], &[0; 64]].concat() } else { file };
        match Gguf::parse(&file, "damaged") {
            Ok(read) => read.tensors().iter().for_each(|tensor| drop(tensor.bytes(&file))),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > header, "{refused} of {header}");
}

#[test]
fn damaged_pickle_is_read_or_refused() {
    const WHOLE: &[u8] = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01J\xfe\xff\xff\xffeX\x01\x00\x00\x00bq\x03\
        c_codecs\nencode\nq\x04X\x02\x00\x00\x00\xc3\xbfq\x05\x86q\x07Rq\x08u.";
    let mut refused = 0;
    for file in damaged(WHOLE) {
        match Pickle::parse(&file, "damaged") {
            Ok(read) => {
                let _ = read.get(read.root(), "b").map(|id| (read.bytes(id), read.class(id).is_some()));
            }
            Err(_) => refused += 1,
        }
    }
    assert!(refused > WHOLE.len(), "{refused} of {}", WHOLE.len());
}

#[test]
fn damaged_zip_is_read_or_refused() {
    let word = |n: usize| (n as u32).to_le_bytes();
    let short = |n: usize| (n as u16).to_le_bytes();
    let mut whole = [b"PK\x03\x04".as_slice(), &[0; 14], &word(2), &word(2), &short(1), &short(0), b"ahi"].concat();
    let directory = whole.len();
    whole.extend([b"PK\x01\x02".as_slice(), &[0; 16], &word(2), &word(2), &short(1), &[0; 16], b"a"].concat());
    let len = whole.len() - directory;
    whole.extend([b"PK\x05\x06".as_slice(), &[0; 4], &short(1), &short(1), &word(len), &word(directory)].concat());
    whole.extend(short(0));
    let read = |bytes: &[u8]| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        zip::entries(&mut file, bytes.len() as u64, "damaged".as_ref())
    };
    assert_eq!(read(&whole).unwrap()["a"].len, 2);
    let mut refused = 0;
    for file in damaged(&whole) {
        refused += usize::from(read(&file).is_err());
    }
    assert!(refused > whole.len(), "{refused} of {}", whole.len());
}
