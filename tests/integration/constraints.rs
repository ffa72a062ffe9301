//! Constraints, biases and the caller's own changes to the logits.

use esolm::{
    Adaptive, Confidence, Constraints, Dry, Error, GenerateParams, Model, Prompt, SamplingParams, Schedule,
    Variant,
};

use crate::reference::{LENGTH, MASK, Network, Random};
use crate::runs::{context, diffusion, texts};

fn model() -> Model {
    Network::small(Variant::EsoB, 1).model()
}

fn sampling(temperature: f32) -> SamplingParams {
    SamplingParams { temperature, top_p: if temperature > 1.0 { 1.0 } else { 0.9 }, ..SamplingParams::FULL }
}

#[test]
fn allowed_and_banned_tokens_are_respected() {
    let mut context = context(&model(), 2);
    let mut random = Random(3);
    for case in 0..20 {
        let positions = &random.permutation(LENGTH)[..10];
        let mut some = |count: usize| random.permutation(MASK as usize)[..count].to_vec();
        let allowed: Vec<(u32, Vec<u32>)> =
            positions.iter().enumerate().map(|(i, &p)| (p, some(1 + i % 4))).collect();
        // Nearly all tokens are banned, except those allowed somewhere.
        let wanted = allowed.iter().flat_map(|(_, tokens)| tokens).copied();
        let wanted: Vec<u32> = wanted.chain(some(3)).collect();
        let banned: Vec<u32> = (0..MASK).filter(|t| !wanted.contains(t)).collect();
        let rules = [Constraints { allowed, banned, ..Constraints::default() }, Constraints::default()];
        // The highest temperature draws any possible token, 0 only the best.
        for temperature in [0.0, 1.0, f32::MAX] {
            let params = GenerateParams {
                constraints: &rules,
                sampling: sampling(temperature),
                steps: 1 + case as usize,
                alpha_0: 0.6,
                seed: case,
                ..diffusion()
            };
            let texts = texts(&mut context, &vec![Prompt::default(); 2], &params);
            for (position, tokens) in &rules[0].allowed {
                assert!(tokens.contains(&texts[0][*position as usize]), "case {case}: position {position}");
            }
            assert!(!texts[0].iter().any(|token| rules[0].banned.contains(token)), "case {case}");
            // The other sequence has no constraints.
            let alone = GenerateParams { constraints: &[], ..params };
            assert_eq!(texts[1], self::texts(&mut context, &vec![Prompt::default(); 2], &alone)[1]);
        }
    }
}

#[test]
fn callback_sees_logits_with_constraints_applied() {
    let rules = Constraints {
        allowed: vec![(20, vec![3, 9, 11]), (6, vec![50, 7])],
        banned: vec![7, 12],
        bias: vec![(9, 2.5), (30, -1.0), (12, 4.0)],
        repetition_penalty: 1.5,
        frequency_penalty: 0.25,
        presence_penalty: -0.5,
        dry: Dry { multiplier: 0.5, base: 2.0, allowed_length: 1, ..Dry::DEFAULT },
        grammar: None,
    };
    let mut context = context(&model(), 1);
    let params = GenerateParams {
        constraints: std::slice::from_ref(&rules),
        schedule: Schedule::Custom(&[3]),
        ..diffusion()
    };
    let prompt = Prompt::prefix(&[30, 31, 30, 31]).unwrap();
    context.begin(std::slice::from_ref(&prompt), &params).unwrap();
    let mut penalised = 0;
    loop {
        let text = context.tokens(0).unwrap().to_vec();
        let step = context.step_with_logits(|choice, row| {
            assert_eq!(text[choice.position as usize], MASK);
            for (token, (&own, &edited)) in choice.logits.iter().zip(row.iter()).enumerate() {
                let token = token as u32;
                let penalty = if text.contains(&token) { 1.5 } else { 1.0 };
                let own = if own > 0.0 { own / penalty } else { own * penalty };
                let count = text.iter().filter(|&&t| t == token).count() as f32;
                let own = if count > 0.0 { own - (count * 0.25 - 0.5) } else { own };
                let own = own - dry_penalty(&text[..choice.position as usize], token);
                let bias = rules.bias.iter().find(|(t, _)| *t == token).map_or(0.0, |(_, bias)| *bias);
                let here = rules.allowed.iter().find(|(p, _)| *p == choice.position);
                let out = token == MASK
                    || rules.banned.contains(&token)
                    || here.is_some_and(|(_, tokens)| !tokens.contains(&token));
                assert_eq!(edited, if out { f32::NEG_INFINITY } else { own + bias }, "{token}");
                penalised += usize::from(!out && dry_penalty(&text[..choice.position as usize], token) > 0.0);
            }
            Ok(())
        });
        if step.unwrap().is_none() {
            break;
        }
    }
    assert!(penalised > 0);
}

