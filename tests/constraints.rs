//! Constraints, biases and the caller's own function on the logits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code)]
mod random_model;

use esolm::{
    Adaptive, Confidence, Constraints, Context, ContextParams, Error, GenerateParams, KvType, Model, Prompt,
    Sampling, Schedule,
};
use random_model::{Random, RandomModel, config};

const LENGTH: usize = 48;
const MASK: u32 = 100;

fn model() -> Model {
    RandomModel::new(config(2, 4), 1).open()
}

fn context(model: &Model, sequences: usize) -> Context {
    let params = ContextParams { sequences, threads: 1, kv_type: KvType::F32, ..ContextParams::default() };
    Context::new(model, &params).unwrap()
}

fn texts(context: &mut Context, prompts: &[Prompt], params: &GenerateParams) -> Vec<Vec<u32>> {
    context.begin(prompts, params).unwrap();
    while context.step().unwrap().is_some() {}
    (0..prompts.len()).map(|n| context.tokens(n).unwrap().to_vec()).collect()
}

fn sampling(temperature: f32) -> Sampling {
    Sampling { temperature, top_p: if temperature > 1.0 { 1.0 } else { 0.9 }, top_k: 0 }
}

#[test]
fn allowed_and_banned_are_kept_to() {
    let mut context = context(&model(), 2);
    let mut random = Random(3);
    for case in 0..20 {
        let positions = &random.permutation(LENGTH)[..10];
        let mut some = |count: usize| random.permutation(MASK as usize)[..count].to_vec();
        let allowed: Vec<(u32, Vec<u32>)> =
            positions.iter().enumerate().map(|(i, &p)| (p, some(1 + i % 4))).collect();
        // Nearly everything is banned, but for what is allowed somewhere.
        let wanted = allowed.iter().flat_map(|(_, tokens)| tokens).copied();
        let wanted: Vec<u32> = wanted.chain(some(3)).collect();
        let banned: Vec<u32> = (0..MASK).filter(|t| !wanted.contains(t)).collect();
        let rules = [Constraints { allowed, banned, ..Constraints::default() }, Constraints::default()];
        // The hottest draws anything that can be drawn, 0 the best only.
        for temperature in [0.0, 1.0, f32::MAX] {
            let params = GenerateParams {
                constraints: &rules,
                sampling: sampling(temperature),
                steps: 1 + case as usize,
                alpha_0: 0.6,
                seed: case,
                ..GenerateParams::default()
            };
            let texts = texts(&mut context, &vec![Prompt::default(); 2], &params);
            for (position, tokens) in &rules[0].allowed {
                assert!(tokens.contains(&texts[0][*position as usize]), "case {case}: position {position}");
            }
            assert!(!texts[0].iter().any(|token| rules[0].banned.contains(token)), "case {case}");
            // The other sequence has rules of its own, which are none.
            let alone = GenerateParams { constraints: &[], ..params };
            assert_eq!(texts[1], self::texts(&mut context, &vec![Prompt::default(); 2], &alone)[1]);
        }
    }
}

#[test]
fn the_function_sees_the_logits_as_the_rules_have_them() {
    let rules = Constraints {
        allowed: vec![(20, vec![3, 9, 11]), (2, vec![50, 7])],
        banned: vec![7, 12],
        bias: vec![(9, 2.5), (30, -1.0), (12, 4.0)],
        repetition_penalty: 1.5,
    };
    let mut context = context(&model(), 1);
    let params = GenerateParams {
        constraints: std::slice::from_ref(&rules),
        schedule: Schedule::Given(&[3]),
        ..GenerateParams::default()
    };
    let prompt = Prompt::prefix(&[30, 31]);
    context.begin(std::slice::from_ref(&prompt), &params).unwrap();
    loop {
        let text = context.tokens(0).unwrap().to_vec();
        let step = context.step_editing(|choice, row| {
            assert_eq!(text[choice.position as usize], MASK);
            for (token, (&own, &edited)) in choice.logits.iter().zip(row.iter()).enumerate() {
                let token = token as u32;
                let penalty = if text.contains(&token) { 1.5 } else { 1.0 };
                let own = if own > 0.0 { own / penalty } else { own * penalty };
                let bias = rules.bias.iter().find(|(t, _)| *t == token).map_or(0.0, |(_, bias)| *bias);
                let here = rules.allowed.iter().find(|(p, _)| *p == choice.position);
                let out = token == MASK
                    || rules.banned.contains(&token)
                    || here.is_some_and(|(_, tokens)| !tokens.contains(&token));
                assert_eq!(edited, if out { f32::NEG_INFINITY } else { own + bias }, "{token}");
            }
            Ok(())
        });
        if step.unwrap().is_none() {
            break;
        }
    }
}

