//! Prompts, parameters and plans that a generation cannot begin with.

use esolm::{Error, GenerateParams, Plan, Prompt, SamplingParams, Variant};

use crate::reference::{MASK, Network};
use crate::runs::{both_phases, context, finish, texts, tokens};

#[test]
fn impossible_generation_is_refused_and_the_previous_one_continues() {
    let model = Network::small(Variant::EsoB, 1).model();
    let mut context = context(&model, 2);
    let good = [Prompt::prefix(&[1, 2]).unwrap(), Prompt::default()];
    let whole = texts(&mut context, &good, &both_phases(1));
    context.begin(&good, &both_phases(1)).unwrap();
    for _ in 0..3 {
        context.step().unwrap();
    }
    let before = (context.progress(), context.tokens(0).unwrap().to_vec(), context.sequences());
    let known = |known: &[(u32, u32)]| Prompt { known: known.to_vec() };
    let g = both_phases(1);
    let bad_params = [
        GenerateParams { length: 49, ..g },
        GenerateParams { steps: (1 << 20) + 1, ..g },
        GenerateParams { steps: usize::MAX, ..g },
        GenerateParams { alpha_0: 1.5, ..g },
        GenerateParams { alpha_0: -0.1, ..g },
        GenerateParams { alpha_0: f64::NAN, ..g },
        GenerateParams { sampling: SamplingParams { top_p: 0.0, ..SamplingParams::FULL }, ..g },
        GenerateParams { sampling: SamplingParams { min_p: 1.5, ..SamplingParams::FULL }, ..g },
        GenerateParams { sampling: SamplingParams { typical_p: 0.0, ..SamplingParams::FULL }, ..g },
        GenerateParams {
            sampling: SamplingParams { top_n_sigma: f32::INFINITY, ..SamplingParams::FULL },
            ..g
        },
        GenerateParams { top_log_probs: 101, ..g },
        GenerateParams { sampling: SamplingParams { temperature: f32::NAN, ..SamplingParams::FULL }, ..g },
    ];
    let bad_prompts = [
        (vec![known(&[(1, 2), (4, 5), (1, 3)])], "twice"),
        (vec![known(&[(48, 2)])], "beyond the length"),
        (vec![known(&[(u32::MAX, 2)])], "beyond the length"),
        (vec![known(&[(0, MASK)])], "the mask stands"),
        (vec![known(&[(0, 101)])], "no such token"),
        (vec![Prompt::default(), known(&[(0, u32::MAX)])], "prompt 1"),
        (vec![Prompt::default(); 3], "3 sequences"),
        (vec![], "0 sequences"),
    ];
    let mut refuse = |prompts: &[Prompt], params: &GenerateParams, says: &str| {
        let error = context.begin(prompts, params).unwrap_err();
        assert!(matches!(&error, Error::InvalidArgument(what) if what.contains(says)), "{error}");
        let now = (context.progress(), context.tokens(0).unwrap().to_vec(), context.sequences());
        assert_eq!(now, before, "{says}");
    };
    for params in &bad_params {
        refuse(&good, params, "");
    }
    for (prompts, says) in &bad_prompts {
        refuse(prompts, &g, says);
    }
    refuse(&[known(&[(10, 2)])], &GenerateParams { length: 10, ..g }, "beyond the length");
    finish(&mut context);
    assert_eq!(tokens(&context), whole);
}

#[test]
fn impossible_plans_are_refused() {
    let model = Network::small(Variant::EsoB, 1).model();
    let mut context = context(&model, 1);
    let plan = |known: &[u32], order: &[u32], counts: &[u32]| Plan {
        known: known.to_vec(),
        order: order.to_vec(),
        counts: counts.to_vec(),
        diffusion: 0,
    };
    for bad in [
        plan(&[], &[0, 0, 1], &[3]),
        plan(&[], &[0, 1, 3], &[3]),
        plan(&[], &[], &[]),
        plan(&[], &[0, 1, 2], &[2]),
        plan(&[], &[0, 1, 2], &[2, 0, 1]),
        plan(&[], &[0, 1, 2], &[u32::MAX, 4]),
        plan(&[1, 2], &[0, 1, 2], &[2]),
        plan(&[1, 2, 3, 4], &[0, 1, 2], &[]),
        plan(&[MASK], &[0, 1, 2], &[2]),
        plan(&[], &(0..49).collect::<Vec<_>>(), &[49]),
    ] {
        let result = context.begin_with_plans(std::slice::from_ref(&bad), SamplingParams::FULL, 0);
        assert!(matches!(result, Err(Error::InvalidArgument(_))), "{bad:?}");
    }
    let nothing = context.begin_with_plans(&[], SamplingParams::FULL, 0);
    assert!(matches!(nothing, Err(Error::InvalidArgument(_))), "no plan");
}
