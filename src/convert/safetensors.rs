//! `model.safetensors`, or the shards of one and their index, with the `config.json` beside them.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use safetensors::tensor::{Dtype as StoredDtype, Metadata};
use serde_json::Value;

use super::json::read_json;
use super::options::WeightSet;
use super::source::{Dtype, Listing, Source, SourceTensor};
use super::tokenizer_files;
use crate::error::{Error, Result};
use crate::memory::{collected, filled, formatted, open_regular, push, with_room};

/// Largest header that is read, in bytes; a tensor takes about 120, and its text up to twenty times the memory.
const MAX_HEADER: u64 = 2 << 20;
/// Most shards of a model; all are open at once.
const MAX_SHARDS: usize = 512;

/// Reads the header of a safetensors file, and the configuration and the tokenizer beside it.
///
/// # Errors
/// [`Error::BadFile`] if a header is damaged; [`Error::Io`], also if `config.json` is missing.
pub(super) fn open(path: &Path) -> Result<Source> {
    source(&[path.to_owned()])
}

/// Reads the headers of the shards that an index names, and the configuration and the tokenizer beside them.
///
/// # Errors
/// [`Error::BadFile`] if the index is damaged, names a file outside its folder or a tensor that is not in its file; as
/// [`open`].
pub(super) fn open_index(path: &Path) -> Result<Source> {
    let bad = |what: String| Error::bad_file(path.display().to_string(), what);
    let index = read_json(path)?;
    let Some(Value::Object(map)) = index.get("weight_map") else {
        return Err(bad("there is no 'weight_map': not the index of a sharded model".into()));
    };
    // Tensors with their files, by file.
    let mut wanted: Vec<(&str, &str)> = with_room(map.len())?;
    for (tensor, file) in map {
        let file = file.as_str().filter(|file| is_plain(file));
        let file =
            file.ok_or_else(|| bad(format!("the file of '{tensor}' is not a name in the same folder")))?;
        wanted.push((file, tensor));
    }
    wanted.sort_unstable();
    let shards = || wanted.chunk_by(|(one, _), (other, _)| one == other);
    let count = shards().count();
    if !(1..=MAX_SHARDS).contains(&count) {
        return Err(bad(format!("{count} files, not 1 to {MAX_SHARDS}")));
    }
    let mut paths = with_room(count)?;
    paths.extend(shards().filter_map(|shard| shard.first()).map(|(file, _)| path.with_file_name(file)));
    let found = source(&paths)?;
    for (number, shard) in shards().enumerate() {
        if let Some((file, tensor)) = shard.iter().find(|(_, tensor)| !found.has(tensor, number)) {
            return Err(bad(format!("'{tensor}' is not in {}", path.with_file_name(file).display())));
        }
    }
    Ok(found)
}

/// Whether this is the name of a file in the folder where it is mentioned.
fn is_plain(file: &str) -> bool {
    let mut parts = Path::new(file).components();
    let only = matches!((parts.next(), parts.next()), (Some(Component::Normal(name)), None) if name == file);
    only && !file.contains(['/', '\\', ':', '\0'])
}

fn source(paths: &[PathBuf]) -> Result<Source> {
    let mut listing = Listing::default();
    let mut files = with_room(paths.len())?;
    for (number, path) in paths.iter().enumerate() {
        files.push((list(path, number, &mut listing)?, path.clone()));
    }
    let Some(first) = paths.first() else { return Err(Error::internal("a model without files")) };
    let config = read_json(&first.with_file_name("config.json"))?;
    let tokenizer = tokenizer_files::find(first)?;
    Source::new(files, listing, config, tokenizer, WeightSet::AsStored)
}

/// Opens file `number` of a model and lists its tensors.
fn list(path: &Path, number: usize, listing: &mut Listing) -> Result<File> {
    let (mut file, file_bytes) = open_regular(path)?;
    read_header(&mut file, file_bytes, path, number, listing)?;
    Ok(file)
}

/// Lists the tensors that the header at the start of a file of `file_bytes` describes.
pub(super) fn read_header(
    file: &mut impl Read,
    file_bytes: u64,
    path: &Path,
    number: usize,
    listing: &mut Listing,
) -> Result<()> {
    let name = path.display().to_string();
    let bad = |what: String| Error::bad_file(&name, what);
    let io = |e| Error::io(path, e);
    let mut len = [0; 8];
    file.read_exact(&mut len).map_err(io)?;
    let header_len = u64::from_le_bytes(len);
    if header_len > MAX_HEADER || header_len > file_bytes.saturating_sub(8) {
        return Err(bad(format!(
            "a header of {header_len} bytes in a file of {file_bytes}: not a safetensors file"
        )));
    }
    let mut header = filled(header_len as usize, 0)?;
    file.read_exact(&mut header).map_err(io)?;
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|e| Error::unreadable(&name, "safetensors header", e))?;
    let data_start = 8 + header_len;
    if metadata.data_len() as u64 != file_bytes - data_start {
        return Err(bad(format!(
            "the header describes {} bytes of tensors, the file has {}",
            metadata.data_len(),
            file_bytes - data_start
        )));
    }
    for (name, info) in metadata.tensors() {
        let dtype = match info.dtype {
            StoredDtype::F32 => Dtype::F32,
            StoredDtype::F16 => Dtype::F16,
            StoredDtype::BF16 => Dtype::Bf16,
            StoredDtype::F64 => Dtype::F64,
            other => {
                push(&mut listing.others, (name, formatted(format_args!("of type {other:?}"))?))?;
                continue;
            }
        };
        let offset = data_start + info.data_offsets.0 as u64;
        let shape = collected(info.shape.iter().copied())?;
        push(&mut listing.tensors, (name, SourceTensor { dtype, shape, file: number, offset }))?;
    }
    Ok(())
}
