//! Constraints that cannot be met, and what the caller's callback must not leave in the logits.

use esolm::{Constraints, Dry, Error, GenerateParams, Prompt, Variant};

use crate::reference::{MASK, Network};
use crate::runs::{context, diffusion, finish, texts};

#[test]
fn invalid_callback_logits_are_an_error_and_undo_the_step() {
    let mut context = context(&Network::small(Variant::EsoB, 1).model(), 1);
    let params = GenerateParams { steps: 5, ..diffusion() };
    let whole = texts(&mut context, &[Prompt::default()], &params);
    context.begin(&[Prompt::default()], &params).unwrap();
    for (value, says) in [(f32::NAN, "NaN"), (f32::INFINITY, "infinity"), (f32::NEG_INFINITY, "no token")] {
        let mut calls = 0;
        let result = context.step_with_logits(|_, row| {
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
    // The mask token is never drawn, even as the only one left.
    let mask_only = |_: &esolm::LogitsRow<'_>, row: &mut [f32]| {
        row.fill(f32::NEG_INFINITY);
        row[MASK as usize] = 1.0;
        Ok(())
    };
    assert!(matches!(context.step_with_logits(mask_only), Err(Error::InvalidArgument(_))));
    assert!(matches!(context.step_with_logits(|_, _| Err(Error::Busy)), Err(Error::Busy)));
    finish(&mut context);
    assert_eq!(context.tokens(0).unwrap(), whole[0]);
}

#[test]
fn impossible_constraints_are_refused_at_begin() {
    let mut context = context(&Network::small(Variant::EsoB, 1).model(), 2);
    let good = diffusion();
    context.begin(&[Prompt::prefix(&[1, 2]).unwrap()], &good).unwrap();
    context.step().unwrap();
    let before = (context.progress(), context.tokens(0).unwrap().to_vec());
    let none = Constraints::default;
    let allowed = |allowed: &[(u32, &[u32])]| Constraints {
        allowed: allowed.iter().map(|(p, tokens)| (*p, tokens.to_vec())).collect(),
        ..none()
    };
    let dry = |dry| Constraints { dry, ..none() };
    let cases = [
        (allowed(&[(5, &[])]), "allowed at position 5: the list of tokens is empty"),
        (allowed(&[(48, &[1])]), "position 48: beyond the length of 48"),
        (allowed(&[(u32::MAX, &[1])]), "beyond the length"),
        (allowed(&[(5, &[1]), (5, &[2])]), "position 5: the position is given twice"),
        (allowed(&[(5, &[1, MASK])]), "position 5: token 100 is the mask, which is never written"),
        (allowed(&[(5, &[101])]), "there is no token 101"),
        (allowed(&[(1, &[3, 4])]), "position 1: the prompt has token 2"),
        (Constraints { banned: vec![8, 9], ..allowed(&[(3, &[9, 8])]) }, "position 3: every one is banned"),
        (Constraints { banned: (0..MASK).collect(), ..none() }, "banned: every token"),
        (
            Constraints { banned: vec![MASK], ..none() },
            "banned: token 100 is the mask, which is never written",
        ),
        (Constraints { banned: vec![u32::MAX], ..none() }, "banned: there is no token"),
        (Constraints { bias: vec![(4, f32::NAN)], ..none() }, "bias of token 4: NaN"),
        (Constraints { bias: vec![(4, f32::INFINITY)], ..none() }, "bias of token 4: inf"),
        (Constraints { bias: vec![(4, 1.0), (4, 1.0)], ..none() }, "token 4 is given twice"),
        (
            Constraints { bias: vec![(MASK, 1.0)], ..none() },
            "bias: token 100 is the mask, which is never written",
        ),
        (Constraints { repetition_penalty: 0.0, ..none() }, "penalty of 0"),
        (Constraints { repetition_penalty: f32::NAN, ..none() }, "penalty of NaN"),
        (Constraints { repetition_penalty: f32::INFINITY, ..none() }, "penalty of inf"),
        (Constraints { frequency_penalty: f32::NAN, ..none() }, "frequency penalty of NaN"),
        (Constraints { presence_penalty: f32::INFINITY, ..none() }, "presence penalty of inf"),
        (dry(Dry { multiplier: -1.0, ..Dry::DEFAULT }), "DRY multiplier of -1"),
        (dry(Dry { base: 0.5, ..Dry::DEFAULT }), "DRY base of 0.5"),
        (dry(Dry { allowed_length: 0, ..Dry::DEFAULT }), "DRY allowed length of 0"),
        (
            dry(Dry { breakers: vec![1, MASK], ..Dry::DEFAULT }),
            "DRY breakers: token 100 is the mask, which is never written",
        ),
    ];
    for (bad, says) in cases {
        for constraints in [vec![bad.clone()], vec![none(), bad.clone()]] {
            let params = GenerateParams { constraints: &constraints, ..good };
            let error = context.begin(&vec![Prompt::prefix(&[1, 2]).unwrap(); 2], &params).unwrap_err();
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
    // The prompt has a token that the constraint allows.
    let fits = [allowed(&[(1, &[2, 4])])];
    context
        .begin(&[Prompt::prefix(&[1, 2]).unwrap()], &GenerateParams { constraints: &fits, ..good })
        .unwrap();
}

#[test]
fn constraints_do_not_hide_damaged_weights() {
    let mut damaged = Network::small(Variant::EsoB, 1);
    damaged.tensor_mut("output.bias")[7] = f32::INFINITY;
    let mut context = context(&damaged.model(), 1);
    let rules = [
        Constraints { banned: vec![7], ..Constraints::default() },
        Constraints { bias: vec![(7, -5.0)], ..Constraints::default() },
        Constraints { allowed: (0..48).map(|p| (p, vec![1, 2])).collect(), ..Constraints::default() },
    ];
    for constraints in &rules {
        let constraints = std::slice::from_ref(constraints);
        let params = GenerateParams { constraints, ..diffusion() };
        context.begin(&[Prompt::default()], &params).unwrap();
        assert!(matches!(context.step(), Err(Error::NotFinite(_))));
    }
}
