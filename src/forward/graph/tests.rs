//! The graph on the CPU, in the style of a device: what is built and copied, and that it computes the same.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::{GraphRunner, Style};
use crate::forward::batch::{Batch, Row, Segment};
use crate::forward::layout::{Capacity, KvType};
use crate::forward::memory_plan::ArenaPlan;
use crate::ggml::{Backend, Counts, Workspace};
use crate::memory::Arena;
use crate::model::{LoadOptions, Model};

// Keys and values in single precision, so that attention is the same up to rounding, however it is computed.
const CAPACITY: Capacity = Capacity { sequences: 3, slots: 512, rows: 64, kv: KvType::F32 };

struct Runner {
    model: Model,
    graph: GraphRunner,
}

impl Runner {
    /// `None` in the published crate, which has no model.
    fn new(style: Style) -> Option<Self> {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        if !models.exists() {
            println!("skipped: no {}", models.display());
            return None;
        }
        let path = models.join("stories-q8_0.gguf");
        let options = LoadOptions { device: "cpu".into(), ..LoadOptions::default() };
        let model = Model::open(&path, &options).unwrap();
        let weights = model.plain_weights().unwrap();
        let (config, device) = (model.config(), model.weights().device());
        let plan = ArenaPlan::graph(config, weights.tensors(), device, &CAPACITY, 1, style).unwrap();
        let ArenaPlan::Graph(layout, size) = plan else { panic!("no graph") };
        let workspace = Workspace::new(size, Arena::allocate(size.arena()).unwrap(), weights).unwrap();
        let backend = Backend::new(device, 1).unwrap();
        Some(Self { graph: GraphRunner::new(backend, workspace, *layout, &CAPACITY).unwrap(), model })
    }

    /// Feeds each of `sequences` (number, first slot, rows) tokens that depend on their slot; all want logits.
    fn run(&mut self, sequences: &[(usize, usize, usize)]) -> Vec<f32> {
        let mut batch = Batch::default();
        for &(sequence, first_slot, rows) in sequences {
            let first_row = batch.tokens.len();
            batch.segments.push(Segment { sequence, first_row, rows: 0, first_slot, outputs: 0 });
            for slot in first_slot..first_slot + rows {
                let token = (slot * 37 + sequence * 11) as u32 % 1000;
                let (position, visible_slots) = (slot as u32, slot as u32 + 1);
                batch.push(Row { token, position, output: true, visible_slots, sees_itself: false });
            }
        }
        let cancel = AtomicBool::new(false);
        self.graph.run(self.model.config(), &CAPACITY, &batch, &cancel).unwrap().to_vec()
    }

    /// What `work` did.
    fn counted(&mut self, work: impl FnOnce(&mut Self)) -> Counts {
        let before = self.graph.counts();
        work(self);
        let after = self.graph.counts();
        Counts {
            runs: after.runs - before.runs,
            builds: after.builds - before.builds,
            uploads: after.uploads - before.uploads,
            downloads: after.downloads - before.downloads,
        }
    }
}

#[test]
fn a_graph_is_built_once_for_each_shape() {
    let Some(mut runner) = Runner::new(Style::device(true)) else { return };
    // One token per step: slots are looked at in groups of 256.
    let one = runner.counted(|runner| (0..300).for_each(|slot| drop(runner.run(&[(0, slot, 1)]))));
    // In host memory results are not copied.
    assert_eq!(one, Counts { runs: 300, builds: 2, uploads: 300, downloads: 0 });
    // Rows in groups of 8.
    let some = runner.counted(|runner| {
        for rows in [5, 8, 6, 7, 5] {
            runner.run(&[(1, 0, rows)]);
        }
    });
    assert_eq!((some.builds, some.runs), (1, 5));
    // Shapes that come again are still there.
    let again = runner.counted(|runner| {
        runner.run(&[(0, 300, 1)]);
        runner.run(&[(1, 10, 7)]);
    });
    assert_eq!(again.builds, 0);
    // More shapes than are kept: the one that was used last longest ago goes.
    let many = runner.counted(|runner| (1..=8).for_each(|n| drop(runner.run(&[(2, 0, 8 * n)]))));
    assert_eq!(many.builds, 8);
    assert_eq!(runner.counted(|runner| drop(runner.run(&[(2, 0, 64)]))).builds, 0);
    assert_eq!(runner.counted(|runner| drop(runner.run(&[(0, 301, 1)]))).builds, 1);
}

#[test]
fn styles_compute_the_same() {
    let steps: &[&[(usize, usize, usize)]] = &[
        &[(0, 0, 9), (1, 0, 3), (2, 0, 20)],
        &[(0, 9, 1), (1, 3, 1), (2, 20, 1)],
        &[(0, 10, 2), (2, 21, 40)],
        &[(1, 4, 5)],
        &[(0, 12, 1), (1, 9, 1)],
        &[(0, 13, 2)],
    ];
    let run = |style| {
        let mut runner = Runner::new(style)?;
        Some(steps.iter().map(|step| runner.run(step)).collect::<Vec<_>>())
    };
    let Some(host) = run(Style::HOST) else { return };
    for flash in [true, false] {
        // ggml's own GELU has an error of 1e-3 on the CPU. Where sums have another order, ggml now and then rounds a number to
        // another of the 8 bits that it multiplies: tests/integration compares models in f32.
        let style = Style { exact: true, ..Style::device(flash) };
        for (step, (a, b)) in host.iter().zip(run(style).unwrap()).enumerate() {
            let difference = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let most = if flash { 0.0 } else { 0.3 };
            assert!(a.len() == b.len() && difference <= most, "flash {flash}, step {step}: {difference:e}");
        }
    }
}
