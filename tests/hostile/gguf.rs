//! GGUF files.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use esolm::{Context, ContextParams, GenerateParams, Kernels, LoadOptions, Model, Prompt, Result, Variant};

use super::corpus::{Tally, given};

/// Kind of a number in a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    Magic,
    Version,
    Count,
    Length,
    Type,
    Value,
    Dimensions,
    Dimension,
    Offset,
}

/// A number of a header: where it is, and how many bytes it has.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub field: Field,
    pub at: usize,
    pub bytes: usize,
}

/// All numbers in the header of a well-formed file, and the header's length.
pub fn header(file: &[u8]) -> (Vec<Place>, usize) {
    let mut walk = Walk { file, at: 0, places: Vec::new() };
    walk.number(Field::Magic, 4);
    walk.number(Field::Version, 4);
    let (tensors, keys) = (walk.number(Field::Count, 8), walk.number(Field::Count, 8));
    for _ in 0..keys {
        walk.text();
        let ty = walk.number(Field::Type, 4);
        walk.value(ty);
    }
    for _ in 0..tensors {
        walk.text();
        let dimensions = walk.number(Field::Dimensions, 4);
        for _ in 0..dimensions {
            walk.number(Field::Dimension, 8);
        }
        walk.number(Field::Type, 4);
        walk.number(Field::Offset, 8);
    }
    (walk.places, walk.at)
}

struct Walk<'a> {
    file: &'a [u8],
    at: usize,
    places: Vec<Place>,
}

impl Walk<'_> {
    fn number(&mut self, field: Field, bytes: usize) -> u64 {
        self.places.push(Place { field, at: self.at, bytes });
        let mut all = [0; 8];
        all[..bytes].copy_from_slice(&self.file[self.at..self.at + bytes]);
        self.at += bytes;
        u64::from_le_bytes(all)
    }

    fn text(&mut self) {
        let len = self.number(Field::Length, 8);
        self.at += len as usize;
    }

    fn value(&mut self, ty: u64) {
        match ty {
            0 | 1 | 7 => _ = self.number(Field::Value, 1),
            2 | 3 => _ = self.number(Field::Value, 2),
            4..=6 => _ = self.number(Field::Value, 4),
            8 => self.text(),
            9 => {
                let (ty, len) = (self.number(Field::Type, 4), self.number(Field::Count, 8));
                (0..len).for_each(|_| self.value(ty));
            }
            _ => _ = self.number(Field::Value, 8),
        }
    }
}

/// A small valid model with a tokenizer.
pub fn valid() -> Vec<u8> {
    std::fs::read(given("context-2pow20.gguf")).expect("a file")
}

/// What users do with a file: look at it, write a short text with either kind of kernels, tokenize. Contexts that take much memory are only estimated.
pub fn use_model(path: &Path) -> Result<()> {
    let model = Model::open(path, &LoadOptions { device: "cpu".into(), ..LoadOptions::default() })?;
    for (_, value) in model.metadata() {
        // As `esolm inspect` shows it.
        let _ = value.to_string();
    }
    for kernels in [Kernels::Own, Kernels::Ggml] {
        let length = model.config().context_length.min(8);
        let params = ContextParams { length, threads: 1, kernels, ..ContextParams::default() };
        if Context::memory_use(&model, &params)?.arena < 64 << 20 {
            let mut context = Context::new(&model, &params)?;
            let phases = matches!(model.config().variant, Variant::EsoB | Variant::EsoA | Variant::Mdlm);
            let generate = match phases {
                true => GenerateParams { steps: 3, alpha_0: 0.5, ..GenerateParams::default() },
                false => GenerateParams::default(),
            };
            let prompt = Prompt::prefix(&[0][..model.config().given_tokens()])?;
            // A model of other numbers may well produce infinity; that is not the file's message.
            let _ = context.begin(&[prompt], &generate);
            while let Ok(Some(_)) = context.step() {}
        }
    }
    let tokens = model.tokenizer()?.encode("once upon a time");
    if let Ok(tokens) = tokens {
        let _ = model.tokenizer()?.decode(&tokens);
    }
    Ok(())
}

pub fn write(folder: &Path, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).expect("a file");
    path
}

/// Every number of the header set to 0, 1, its largest values, its sign bit, one more and one less.
pub fn fields(folder: &Path) -> Tally {
    fields_of(folder, &valid())
}

