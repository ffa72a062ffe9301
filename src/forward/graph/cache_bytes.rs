//! Copies the K/V cache to bytes and back, and from one sequence to another: through host memory, in the order that the
//! CPU's runner has, so that states move between devices.

use super::GraphRunner;
use crate::error::{Error, Result};
use crate::forward::layout::{Capacity, Slots};
use crate::memory::{filled, push};
use crate::model::Config;

impl GraphRunner {
    /// Appends the keys and values of `slots` to `out`: the keys of all blocks, then the values of all blocks, each as
    /// [Dh, count, H].
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn save(
        &self,
        config: &Config,
        capacity: &Capacity,
        slots: Slots,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let (row, head) = row_bytes(config, capacity);
        let mut rows = filled(slots.count * row, 0u8)?;
        for start in self.starts(slots.sequence * capacity.slots * row)? {
            self.workspace.read_bytes(start, &mut rows)?;
            for first in (0..row).step_by(head) {
                let parts = rows.chunks_exact(row).filter_map(|row| row.get(first..first + head));
                parts.for_each(|part| out.extend_from_slice(part));
            }
        }
        Ok(())
    }

    /// Restores what [`GraphRunner::save`] wrote, or the CPU's runner.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; [`Error::Internal`] if it is too short.
    pub(crate) fn load(
        &mut self,
        config: &Config,
        capacity: &Capacity,
        slots: Slots,
        bytes: &[u8],
    ) -> Result<()> {
        let (row, head) = row_bytes(config, capacity);
        let mut rows = filled(slots.count * row, 0u8)?;
        let mut heads = bytes.chunks_exact(head);
        for start in self.starts(slots.sequence * capacity.slots * row)? {
            for first in (0..row).step_by(head) {
                for to in rows.chunks_exact_mut(row).filter_map(|row| row.get_mut(first..first + head)) {
                    let from = heads.next().ok_or_else(|| Error::internal("a saved cache is too short"))?;
                    to.copy_from_slice(from);
                }
            }
            self.workspace.write_bytes(start, &rows)?;
        }
        Ok(())
    }

    /// Copies `slots` to the first slots of sequence `to`, another one.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn copy(
        &mut self,
        config: &Config,
        capacity: &Capacity,
        slots: Slots,
        to: usize,
    ) -> Result<()> {
        let (row, _) = row_bytes(config, capacity);
        let mut rows = filled(slots.count * row, 0u8)?;
        let place = |sequence| sequence * capacity.slots * row;
        for (from, to) in self.starts(place(slots.sequence))?.into_iter().zip(self.starts(place(to))?) {
            self.workspace.read_bytes(from, &mut rows)?;
            self.workspace.write_bytes(to, &rows)?;
        }
        Ok(())
    }

    /// Where byte `offset` of the keys of each block lies in the computing memory, and then of the values of each.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    fn starts(&self, offset: usize) -> Result<Vec<usize>> {
        let regions = self.layout.cache.keys.iter().chain(&self.layout.cache.values);
        let mut starts = Vec::new();
        for region in regions {
            push(&mut starts, region.offset + offset)?;
        }
        Ok(starts)
    }
}

/// Bytes of a slot's keys in a block, and of one head's.
fn row_bytes(config: &Config, capacity: &Capacity) -> (usize, usize) {
    (capacity.kv.bytes(config.kv_length()), capacity.kv.bytes(config.head_dim()))
}
