//! Saved states: what a context knows, as bytes.
//!
//! All numbers are little-endian and, but for the fingerprint, of 32 bits: `ESOLM-ST`, the version, the model's
//! fingerprint (64 bits), the precision of keys and values (0 f16, 1 f32, 2 there are none), the number of sequences;
//! for each sequence its length, how many tokens are known, for how many slots there are keys and values, a position and a
//! token for each known one in generation order, and the keys and values; and a CRC-32 of everything before it.

use std::io::Write;
use std::path::Path;

use crate::config::{Config, Variant};
use crate::context::Context;
use crate::cpu::Slots;
use crate::error::{Error, Result};
use crate::kv_cache::KvType;
use crate::log::{LogLevel, log};
use crate::order;
use crate::output::PendingFile;
use crate::sampler::Sampling;
use crate::sequence::Sequence;

const MAGIC: &[u8; 8] = b"ESOLM-ST";
const VERSION: u32 = 1;
/// Stands for the precision of a cache that is not saved.
const NO_CACHE: u32 = 2;
/// What errors call the bytes.
const NAME: &str = "saved state";

fn kv_code(kv: KvType) -> u32 {
    match kv {
        KvType::F16 => 0,
        KvType::F32 => 1,
    }
}

/// A sequence as it was saved.
struct Saved<'a> {
    length: usize,
    /// Positions and tokens in generation order.
    known: Vec<(u32, u32)>,
    committed: usize,
    cache: &'a [u8],
}

impl Context {
    /// Everything known of the current generation, tokens, order, keys and values, as bytes for
    /// [`Context::restore`]. Steps that are left are not part of it, nor are parameters, constraints and random numbers:
    /// [`Context::extend`] takes new ones. A generation that is saved halfway so goes on from the same tokens, but not to
    /// the same text. (A device that is not the CPU with the library's own kernels leaves keys and values out; they are
    /// computed again then.)
    ///
    /// # Errors
    /// [`Error::Unsupported`] as for [`Context::extend`], or if the weights are not in main memory.
    pub fn save(&self) -> Result<Vec<u8>> {
        let kv = self.engine.capacity.kv;
        let has_cache = self.engine.can_save_cache();
        let mut out = Vec::with_capacity(self.saved_size()?);
        out.extend(MAGIC);
        let mut put = |number: u32| out.extend(number.to_le_bytes());
        put(VERSION);
        let fingerprint = self.engine.model.fingerprint()?;
        put(fingerprint as u32);
        put((fingerprint >> 32) as u32);
        put(if has_cache { kv_code(kv) } else { NO_CACHE });
        put(self.session.active().len() as u32);
        for (number, sequence) in self.session.active().iter().enumerate() {
            let committed = self.saved_slots(sequence);
            let known = sequence.order.iter().take(sequence.revealed);
            let sizes = [sequence.tokens.len(), known.len(), committed].map(|size| size as u32);
            let tokens = known.flat_map(|&p| [p, sequence.tokens.get(p as usize).copied().unwrap_or(p)]);
            out.extend(sizes.into_iter().chain(tokens).flat_map(u32::to_le_bytes));
            self.engine.save_cache(Slots { sequence: number, count: committed }, &mut out)?;
        }
        let crc = crc32fast::hash(&out);
        out.extend(crc.to_le_bytes());
        Ok(out)
    }

    /// Writes what [`Context::save`] gives to a file. One that is there is replaced when the new one is whole and on the
    /// disk, not before.
    ///
    /// # Errors
    /// As [`Context::save`]; [`Error::Io`]; [`Error::InvalidArgument`] if `path` is a directory or no file name.
    pub fn save_to(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let state = self.save()?;
        let pending = PendingFile::create(path, true)?;
        pending.file().write_all(&state).map_err(|e| Error::io(path, e))?;
        pending.commit()?;
        Ok(())
    }

    /// The bytes that [`Context::save`] would give, which takes no time.
    ///
    /// # Errors
    /// As [`Context::save`].
    pub fn saved_size(&self) -> Result<usize> {
        let config = self.engine.model.config();
        check_variant(config)?;
        self.engine.model.host_bytes()?;
        let number = size_of::<u32>();
        let size = |sequence: &Sequence| {
            let slots = Slots { sequence: 0, count: self.saved_slots(sequence) };
            (3 + 2 * sequence.revealed) * number + slots.bytes(config, self.engine.capacity.kv)
        };
        // Version, fingerprint, precision and number of sequences before them, the checksum behind them.
        Ok(MAGIC.len() + 5 * number + self.session.active().iter().map(size).sum::<usize>() + number)
    }

    /// For so many slots of a sequence keys and values are saved.
    fn saved_slots(&self, sequence: &Sequence) -> usize {
        if self.engine.can_save_cache() { sequence.committed } else { 0 }
    }

