//! Writes values as `torch.save` does: a zip with a pickle of protocol 2 and an entry per tensor.

use std::io::{Cursor, Write};

use zip::write::SimpleFileOptions;

use super::Stored;

/// A value to save.
pub enum Saved {
    /// Tables, texts, truth values and integers.
    Json(serde_json::Value),
    Dict(Vec<(&'static str, Saved)>),
    List(Vec<Saved>),
    /// The class of its storage, its shape and its bytes.
    Tensor(&'static str, Vec<usize>, Vec<u8>),
    /// An f32 tensor at the beginning of the storage with this number: its shape.
    Shared(Vec<usize>, usize),
    /// A dictionary whose keys are known when it is made.
    State(Vec<(String, Saved)>),
}

impl Saved {
    /// An f32 tensor.
    pub fn weight((_, shape, bytes): &Stored) -> Self {
        Self::Tensor("FloatStorage", shape.clone(), bytes.clone())
    }

    /// A counter.
    pub fn counter() -> Self {
        Self::Tensor("LongStorage", vec![], vec![7; 8])
    }
}

/// The bytes of a file with this value.
pub fn torch_save(value: &Saved) -> Vec<u8> {
    let mut pickle = vec![0x80, 2];
    let mut storages = Vec::new();
    write(value, &mut pickle, &mut storages);
    pickle.push(b'.');
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut entry = |name: String, bytes: &[u8]| {
        zip.start_file(name, options).unwrap();
        zip.write_all(bytes).unwrap();
    };
    entry("archive/data.pkl".into(), &pickle);
    entry("archive/byteorder".into(), b"little");
    for (number, bytes) in storages.iter().enumerate() {
        entry(format!("archive/data/{number}"), bytes);
    }
    entry("archive/version".into(), b"3\n");
    zip.finish().unwrap().into_inner()
}

fn json(value: &serde_json::Value, out: &mut Vec<u8>) {
    use serde_json::Value;
    match value {
        Value::Bool(value) => out.push(if *value { 0x88 } else { 0x89 }),
        Value::Number(number) => {
            out.push(b'J');
            out.extend(i32::try_from(number.as_i64().unwrap()).unwrap().to_le_bytes());
        }
        Value::String(text) => string(text, out),
        Value::Object(entries) => {
            out.extend(b"}(");
            for (key, value) in entries {
                string(key, out);
                json(value, out);
            }
            out.push(b'u');
        }
        Value::Null | Value::Array(_) => unreachable!(),
    }
}

fn write(value: &Saved, out: &mut Vec<u8>, storages: &mut Vec<Vec<u8>>) {
    match value {
        Saved::Json(value) => json(value, out),
        Saved::Dict(entries) => {
            out.extend(b"}(");
            for (key, value) in entries {
                string(key, out);
                write(value, out, storages);
            }
            out.push(b'u');
        }
        Saved::State(entries) => {
            out.extend(b"}(");
            for (key, value) in entries {
                string(key, out);
                write(value, out, storages);
            }
            out.push(b'u');
        }
        Saved::List(elements) => {
            out.extend(b"](");
            elements.iter().for_each(|element| write(element, out, storages));
            out.push(b'e');
        }
        Saved::Tensor(class, shape, bytes) => {
            let width = if *class == "LongStorage" { 8 } else { 4 };
            tensor(class, shape, storages.len(), bytes.len() / width, out);
            storages.push(bytes.clone());
        }
        Saved::Shared(shape, number) => {
            tensor("FloatStorage", shape, *number, storages[*number].len() / 4, out);
        }
    }
}

/// A tensor of a storage with this number and so many elements.
fn tensor(class: &str, shape: &[usize], storage: usize, elements: usize, out: &mut Vec<u8>) {
    out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
    string("storage", out);
    out.extend(format!("ctorch\n{class}\n").bytes());
    string(&storage.to_string(), out);
    string("cpu", out);
    int(elements, out);
    out.extend(b"tQK\x00");
    tuple(shape, out);
    let strides: Vec<usize> = (0..shape.len()).map(|i| shape[i + 1..].iter().product()).collect();
    tuple(&strides, out);
    out.extend(b"\x89ccollections\nOrderedDict\n)RtR");
}

fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.bytes());
}

fn int(value: usize, out: &mut Vec<u8>) {
    out.push(b'J');
    out.extend((value as u32).to_le_bytes());
}

fn tuple(values: &[usize], out: &mut Vec<u8>) {
    out.push(b'(');
    values.iter().for_each(|&value| int(value, out));
    out.push(b't');
}
