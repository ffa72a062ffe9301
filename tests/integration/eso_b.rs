//! Eso-LM (B) against the authors' trajectories: `tests/golden/tiny-B`.

use esolm::convert::Options;
use esolm::evaluate::verify::{Outcome, verify};
use esolm::gguf::TensorType;
use esolm::{ContextParams, GenerateParams, KvType, Model, Order, Prompt};

use crate::golden::{EXACT, Golden, context, path};
use crate::runs::{diffusion, params};

/// With f16 keys and values: 11 bits of mantissa, over three blocks. Measured 1.8e-2.
const HALF_CACHE: f32 = 4e-2;

fn model(input: &str, options: &Options) -> Model {
    crate::golden::model(&path("tiny-B").join(input), options)
}

fn replay(model: &Model, kv: KvType) -> Vec<Outcome> {
    let outcomes = {
        let params = ContextParams { kv_type: kv, ..params(1) };
        verify(model, &path("tiny-B/golden.safetensors"), &params, None).unwrap()
    };
    let names: Vec<&str> = outcomes.iter().map(|o| o.name.as_str()).collect();
    let trajectories =
        ["samp_a05_p09", "samp_a1_p09", "samp_a1_p1", "samp_sub8_p09", "traj", "traj1", "traj1p"];
    assert_eq!(
        names,
        [&["diff", "samp_a05_p09"], &trajectories[1..4], &["seq"], &trajectories[4..]].concat()
    );
    outcomes
}

#[test]
fn eso_b_reproduces_reference_trajectories() {
    for input in ["checkpoint.ckpt", "model.safetensors"] {
        for o in replay(&model(input, &Options::default()), KvType::F32) {
            println!("{input} {o:?}");
            assert!(o.largest_difference <= EXACT, "{input}: {o:?}");
            assert_eq!(o.differing, 0, "{input}: {o:?}");
            // In single steps only logits are compared.
            assert!(o.rows >= 64 && (o.tokens >= 64) != ["diff", "seq"].contains(&o.name.as_str()));
        }
    }
}

#[test]
fn f16_cache_stays_close_to_reference() {
    for o in replay(&model("checkpoint.ckpt", &Options::default()), KvType::F16) {
        println!("{o:?}");
        assert!(o.largest_difference <= HALF_CACHE, "{o:?}");
    }
}

#[test]
fn raw_weights_do_not_reproduce_reference_trajectories() {
    let options = Options { raw_weights: true, ..Options::default() };
    for o in replay(&model("checkpoint.ckpt", &options), KvType::F32) {
        assert!(o.largest_difference > 0.1, "{o:?}");
    }
}

#[test]
fn quantized_weights_stay_close_to_reference() {
    // Bounds on the scale of the logits, whose deviation is 1.5: 11, 8 and about 8 bits of precision.
    let types = [(TensorType::F16, 1e-5, 0.1), (TensorType::Bf16, 1e-4, 1.0), (TensorType::Q8_0, 1e-4, 1.0)];
    for (ty, least, most) in types {
        let options = Options { tensor_type: ty, ..Options::default() };
        for o in replay(&model("checkpoint.ckpt", &options), KvType::F32) {
            println!("{} {o:?}", ty.name());
            let range = least..most;
            assert!(range.contains(&o.largest_difference), "{}: {o:?}", ty.name());
        }
    }
}

#[test]
fn strided_order_and_schedule_match_reference() {
    let golden = Golden::open("tiny-B");
    let mut context = context(&golden.model(), ContextParams::default());
    let order = Order::Strided { stride: 8, shuffle: false };
    context.begin(&[Prompt::default()], &GenerateParams { order, ..diffusion() }).unwrap();
    let mut counts = vec![];
    while let Some(step) = context.step().unwrap() {
        counts.push(step.updates.len() as u32);
    }
    assert_eq!(counts, golden.ints("samp_sub8_p09.sched"));
    assert_eq!(context.order(0).unwrap(), golden.int_rows("samp_sub8_p09.sort_idx")[0]);
}