    /// Takes up a saved state in place of the current generation: its tokens are known, no steps are left, and
    /// [`Context::extend`] goes on. Keys and values of another precision than this context's are computed again, as a
    /// message (see [`crate::set_log_receiver`]) says.
    ///
    /// # Errors
    /// [`Error::BadFile`] if the bytes are damaged or of another model; [`Error::InvalidArgument`] if the context is
    /// too small for it; [`Error::Unsupported`] as for [`Context::save`]. The current generation is then still there.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<()> {
        let model = self.engine.model.clone();
        let config = model.config();
        check_variant(config)?;
        let (kv, saved) = read(bytes, config, model.fingerprint()?, self.engine.capacity.sequences)?;
        let length = saved.iter().map(|s| s.length).max().unwrap_or(0);
        self.check_begin(saved.len(), length)?;
        self.start(saved.len(), Sampling::default());
        let usable = kv == Some(self.engine.capacity.kv);
        let mask = self.session.mask;
        let mut again = false;
        for (number, saved) in saved.iter().enumerate() {
            let slots = Slots { sequence: number, count: saved.committed };
            let loaded = usable && self.engine.load_cache(slots, saved.cache)?;
            let Some(sequence) = self.session.sequences.get_mut(number) else { continue };
            sequence.forget();
            sequence.learn(saved.length, mask, saved.known.iter().copied());
            // In the order it was generated.
            sequence.order.clear();
            sequence.order.extend(saved.known.iter().map(|(position, _)| position));
            sequence.committed = if loaded { saved.committed } else { 0 };
            again |= sequence.revealed > 0 && !loaded;
        }
        if again {
            let there = kv.map_or("none".into(), |kv| format!("{kv:?}"));
            let here = self.engine.capacity.kv;
            log(
                LogLevel::Info,
                &format!(
                    "saved state: keys and values ({there}) are computed again for this context ({here:?})"
                ),
            );
        }
        self.session.count_steps();
        Ok(())
    }
}

fn check_variant(config: &Config) -> Result<()> {
    match config.variant.is_causal() {
        true => Ok(()),
        false => {
            let name = config.variant.name();
            Err(Error::Unsupported(format!("variant '{name}': there is no cache that could be kept")))
        }
    }
}

/// Reads and checks a state: the precision of its keys and values, if there are any, and its sequences.
/// More than `most` of them are refused before any is read: an empty one has few bytes and may be very long.
fn read<'a>(
    bytes: &'a [u8],
    config: &Config,
    fingerprint: u64,
    most: usize,
) -> Result<(Option<KvType>, Vec<Saved<'a>>)> {
    let bad = |what: &str| Error::bad_file(NAME, what);
    let (body, crc) = bytes.split_last_chunk().ok_or_else(|| bad("it is cut off"))?;
    let mut rest = Rest(body);
    if rest.take(MAGIC.len())? != MAGIC {
        return Err(bad("it does not begin as one does"));
    }
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return Err(bad("its checksum is wrong; it is damaged"));
    }
    let version = rest.number()?;
    if version != VERSION {
        return Err(bad(&format!("it has version {version}; this library reads version {VERSION}")));
    }
    if u64::from(rest.number()?) | u64::from(rest.number()?) << 32 != fingerprint {
        return Err(bad("it is of another model"));
    }
    let kv = match rest.number()? {
        0 => Some(KvType::F16),
        1 => Some(KvType::F32),
        NO_CACHE => None,
        _ => return Err(bad("its precision is unknown")),
    };
    let count = rest.number()?;
    if count as usize > most {
        return Err(Error::invalid(format!("a state of {count} sequences; the context holds 1 to {most}")));
    }
    let mut all = Vec::new();
    for _ in 0..count {
        let [length, known, committed] = [rest.number()?, rest.number()?, rest.number()?].map(|n| n as usize);
        if length > config.context_length || known > length || committed > known {
            return Err(bad("its sizes do not fit"));
        }
        let pairs = rest.take(known * 8)?.as_chunks::<8>().0;
        let pair = |&[a, b, c, d, e, f, g, h]: &[u8; 8]| {
            (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
        };
        let known: Vec<(u32, u32)> = pairs.iter().map(pair).collect();
        let is_token = |token: u32| (token as usize) < config.vocab_size && token != config.mask_token_id;
        if !known.iter().all(|&(_, token)| is_token(token)) {
            return Err(bad("it has a token that the model has not"));
        }
        let positions: Vec<u32> = known.iter().map(|&(position, _)| position).collect();
        order::check_distinct(&positions, length).map_err(|e| bad(&e.to_string()))?;
        if config.variant == Variant::Ar && !positions.iter().copied().eq(0..positions.len() as u32) {
            return Err(bad("its order is not from left to right"));
        }
        let cache = match kv {
            Some(kv) => rest.take(Slots { sequence: 0, count: committed }.bytes(config, kv))?,
            None if committed > 0 => return Err(bad("its sizes do not fit")),
            None => &[],
        };
        all.push(Saved { length, known, committed, cache });
    }
    match rest.0 {
        [] => Ok((kv, all)),
        _ => Err(bad("there is something behind its end")),
    }
}

/// The bytes that are still to be read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let cut_off = || Error::bad_file(NAME, "it is cut off");
        let (taken, rest) = self.0.split_at_checked(len).ok_or_else(cut_off)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u32> {
        let bytes = self.take(4)?.first_chunk().copied().unwrap_or_default();
        Ok(u32::from_le_bytes(bytes))
    }
}
