//! Saved states: what a context knows, as bytes.
//!
//! All numbers are little-endian and, but for the fingerprint, of 32 bits: `ESOLM-ST`, the version, the model's
//! fingerprint (64 bits), the precision of keys and values (0 f16, 1 f32, 2 there are none, 3 q8_0), the number of sequences;
//! for each sequence its length (0: there is none), how many tokens are known, for how many slots there are keys and values, what ended its
//! text (0 nothing, 2 end of text, 3 stop token, 4 stop string), the bytes of text before a stop string (else 2^32 - 1), a
//! position and a token for each known one in generation order, and the keys and values (of q8_0 with their scales behind them); and a CRC-32 of
//! everything before it. Version 1 does not have the numbers on the end of a text.

use std::io::Read;
use std::path::Path;

use super::begin::check_begin;
use super::finished::Stop;
use super::rules::SequenceRules;
use super::sequence::Sequence;
use super::session::Session;
use super::stop::StopReason;
use crate::atomic_file::write_file;
use crate::error::{Error, Result};
use crate::forward::{KvType, ModelRunner, Slots};
use crate::log::{LogLevel, log};
use crate::memory::{collected, open_regular, with_room};
use crate::model::{Config, Variant};
use crate::plan::order;
use crate::sample::SamplingParams;
use crate::simd::DefaultFloats;

const MAGIC: &[u8; 8] = b"ESOLM-ST";
const VERSION: u32 = 2;
/// The first version, in which texts have no end.
const VERSION_1: u32 = 1;
/// Stands for the bytes of a text that does not end before a stop string.
const NO_BYTES: u32 = u32::MAX;
/// The precisions of keys and values, as numbers, and what stands for none.
const KV_TYPES: [(u32, Option<KvType>); 4] =
    [(0, Some(KvType::F16)), (1, Some(KvType::F32)), (2, None), (3, Some(KvType::Q8_0))];
/// The bytes of what is the same for all sequences, before them: magic, version, fingerprint, precision and their number.
const HEAD: usize = MAGIC.len() + 5 * size_of::<u32>();
/// What errors call the bytes.
const NAME: &str = "saved state";

/// What ended a text, as numbers.
fn stop_numbers(stop: Option<Stop>) -> [u32; 2] {
    let code = match stop.map(|stop| stop.reason) {
        Some(StopReason::EndOfText) => 2,
        Some(StopReason::StopToken) => 3,
        Some(StopReason::StopString) => 4,
        _ => 0,
    };
    [code, stop.and_then(|stop| stop.bytes).map_or(NO_BYTES, |bytes| bytes as u32)]
}

/// What ended the text of a sequence whose tokens are all known or not; `None` for numbers that do not go together.
fn read_stop(numbers: [u32; 2], all_known: bool) -> Option<Option<Stop>> {
    let reason = match numbers {
        [0, NO_BYTES] => return Some(None),
        [2, NO_BYTES] => StopReason::EndOfText,
        [3, NO_BYTES] => StopReason::StopToken,
        [4, bytes] if bytes != NO_BYTES => StopReason::StopString,
        _ => return None,
    };
    let bytes = numbers.last().copied().filter(|&bytes| bytes != NO_BYTES).map(|bytes| bytes as usize);
    all_known.then_some(Some(Stop { reason, bytes }))
}

/// A sequence as it was saved.
struct Saved<'a> {
    length: usize,
    /// Positions and tokens in generation order.
    known: Vec<(u32, u32)>,
    committed: usize,
    stop: Option<Stop>,
    cache: &'a [u8],
}

