//! How long passes take, and what they are taken to cost.

use std::time::{Duration, Instant};

use super::overhead;
use super::session::Session;
use crate::error::{Error, Result};
use crate::forward::{Batch, ModelRunner, Row, Segment};
use crate::model::Model;
use crate::simd::DefaultFloats;

/// Rows of the passes that are measured: where the weights' bytes decide, and where products do.
const FEW: usize = 2;
const MANY: usize = 16;
/// How often, and for how long.
const ROUNDS: usize = 15;
const ENOUGH: Duration = Duration::from_millis(500);

impl Session {
    /// See [`Context::set_pass_overhead`](crate::Context::set_pass_overhead).
    pub(crate) fn set_pass_overhead(&mut self, model: &Model, rows: f32) -> Result<()> {
        if !(0.0..=overhead::MOST as f32).contains(&rows) {
            return Err(Error::invalid(format!(
                "a pass's overhead of {rows} rows; it is 0 to {}",
                overhead::MOST
            )));
        }
        self.pass_overhead = if rows == 0.0 { overhead::usual(model) } else { f64::from(rows) };
        Ok(())
    }

    /// See [`Context::measure_pass_overhead`](crate::Context::measure_pass_overhead).
    pub(crate) fn measure_pass_overhead(&mut self, runner: &mut ModelRunner) -> Result<f32> {
        let most = runner.capacity.rows.min(runner.length);
        if most < 2 * FEW {
            return Err(Error::invalid(format!(
                "the cost of rows is measured with {} at least; the context has room for {most} at once",
                2 * FEW
            )));
        }
        let many = MANY.min(most);
        let _floats = DefaultFloats::set();
        self.reset();
        let passed = self.measure_passes(runner, many);
        self.note_run(&passed);
        let [few, some] = passed?;
        Ok(overhead::of_times((FEW, few), (many, some)))
    }

    /// The shortest times of passes of [`FEW`] and of `many` rows.
    fn measure_passes(&mut self, runner: &mut ModelRunner, many: usize) -> Result<[Duration; 2]> {
        let mut times = [Duration::MAX; 2];
        let begun = Instant::now();
        for round in 0..=ROUNDS {
            for (rows, shortest) in [FEW, many].into_iter().zip(&mut times) {
                let batch = &mut self.buffers.batch;
                beginning_of_a_text(batch, rows, self.mask);
                let started = Instant::now();
                runner.run(batch)?;
                // The first round brings the weights into memory.
                if round > 0 {
                    *shortest = started.elapsed().min(*shortest);
                }
            }
            if round > 0 && begun.elapsed() > ENOUGH {
                break;
            }
        }
        Ok(times)
    }
}

/// Makes `batch` the first `rows` positions of sequence 0, all of them masks that want logits, as those of a window do.
fn beginning_of_a_text(batch: &mut Batch, rows: usize, mask: u32) {
    batch.clear();
    batch.segments.push(Segment { sequence: 0, first_row: 0, rows: 0, first_slot: 0, outputs: 0 });
    for position in 0..rows as u32 {
        batch.push(Row {
            token: mask,
            position,
            output: true,
            visible_slots: position + 1,
            sees_itself: false,
        });
    }
}
