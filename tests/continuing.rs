//! Going on from what is there: in the same context, and from a saved state.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code)]
mod random_model;

use esolm::config::{Config, Variant};
use esolm::{
    Constraints, Context, ContextParams, Error, GenerateParams, Kernels, KvType, Model, Order, Plan, Prompt,
    Sampling, Schedule,
};
use random_model::{Random, RandomModel, config};

/// Between keys and values that were kept and computed again, in passes of other sizes. Measured 1e-6.
const SAME: f32 = 1e-5;
const LENGTH: usize = 48;
const MASK: u32 = 100;

fn model(variant: Variant, seed: u64) -> Model {
    RandomModel::new(Config { variant, ..config(2, 4) }, seed).open()
}

fn params(sequences: usize) -> ContextParams {
    ContextParams { sequences, threads: 1, kv_type: KvType::F32, ..ContextParams::default() }
}

fn context(model: &Model, sequences: usize) -> Context {
    Context::new(model, &params(sequences)).unwrap()
}

/// What a generation's steps wrote (sequence, position, token), and the logits of each.
#[derive(Debug, PartialEq)]
struct Run {
    steps: Vec<Vec<(u32, u32, u32)>>,
    logits: Vec<Vec<f32>>,
}

fn finish(context: &mut Context) -> Run {
    let mut run = Run { steps: vec![], logits: vec![] };
    while let Some(step) = context
        .step_editing(|choice, _| {
            run.logits.push(choice.logits.to_vec());
            Ok(())
        })
        .unwrap()
    {
        run.steps.push(step.updates.iter().map(|u| (u.sequence, u.position, u.token)).collect());
    }
    run
}

fn difference(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    assert_eq!(a.len(), b.len());
    let all = a.iter().zip(b).flat_map(|(a, b)| a.iter().zip(b).map(|(a, b)| (a - b).abs()));
    all.fold(0.0, |most, d| if d > most || d.is_nan() { d } else { most })
}

/// A beginning of `length` tokens, and prompts with which it goes on.
fn begin(context: &mut Context, length: usize, steps: usize) -> [Prompt; 2] {
    let ar = context.model().config().variant == Variant::Ar;
    let middle = if ar { Prompt::prefix(&[1, 2]) } else { Prompt { known: vec![(7, 3), (2, 9)] } };
    let some = GenerateParams { length, steps: 6, alpha_0: 0.7, seed: 4, ..GenerateParams::default() };
    context.begin(&[middle, Prompt::default()], &some).unwrap();
    for _ in 0..steps {
        context.step().unwrap();
    }
    let next = length as u32;
    let more = if ar { vec![(next, 5), (next + 1, 6)] } else { vec![(next + 9, 5), (next, 6)] };
    [Prompt { known: more }, Prompt::default()]
}

fn more(seed: u64) -> GenerateParams<'static> {
    GenerateParams { steps: 5, alpha_0: 0.6, seed, ..GenerateParams::default() }
}

#[test]
fn going_on_equals_generating_in_one_go_from_the_same_tokens() {
    for variant in [Variant::EsoB, Variant::Ar] {
        let model = model(variant, 1);
        let mut context = context(&model, 2);
        let mut fresh = self::context(&model, 2);
        // After the end, and in the middle.
        for steps in [usize::MAX, 4] {
            if variant == Variant::Ar && steps == 4 {
                continue;
            }
            let prompts = begin(&mut context, 20, steps.min(100));
            let before: Vec<Vec<u32>> = (0..2).map(|n| context.tokens(n).unwrap().to_vec()).collect();
            context.extend(&prompts, &more(7)).unwrap();
            let orders: Vec<Vec<u32>> = (0..2).map(|n| context.order(n).unwrap().to_vec()).collect();
            let run = finish(&mut context);
            let texts: Vec<Vec<u32>> = (0..2).map(|n| context.tokens(n).unwrap().to_vec()).collect();
            for (sequence, (before, text)) in before.iter().zip(&texts).enumerate() {
                assert_eq!(text.len(), LENGTH);
                assert!(!text.contains(&MASK));
                assert!(before.iter().zip(text).all(|(&b, &t)| b == MASK || b == t));
                assert!(prompts[sequence].known.iter().all(|&(p, t)| text[p as usize] == t));
            }
            let plans: Vec<Plan> = (0..2)
                .map(|sequence| {
                    let own = |step: &Vec<(u32, u32, u32)>| {
                        step.iter().filter(|u| u.0 as usize == sequence).count() as u32
                    };
                    let counts: Vec<u32> = run.steps.iter().map(own).filter(|&count| count > 0).collect();
                    let known = LENGTH - counts.iter().sum::<u32>() as usize;
                    let text = &texts[sequence];
                    let known = orders[sequence][..known].iter().map(|&p| text[p as usize]).collect();
                    Plan { known, order: orders[sequence].clone(), counts, diffusion: 0 }
                })
                .collect();
            fresh.begin_planned(&plans, Sampling::default(), 0).unwrap();
            let mut logits = vec![];
            while fresh
                .step_choosing(|_, choice| {
                    logits.push(choice.logits.to_vec());
                    Ok(texts[choice.sequence][choice.position as usize])
                })
                .unwrap()
                .is_some()
            {}
            let difference = difference(&run.logits, &logits);
            println!("{variant:?}: {difference:e}");
            assert!(difference <= SAME, "{variant:?}: {difference:e}");
        }
    }
}

