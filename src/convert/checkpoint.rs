//! Files that `torch.save` wrote: a zip with a pickle (`data.pkl`) and one entry per tensor storage. They are checkpoints
//! of PyTorch Lightning, with a configuration and a moving average, or a bare state dictionary.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use serde_json::json;

use super::json::read_json_if_any;
use super::lightning;
use super::names::{is_parameter, without_prefixes};
use super::options::WeightSet;
use super::pickle::{Node, NodeId, Pickle};
use super::source::{Dtype, FoundTokenizer, Listing, Source, SourceTensor};
use super::tokenizer_files;
use super::zip::{self, Span};
use crate::error::{Error, Result};
use crate::memory::{add, copied, formatted, insert, open_regular, push, with_room};

/// Largest pickle that is read, in bytes; the weights are not in it.
const MAX_PICKLE: u64 = 64 << 20;
/// Most tensors, and the longest of their names and of their storages' names, in bytes.
const MAX_TENSORS: usize = 1 << 16;
const MAX_NAME: usize = 256;
/// Most dimensions of a tensor.
const MAX_DIMS: usize = 8;
/// Characters of a class's name that messages have. The name may be of any length, and many entries may share it.
const SHOWN: usize = 100;

/// Reads a checkpoint's pickle. `raw` selects the weights of the last training step instead of their moving average.
///
/// # Errors
/// [`Error::BadFile`] if the zip, the pickle or a tensor's description is not as `torch.save` writes it;
/// [`Error::Unsupported`] for compressed or big-endian checkpoints; [`Error::Io`].
pub(super) fn open(path: &Path, raw: bool) -> Result<Source> {
    let (mut file, len) = open_regular(path)?;
    let entries = zip::entries(&mut file, len, path)?;
    let name = path.display().to_string();
    let mut pickles =
        entries.iter().filter_map(|(entry, &span)| Some((entry.strip_suffix("/data.pkl")?, span)));
    let (Some((root, pickle)), None) = (pickles.next(), pickles.next()) else {
        return Err(Error::bad_file(name, "the zip does not have one data.pkl: not a PyTorch checkpoint"));
    };
    if let Some(&span) = entries.get(&format!("{root}/byteorder"))
        && read(&mut file, path, span, 16)? != b"little"
    {
        return Err(Error::unsupported(format!("{name}: the checkpoint is not little-endian")));
    }
    let bytes = read(&mut file, path, pickle, MAX_PICKLE)?;
    let pickle = Pickle::parse(&bytes, &name)?;
    let (listing, weights) = weights(&pickle, &entries, root, &name, raw)?;
    if raw && weights == WeightSet::AsStored {
        return Err(one_set(&name));
    }
    let config = match lightning::config(&pickle, &name)? {
        Some(config) => config,
        None => read_json_if_any(&path.with_file_name("config.json"))?.unwrap_or_else(|| json!({})),
    };
    let tokenizer = match lightning::tokenizer(&pickle)? {
        Some(fast) if fast.json.is_some() => fast,
        // A slow one is a class of Python's; its files may be beside the checkpoint. What it says of its tokens holds.
        Some(slow) => {
            let beside = tokenizer_files::find(path)?;
            let (bos, eos) = (slow.bos.or(beside.bos), slow.eos.or(beside.eos));
            FoundTokenizer { bos, eos, mask: slow.mask.or(beside.mask), ..beside }
        }
        None => tokenizer_files::find(path)?,
    };
    let mut source = Source::new(vec![(file, path.to_owned())], listing, config, tokenizer, weights)?;
    if weights == WeightSet::Raw && !raw {
        source.notes.push("the checkpoint has no moving average (EMA): the raw weights are converted".into());
    }
    Ok(source)
}

/// The error of `--raw-weights` for a file without a moving average.
pub(super) fn one_set(file: &str) -> Error {
    Error::invalid(format!("--raw-weights: {file} is not a training checkpoint, it has one set of weights"))
}

/// Reads an entry of at most `max_bytes`.
fn read(file: &mut File, path: &Path, span: Span, max_bytes: u64) -> Result<Vec<u8>> {
    if span.len > max_bytes {
        let what = format!("an entry of {} bytes, more than {max_bytes}", span.len);
        return Err(Error::bad_file(path.display().to_string(), what));
    }
    let io = |e| Error::io(path, e);
    file.seek(SeekFrom::Start(span.offset)).map_err(io)?;
    // The entry is inside the file, so a small file cannot ask for much.
    let mut bytes = with_room(usize::try_from(span.len).unwrap_or(usize::MAX))?;
    let read = file.take(span.len).read_to_end(&mut bytes).map_err(io)?;
    if read as u64 != span.len {
        return Err(Error::bad_file(path.display().to_string(), "the file ends inside an entry of the zip"));
    }
    Ok(bytes)
}

/// The weights that a pickle describes, of the entries in the zip's directory `root`.
///
/// # Errors
/// As [`open`].
pub(super) fn weights(
    pickle: &Pickle<'_>,
    entries: &HashMap<String, Span>,
    root: &str,
    file: &str,
    raw: bool,
) -> Result<(Listing, WeightSet)> {
    Reader { pickle, entries, root, file }.weights(raw)
}