/// DRY at a multiplier of 0.5, a base of 2 and an allowed length of 1, of the known tokens directly left of a position.
fn dry_penalty(left: &[u32], token: u32) -> f32 {
    let known = left.iter().rev().take_while(|&&t| t != MASK).count();
    let run = &left[left.len() - known..];
    let same = |end: usize| (0..end).take_while(|n| run[end - 1 - n] == run[run.len() - 1 - n]).count();
    let longest = (0..run.len()).filter(|&place| run[place] == token).map(same).max().unwrap_or(0);
    if longest == 0 { 0.0 } else { 0.5 * 2f32.powi(longest as i32 - 1) }
}

#[test]
fn huge_repetition_penalty_repeats_no_token() {
    let rules = [Constraints { repetition_penalty: 1e9, ..Constraints::default() }];
    let mut context = context(&model(), 1);
    let params = GenerateParams {
        constraints: &rules,
        schedule: Schedule::Custom(&[1]),
        sampling: sampling(0.0),
        ..diffusion()
    };
    let prompt = [Prompt::prefix(&[3, 3, 60]).unwrap()];
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
fn callback_logits_decide_the_token() {
    let mut context = context(&model(), 2);
    let token = |sequence: usize, position: u32| (position * 7 + sequence as u32 * 3) % MASK;
    for temperature in [0.0, 1.0] {
        let params = GenerateParams { sampling: sampling(temperature), steps: 5, ..diffusion() };
        context.begin(&vec![Prompt::default(); 2], &params).unwrap();
        let only = |choice: &esolm::LogitsRow<'_>, row: &mut [f32]| {
            row.fill(f32::NEG_INFINITY);
            row[token(choice.sequence, choice.position) as usize] = -3.0;
            Ok(())
        };
        while context.step_with_logits(only).unwrap().is_some() {}
        for sequence in 0..2 {
            let expected = (0..LENGTH as u32).map(|p| token(sequence, p));
            assert!(context.tokens(sequence).unwrap().iter().copied().eq(expected));
        }
    }
    // A callback that changes no logits does not change the text.
    let params = GenerateParams { steps: 5, seed: 2, ..diffusion() };
    let plain = texts(&mut context, &[Prompt::default()], &params);
    context.begin(&[Prompt::default()], &params).unwrap();
    while context.step_with_logits(|_, _| Ok(())).unwrap().is_some() {}
    assert_eq!(context.tokens(0).unwrap(), plain[0]);
}

#[test]
fn extreme_biases_and_penalties_stay_finite() {
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
                schedule: Schedule::Custom(&[5]),
                length: 20,
                ..diffusion()
            };
            let text = texts(&mut context, &[Prompt::prefix(&[4, 9]).unwrap()], &params).remove(0);
            assert!(text.len() == 20 && !text.contains(&MASK), "{penalty} {bias}: {text:?}");
        }
    }
}

#[test]
fn tokens_with_logit_minus_infinity_are_never_drawn() {
    let mut model = Network::small(Variant::EsoB, 1);
    let bias = model.tensor_mut("output.bias");
    (0..40).for_each(|token| bias[token] = f32::NEG_INFINITY);
    let mut context = context(&model.model(), 1);
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
            let params = GenerateParams { constraints: &rules, sampling, ..diffusion() };
            let text = texts(&mut context, &[Prompt::prefix(&[3]).unwrap()], &params).remove(0);
            assert!(text[1..].iter().all(|token| (40..MASK).contains(token)), "{rules:?}: {text:?}");
            let adaptive = Adaptive {
                confidence: Confidence::Entropy,
                threshold: 0.1,
                window: 4,
                ..Adaptive::default()
            };
            let params = GenerateParams { adaptive: Some(adaptive), ..params };
            let text = texts(&mut context, &[Prompt::prefix(&[3]).unwrap()], &params).remove(0);
            assert!(text[1..].iter().all(|token| (40..MASK).contains(token)), "{rules:?}: {text:?}");
        }
    }
    let nothing = [Constraints { allowed: all(38..40), ..Constraints::default() }];
    for temperature in [0.0, 1.0] {
        let sampling = sampling(temperature);
        let params = GenerateParams { constraints: &nothing, sampling, ..diffusion() };
        context.begin(&[Prompt::default()], &params).unwrap();
        let error = context.step().unwrap_err();
        assert!(matches!(&error, Error::InvalidArgument(what) if what.contains("position")), "{error}");
        assert_eq!(context.progress().0, 0);
    }
}
