//! Room for what a template makes while it runs.

use std::cell::{Cell, OnceCell};

use super::budget::{Outcome, fault};
use crate::memory::collected;

/// Room in the first block; each has twice that of the one before.
const FIRST: usize = 16;
const BLOCKS: usize = 32;

/// Things that stay where they are, as long as it exists.
pub(super) struct Shelf<T> {
    blocks: [OnceCell<Vec<OnceCell<T>>>; BLOCKS],
    len: Cell<usize>,
}

impl<T> Shelf<T> {
    pub(super) fn new() -> Self {
        Self { blocks: [const { OnceCell::new() }; BLOCKS], len: Cell::new(0) }
    }

    pub(super) fn put(&self, thing: T) -> Outcome<&T> {
        let number = FIRST + self.len.get();
        let size = 1 << number.ilog2();
        let Some(block) = self.blocks.get((size / FIRST).ilog2() as usize) else { return full() };
        let places = match block.get() {
            Some(places) => places,
            None => {
                let empty = collected((0..size).map(|_| OnceCell::new()))?;
                block.get_or_init(|| empty)
            }
        };
        let Some(place) = places.get(number - size) else { return full() };
        self.len.set(self.len.get() + 1);
        Ok(place.get_or_init(|| thing))
    }
}

/// The budget ends before.
fn full<T>() -> Outcome<T> {
    fault("it makes too much")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_stay_where_they_are() {
        let shelf = Shelf::new();
        let kept: Vec<&usize> = (0..5000).map(|number| shelf.put(number).unwrap()).collect();
        assert!(kept.iter().enumerate().all(|(number, &&is)| is == number));
    }
}
