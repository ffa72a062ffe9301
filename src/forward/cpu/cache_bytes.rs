//! Copies the K/V cache to bytes and back, and from one sequence to another.

use crate::error::{Error, Result};
use crate::forward::cpu::kernels::cache::{KEY_GROUP, SCALED, key_index};
use crate::forward::cpu::network::split_scales;
use crate::forward::cpu::runner::CpuRunner;
use crate::forward::layout::{CacheLayout, Capacity, Slots};
use crate::memory::Region;
use crate::model::Config;

impl CpuRunner {
    /// Appends the keys and values of `slots` to `out`: the keys of all blocks, then the values of all blocks, each as
    /// [Dh, count, H], each block's scales [Dh / SCALED, count, H] behind its numbers if there are any.
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
        for Part { region, size, width, .. } in self.parts(config, capacity) {
            {
                let start = |sequence: usize, head| {
                    (sequence * config.kv_head_count() + head) * capacity.slots * width * size
                };
                // Whole groups, as the keys of neighbouring slots are interleaved.
                let len = slots.count.next_multiple_of(KEY_GROUP).min(capacity.slots) * width * size;
                for head in 0..config.kv_head_count() {
                    let part = |sequence| self.arena.part(region.offset + start(sequence, head), len);
                    let (from, to) = (part(slots.sequence)?, part(to)?);
                    // SAFETY: both are in the arena, which is initialised and which only this call uses, as it has `&mut self`.
                    // They are of different sequences, or the same.
                    unsafe { std::ptr::copy(from.as_ptr(), to.as_ptr(), len) };
                }
            }
        }
        Ok(())
    }

    /// The keys of all blocks, then the values: their numbers, and their scales if they have any.
    fn parts(&self, config: &Config, capacity: &Capacity) -> impl Iterator<Item = Part> {
        let (has_scales, dh) = (capacity.kv.has_scales(), config.head_dim());
        let size = capacity.kv.number_bytes();
        let split = move |interleaved: bool, region: &Region| {
            let [numbers, scales] = split_scales(*region, has_scales);
            let scales = Part { region: scales, size: SCALE_BYTES, width: dh / SCALED, interleaved: true };
            let numbers = Part { region: numbers, size, width: dh, interleaved };
            [numbers].into_iter().chain(has_scales.then_some(scales))
        };
        let CacheLayout { keys, values, .. } = &self.layout.cache;
        let (keys, values) =
            (keys.iter().map(|region| (true, region)), values.iter().map(|region| (false, region)));
        keys.chain(values).flat_map(move |(interleaved, region)| split(interleaved, region))
    }

    /// Calls `visit` with the address and length of each contiguous run of bytes: single numbers of keys and single scales, as
    /// those of neighbouring slots are interleaved, and whole heads of values.
    fn each_run(
        &self,
        config: &Config,
        capacity: &Capacity,
        slots: Slots,
        mut visit: impl FnMut(*mut u8, usize) -> Result<()>,
    ) -> Result<()> {
        for Part { region, size, width, interleaved } in self.parts(config, capacity) {
            let mut run = |index: usize, count: usize| {
                let len = count * size;
                visit(self.arena.part(region.offset + index * size, len)?.as_ptr(), len)
            };
            for head in 0..config.kv_head_count() {
                let first = (slots.sequence * config.kv_head_count() + head) * capacity.slots * width;
                if !interleaved {
                    run(first, slots.count * width)?;
                    continue;
                }
                for slot in 0..slots.count {
                    let index = first + key_index(slot, width);
                    (0..width).try_for_each(|column| run(index + column * KEY_GROUP, 1))?;
                }
            }
        }
        Ok(())
    }
}

/// Numbers of a block's keys or values in the cache, or their scales: `width` for a head and slot, of `size` bytes each.
#[derive(Clone, Copy)]
struct Part {
    region: Region,
    size: usize,
    width: usize,
    /// Whether those of neighbouring slots are.
    interleaved: bool,
}

/// Bytes of a scale.
const SCALE_BYTES: usize = size_of::<half::f16>();