#[test]
fn an_infinite_penalty_repeats_nothing() {
    let rules = [Constraints { repetition_penalty: 1e9, ..Constraints::default() }];
    let mut context = context(&model(), 1);
    let params = GenerateParams {
        constraints: &rules,
        schedule: Schedule::Given(&[1]),
        sampling: sampling(0.0),
        ..GenerateParams::default()
    };
    let prompt = [Prompt::prefix(&[3, 3, 60])];
    let mut text = texts(&mut context, &prompt, &params)[0].split_off(2);
    text.sort_unstable();
    text.dedup();
    assert_eq!(text.len(), LENGTH - 2);
    let free = texts(&mut context, &prompt, &GenerateParams { constraints: &[], ..params });
    let mut distinct = free[0].clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert!(distinct.len() < LENGTH - 2, "without it tokens repeat");
}

#[test]
fn the_function_decides() {
    let mut context = context(&model(), 2);
    let token = |sequence: usize, position: u32| (position * 7 + sequence as u32 * 3) % MASK;
    for temperature in [0.0, 1.0] {
        let params =
            GenerateParams { sampling: sampling(temperature), steps: 5, ..GenerateParams::default() };
        context.begin(&vec![Prompt::default(); 2], &params).unwrap();
        let only = |choice: &esolm::Choice<'_>, row: &mut [f32]| {
            row.fill(f32::NEG_INFINITY);
            row[token(choice.sequence, choice.position) as usize] = -3.0;
            Ok(())
        };
        while context.step_editing(only).unwrap().is_some() {}
        for sequence in 0..2 {
            let expected = (0..LENGTH as u32).map(|p| token(sequence, p));
            assert!(context.tokens(sequence).unwrap().iter().copied().eq(expected));
        }
    }
    // A function that changes nothing changes nothing.
    let params = GenerateParams { steps: 5, seed: 2, ..GenerateParams::default() };
    let plain = texts(&mut context, &[Prompt::default()], &params);
    context.begin(&[Prompt::default()], &params).unwrap();
    while context.step_editing(|_, _| Ok(())).unwrap().is_some() {}
    assert_eq!(context.tokens(0).unwrap(), plain[0]);
}

#[test]
fn a_function_that_leaves_nonsense_is_an_error_and_undoes_the_step() {
    let mut context = context(&model(), 1);
    let params = GenerateParams { steps: 5, ..GenerateParams::default() };
    let whole = texts(&mut context, &[Prompt::default()], &params);
    context.begin(&[Prompt::default()], &params).unwrap();
    for (value, says) in [(f32::NAN, "NaN"), (f32::INFINITY, "infinity"), (f32::NEG_INFINITY, "no token")] {
        let mut calls = 0;
        let result = context.step_editing(|_, row| {
            calls += 1;
            match value {
                f32::NEG_INFINITY => row.fill(value),
                _ if calls == 2 => row[5] = value,
                _ => (),
            }
            Ok(())
        });
        let error = result.unwrap_err();
        assert!(
            matches!(&error, Error::InvalidArgument(what) if what.contains(says) && what.contains("position")),
            "{error}"
        );
        assert_eq!(context.progress().0, 0);
    }
    // The mask's logit alone makes no token.
    let mask_only = |_: &esolm::Choice<'_>, row: &mut [f32]| {
        row.fill(f32::NEG_INFINITY);
        row[MASK as usize] = 1.0;
        Ok(())
    };
    assert!(matches!(context.step_editing(mask_only), Err(Error::InvalidArgument(_))));
    assert!(matches!(context.step_editing(|_, _| Err(Error::Busy)), Err(Error::Busy)));
    while context.step().unwrap().is_some() {}
    assert_eq!(context.tokens(0).unwrap(), whole[0]);
}