impl Session {
    /// The session as bytes; see [`Context::save`](crate::Context::save).
    pub(crate) fn save(&self, runner: &ModelRunner) -> Result<Vec<u8>> {
        let kv = runner.capacity.kv;
        let mut out = with_room(self.saved_size(runner)?)?;
        out.extend(MAGIC);
        let mut put = |number: u32| out.extend(number.to_le_bytes());
        put(VERSION);
        let fingerprint = runner.model.fingerprint()?;
        put(fingerprint as u32);
        put((fingerprint >> 32) as u32);
        let number = KV_TYPES.iter().find(|(_, of)| *of == Some(kv)).map(|(number, _)| *number);
        put(number.ok_or_else(|| Error::internal("a precision without a number"))?);
        put(self.active().len() as u32);
        for (number, sequence) in self.active().iter().enumerate() {
            let sizes = saved_sizes(sequence);
            let [_, known, committed] = sizes;
            let known = sequence.order.iter().take(known);
            let sizes = sizes.map(|size| size as u32);
            let stop = stop_numbers(sequence.finished.stop);
            out.extend(sizes.into_iter().chain(stop).flat_map(u32::to_le_bytes));
            for &position in known {
                out.extend([position, sequence.token(position)?].into_iter().flat_map(u32::to_le_bytes));
            }
            runner.save_cache(Slots { sequence: number, count: committed }, &mut out)?;
        }
        let crc = crc32fast::hash(&out);
        out.extend(crc.to_le_bytes());
        Ok(out)
    }

    /// Writes the session to a file; see [`Context::save_to`](crate::Context::save_to).
    pub(crate) fn save_to(&self, runner: &ModelRunner, path: &Path) -> Result<()> {
        write_file(path, &self.save(runner)?)
    }

    /// The length in bytes of what [`Session::save`] returns, without making it.
    pub(crate) fn saved_size(&self, runner: &ModelRunner) -> Result<usize> {
        let config = runner.model.config();
        config.variant.check_keeps_cache("saved")?;
        let size = |sequence: &Sequence| {
            let [_, known, count] = saved_sizes(sequence);
            sequence_bytes(known, count, config, runner.capacity.kv)
        };
        Ok(state_bytes(self.active().iter().map(size).sum()))
    }

    /// Restores the session from a file; see [`Context::restore_from`](crate::Context::restore_from).
    pub(crate) fn restore_from(&mut self, runner: &mut ModelRunner, path: &Path) -> Result<()> {
        let bytes = read_file(runner, path).map_err(|error| name_file(error, path))?;
        self.restore(runner, &bytes).map_err(|error| name_file(error, path))
    }

    /// Restores what [`Session::save`] returned; see [`Context::restore`](crate::Context::restore).
    pub(crate) fn restore(&mut self, runner: &mut ModelRunner, bytes: &[u8]) -> Result<()> {
        let _floats = DefaultFloats::set();
        let model = runner.model.clone();
        let config = model.config();
        config.variant.check_keeps_cache("saved")?;
        let (kv, saved) = read(bytes, config, model.fingerprint()?, runner.capacity.sequences)?;
        if saved.is_empty() {
            self.reset();
            return Ok(());
        }
        let length = saved.iter().map(|s| s.length).max().unwrap_or(0);
        check_begin(runner, saved.len(), length)?;
        self.start_anew(runner);
        let put = self.put_back(runner, kv, &saved);
        if put.is_err() {
            self.reset();
        }
        put
    }