/// The same of another file.
pub fn fields_of(folder: &Path, valid: &[u8]) -> Tally {
    let mut tally = Tally::default();
    tally.case("valid", &write(folder, "valid.gguf", valid), 0, use_model);
    assert_eq!(tally.refused, 0, "{}", tally.said);
    for Place { field, at, bytes } in header(valid).0 {
        let max = u64::MAX >> (64 - 8 * bytes);
        let mut all = [0; 8];
        all[..bytes].copy_from_slice(&valid[at..at + bytes]);
        let now = u64::from_le_bytes(all);
        for value in
            [0, 1, max, max - 1, max / 2 + 1, max / 2, now.wrapping_add(1) & max, now.wrapping_sub(1) & max]
        {
            let mut changed = valid.to_vec();
            changed[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
            let path = write(folder, "changed.gguf", &changed);
            let used = tally.case(&format!("{field:?} at {at} = {value}"), &path, 0, use_model);
            let must_fail = match field {
                Field::Magic | Field::Version | Field::Count | Field::Dimensions => value != now,
                _ => false,
            };
            assert!(!must_fail || used.is_none(), "{field:?} at {at} = {value} is accepted");
        }
    }
    tally
}

/// Every length below the header's, and every 16th beyond.
pub fn truncations(folder: &Path) -> Tally {
    truncations_of(folder, &valid())
}

/// The same of another file.
pub fn truncations_of(folder: &Path, valid: &[u8]) -> Tally {
    let mut tally = Tally::default();
    let header = header(valid).1;
    // Behind the last tensor the file is only padded.
    let gguf = esolm::gguf::Gguf::parse(valid, "valid").expect("a valid file");
    let end = gguf.tensors().iter().map(|tensor| tensor.range.end).max().expect("tensors");
    for len in (0..header).chain((header..end).step_by(16)) {
        let path = write(folder, "cut.gguf", &valid[..len]);
        assert!(
            tally.case(&format!("{len} bytes"), &path, 0, use_model).is_none(),
            "{len} bytes are accepted"
        );
    }
    tally
}

/// The attacks that others have met (CVE-2026-33298, -27940, -7482, CVE-2025-53630 and their kinds).
pub fn attacks(folder: &Path) -> Tally {
    let mut tally = Tally::default();
    let valid = valid();
    let (places, header) = header(&valid);
    let of =
        |field: Field| places.iter().filter(move |place| place.field == field).copied().collect::<Vec<_>>();
    let mut refuse = |name: &str, changes: &[(Place, u64)]| {
        let mut changed = valid.clone();
        for &(Place { at, bytes, .. }, value) in changes {
            changed[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
        }
        let path = write(folder, "attack.gguf", &changed);
        assert!(tally.case(name, &path, 0, use_model).is_none(), "{name}: accepted");
    };
    let (dimensions, offsets, counts) = (of(Field::Dimension), of(Field::Offset), of(Field::Count));
    let types: Vec<Place> = of(Field::Type).into_iter().rev().take(offsets.len()).collect();
    // Sizes whose product wraps around to little, and sizes beyond the file, of each tensor.
    for pair in dimensions.windows(2) {
        for value in [1 << 31, 1 << 32, (1 << 32) + 1, 1 << 62, 1 << 63, u64::MAX] {
            refuse(&format!("dimensions of {value}"), &[(pair[0], value), (pair[1], value)]);
            refuse(&format!("a dimension of {value}"), &[(pair[0], value)]);
        }
    }
    for pair in offsets.windows(2) {
        let first = u64::from_le_bytes(valid[pair[0].at..][..8].try_into().expect("8 bytes"));
        refuse("two tensors at one place", &[(pair[1], first)]);
        for value in
            [u64::MAX, u64::MAX - 31, 1 << 63, (1 << 63) - 32, valid.len() as u64 / 32 * 32, first + 1]
        {
            refuse(&format!("an offset of {value}"), &[(pair[1], value)]);
        }
    }
    for &ty in &types {
        for value in [2, 3, 8, 14, 16, 39, 1000, u32::MAX.into()] {
            refuse(&format!("type {value}"), &[(ty, value)]);
        }
    }
    for value in [u64::MAX, 1 << 63, 1 << 32, 65537, 65536, 16384] {
        counts.iter().for_each(|&count| refuse(&format!("a count of {value}"), &[(count, value)]));
    }
    // Names and keys twice: the text of one in place of the next, where they are as long.
    let names: Vec<Place> = of(Field::Length);
    for pair in names.windows(2) {
        let text = |place: &Place| {
            let len = u64::from_le_bytes(valid[place.at..][..8].try_into().expect("8 bytes")) as usize;
            place.at + 8..place.at + 8 + len
        };
        let (first, second) = (text(&pair[0]), text(&pair[1]));
        if first.len() == second.len() && second.end <= header {
            let mut twice = valid.clone();
            twice.copy_within(first, second.start);
            let path = write(folder, "twice.gguf", &twice);
            assert!(tally.case("a name twice", &path, 0, use_model).is_none(), "a name twice: accepted");
        }
    }
    tally
}

/// The beginning of a file that has `keys` keys and no tensors.
fn start(keys: u64) -> Vec<u8> {
    [&b"GGUF"[..], &3u32.to_le_bytes(), &0u64.to_le_bytes(), &keys.to_le_bytes()].concat()
}

pub fn key(out: &mut Vec<u8>, name: &str, ty: u32) {
    out.extend((name.len() as u64).to_le_bytes());
    out.extend(name.as_bytes());
    out.extend(ty.to_le_bytes());
}

/// Metadata that takes far more memory than bytes if each element has a value of its own, in front of a valid header.
pub fn large_metadata(folder: &Path) -> Tally {
    let mut tally = Tally::default();
    let valid = valid();
    // Keys come first, so more of them can be put in front of the others.
    let keys = u64::from_le_bytes(valid[16..24].try_into().expect("8 bytes"));
    let mut case = |name: &str, more: u64, metadata: &[u8], zeros: u64, must_open: bool| {
        let path = folder.join("large.gguf");
        let mut file = File::create(&path).expect("a file");
        file.write_all(&[&valid[..16], &(keys + more).to_le_bytes(), metadata].concat()).expect("room");
        // The zeros are a hole in the file.
        let rest = file.metadata().expect("a file").len() + zeros;
        file.set_len(rest).expect("room");
        std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).expect("a file");
        // The data has to be aligned as before.
        let (header, data) = valid[24..].split_at(self::header(&valid).1 - 24);
        file.write_all(header).expect("room");
        let old = (24 + header.len()).next_multiple_of(32) - 24 - header.len();
        let new = (rest as usize + header.len()).next_multiple_of(32) - rest as usize - header.len();
        file.write_all(&vec![0; new]).expect("room");
        file.write_all(&data[old..]).expect("room");
        drop(file);
        let opened = tally.case(name, &path, 0, use_model).is_some();
        assert!(!must_open || opened, "{name}: {}", tally.said);
    };
    let array = |ty: u32, len: u64| {
        let mut out = Vec::new();
        key(&mut out, "x.array", 9);
        out.extend(ty.to_le_bytes());
        out.extend(len.to_le_bytes());
        out
    };
    let many = 60_000_000;
    for (ty, bytes) in [(0, 1), (1, 1), (7, 1), (2, 2), (3, 2), (4, 4), (6, 4), (8, 8), (10, 8), (12, 8)] {
        case(&format!("an array of type {ty}"), 1, &array(ty, many / bytes), many, true);
    }
    let mut keys = Vec::new();
    for number in 0..16_000u64 {
        key(&mut keys, &format!("k{number}"), 0);
        keys.push(0);
    }
    case("16,000 keys", 16_000, &keys, 0, true);
    let mut text = Vec::new();
    key(&mut text, "x.text", 8);
    text.extend(many.to_le_bytes());
    case("a long text", 1, &text, many, true);
    let mut long = Vec::new();
    for number in 0..1000 {
        key(&mut long, &format!("{number}{}", "k".repeat(60_000)), 0);
        long.push(0);
    }
    case("long keys", 1000, &long, 0, true);
    case("an array of arrays", 1, &array(9, 1 << 20), many, false);
    // Counts without anything behind them.
    let alone = |name: &str, bytes: Vec<u8>| write(folder, name, &bytes);
    let empty = alone("counts.gguf", start(16384));
    assert!(tally.case("a count alone", &empty, 0, use_model).is_none());
    // A text that messages quote.
    let mut quoted = start(1);
    key(&mut quoted, "general.architecture", 8);
    quoted.extend(many.to_le_bytes());
    quoted.resize(quoted.len() + many as usize, 0x1b);
    let quoted = alone("architecture.gguf", quoted);
    assert!(tally.case("a long architecture", &quoted, 0, use_model).is_none());
    tally
}
