//! GGUF files whose quantized matrices lie in panels (docs/format.md).

use std::path::Path;

use esolm::gguf::{Gguf, Layout, TensorType, Value, Writer};
use esolm::quantize::{QuantizeOptions, quantize};
use esolm::{
    Config, Context, ContextParams, GenerateParams, Kernels, LoadMode, LoadOptions, Model, Prompt, Result,
    Variant,
};

use super::corpus::Tally;
use super::gguf::{Field, Place, header};
use super::small;

/// A model whose matrices have 768, 256 and 23 rows, the last no multiple of sixteen.
fn config() -> Config {
    Config {
        context_length: 12,
        embedding_length: 256,
        feed_forward_length: 256,
        head_count: 4,
        eos_token_id: None,
        ..small::config(Variant::EsoB, 23)
    }
}

/// Writes the model with weights that look random.
fn random(path: &Path) {
    let config = config();
    let mut writer = Writer::new();
    config.write(&mut writer).expect("memory for its keys");
    let specs = config.tensors().expect("tensors");
    specs.iter().for_each(|spec| writer.declare(&spec.name, TensorType::F32, &spec.dims).expect("a tensor"));
    let (mut out, mut state, mut specs) = (Vec::new(), 1u32, specs.iter());
    let fill = |_: &str, data: &mut Vec<u8>| {
        for _ in 0..specs.next().expect("a tensor").dims.iter().product::<usize>() {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            data.extend(((state >> 8) as f32 / (1 << 24) as f32 - 0.5).to_le_bytes());
        }
        Ok(())
    };
    writer.write(&mut out, fill).expect("a file");
    std::fs::write(path, out).expect("room");
}

/// The same model in one type, with rows and with panels.
struct Files([Vec<u8>; 2]);

impl Files {
    fn new(folder: &Path, ty: TensorType) -> Self {
        let paths = ["f32.gguf", "out.gguf"].map(|name| folder.join(name));
        random(&paths[0]);
        Self([Layout::Plain, Layout::Panels].map(|layout| {
            let options = QuantizeOptions { layout, force: true, threads: 1, ..QuantizeOptions::new(ty) };
            quantize(&paths[0], &paths[1], &options, &mut |_| ()).expect("a file");
            std::fs::read(&paths[1]).expect("a file")
        }))
    }

    /// A file with every n-th tensor from the one in panels. In panels, the rows behind the last one are `padding`.
    fn mixed(&self, every: usize, padding: u8) -> Vec<u8> {
        let [plain, panels] = [0, 1].map(|number| Gguf::parse(&self.0[number], "a file").expect("a file"));
        let mut writer = Writer::new();
        plain.metadata().iter().for_each(|(key, value)| writer.set(key, value.clone()));
        writer.set("general.alignment", Value::U32(8));
        let mut all = Vec::new();
        for (number, plain) in plain.tensors().iter().enumerate() {
            let found = panels.tensor(&plain.name).filter(|_| number % every == 0);
            let (info, bytes) = found.map_or((plain, &self.0[0]), |info| (info, &self.0[1]));
            writer.declare_in(&info.name, info.ty, info.layout, &info.dims).expect("a tensor");
            let mut bytes = bytes[info.range.clone()].to_vec();
            if let (Layout::Panels, &[columns, rows]) = (info.layout, info.dims.as_slice()) {
                pad(&mut bytes, info.ty, columns, rows, padding);
            }
            all.push(bytes);
        }
        let (mut out, mut all) = (Vec::new(), all.into_iter());
        let fill = |_: &str, data: &mut Vec<u8>| {
            *data = all.next().expect("a tensor");
            Ok(())
        };
        writer.write(&mut out, fill).expect("a file");
        out
    }
}

/// Sets what is of no row in the last panel of `rows` rows.
fn pad(bytes: &mut [u8], ty: TensorType, columns: usize, rows: usize, padding: u8) {
    let behind = rows.next_multiple_of(16) - rows;
    let panel = bytes.len() - 16 * ty.row_bytes(columns).expect("whole blocks");
    for block in (panel..bytes.len()).step_by(16 * ty.block_bytes()) {
        // A piece of two bytes, if the block is no multiple of four long, and then of four, each of all sixteen rows.
        let half = (ty.block_bytes() % 4 == 2).then_some(2);
        let mut at = block;
        for piece in half.into_iter().chain(std::iter::repeat_n(4, ty.block_bytes() / 4)) {
            bytes[at + piece * (16 - behind)..at + 16 * piece].fill(padding);
            at += 16 * piece;
        }
    }
}

