//! Runs the graph on one of ggml's backends.

use std::sync::atomic::AtomicBool;

use super::{GraphLayout, Inputs, build};
use crate::error::{Error, Result};
use crate::forward::batch::Batch;
use crate::forward::layout::Capacity;
use crate::ggml::{Backend, DrawRow, GraphShape, Workspace, draws};
use crate::model::Config;

/// A context's graphs and memory, and the device that computes.
#[derive(Debug)]
pub(crate) struct GraphRunner {
    pub(crate) backend: Backend,
    pub(super) workspace: Workspace,
    pub(super) layout: GraphLayout,
    inputs: Inputs,
    /// Whether the device can draw tokens.
    pub(crate) draws: bool,
}

impl GraphRunner {
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn new(
        backend: Backend,
        workspace: Workspace,
        layout: GraphLayout,
        capacity: &Capacity,
    ) -> Result<Self> {
        let inputs = Inputs::new(capacity, layout.style)?;
        let draws = draws(backend.device());
        Ok(Self { backend, workspace, layout, inputs, draws })
    }

    /// Runs `batch`, which the caller has checked. Returns the logits [V, M].
    ///
    /// # Errors
    /// [`Error::Cancelled`] when `cancel` is set; [`Error::Device`]; [`Error::Internal`].
    pub(crate) fn run(
        &mut self,
        config: &Config,
        capacity: &Capacity,
        batch: &Batch,
        cancel: &AtomicBool,
    ) -> Result<&[f32]> {
        self.inputs.fill(batch, capacity, false);
        let logits = self.compute(config, capacity, cancel, true)?;
        // The graph may have more rows than the batch.
        let logits = logits.get(..batch.outputs.len() * config.vocab_size);
        logits.ok_or_else(|| Error::internal("fewer logits than rows that want them"))
    }

    /// Runs `batch` and has the device draw its tokens, one for each row with logits, as `rows` say: logits stay there.
    ///
    /// # Errors
    /// As [`GraphRunner::run`]; [`Error::NotFinite`].
    pub(crate) fn run_and_draw(
        &mut self,
        config: &Config,
        capacity: &Capacity,
        batch: &Batch,
        cancel: &AtomicBool,
        (rows, tokens): (&[DrawRow], &mut [i32]),
    ) -> Result<()> {
        self.inputs.fill(batch, capacity, true);
        self.inputs.set_draws(rows);
        self.compute(config, capacity, cancel, false)?;
        if rows.is_empty() {
            return Ok(());
        }
        let at = self.layout.draw_regions(self.inputs.draws);
        self.workspace.draw((config.vocab_size, config.mask_token_id), at, tokens)
    }

    fn compute(
        &mut self,
        config: &Config,
        capacity: &Capacity,
        cancel: &AtomicBool,
        wants_logits: bool,
    ) -> Result<&[f32]> {
        let Self { backend, workspace, layout, inputs, .. } = self;
        let (size, replays) = inputs.graph(config);
        let shape = GraphShape { key: &inputs.key, size, replays };
        workspace.run(backend, cancel, shape, &inputs.numbers, wants_logits, |graph, weights| {
            build(graph, weights, config, capacity, layout, inputs)
        })
    }

    /// Says which tokens sequence `sequence` must not have drawn on the device: a bit each.
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub(crate) fn ban(&mut self, sequence: usize, bits: &[u32]) -> Result<()> {
        let at = self.layout.draw_regions(0).banned;
        self.workspace.set_banned(at, sequence, bits)
    }

    /// What was done so far.
    #[cfg(test)]
    pub(super) fn counts(&self) -> crate::ggml::Counts {
        self.workspace.counts()
    }

    /// Zeroes caches and activations.
    pub(crate) fn clear(&mut self) {
        self.workspace.clear();
    }
}
