//! The graph in the style of a device: what is built and copied, and that it computes the same. On the CPU, or on the device
//! that `ESOLM_TEST_DEVICE` names.

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
    capacity: Capacity,
}

/// The device that is tested.
fn device() -> String {
    std::env::var("ESOLM_TEST_DEVICE").unwrap_or_else(|_| "cpu".into())
}

impl Runner {
    /// `None` in the published crate, which has no model.
    fn new(device: &str, style: Style, capacity: Capacity) -> Option<Self> {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        if !models.exists() {
            println!("skipped: no {}", models.display());
            return None;
        }
        let path = models.join("stories-q8_0.gguf");
        let options = LoadOptions { device: device.into(), ..LoadOptions::default() };
        let model = Model::open(&path, &options).unwrap();
        let weights = model.plain_weights().unwrap();
        let (config, device) = (model.config(), model.weights().device());
        let plan = ArenaPlan::graph(config, weights.tensors(), device, &capacity, 1, style).unwrap();
        let ArenaPlan::Graph(layout, size) = plan else { panic!("no graph") };
        let workspace = Workspace::new(size, Arena::allocate(size.arena()).unwrap(), weights).unwrap();
        let backend = Backend::new(device, 1).unwrap();
        let graph = GraphRunner::new(backend, workspace, *layout, &capacity).unwrap();
        Some(Self { model, graph, capacity })
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
        self.graph.run(self.model.config(), &self.capacity, &batch, &cancel).unwrap().to_vec()
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
    let Some(mut runner) = Runner::new(&device(), Style::device(true), CAPACITY) else { return };
    // One token per step: slots are looked at in groups of 256.
    let one = runner.counted(|runner| (0..300).for_each(|slot| drop(runner.run(&[(0, slot, 1)]))));
    // In host memory results are not copied.
    let downloads = if device() == "cpu" { 0 } else { 300 };
    assert_eq!(one, Counts { runs: 300, builds: 2, uploads: 300, downloads });
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
    // As many shapes as are kept.
    let six = |runner: &mut Runner| (1..=6).for_each(|n| drop(runner.run(&[(2, 0, 8 * n)])));
    assert_eq!([(); 2].map(|()| runner.counted(six).builds), [6, 0]);
    // More: the one that was used last longest ago goes.
    let many = runner.counted(|runner| (1..=8).for_each(|n| drop(runner.run(&[(2, 0, 8 * n)]))));
    assert_eq!(many.builds, 2);
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
        let mut runner = Runner::new("cpu", style, CAPACITY)?;
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

/// What attention in one operation and in products takes, for docs/devices.md.
#[test]
#[ignore = "a measurement"]
fn attention_is_timed() {
    for kv in [KvType::F16, KvType::F32] {
        let capacity = Capacity { sequences: 1, slots: 1024, rows: 128, kv };
        for rows in [1, 16, 128] {
            let mut all = vec![];
            for flash in [true, false] {
                let style = Style { exact: true, ..Style::device(flash) };
                let Some(mut runner) = Runner::new(&device(), style, capacity) else { return };
                (0..1024).step_by(128).for_each(|slot| drop(runner.run(&[(0, slot, 128)])));
                let mut logits = vec![];
                let mut seconds = || {
                    let started = std::time::Instant::now();
                    logits = runner.run(&[(0, 1024 - rows, rows)]);
                    started.elapsed().as_secs_f64()
                };
                seconds();
                let mut times: Vec<f64> = (0..21).map(|_| seconds()).collect();
                times.sort_by(f64::total_cmp);
                all.push((times[10], logits));
            }
            let [(flash, a), (products, b)] = all.as_slice() else { unreachable!() };
            let difference = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let [flash, products] = [flash, products].map(|seconds| seconds * 1e3);
            println!(
                "{kv:?}, {rows} rows: {flash:.2} ms in one operation, {products:.2} in products; logits {difference:.1e}"
            );
        }
    }
}
