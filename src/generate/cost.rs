//! What a pass costs, by a formula: what is decided by it does not depend on a clock, and a seed gives the same text on any machine.

use crate::model::Model;

/// Most bytes of weights that are taken to stay in a cache.
const CACHED: usize = 32 << 20;

/// A pass takes as long as its rows and so many more, in which the weights are read. Measured on a Zen 4 (docs/lookahead.md) with
/// the default model and with one whose weights come from memory; on a Zen 5 Qwen3 of 0.6 B has 4 to 7 (by the times in docs/wedlm.md).
pub(super) fn idle_rows(model: &Model) -> f64 {
    if model.tensor_bytes() > CACHED { 10.0 } else { 2.0 }
}
