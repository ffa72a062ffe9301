//! Writing in blocks of the system's huge pages.

use std::io::{Result, Write};

use crate::memory::with_room;

/// Bytes of a block, which is a huge page on x86-64 and on most 64-bit Arm systems.
const BLOCK: usize = 2 << 20;

/// Writes whole blocks: a file that is written so lies in huge pages where the system keeps files in such, and is mapped by them,
/// which reads it faster. What is left at the end is written by [`Write::flush`].
pub(crate) struct BlockWriter<W> {
    to: W,
    block: Vec<u8>,
}

impl<W: Write> BlockWriter<W> {
    /// The first byte goes to the beginning of a block.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub(crate) fn new(to: W) -> crate::error::Result<Self> {
        Ok(Self { to, block: with_room(BLOCK)? })
    }
}

impl<W: Write> Write for BlockWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        if self.block.len() == BLOCK {
            self.to.write_all(&self.block)?;
            self.block.clear();
        }
        let (some, _) = bytes.split_at(bytes.len().min(BLOCK - self.block.len()));
        self.block.extend_from_slice(some);
        Ok(some.len())
    }

    fn flush(&mut self) -> Result<()> {
        self.to.write_all(&self.block)?;
        self.block.clear();
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lengths of what is written.
    #[derive(Default)]
    struct Calls(Vec<usize>, Vec<u8>);

    impl Write for &mut Calls {
        fn write(&mut self, bytes: &[u8]) -> Result<usize> {
            self.0.push(bytes.len());
            self.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn all_but_the_end_comes_in_whole_blocks() {
        for parts in [&[1, 0, 3 * BLOCK + 5, 7][..], &[BLOCK - 1, 1, 1, BLOCK], &[BLOCK], &[3]] {
            let mut calls = Calls::default();
            let mut writer = BlockWriter::new(&mut calls).unwrap();
            let mut written = Vec::new();
            for (number, &len) in (1..).zip(parts) {
                let part = vec![number; len];
                writer.write_all(&part).unwrap();
                written.extend(part);
            }
            writer.flush().unwrap();
            drop(writer);
            let Calls(lengths, bytes) = calls;
            assert!(bytes == written, "{parts:?}");
            let (last, whole) = lengths.split_last().unwrap();
            assert!(whole.iter().all(|&len| len == BLOCK) && *last > 0 && *last <= BLOCK, "{lengths:?}");
        }
    }
}
