//! The cache as bytes, to be kept and taken up again.

use crate::error::{Error, Result};
use crate::forward::cpu::kernels::attention::{SIDE_BY_SIDE, key_place};
use crate::forward::cpu::runner::CpuRunner;
use crate::forward::layout::{Capacity, Slots};
use crate::memory::Region;
use crate::model::Config;

impl CpuRunner {
    /// Adds the keys and values of `slots` to `out`: all blocks' keys, then all blocks' values; of each, head by head,
    /// [Dh, count].
    pub(crate) fn save(
        &self,
        config: &Config,
        capacity: &Capacity,
        slots: Slots,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        self.each_piece(config, capacity, slots, |start, len| {
            // SAFETY: the piece is in the arena, which is initialised, and no pass is running.
            out.extend_from_slice(unsafe { std::slice::from_raw_parts(start, len) });
            Ok(())
        })
    }

    /// Puts back what [`CpuRunner::save`] gave.
    pub(crate) fn load(
        &mut self,
        config: &Config,
        capacity: &Capacity,
        slots: Slots,
        mut bytes: &[u8],
    ) -> Result<()> {
        self.each_piece(config, capacity, slots, |start, len| {
            let (piece, rest) =
                bytes.split_at_checked(len).ok_or_else(|| Error::internal("a saved cache is too short"))?;
            // SAFETY: the piece is in the arena, which `&mut self` makes this call's alone.
            unsafe { std::slice::from_raw_parts_mut(start, len) }.copy_from_slice(piece);
            bytes = rest;
            Ok(())
        })
    }

    /// Address and length of each contiguous piece of the cache: single numbers of keys, whole heads of values.
    fn each_piece(
        &self,
        config: &Config,
        capacity: &Capacity,
        slots: Slots,
        mut use_piece: impl FnMut(*mut u8, usize) -> Result<()>,
    ) -> Result<()> {
        let (size, dh) = (capacity.kv.element_bytes(), config.head_dim());
        let first = |head| (slots.sequence * config.head_count + head) * capacity.slots * dh;
        let mut piece = |region: &Region, place: usize, count: usize| {
            let len = count * size;
            use_piece(self.arena.part(region.offset + place * size, len)?.as_ptr(), len)
        };
        for keys in &self.layout.keys {
            for head in 0..config.head_count {
                for slot in 0..slots.count {
                    let place = first(head) + key_place(slot, dh);
                    (0..dh).try_for_each(|column| piece(keys, place + column * SIDE_BY_SIDE, 1))?;
                }
            }
        }
        for values in &self.layout.values {
            (0..config.head_count).try_for_each(|head| piece(values, first(head), slots.count * dh))?;
        }
        Ok(())
    }
}
