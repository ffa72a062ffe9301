//! Copies the K/V cache to bytes and back, and from one sequence to another.

use crate::error::{Error, Result};
use crate::forward::cpu::kernels::attention::{KEY_GROUP, key_index};
use crate::forward::cpu::runner::CpuRunner;
use crate::forward::layout::{Capacity, Slots};
use crate::memory::Region;
use crate::model::Config;

impl CpuRunner {
    /// Appends the keys and values of `slots` to `out`: the keys of all blocks, then the values of all blocks, each as
    /// [Dh, count, H].
    pub(crate) fn save(
        &self,
        config: &Config,
        capacity: &Capacity,
        slots: Slots,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        self.each_run(config, capacity, slots, |start, len| {
            // SAFETY: it is in the arena, which is initialised, and no batch is running.
            out.extend_from_slice(unsafe { std::slice::from_raw_parts(start, len) });
            Ok(())
        })
    }

    /// Restores what [`CpuRunner::save`] wrote.
    pub(crate) fn load(
        &mut self,
        config: &Config,
        capacity: &Capacity,
        slots: Slots,
        mut bytes: &[u8],
    ) -> Result<()> {
        self.each_run(config, capacity, slots, |start, len| {
            let (run, rest) =
                bytes.split_at_checked(len).ok_or_else(|| Error::internal("a saved cache is too short"))?;
            // SAFETY: it is in the arena, which only this call uses, as it has `&mut self`.
            unsafe { std::slice::from_raw_parts_mut(start, len) }.copy_from_slice(run);
            bytes = rest;
            Ok(())
        })
    }

    /// Copies `slots` to the first slots of sequence `to`, another one.
    pub(crate) fn copy(
        &mut self,
        config: &Config,
        capacity: &Capacity,
        slots: Slots,
        to: usize,
    ) -> Result<()> {
        let (size, dh) = (capacity.kv.element_bytes(), config.head_dim());
        let start =
            |sequence: usize, head| (sequence * config.kv_head_count() + head) * capacity.slots * dh * size;
        // Whole groups, as the keys of neighbouring slots are interleaved.
        let len = slots.count.next_multiple_of(KEY_GROUP).min(capacity.slots) * dh * size;
        for region in self.layout.cache.keys.iter().chain(&self.layout.cache.values) {
            for head in 0..config.kv_head_count() {
                let part = |sequence| self.arena.part(region.offset + start(sequence, head), len);
                let (from, to) = (part(slots.sequence)?, part(to)?);
                // SAFETY: both are in the arena, which is initialised and which only this call uses, as it has `&mut self`.
                // They are of different sequences, or the same.
                unsafe { std::ptr::copy(from.as_ptr(), to.as_ptr(), len) };
            }
        }
        Ok(())
    }

    /// Calls `visit` with the address and length of each contiguous run of bytes: single numbers of keys, as those of
    /// neighbouring slots are interleaved, and whole heads of values.
    fn each_run(
        &self,
        config: &Config,
        capacity: &Capacity,
        slots: Slots,
        mut visit: impl FnMut(*mut u8, usize) -> Result<()>,
    ) -> Result<()> {
        let (size, dh) = (capacity.kv.element_bytes(), config.head_dim());
        let first = |head| (slots.sequence * config.kv_head_count() + head) * capacity.slots * dh;
        let mut run = |region: &Region, index: usize, count: usize| {
            let len = count * size;
            visit(self.arena.part(region.offset + index * size, len)?.as_ptr(), len)
        };
        for keys in &self.layout.cache.keys {
            for head in 0..config.kv_head_count() {
                for slot in 0..slots.count {
                    let index = first(head) + key_index(slot, dh);
                    (0..dh).try_for_each(|column| run(keys, index + column * KEY_GROUP, 1))?;
                }
            }
        }
        for values in &self.layout.cache.values {
            (0..config.kv_head_count()).try_for_each(|head| run(values, first(head), slots.count * dh))?;
        }
        Ok(())
    }
}
