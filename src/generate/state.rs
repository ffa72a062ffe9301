//! Saved states: what a context, or a sequence of it, knows, as bytes.

use std::io::Read;
use std::ops::Range;
use std::path::Path;

use super::begin::check_begin;
use super::rules::SequenceRules;
use super::sequence::Sequence;
use super::session::Session;
use super::state_format::{
    HEAD, KV_TYPES, MAGIC, NAME, Rest, Saved, VERSION, read, read_count, read_head, read_magic, saved_sizes,
    sequence_bytes, state_bytes, stop_numbers,
};
use crate::atomic_file::write_file;
use crate::error::{Error, Result};
use crate::forward::{KvType, ModelRunner, Slots};
use crate::log::{LogLevel, log};
use crate::memory::{open_regular, with_room};
use crate::sample::SamplingParams;
use crate::simd::DefaultFloats;

impl Session {
    /// The session as bytes; see [`Context::save`](crate::Context::save).
    pub(crate) fn save(&self, runner: &ModelRunner) -> Result<Vec<u8>> {
        self.save_some(runner, 0..self.sequences())
    }

    /// One sequence as bytes; see [`Context::save_sequence`](crate::Context::save_sequence).
    pub(crate) fn save_one(&self, runner: &ModelRunner, number: usize) -> Result<Vec<u8>> {
        self.sequence(number)?;
        self.save_some(runner, number..number + 1)
    }

    fn save_some(&self, runner: &ModelRunner, which: Range<usize>) -> Result<Vec<u8>> {
        let kv = runner.capacity.kv;
        let mut out = with_room(self.size_of_some(runner, which.clone())?)?;
        out.extend(MAGIC);
        let mut put = |number: u32| out.extend(number.to_le_bytes());
        put(VERSION);
        let fingerprint = runner.model.fingerprint()?;
        put(fingerprint as u32);
        put((fingerprint >> 32) as u32);
        let number = KV_TYPES.iter().find(|(_, of)| *of == Some(kv)).map(|(number, _)| *number);
        put(number.ok_or_else(|| Error::internal("a precision without a number"))?);
        put(which.len() as u32);
        for (number, sequence) in which.clone().zip(self.sequences.get(which).unwrap_or_default()) {
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
        self.size_of_some(runner, 0..self.sequences())
    }

    /// The length in bytes of what [`Session::save_one`] returns, without making it.
    pub(crate) fn saved_size_of_one(&self, runner: &ModelRunner, number: usize) -> Result<usize> {
        self.sequence(number)?;
        self.size_of_some(runner, number..number + 1)
    }

    fn size_of_some(&self, runner: &ModelRunner, which: Range<usize>) -> Result<usize> {
        let config = runner.model.config();
        config.variant.check_keeps_cache("saved")?;
        let size = |sequence: &Sequence| {
            let [_, known, count] = saved_sizes(sequence);
            sequence_bytes(known, count, config, runner.capacity.kv)
        };
        Ok(state_bytes(self.sequences.get(which).unwrap_or_default().iter().map(size).sum()))
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
        let put = self.put_back(runner, kv, &saved, 0);
        if put.is_err() {
            self.reset();
        }
        put
    }

    /// Adds the one sequence of what [`Session::save_one`] returned; see
    /// [`Context::restore_sequence`](crate::Context::restore_sequence).
    pub(crate) fn restore_one(&mut self, runner: &mut ModelRunner, bytes: &[u8]) -> Result<usize> {
        let _floats = DefaultFloats::set();
        let model = runner.model.clone();
        let config = model.config();
        config.variant.check_keeps_cache("saved")?;
        let (kv, saved) = read(bytes, config, model.fingerprint()?, 1)?;
        let Some(length) = saved.first().map(|saved| saved.length).filter(|&length| length > 0) else {
            return Err(Error::invalid("a state without a sequence"));
        };
        check_begin(runner, 1, length)?;
        let number = self.free_sequence(runner)?;
        self.clear_damaged_cache(runner);
        self.forget_step();
        let put = self.put_back(runner, kv, &saved, number);
        if let (Err(_), Some(sequence)) = (&put, self.sequences.get_mut(number)) {
            sequence.leave();
            sequence.committed = 0;
        }
        put.map(|()| number)
    }

    /// Makes the sequences from `first` on what they were when they were saved.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Device`], where keys and values do not lie in the arena.
    fn put_back(
        &mut self,
        runner: &mut ModelRunner,
        kv: Option<KvType>,
        saved: &[Saved<'_>],
        first: usize,
    ) -> Result<()> {
        let usable = kv == Some(runner.capacity.kv);
        let mask = runner.model.config().mask_token_id;
        let mut again = false;
        for (number, saved) in (first..).zip(saved) {
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