/// The keys under which training programs keep the state dictionary.
const STATE_KEYS: [&str; 4] = ["state_dict", "model_state_dict", "model", "module"];

/// What an entry of a state dictionary is.
enum Entry {
    Weight(SourceTensor),
    /// A tensor of another type, such as a counter, or no tensor.
    Other(String),
}

/// Finds the weights that a pickle describes.
struct Reader<'a> {
    pickle: &'a Pickle<'a>,
    entries: &'a HashMap<String, Span>,
    /// The directory in the zip that contains all entries.
    root: &'a str,
    file: &'a str,
}

impl Reader<'_> {
    fn bad(&self, what: impl Into<String>) -> Error {
        Error::bad_file(self.file, what)
    }

    /// The tensors of the state dictionary; unless `raw`, parameters are replaced by their moving averages.
    fn weights(&self, raw: bool) -> Result<(Listing, WeightSet)> {
        let root = self.pickle.root();
        let nested = STATE_KEYS.iter().filter_map(|key| self.pickle.get(root, key));
        let state = nested.into_iter().find(|&id| !self.pickle.entries(id).is_empty()).unwrap_or(root);
        let entries = self.pickle.entries(state);
        if entries.len() > MAX_TENSORS {
            return Err(self.bad(format!("state_dict: {} tensors, more than {MAX_TENSORS}", entries.len())));
        }
        let (mut listing, mut names) = (Listing::default(), HashSet::new());
        for &(key, value) in entries {
            let name = self.pickle.text(key).ok_or_else(|| self.bad("state_dict: a key is not text"))?;
            if name.len() > MAX_NAME {
                return Err(
                    self.bad(format!("state_dict: a name of {} bytes, more than {MAX_NAME}", name.len()))
                );
            }
            if !add(&mut names, name)? {
                return Err(self.bad(format!("state_dict: tensor '{name}' occurs twice")));
            }
            match self.entry(value, name) {
                Ok(Entry::Weight(tensor)) => push(&mut listing.tensors, (copied(name)?, tensor))?,
                Ok(Entry::Other(kind)) => push(&mut listing.others, (copied(name)?, kind))?,
                Err(error @ Error::OutOfMemory(_)) => return Err(error),
                Err(error) if is_parameter(without_prefixes(name)) => return Err(error),
                Err(_) => push(&mut listing.others, (copied(name)?, copied("not a tensor")?))?,
            }
        }
        if listing.tensors.is_empty() {
            return Err(self.bad("no tensors in it, and no 'state_dict' that has them: not a checkpoint"));
        }
        let average = self.pickle.get(root, "ema").and_then(|ema| self.pickle.get(ema, "shadow_params"));
        let weights = match average {
            Some(average) if !raw => {
                self.average(&mut listing.tensors, average)?;
                WeightSet::Ema
            }
            None if self.pickle.get(root, "hyper_parameters").is_none() => WeightSet::AsStored,
            _ => WeightSet::Raw,
        };
        Ok((listing, weights))
    }

    /// Replaces parameters by their moving averages: a list, or a dictionary with the parameters' names.
    fn average(&self, tensors: &mut [(String, SourceTensor)], average: NodeId) -> Result<()> {
        let (list, named) = (self.pickle.elements(average), self.pickle.entries(average));
        let is_networks = |name: &str| is_parameter(without_prefixes(name));
        let mut pairs = Vec::new();
        if named.is_empty() {
            // The list is in the order of the parameters, which is that of the state dictionary without its buffers.
            // Training code may have parameters of its own, with or without averages.
            let all = tensors.iter().filter(|(name, _)| is_networks(name)).count() != list.len();
            let is_averaged = |name: &str| is_networks(name) || (all && !is_buffer(name));
            let parameters = tensors.iter().filter(|(name, _)| is_averaged(name)).count();
            if parameters != list.len() {
                return Err(self.bad(format!(
                    "the moving average (EMA) has {} tensors for {parameters} parameters",
                    list.len()
                )));
            }
            for pair in tensors.iter_mut().filter(|(name, _)| is_averaged(name)).zip(list.iter().copied()) {
                push(&mut pairs, pair)?;
            }
        } else {
            let mut by_name: HashMap<&str, NodeId> = HashMap::new();
            for &(key, value) in named {
                // A longer one is no tensor's, and hashing it would take its length for each entry that shares it.
                if let Some(key) = self.pickle.text(key).filter(|key| key.len() <= MAX_NAME) {
                    insert(&mut by_name, without_prefixes(key), value)?;
                }
            }
            for tensor in tensors.iter_mut().filter(|(name, _)| is_networks(name)) {
                let id = by_name.get(without_prefixes(&tensor.0)).copied();
                let id =
                    id.ok_or_else(|| self.bad(format!("the moving average (EMA) lacks '{}'", tensor.0)))?;
                push(&mut pairs, (tensor, id))?;
            }
        }
        for ((name, tensor), id) in pairs {
            let averaged = match self.entry(id, name)? {
                Entry::Weight(tensor) => tensor,
                Entry::Other(kind) => {
                    return Err(self.bad(format!("the moving average (EMA) of '{name}' is {kind}")));
                }
            };
            if averaged.shape != tensor.shape {
                return Err(self.bad(format!(
                    "tensor '{name}' is {:?}, but its moving average (EMA) is {:?}",
                    tensor.shape, averaged.shape
                )));
            }
            *tensor = averaged;
        }
        Ok(())
    }

    /// A pickled tensor's type, shape and place. The arguments of `_rebuild_tensor_v2` are storage, offset, size and
    /// stride.
    fn entry(&self, id: NodeId, name: &str) -> Result<Entry> {
        let pickle = self.pickle;
        let bad = |what: String| self.bad(format!("tensor '{name}': {what}"));
        let not_a_tensor = || bad("not a tensor as torch.save writes it".into());
        let (id, args) = match pickle.class(id) {
            Some(("torch._utils", "_rebuild_parameter", object)) => {
                let inner = pickle.elements(object.args).first().copied().ok_or_else(not_a_tensor)?;
                (inner, pickle.class(inner))
            }
            class => (id, class),
        };
        let Some(("torch._utils", "_rebuild_tensor_v2", object)) = args else {
            return Err(match pickle.class(id) {
                Some((module, class, _)) => {
                    bad(format!("'{module:.SHOWN$}.{class:.SHOWN$}' is not a plain tensor"))
                }
                None => not_a_tensor(),
            });
        };
        let [storage, offset, size, stride, ..] = *pickle.elements(object.args) else {
            return Err(not_a_tensor());
        };
        let Node::Persistent(storage) = *pickle.node(storage) else { return Err(not_a_tensor()) };
        let [kind, class, key, _location, numel] = *pickle.elements(storage) else {
            return Err(not_a_tensor());
        };
        let (Some("storage"), Some(key), Some(numel)) =
            (pickle.text(kind), pickle.text(key), pickle.unsigned(numel))
        else {
            return Err(not_a_tensor());
        };
        if key.len() > MAX_NAME {
            return Err(not_a_tensor());
        }
        let dtype = match *pickle.node(class) {
            Node::Global { module: "torch", name: "FloatStorage" } => Dtype::F32,
            Node::Global { module: "torch", name: "HalfStorage" } => Dtype::F16,
            Node::Global { module: "torch", name: "BFloat16Storage" } => Dtype::Bf16,
            Node::Global { module: "torch", name: "DoubleStorage" } => Dtype::F64,
            Node::Global { name: other, .. } => {
                return Ok(Entry::Other(formatted(format_args!("a {other:.SHOWN$}"))?));
            }
            _ => return Err(not_a_tensor()),
        };
        let entry = formatted(format_args!("{}/data/{key}", self.root))?;
        let span = self.entries.get(&entry).ok_or_else(|| bad(format!("the zip has no entry '{entry}'")))?;
        let width = dtype.bytes() as u64;
        if numel.checked_mul(width) != Some(span.len) {
            let what = format!("a storage of {numel} elements, but '{entry}' has {} bytes", span.len);
            return Err(bad(what));
        }
        let first = pickle.unsigned(offset).ok_or_else(not_a_tensor)?;
        let sizes = |id| self.sizes(id)?.ok_or_else(not_a_tensor);
        let (shape, strides) = (sizes(size)?, sizes(stride)?);
        if !is_contiguous(&shape, &strides) {
            return Err(bad(format!("strides {strides:?} of shape {shape:?} are not contiguous")));
        }
        let mut tensor = SourceTensor { dtype, shape, file: 0, offset: 0 };
        let end = tensor.len().and_then(|len| first.checked_add(len as u64));
        if end.is_none_or(|end| end > numel) {
            return Err(bad(format!("shape {:?} does not fit its storage of {numel}", tensor.shape)));
        }
        // Does not overflow: `first` is at most `numel`, and the storage's bytes are inside the entry.
        tensor.offset = span.offset.saturating_add(first.saturating_mul(width));
        Ok(Entry::Weight(tensor))
    }

    /// A shape or strides, if that is what it is.
    fn sizes(&self, id: NodeId) -> Result<Option<Vec<usize>>> {
        let elements = self.pickle.elements(id);
        // A pickle can refer to one long tuple as often as it likes.
        if elements.len() > MAX_DIMS {
            return Ok(None);
        }
        let mut sizes = with_room(elements.len())?;
        for &element in elements {
            let Some(size) = self.pickle.unsigned(element).and_then(|size| usize::try_from(size).ok()) else {
                return Ok(None);
            };
            sizes.push(size);
        }
        Ok(Some(sizes))
    }
}

/// Whether an entry of the state dictionary is the network's one buffer.
fn is_buffer(name: &str) -> bool {
    name.ends_with("rotary_emb.inv_freq")
}

/// Whether the elements are in order without gaps. The stride of a dimension of size 1 does not matter.
fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = Some(1usize);
    shape.len() == strides.len()
        && shape.iter().zip(strides).rev().all(|(&dim, &stride)| {
            let fits = dim <= 1 || expected == Some(stride);
            expected = expected.and_then(|e| e.checked_mul(dim));
            fits
        })
}