/// A file with all data moved by eight bytes, its alignment.
fn moved(file: &[u8]) -> Vec<u8> {
    let gguf = Gguf::parse(file, "a file").expect("a file");
    let start = gguf.tensors().iter().map(|tensor| tensor.range.start).min().expect("tensors");
    let mut out = file.to_vec();
    for Place { at, .. } in header(file).0.into_iter().filter(|place| place.field == Field::Offset) {
        let offset = u64::from_le_bytes(file[at..at + 8].try_into().expect("8 bytes"));
        out[at..at + 8].copy_from_slice(&(offset + 8).to_le_bytes());
    }
    out.splice(start..start, [0; 8]);
    out
}

/// The text that a model writes with these kernels, in steps of many rows and of one.
fn text(path: &Path, mode: LoadMode, kernels: Kernels) -> Result<Vec<u32>> {
    let options = LoadOptions { device: "cpu".into(), mode, ..LoadOptions::default() };
    let model = Model::open(path, &options)?;
    let params = ContextParams { threads: 1, kernels, ..ContextParams::default() };
    let mut context = Context::new(&model, &params)?;
    let generate = GenerateParams { steps: 2, alpha_0: 0.7, seed: 1, ..GenerateParams::default() };
    context.begin(&[Prompt::default()], &generate)?;
    while context.step()?.is_some() {}
    Ok(context.tokens(0)?.to_vec())
}

fn texts(path: &Path) -> Result<[Vec<u32>; 3]> {
    Ok([
        text(path, LoadMode::Map, Kernels::Own)?,
        text(path, LoadMode::Repack, Kernels::Own)?,
        text(path, LoadMode::Copy, Kernels::Ggml)?,
    ])
}

pub fn all(folder: &Path) -> Tally {
    let mut tally = Tally::default();
    let path = folder.join("panels.gguf");
    let mut case = |name: &str, bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("room");
        let found = tally.case(name, &path, 0, texts);
        (found, std::mem::take(&mut tally.said))
    };
    for ty in TensorType::all().filter(|ty| ty.is_quantized()) {
        let files = Files::new(folder, ty);
        let (plain, said) = case(ty.name(), &files.0[0]);
        assert!(plain.is_some(), "{}: {said}", ty.name());
        // All in panels, and mixed; rows behind the last one of any bytes, such as NaN; panels at odd multiples of eight.
        for (name, bytes) in [
            ("panels", files.mixed(1, 0)),
            ("NaN behind the rows", files.mixed(1, 0xff)),
            ("infinity behind the rows", files.mixed(1, 0x7c)),
            ("some in panels", files.mixed(2, 0xff)),
            ("moved", moved(&files.mixed(1, 0xff))),
        ] {
            let (found, said) = case(&format!("{}: {name}", ty.name()), &bytes);
            assert_eq!(found, plain, "{}: {name}: {said}", ty.name());
        }
    }
    let panels = Files::new(folder, TensorType::Q8_0).mixed(1, 0);
    let (places, _) = header(&panels);
    let types: Vec<Place> = places.iter().filter(|place| place.field == Field::Type).copied().collect();
    for &Place { at, bytes, .. } in &types[types.len() - config().tensors().expect("tensors").len()..] {
        // Each known type in panels, and some numbers around: another size, so that tensors overlap or have gaps.
        for value in (1598..1645u32).chain([2 * 1600 + 8, 1600 * 1600, u32::MAX - 1600, u32::MAX / 2]) {
            let mut changed = panels.clone();
            changed[at..at + bytes].copy_from_slice(&value.to_le_bytes());
            case(&format!("type {value} at {at}"), &changed);
        }
    }
    // Without the rows that fill the last panel.
    let gguf = Gguf::parse(&panels, "a file").expect("a file");
    let end = gguf.tensors().iter().map(|tensor| tensor.range.end).max().expect("tensors");
    for less in [1, 2, 32, 34 * 8, 34 * 8 * 7] {
        assert!(case("cut", &panels[..end - less]).0.is_none(), "{less} bytes less are accepted");
    }
    // Shapes whose padded size is another, or wraps around.
    for Place { at, .. } in places.iter().filter(|place| place.field == Field::Dimension) {
        for value in [15u64, 17, 31, (1 << 31) - 1, 1 << 31, u64::MAX - 14, u64::MAX] {
            let mut changed = panels.clone();
            changed[*at..][..8].copy_from_slice(&value.to_le_bytes());
            let (found, _) = case(&format!("a dimension of {value} at {at}"), &changed);
            assert!(found.is_none(), "a dimension of {value} at {at} is accepted");
        }
    }
    tally
}