#[test]
fn a_saved_state_goes_on_as_the_context_does() {
    for variant in [Variant::EsoB, Variant::Ar] {
        let model = model(variant, 1);
        for kv_type in [KvType::F32, KvType::F16] {
            let new = |params: ContextParams| Context::new(&model, &params).unwrap();
            let mut context = new(ContextParams { kv_type, ..params(2) });
            let prompts = begin(&mut context, 20, 100);
            let bytes = context.save().unwrap();
            assert_eq!(context.saved_size().unwrap(), bytes.len());
            let (tokens, order) = (context.tokens(0).unwrap().to_vec(), context.order(0).unwrap().to_vec());
            context.extend(&prompts, &more(7)).unwrap();
            let expected = finish(&mut context);
            let mut contexts = [
                (new(ContextParams { kv_type, ..params(2) }), 0.0),
                (new(ContextParams { kv_type, pass_rows: 5, ..params(4) }), SAME),
                // What is computed again, if need be in another precision, is close.
                (new(ContextParams { kv_type: KvType::F32, ..params(2) }), 5e-2),
                (new(ContextParams { kv_type, kernels: Kernels::Ggml, ..params(2) }), 5e-2),
            ];
            for (number, (context, tolerance)) in contexts.iter_mut().enumerate() {
                // Whatever was there before.
                context.begin(&[Prompt::default()], &more(3)).unwrap();
                context.step().unwrap();
                context.restore(&bytes).unwrap();
                assert_eq!((context.sequences(), context.progress()), (2, (0, 0)));
                assert_eq!(context.tokens(0).unwrap(), tokens);
                assert_eq!(context.order(0).unwrap(), order);
                assert!(context.step().unwrap().is_none());
                let again = context.save().unwrap();
                assert_eq!(context.saved_size().unwrap(), again.len());
                assert!(number > 1 || again == bytes, "saving what was restored");
                context.extend(&prompts, &more(7)).unwrap();
                let first = |run: &[Vec<f32>]| run[..2].to_vec();
                let found = finish(context);
                if *tolerance == 0.0 {
                    assert_eq!(found, expected, "bit by bit");
                }
                let difference = difference(&first(&found.logits), &first(&expected.logits));
                assert!(difference <= *tolerance, "{variant:?} {kv_type:?} {number}: {difference:e}");
            }
        }
    }
}

/// `bytes` with a checksum that fits.
fn signed(mut bytes: Vec<u8>) -> Vec<u8> {
    let body = bytes.len() - 4;
    let crc = crc32fast::hash(&bytes[..body]);
    bytes[body..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn a_state_in_a_file_is_replaced_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let (path, folder) = (dir.path().join("a.state"), dir.path().join("folder"));
    std::fs::create_dir(&folder).unwrap();
    let mut context = context(&model(Variant::EsoB, 1), 2);
    for length in [10, 20] {
        begin(&mut context, length, 100);
        context.save_to(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), context.save().unwrap());
    }
    assert!(matches!(context.save_to(dir.path().join("no/place")), Err(Error::Io { .. })));
    assert!(matches!(context.save_to(&folder), Err(Error::InvalidArgument(_))));
    let unable = self::context(&model(Variant::Mdlm, 1), 1);
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(unable.save_to(&path), Err(Error::Unsupported(_))));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left behind");
}