#[test]
fn impossible_constraints_are_refused_before_anything_is_computed() {
    let mut context = context(&model(), 2);
    let good = GenerateParams::default();
    context.begin(&[Prompt::prefix(&[1, 2])], &good).unwrap();
    context.step().unwrap();
    let before = (context.progress(), context.tokens(0).unwrap().to_vec());
    let none = Constraints::default;
    let allowed = |allowed: &[(u32, &[u32])]| Constraints {
        allowed: allowed.iter().map(|(p, tokens)| (*p, tokens.to_vec())).collect(),
        ..none()
    };
    let cases = [
        (allowed(&[(5, &[])]), "allowed at position 5: no token"),
        (allowed(&[(48, &[1])]), "position 48: beyond the length of 48"),
        (allowed(&[(u32::MAX, &[1])]), "beyond the length"),
        (allowed(&[(5, &[1]), (5, &[2])]), "position 5: the position is given twice"),
        (allowed(&[(5, &[1, MASK])]), "position 5: there is no token 100"),
        (allowed(&[(5, &[101])]), "there is no token 101"),
        (allowed(&[(1, &[3, 4])]), "position 1: the prompt has token 2"),
        (Constraints { banned: vec![8, 9], ..allowed(&[(3, &[9, 8])]) }, "position 3: every one is banned"),
        (Constraints { banned: (0..MASK).collect(), ..none() }, "banned: every token"),
        (Constraints { banned: vec![MASK], ..none() }, "banned: there is no token 100"),
        (Constraints { banned: vec![u32::MAX], ..none() }, "banned: there is no token"),
        (Constraints { bias: vec![(4, f32::NAN)], ..none() }, "bias of token 4: NaN"),
        (Constraints { bias: vec![(4, f32::INFINITY)], ..none() }, "bias of token 4: inf"),
        (Constraints { bias: vec![(4, 1.0), (4, 1.0)], ..none() }, "token 4 is given twice"),
        (Constraints { bias: vec![(MASK, 1.0)], ..none() }, "bias: there is no token 100"),
        (Constraints { repetition_penalty: 0.0, ..none() }, "penalty of 0"),
        (Constraints { repetition_penalty: f32::NAN, ..none() }, "penalty of NaN"),
        (Constraints { repetition_penalty: f32::INFINITY, ..none() }, "penalty of inf"),
    ];
    for (bad, says) in cases {
        for constraints in [vec![bad.clone()], vec![none(), bad.clone()]] {
            let params = GenerateParams { constraints: &constraints, ..good };
            let error = context.begin(&vec![Prompt::prefix(&[1, 2]); 2], &params).unwrap_err();
            let place = format!("sequence {}: ", constraints.len() - 1);
            assert!(
                matches!(&error, Error::InvalidArgument(what) if what.contains(says) && what.starts_with(&place)),
                "{error}"
            );
            assert_eq!((context.progress(), context.tokens(0).unwrap().to_vec()), before);
        }
    }
    let three = vec![none(); 3];
    let error = context.begin(&[Prompt::default()], &GenerateParams { constraints: &three, ..good });
    assert!(error.unwrap_err().to_string().contains("3 constraints for 1 sequences"));
    // What the prompt says and the constraint allows is no contradiction.
    let fits = [allowed(&[(1, &[2, 4])])];
    context.begin(&[Prompt::prefix(&[1, 2])], &GenerateParams { constraints: &fits, ..good }).unwrap();
}

