//! Where the time of a generation goes.

use std::time::Duration;

use crate::forward::Profile;

/// Time of the generation's steps, and of drawing tokens in them.
#[derive(Debug, Default)]
pub(super) struct StepClock {
    pub(super) steps: Duration,
    pub(super) sampling: Duration,
}

impl StepClock {
    /// The profile of the steps, from that of their batches.
    pub(super) fn profile(&self, batches: Profile) -> Profile {
        let rest = self.steps.saturating_sub(batches.total() + self.sampling);
        Profile { sampling: self.sampling, rest, ..batches }
    }
}