#[test]
fn the_cache_in_a_state_is_what_is_used() {
    let model = model(Variant::EsoB, 1);
    let mut context = context(&model, 2);
    let prompts = begin(&mut context, 20, 100);
    let bytes = context.save().unwrap();
    let mut run = |bytes: &[u8]| {
        context.restore(bytes).unwrap();
        context.extend(&prompts, &more(7)).unwrap();
        finish(&mut context)
    };
    let expected = run(&bytes);
    let mut changed = bytes.clone();
    // A number in the middle of the first sequence's keys becomes 3.
    let place = (36 + 12 + 20 * 8 + 2000) & !3;
    changed[place..place + 4].copy_from_slice(&3f32.to_le_bytes());
    assert!(difference(&run(&signed(changed)).logits[..1], &expected.logits[..1]) > 1e-3);
}

#[test]
fn the_size_is_known_beforehand_at_every_moment() {
    for variant in [Variant::EsoB, Variant::Ar] {
        let model = model(variant, 1);
        for (kv_type, kernels) in
            [(KvType::F32, Kernels::Own), (KvType::F16, Kernels::Own), (KvType::F16, Kernels::Ggml)]
        {
            let mut context = Context::new(&model, &ContextParams { kv_type, kernels, ..params(2) }).unwrap();
            let check = |context: &Context| {
                let bytes = context.save().unwrap();
                assert_eq!(context.saved_size().unwrap(), bytes.len());
                bytes.len()
            };
            let mut sizes = vec![check(&context)];
            let prompts = [Prompt::prefix(&[1, 2]), Prompt::default()];
            context.begin(&prompts, &more(3)).unwrap();
            sizes.push(check(&context));
            while context.step().unwrap().is_some() {
                sizes.push(check(&context));
            }
            assert!(sizes.len() > 5 && sizes.is_sorted_by(|a, b| a < b), "{sizes:?}");
        }
    }
}

#[test]
fn damaged_states_are_refused() {
    let model = model(Variant::EsoB, 1);
    let mut context = Context::new(&model, &ContextParams { kv_type: KvType::F16, ..params(2) }).unwrap();
    let small = GenerateParams { length: 5, ..GenerateParams::default() };
    context.begin(&[Prompt::default()], &small).unwrap();
    finish(&mut context);
    let bytes = context.save().unwrap();
    assert!(bytes.len() > 500, "{}", bytes.len());
    let before = (context.progress(), context.tokens(0).unwrap().to_vec());
    let mut refuse = |bytes: &[u8], what: &str| {
        let error = context.restore(bytes).unwrap_err();
        // What this context cannot hold may be fine for another.
        let expected = match what {
            "more sequences" => matches!(&error, Error::InvalidArgument(_)),
            _ => matches!(&error, Error::BadFile { .. }),
        };
        assert!(expected, "{what}: {error}");
        assert_eq!((context.progress(), context.tokens(0).unwrap().to_vec()), before);
    };
    for place in 0..bytes.len() {
        let mut changed = bytes.clone();
        for bit in [0, 3, 7] {
            changed[place] = bytes[place] ^ (1 << bit);
            refuse(&changed, &format!("byte {place}"));
        }
        refuse(&bytes[..place], &format!("cut at {place}"));
    }
    refuse(&[&bytes[..], &[0]].concat(), "a byte more");
    // With a checksum that fits, the content itself is checked.
    let with = |place: usize, number: u32| {
        let mut changed = bytes.clone();
        changed[place..place + 4].copy_from_slice(&number.to_le_bytes());
        signed(changed)
    };
    for (place, number, what) in [
        (0, 0, "magic"),
        (8, 2, "version"),
        (12, 1, "model"),
        (16, 1, "model"),
        (20, 1, "precision"),
        (20, 2, "no cache"),
        (20, 3, "unknown precision"),
        (24, 2, "sequences"),
        (24, u32::MAX, "more sequences"),
        (28, u32::MAX, "length"),
        (28, 4, "length"),
        (32, 6, "known"),
        (32, u32::MAX, "known"),
        (36, 5, "committed"),
        (36, u32::MAX, "committed"),
        (40, 48, "position"),
        (44, MASK, "token"),
        (44, u32::MAX, "token"),
    ] {
        refuse(&with(place, number), what);
    }
    let position = u32::from_le_bytes(bytes[48..52].try_into().unwrap());
    refuse(&with(40, position), "a position twice");
    refuse(&signed([&bytes[..bytes.len() - 4], &[0; 12]].concat()), "more behind the end");
    refuse(&with(24, 0), "what is left over");
}

