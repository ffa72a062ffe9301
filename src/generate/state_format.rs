//! The bytes of saved states.
//!
//! All numbers are little-endian and, but for the fingerprint, of 32 bits: `ESOLM-ST`, the version, the model's
//! fingerprint (64 bits), the precision of keys and values (0 f16, 1 f32, 2 there are none, 3 q8_0), the number of sequences;
//! for each sequence its length (0: there is none), how many tokens are known, for how many slots there are keys and values, what ended its
//! text (0 nothing, 2 end of text, 3 stop token, 4 stop string), the bytes of text before a stop string (else 2^32 - 1), a
//! position and a token for each known one in generation order, and the keys and values (of q8_0 with their scales behind them); and a CRC-32 of
//! everything before it. Version 1 does not have the numbers on the end of a text.

use super::finished::Stop;
use super::sequence::Sequence;
use super::stop::StopReason;
use crate::error::{Error, Result};
use crate::forward::{KvType, Slots};
use crate::memory::{collected, with_room};
use crate::model::{Config, Variant};
use crate::plan::order;

pub(super) const MAGIC: &[u8; 8] = b"ESOLM-ST";
pub(super) const VERSION: u32 = 2;
/// The first version, in which texts have no end.
const VERSION_1: u32 = 1;
/// Stands for the bytes of a text that does not end before a stop string.
const NO_BYTES: u32 = u32::MAX;
/// The precisions of keys and values, as numbers, and what stands for none.
pub(super) const KV_TYPES: [(u32, Option<KvType>); 4] =
    [(0, Some(KvType::F16)), (1, Some(KvType::F32)), (2, None), (3, Some(KvType::Q8_0))];
/// The bytes of what is the same for all sequences, before them: magic, version, fingerprint, precision and their number.
pub(super) const HEAD: usize = MAGIC.len() + 5 * size_of::<u32>();
/// What errors call the bytes.
pub(super) const NAME: &str = "saved state";

/// What ended a text, as numbers.
pub(super) fn stop_numbers(stop: Option<Stop>) -> [u32; 2] {
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
pub(super) struct Saved<'a> {
    pub(super) length: usize,
    /// Positions and tokens in generation order.
    pub(super) known: Vec<(u32, u32)>,
    pub(super) committed: usize,
    pub(super) stop: Option<Stop>,
    pub(super) cache: &'a [u8],
}

pub(super) fn read_count(head: &[u8]) -> Result<usize> {
    let mut rest = Rest(head);
    read_magic(&mut rest)?;
    read_version(&mut rest)?;
    // The fingerprint, and the precision of keys and values.
    rest.take(3 * size_of::<u32>())?;
    Ok(rest.number()? as usize)
}

/// What is saved of a sequence: its length, the number of its known tokens, and of its slots with keys and values. Nothing if
/// it is not in use.
pub(super) fn saved_sizes(sequence: &Sequence) -> [usize; 3] {
    match sequence.in_use {
        true => [sequence.text_length, sequence.revealed, sequence.committed],
        false => [0; 3],
    }
}

/// The bytes of a saved sequence with so many known tokens and slots.
pub(super) fn sequence_bytes(known: usize, count: usize, config: &Config, kv: KvType) -> usize {
    (5 + 2 * known) * size_of::<u32>() + Slots { sequence: 0, count }.bytes(config, kv)
}

/// The bytes of a state whose sequences have so many: with the checksum behind them.
pub(super) fn state_bytes(sequences: usize) -> usize {
    sequences.saturating_add(HEAD + size_of::<u32>())
}

pub(super) fn read_magic(rest: &mut Rest<'_>) -> Result<()> {
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
pub(super) fn read_head(
    rest: &mut Rest<'_>,
    fingerprint: u64,
    most: usize,
) -> Result<(u32, Option<KvType>, u32)> {
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
        return Err(Error::invalid(format!("a state of {count} sequences, where there is room for {most}")));
    }
    Ok((version, kv, count))
}

/// Reads and checks a state: the precision of its keys and values, if there are any, and its sequences.
pub(super) fn read<'a>(
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
pub(super) struct Rest<'a>(pub(super) &'a [u8]);

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