    /// Makes the sequences what they were when they were saved.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Device`], where keys and values do not lie in the arena.
    fn put_back(&mut self, runner: &mut ModelRunner, kv: Option<KvType>, saved: &[Saved<'_>]) -> Result<()> {
        let usable = kv == Some(runner.capacity.kv);
        let mask = runner.model.config().mask_token_id;
        let mut again = false;
        for (number, saved) in saved.iter().enumerate() {
            let slots = Slots { sequence: number, count: saved.committed };
            if usable {
                runner.load_cache(slots, saved.cache)?;
            }
            let missing = || Error::internal("a saved sequence without a place");
            let sequence = self.sequences.get_mut(number).ok_or_else(missing)?;
            sequence.reset();
            // There was none.
            if saved.length == 0 {
                continue;
            }
            sequence.begin(SequenceRules { sampling: SamplingParams::FULL, ..SequenceRules::default() });
            sequence.set_known(saved.length, mask, saved.known.iter().copied())?;
            // In the order it was generated.
            sequence.order.clear();
            sequence.order.extend(saved.known.iter().map(|(position, _)| position));
            let Sequence { order, tokens, .. } = sequence;
            order.extend(
                (0..).zip(tokens.iter()).filter(|&(_, &token)| token == mask).map(|(position, _)| position),
            );
            sequence.begin_text(mask, None)?;
            sequence.finished.stop = saved.stop;
            sequence.committed = if usable { saved.committed } else { 0 };
            again |= sequence.revealed > 0 && !usable;
        }
        if again {
            let there = kv.map_or("none".into(), |kv| format!("{kv:?}"));
            let here = runner.capacity.kv;
            log(
                LogLevel::Info,
                &format!(
                    "saved state: keys and values ({there}) are computed again for this context ({here:?})"
                ),
            );
        }
        self.count_steps(runner.model.config());
        Ok(())
    }
}

/// The number of sequences of a saved state; see [`Context::saved_sequences`](crate::Context::saved_sequences).
pub(crate) fn saved_sequences(path: &Path) -> Result<usize> {
    let (mut file, _) = open_regular(path)?;
    let mut head = Vec::new();
    file.by_ref().take(HEAD as u64).read_to_end(&mut head).map_err(|e| Error::io(path, e))?;
    read_count(&head).map_err(|error| name_file(error, path))
}

fn read_count(head: &[u8]) -> Result<usize> {
    let mut rest = Rest(head);
    read_magic(&mut rest)?;
    read_version(&mut rest)?;
    // The fingerprint, and the precision of keys and values.
    rest.take(3 * size_of::<u32>())?;
    Ok(rest.number()? as usize)
}

/// What is saved of a sequence: its length, the number of its known tokens, and of its slots with keys and values. Nothing if
/// it is not in use.
fn saved_sizes(sequence: &Sequence) -> [usize; 3] {
    match sequence.in_use {
        true => [sequence.text_length, sequence.revealed, sequence.committed],
        false => [0; 3],
    }
}

/// The bytes of a saved sequence with so many known tokens and slots.
fn sequence_bytes(known: usize, count: usize, config: &Config, kv: KvType) -> usize {
    (5 + 2 * known) * size_of::<u32>() + Slots { sequence: 0, count }.bytes(config, kv)
}

/// The bytes of a state whose sequences have so many: with the checksum behind them.
fn state_bytes(sequences: usize) -> usize {
    sequences.saturating_add(HEAD + size_of::<u32>())
}

/// Calls a file that is no state by its name.
fn name_file(error: Error, path: &Path) -> Error {
    match error {
        Error::BadFile { file, what, source } if file == NAME => {
            Error::BadFile { file: path.display().to_string(), what: format!("{NAME}: {what}"), source }
        }
        other => other,
    }
}

/// The bytes of a file, if it is not larger than the largest state that the runner has room for.
fn read_file(runner: &ModelRunner, path: &Path) -> Result<Vec<u8>> {
    let config = runner.model.config();
    config.variant.check_keeps_cache("saved")?;
    let io = |e| Error::io(path, e);
    // Keys and values of any precision are read.
    let most = sequence_bytes(runner.length, runner.length, config, KvType::F32);
    let most = state_bytes(runner.capacity.sequences.saturating_mul(most)) as u64;
    let (mut file, size) = open_regular(path)?;
    if size > most {
        let mut head = [0; HEAD];
        file.read_exact(&mut head).map_err(io)?;
        let mut rest = Rest(&head);
        read_magic(&mut rest)?;
        read_head(&mut rest, runner.model.fingerprint()?, runner.capacity.sequences)?;
        let path = path.display();
        return Err(Error::invalid(format!(
            "{path}: a saved state of {size} bytes; this context has room for texts whose state has {most}"
        )));
    }
    let mut bytes = with_room(size as usize)?;
    file.take(size).read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}

fn read_magic(rest: &mut Rest<'_>) -> Result<()> {
    if rest.take(MAGIC.len())? == MAGIC {
        return Ok(());
    }
    Err(Error::bad_file(NAME, "it does not start with the magic bytes \"ESOLM-ST\""))
}

fn read_version(rest: &mut Rest<'_>) -> Result<u32> {
    let version = rest.number()?;
    if [VERSION_1, VERSION].contains(&version) {
        return Ok(version);
    }
    let what = format!("it has version {version}; this library reads version {VERSION_1} and {VERSION}");
    Err(Error::bad_file(NAME, what))
}

/// Reads and checks what is between the magic and the sequences: the version, the precision of keys and values, if there are
/// any, and the number of the sequences. More than `most` of them are refused: an empty one has few bytes and may be very long.
fn read_head(rest: &mut Rest<'_>, fingerprint: u64, most: usize) -> Result<(u32, Option<KvType>, u32)> {
    let bad = |what: &str| Error::bad_file(NAME, what);
    let version = read_version(rest)?;
    if u64::from(rest.number()?) | u64::from(rest.number()?) << 32 != fingerprint {
        return Err(bad("it was saved with another model"));
    }
    let number = rest.number()?;
    let kv = KV_TYPES.into_iter().find(|(of, _)| *of == number).map(|(_, kv)| kv);
    let kv = kv.ok_or_else(|| bad("its precision is unknown"))?;
    let count = rest.number()?;
    if count as usize > most {
        return Err(Error::invalid(format!("a state of {count} sequences; the context holds 1 to {most}")));
    }
    Ok((version, kv, count))
}

/// Reads and checks a state: the precision of its keys and values, if there are any, and its sequences.
fn read<'a>(
    bytes: &'a [u8],
    config: &Config,
    fingerprint: u64,
    most: usize,
) -> Result<(Option<KvType>, Vec<Saved<'a>>)> {
    let bad = |what: &str| Error::bad_file(NAME, what);
    let (body, crc) = bytes.split_last_chunk().ok_or_else(|| bad("it is cut off"))?;
    let mut rest = Rest(body);
    read_magic(&mut rest)?;
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return Err(bad("its checksum is wrong; it is damaged"));
    }
    let (version, kv, count) = read_head(&mut rest, fingerprint, most)?;
    let mut all = with_room(count as usize)?;
    for _ in 0..count {
        let [length, known, committed] = [rest.number()?, rest.number()?, rest.number()?].map(|n| n as usize);
        // Only a model that always predicts the next token has no row for the last one.
        let without_row = if config.variant == Variant::Ar { config.given_tokens() } else { 0 };
        if length > config.context_length
            || known > length
            || config.block_length > 0 && !committed.is_multiple_of(config.block_length)
            || committed > known.saturating_sub(without_row)
        {
            return Err(bad("its sizes are inconsistent or exceed the model's context length"));
        }
        let stop = if version == VERSION_1 { [0, NO_BYTES] } else { [rest.number()?, rest.number()?] };
        let stop = read_stop(stop, length > 0 && known == length);
        let stop = stop.ok_or_else(|| bad("what ended its text is unknown"))?;
        let pairs = rest.take(known * 8)?.as_chunks::<8>().0;
        let pair = |&[a, b, c, d, e, f, g, h]: &[u8; 8]| {
            (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
        };
        let known: Vec<(u32, u32)> = collected(pairs.iter().map(pair))?;
        if !known.iter().all(|&(_, token)| config.is_writable(token)) {
            return Err(bad("it contains a token outside the model's vocabulary"));
        }
        let positions: Vec<u32> = collected(known.iter().map(|&(position, _)| position))?;
        order::check_distinct(&positions, length).map_err(|error| match error {
            Error::InvalidArgument(what) => bad(&what),
            other => other,
        })?;
        // Slots of BD3-LM are positions, so that all of those in the cache are known.
        let in_cache = positions.iter().filter(|&&position| (position as usize) < committed).count();
        if config.block_length > 0 && in_cache < committed {
            return Err(bad("its finished blocks are not all known"));
        }
        if config.variant == Variant::Ar && !positions.iter().copied().eq(0..positions.len() as u32) {
            return Err(bad("its order is not from left to right"));
        }
        let cache = match kv {
            Some(kv) => rest.take(Slots { sequence: 0, count: committed }.bytes(config, kv))?,
            None if committed > 0 => {
                return Err(bad("its sizes are inconsistent or exceed the model's context length"));
            }
            None => &[],
        };
        all.push(Saved { length, known, committed, stop, cache });
    }
    match rest.0 {
        [] => Ok((kv, all)),
        _ => Err(bad("it has trailing bytes")),
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