#[test]
fn no_signed_state_does_harm() {
    let model = model(Variant::EsoB, 1);
    let mut context = context(&model, 2);
    begin(&mut context, 20, 100);
    let bytes = context.save().unwrap();
    let mut random = Random(8);
    let mut taken = 0;
    for case in 0..3000 {
        let mut changed = bytes.clone();
        for _ in 0..1 + random.below(3) {
            // Half of the changes in the first bytes, where the sizes are.
            let place = if random.below(2) == 0 { random.below(240) } else { random.below(bytes.len()) };
            changed[place] = random.next() as u8;
        }
        let len = if case % 3 == 0 { 40 + random.below(bytes.len() - 40) } else { bytes.len() };
        changed.truncate(len);
        if context.restore(&signed(changed)).is_ok() {
            taken += 1;
            if taken % 20 == 0
                && context.extend(&vec![Prompt::default(); context.sequences()], &more(1)).is_ok()
            {
                // Keys and values may be any numbers: a text, or an error that says that they are not finite.
                while matches!(context.step(), Ok(Some(_))) {}
            }
        }
    }
    assert!(taken > 300, "{taken}");
}

#[test]
fn what_cannot_go_on_is_refused() {
    let b = model(Variant::EsoB, 1);
    let mut context = context(&b, 2);
    assert!(matches!(context.extend(&[Prompt::default()], &more(1)), Err(Error::InvalidArgument(_))));
    begin(&mut context, 20, 100);
    let before = (context.progress(), context.tokens(0).unwrap().to_vec());
    let known = |p: u32, t: u32| Prompt { known: vec![(p, t)] };
    let rules = [Constraints { allowed: vec![(7, vec![4])], ..Constraints::default() }];
    let g = more(1);
    for (prompts, params, says) in [
        (vec![Prompt::default()], g, "1 prompts to go on with 2"),
        (vec![Prompt::default(); 3], g, "3 prompts"),
        (vec![known(7, 3), Prompt::default()], g, "given twice"),
        (vec![known(48, 3), Prompt::default()], g, "beyond the length"),
        (vec![Prompt::default(); 2], GenerateParams { length: 19, ..g }, "there are 20 tokens"),
        (vec![Prompt::default(); 2], GenerateParams { length: 49, ..g }, "length 49"),
        (vec![Prompt::default(); 2], GenerateParams { constraints: &rules, ..g }, "the prompt has token 3"),
    ] {
        let error = context.extend(&prompts, &params).unwrap_err();
        assert!(matches!(&error, Error::InvalidArgument(what) if what.contains(says)), "{error}");
        assert_eq!((context.progress(), context.tokens(0).unwrap().to_vec()), before);
    }
    // Orders are of the whole text; what is known is left out of them.
    let given: Vec<u32> = (0..48).rev().collect();
    let params = GenerateParams { order: Order::Given(&given), schedule: Schedule::Given(&[3]), ..g };
    context
        .extend(&[Prompt::default(), Prompt::default()], &GenerateParams { alpha_0: 1.0, ..params })
        .unwrap();
    finish(&mut context);
    assert!(context.order(0).unwrap()[20..].iter().copied().eq((20..48).rev()));
    let bytes = context.save().unwrap();
    // A model with one other weight, and one that differs in how it is run.
    for other in [model(Variant::EsoB, 2), model(Variant::Ar, 1)] {
        let error = self::context(&other, 2).restore(&bytes).unwrap_err();
        assert!(error.to_string().contains("another model"), "{error}");
    }
    let too_small = self::context(&b, 1).restore(&bytes);
    assert!(matches!(too_small, Err(Error::InvalidArgument(_))));
    for variant in [Variant::EsoA, Variant::Mdlm] {
        let mut context = self::context(&model(variant, 1), 1);
        context.begin(&[Prompt::default()], &g).unwrap_or(());
        assert!(matches!(context.extend(&[Prompt::default()], &g), Err(Error::Unsupported(_))));
        assert!(matches!(context.save(), Err(Error::Unsupported(_))));
        assert!(matches!(context.saved_size(), Err(Error::Unsupported(_))));
        assert!(matches!(context.restore(&bytes), Err(Error::Unsupported(_))));
    }
    // Scoring has overwritten the cache, so there is nothing to go on from.
    let text = context.tokens(0).unwrap().to_vec();
    context.score_order(&text, &given, 0).unwrap();
    assert!(context.extend(&[Prompt::default()], &g).is_err());
}
