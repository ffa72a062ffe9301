//! Defaults: what is given, then what the file says, then the library's.

use esolm::gguf::{TensorType, Value};
use esolm::quantize::{QuantizeOptions, quantize};
use esolm::{
    Defaults, Error, GenerateParams, Model, Order, Prompt, Sampler, SamplingParams, Schedule, Variant,
};

use crate::reference::Network;
use crate::runs::{context, cpu, default_model, open, texts};

fn text(model: &Model, params: &GenerateParams<'_>) -> Vec<u32> {
    texts(&mut context(model, 1), &[Prompt::default()], params).remove(0)
}

fn with(defaults: Defaults) -> Model {
    let mut network = Network::small(Variant::EsoB, 1);
    network.config.defaults = defaults;
    network.model()
}

const OWN: Defaults = Defaults {
    steps: Some(7),
    alpha_0: Some(0.5),
    temperature: Some(0.6),
    top_k: Some(40),
    top_p: Some(0.8),
    min_p: Some(0.02),
    typical_p: Some(0.95),
    top_n_sigma: Some(4.0),
};

#[test]
fn given_counts_before_file_and_file_before_library() {
    let (plain, own) = (with(Defaults::default()), with(OWN));
    let library = GenerateParams { seed: 5, ..GenerateParams::default() };
    let sampling = SamplingParams {
        temperature: 0.6,
        top_k: 40,
        top_p: 0.8,
        min_p: 0.02,
        typical_p: 0.95,
        top_n_sigma: 4.0,
    };
    let as_file = GenerateParams { steps: 7, alpha_0: 0.5, sampling, ..library };
    let as_library =
        GenerateParams { steps: 128, alpha_0: 0.0, sampling: SamplingParams::LIBRARY, ..library };
    assert_eq!(text(&plain, &library), text(&plain, &as_library));
    assert_eq!(text(&own, &library), text(&plain, &as_file));
    assert_eq!(text(&own, &as_library), text(&plain, &library));
    assert_ne!(text(&own, &library), text(&plain, &library));
    // One field given, the others the file's.
    let one = |sampling| GenerateParams { sampling, ..library };
    for (given, all) in [
        (
            SamplingParams { temperature: 2.0, ..SamplingParams::default() },
            SamplingParams { temperature: 2.0, ..sampling },
        ),
        (SamplingParams { top_k: 0, ..SamplingParams::default() }, SamplingParams { top_k: 0, ..sampling }),
        (
            SamplingParams { top_p: 1.0, ..SamplingParams::default() },
            SamplingParams { top_p: 1.0, ..sampling },
        ),
        (
            SamplingParams { min_p: 0.3, ..SamplingParams::default() },
            SamplingParams { min_p: 0.3, ..sampling },
        ),
    ] {
        assert_eq!(given.resolved(&OWN), all);
        assert_eq!(
            text(&own, &one(given)),
            text(&plain, &GenerateParams { sampling: all, ..as_file }),
            "{given:?}"
        );
    }
    let steps = GenerateParams { steps: 3, ..library };
    assert_eq!(text(&own, &steps), text(&plain, &GenerateParams { steps: 3, ..as_file }));
    // Diffusion that is asked for in other ways is all diffusion, as ever.
    let blocks = GenerateParams { order: Order::Blocks { size: 8 }, ..library };
    assert_eq!(
        text(&own, &blocks),
        text(&plain, &GenerateParams { alpha_0: 1.0, order: blocks.order, ..as_file })
    );
    let schedule = GenerateParams { schedule: Schedule::Custom(&[3]), ..library };
    let zero = with(Defaults { alpha_0: Some(0.0), ..OWN });
    assert_eq!(
        text(&zero, &schedule),
        text(&plain, &GenerateParams { schedule: schedule.schedule, alpha_0: 1.0, ..as_file })
    );
}

#[test]
fn sampler_takes_the_library_s_defaults() {
    let mut sampler = Sampler::new(5, 4).unwrap();
    let logits = [2.0, 1.0, 0.0, -8.0, 9.0];
    let seen = sampler.filter(&logits, &SamplingParams::default()).unwrap().to_vec();
    assert_eq!(seen, sampler.filter(&logits, &SamplingParams::LIBRARY).unwrap());
    assert!(SamplingParams::default().validate().is_ok());
    assert!(SamplingParams { top_p: -2.0, ..SamplingParams::default() }.validate().is_err());
}

#[test]
fn defaults_of_a_file_are_kept_and_set_by_quantizing() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("a.gguf"), dir.path().join("b.gguf"));
    let ty = TensorType::from_name("q8_0").unwrap();
    let mut options = QuantizeOptions::new(ty);
    options.defaults = Defaults { temperature: Some(0.7), steps: Some(9), ..Defaults::default() };
    quantize(&default_model(), &first, &options, &mut |_| ()).unwrap();
    assert_eq!(open(&first).config().defaults, options.defaults);
    options.defaults = Defaults { temperature: Some(0.5), ..Defaults::default() };
    quantize(&first, &second, &options, &mut |_| ()).unwrap();
    assert_eq!(
        open(&second).config().defaults,
        Defaults { temperature: Some(0.5), steps: Some(9), ..Defaults::default() }
    );
    // What was not given before leaves the file as it was.
    let third = dir.path().join("c.gguf");
    quantize(&default_model(), &third, &QuantizeOptions::new(ty), &mut |_| ()).unwrap();
    assert_eq!(open(&third).config().defaults, Defaults::default());
}

#[test]
fn bad_defaults_are_refused() {
    let network = Network::small(Variant::EsoB, 1);
    let bytes =
        |key: &str, value| network.to_gguf_with(Some((format!("esolm.default.{key}").as_str(), value)));
    for (key, value) in [
        ("temperature", Value::F32(-1.0)),
        ("temperature", Value::F32(f32::NAN)),
        ("temperature", Value::Str("hot".into())),
        ("top_p", Value::F32(0.0)),
        ("top_p", Value::F32(1.5)),
        ("typical_p", Value::F32(0.0)),
        ("min_p", Value::F32(-0.1)),
        ("alpha_0", Value::F32(2.0)),
        ("top_n_sigma", Value::F32(f32::INFINITY)),
        ("top_k", Value::F32(3.0)),
        ("top_k", Value::U32(u32::MAX)),
        ("steps", Value::U32(0)),
        ("steps", Value::U32((1 << 20) + 1)),
        ("steps", Value::U64(u64::MAX)),
    ] {
        let error = Model::from_bytes(&bytes(key, value.clone()), &cpu()).unwrap_err();
        let says = format!("esolm.default.{key}");
        assert!(
            matches!(&error, Error::BadFile { what, .. } if what.contains(&says)),
            "{key} {value:?}: {error}"
        );
    }
    // Keys of later versions are passed over.
    assert!(Model::from_bytes(&bytes("later", Value::U32(1)), &cpu()).is_ok());

    let mut defaults = Defaults::default();
    for (key, value) in
        [("top_p", "1.5"), ("top_p", "much"), ("steps", "0"), ("steps", "1.5"), ("seed", "1"), ("", "1")]
    {
        assert!(matches!(defaults.set(key, value), Err(Error::InvalidArgument(_))), "{key}={value}");
    }
    assert_eq!(defaults, Defaults::default());
    defaults.set("top_k", "12").unwrap();
    assert_eq!(defaults.top_k, Some(12));
}