#[test]
fn extreme_biases_and_penalties_stay_numbers() {
    let mut context = context(&model(), 1);
    for penalty in [f32::MIN_POSITIVE, 1e-30, 1e30, f32::MAX] {
        for bias in [f32::MAX, f32::MIN] {
            let rules = [Constraints {
                bias: vec![(4, bias)],
                repetition_penalty: penalty,
                ..Constraints::default()
            }];
            let params = GenerateParams {
                constraints: &rules,
                schedule: Schedule::Given(&[5]),
                length: 20,
                ..GenerateParams::default()
            };
            let text = texts(&mut context, &[Prompt::prefix(&[4, 9])], &params).remove(0);
            assert!(text.len() == 20 && !text.contains(&MASK), "{penalty} {bias}: {text:?}");
        }
    }
}

#[test]
fn what_the_network_rules_out_stays_out_with_constraints_and_without() {
    let mut model = RandomModel::new(config(2, 4), 1);
    let bias = model.tensors.get_mut("output.bias").unwrap();
    (0..40).for_each(|token| bias[token] = f32::NEG_INFINITY);
    let mut context = context(&model.open(), 1);
    let all = |tokens: std::ops::Range<u32>| (1..48).map(|p| (p, tokens.clone().collect())).collect();
    let likely = (0..MASK).map(|token| (token, if token < 40 { 1e30 } else { 0.0 })).collect();
    for rules in [
        vec![],
        vec![Constraints { repetition_penalty: 1.5, ..Constraints::default() }],
        vec![Constraints { bias: likely, ..Constraints::default() }],
        vec![Constraints { allowed: all(38..42), ..Constraints::default() }],
    ] {
        for temperature in [0.0, 1.0, f32::MAX] {
            let sampling = sampling(temperature);
            let params = GenerateParams { constraints: &rules, sampling, ..GenerateParams::default() };
            let text = texts(&mut context, &[Prompt::prefix(&[3])], &params).remove(0);
            assert!(text[1..].iter().all(|token| (40..MASK).contains(token)), "{rules:?}: {text:?}");
            let adaptive = Adaptive { confidence: Confidence::Entropy, threshold: 0.1, window: 4 };
            let params = GenerateParams { adaptive: Some(adaptive), ..params };
            let text = texts(&mut context, &[Prompt::prefix(&[3])], &params).remove(0);
            assert!(text[1..].iter().all(|token| (40..MASK).contains(token)), "{rules:?}: {text:?}");
        }
    }
    let nothing = [Constraints { allowed: all(38..40), ..Constraints::default() }];
    for temperature in [0.0, 1.0] {
        let sampling = sampling(temperature);
        let params = GenerateParams { constraints: &nothing, sampling, ..GenerateParams::default() };
        context.begin(&[Prompt::default()], &params).unwrap();
        let error = context.step().unwrap_err();
        assert!(matches!(&error, Error::InvalidArgument(what) if what.contains("position")), "{error}");
        assert_eq!(context.progress().0, 0);
    }
}

#[test]
fn constraints_do_not_hide_damaged_weights() {
    let mut damaged = RandomModel::new(config(2, 4), 1);
    damaged.tensors.get_mut("output.bias").unwrap()[7] = f32::INFINITY;
    let mut context = context(&damaged.open(), 1);
    let rules = [
        Constraints { banned: vec![7], ..Constraints::default() },
        Constraints { bias: vec![(7, -5.0)], ..Constraints::default() },
        Constraints { allowed: (0..48).map(|p| (p, vec![1, 2])).collect(), ..Constraints::default() },
    ];
    for constraints in &rules {
        let constraints = std::slice::from_ref(constraints);
        let params = GenerateParams { constraints, ..GenerateParams::default() };
        context.begin(&[Prompt::default()], &params).unwrap();
        assert!(matches!(context.step(), Err(Error::NotFinite(_))));
    }
}
