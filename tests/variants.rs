//! Eso-LM (A), MDLM and AR against the authors' code: `tests/golden/{tiny-A,mdlm-tiny,ar-tiny}`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(feature = "convert")]

#[allow(dead_code)]
mod random_model;

use std::path::{Path, PathBuf};

use esolm::config::{Config, Variant};
use esolm::convert::{Options, convert};
use esolm::{
    Context, ContextParams, Error, GenerateParams, Kernels, KvType, LoadOptions, Model, Plan, Prompt,
    Sampling,
};
use random_model::{Random, RandomModel, config};
use safetensors::SafeTensors;

/// With f32 weights and f32 keys and values; the reference's own noise is 2e-5.
const EXACT: f32 = 1e-4;
const VOCAB: usize = 97;
const LENGTH: usize = 64;
const MASK: u32 = 96;
const BOS: u32 = 95;

struct Golden {
    dir: PathBuf,
    bytes: Vec<u8>,
}

impl Golden {
    fn open(name: &str) -> Self {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        let bytes = std::fs::read(dir.join("golden.safetensors")).unwrap();
        Self { dir, bytes }
    }

    fn data(&self, name: &str) -> Vec<u8> {
        SafeTensors::deserialize(&self.bytes).unwrap().tensor(name).unwrap().data().to_vec()
    }

    fn ints(&self, name: &str) -> Vec<u32> {
        self.data(name).as_chunks::<4>().0.iter().map(|b| i32::from_le_bytes(*b) as u32).collect()
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        self.data(name).as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    fn doubles(&self, name: &str) -> Vec<f64> {
        self.data(name).as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect()
    }

    /// Contexts with the weights in both forms.
    fn contexts(&self, sequences: usize) -> [Context; 2] {
        ["checkpoint.ckpt", "model.safetensors"].map(|input| {
            let dir = tempfile::tempdir().unwrap();
            let out = dir.path().join("model.gguf");
            // Only the checkpoint has a tokenizer, which says what begins a text.
            let options = Options { bos_token_id: Some(BOS), ..Options::default() };
            convert(&self.dir.join(input), &out, &options, &mut |_| ()).unwrap();
            let model =
                Model::open(&out, &LoadOptions { device: "cpu".into(), ..LoadOptions::default() }).unwrap();
            let params =
                ContextParams { sequences, kv_type: KvType::F32, threads: 2, ..ContextParams::default() };
            Context::new(&model, &params).unwrap()
        })
    }
}

/// Runs a plan, choosing the tokens that `text` has, and returns the logits by place in generation order.
fn replay(context: &mut Context, plan: &Plan, text: &[u32]) -> Vec<Vec<f32>> {
    context.begin_planned(std::slice::from_ref(plan), Sampling::default(), 0).unwrap();
    let mut logits = vec![vec![]; plan.order.len()];
    let place = |position: u32| plan.order.iter().position(|&p| p == position).unwrap();
    while context
        .step_choosing(|_, choice| {
            logits[place(choice.position)] = choice.logits.to_vec();
            Ok(text[choice.position as usize])
        })
        .unwrap()
        .is_some()
    {}
    logits
}

fn check(what: &str, found: &[Vec<f32>], expected: &[f32], from: usize) {
    assert_eq!(expected.len(), found.len() * VOCAB);
    let mut largest = 0f32;
    for (row, expected) in found.iter().zip(expected.chunks(VOCAB)).skip(from) {
        assert_eq!(row.len(), VOCAB, "{what}: no logits");
        row.iter().zip(expected).for_each(|(a, b)| largest = largest.max((a - b).abs()));
    }
    println!("{what}: {largest:e}");
    assert!(largest <= EXACT, "{what}: {largest}");
}

/// Tokens by position, from tokens in generation order.
fn text(order: &[u32], tokens: &[u32]) -> Vec<u32> {
    let mut text = vec![0; order.len()];
    order.iter().zip(tokens).for_each(|(&p, &t)| text[p as usize] = t);
    text
}

#[test]
fn a_diffuses_as_the_reference() {
    let golden = Golden::open("tiny-A");
    let (clean, zt, order) =
        (golden.ints("diff.num_clean"), golden.ints("diff.zt"), golden.ints("diff.sort_idx"));
    let expected = golden.floats("diff.logits");
    for context in &mut golden.contexts(1) {
        for (i, &clean) in clean.iter().enumerate() {
            let clean = clean as usize;
            let (zt, order) = (&zt[i * LENGTH..][..LENGTH], &order[i * LENGTH..][..LENGTH]);
            if clean == LENGTH {
                continue;
            }
            // All masks in one step, whatever becomes of them.
            let plan = Plan {
                known: zt[..clean].to_vec(),
                order: order.to_vec(),
                counts: vec![(LENGTH - clean) as u32],
                diffusion: LENGTH - clean,
            };
            let logits = replay(context, &plan, &vec![1; LENGTH]);
            check(
                &format!("A, {clean} known"),
                &logits,
                &expected[i * LENGTH * VOCAB..][..LENGTH * VOCAB],
                clean,
            );
            // In steps, a mask sees the tokens that became known before it both ways.
            if clean > 0 {
                let known = clean / 2;
                let plan = Plan {
                    known: zt[..known].to_vec(),
                    counts: vec![(clean - known) as u32, (LENGTH - clean) as u32],
                    diffusion: LENGTH - known,
                    order: order.to_vec(),
                };
                let logits = replay(
                    context,
                    &plan,
                    &text(order, zt).iter().map(|&t| if t == MASK { 1 } else { t }).collect::<Vec<_>>(),
                );
                check("A, in steps", &logits, &expected[i * LENGTH * VOCAB..][..LENGTH * VOCAB], clean);
            }
        }
    }
}

#[test]
fn as_sequential_phase_is_the_references_with_and_without_cache() {
    let golden = Golden::open("tiny-A");
    let (clean, x0, order) =
        (golden.ints("seq.num_clean"), golden.ints("seq.x0"), golden.ints("seq.sort_idx"));
    let expected = golden.floats("seq.logits");
    for context in &mut golden.contexts(1) {
        for (i, &clean) in clean.iter().enumerate() {
            let clean = clean as usize;
            let (x0, order) = (&x0[i * LENGTH..][..LENGTH], &order[i * LENGTH..][..LENGTH]);
            let expected = &expected[i * LENGTH * VOCAB..][..LENGTH * VOCAB];
            let text = text(order, x0);
            // The clean tokens are given, or the diffusion phase wrote them: the same from there on.
            for known in [clean, clean / 2] {
                let mut counts = vec![1; LENGTH - clean];
                if known < clean {
                    counts.insert(0, (clean - known) as u32);
                }
                let plan = Plan {
                    known: x0[..known].to_vec(),
                    order: order.to_vec(),
                    counts,
                    diffusion: clean - known,
                };
                check(
                    &format!("A, sequential from {clean}"),
                    &replay(context, &plan, &text),
                    expected,
                    clean,
                );
            }
        }
    }
}

/// Each step of both phases against the network from scratch, on a batch of random texts: what is known goes both ways,
/// in the sequential phase up to where that began; the rest is causal.
#[test]
fn a_with_its_cache_equals_a_recomputed_from_scratch() {
    let mut random = Random(4);
    let mut most: f64 = 0.0;
    for (blocks, heads) in [(2, 4), (3, 2)] {
        let reference =
            RandomModel::new(Config { variant: Variant::EsoA, ..config(blocks, heads) }, blocks as u64);
        let model = reference.open();
        let mask = reference.config.mask_token_id;
        // How many are known, what the steps of the diffusion phase write, and what is left to the other phase.
        let shapes: [(usize, &[u32], usize); 6] =
            [(0, &[], 12), (7, &[], 9), (1, &[1], 1), (0, &[3, 8, 1], 10), (5, &[6, 1], 36), (33, &[2], 13)];
        let cases: Vec<(Plan, Vec<u32>)> = shapes
            .iter()
            .map(|&(known, diffused, left)| {
                let diffusion = diffused.iter().sum::<u32>() as usize;
                let length = known + diffusion + left;
                let text: Vec<u32> = (0..length).map(|_| random.below(mask as usize) as u32).collect();
                let order = random.permutation(length);
                let known = order[..known].iter().map(|&p| text[p as usize]).collect();
                let counts = [diffused, &vec![1; left]].concat();
                (Plan { known, order, counts, diffusion }, text)
            })
            .collect();
        for pass_rows in [0, 48] {
            let params = ContextParams {
                sequences: cases.len(),
                pass_rows,
                kv_type: KvType::F32,
                threads: 1,
                ..ContextParams::default()
            };
            let mut context = Context::new(&model, &params).unwrap();
            let plans: Vec<Plan> = cases.iter().map(|(plan, _)| plan.clone()).collect();
            context.begin_planned(&plans, Sampling::default(), 0).unwrap();
            let mut logits: Vec<Vec<Vec<f32>>> = cases.iter().map(|(_, t)| vec![vec![]; t.len()]).collect();
            while context
                .step_choosing(|_, choice| {
                    logits[choice.sequence][choice.slot] = choice.logits.to_vec();
                    Ok(cases[choice.sequence].1[choice.position as usize])
                })
                .unwrap()
                .is_some()
            {}
            for ((plan, text), found) in cases.iter().zip(&logits) {
                let (mut first, begun) = (plan.known.len(), plan.known.len() + plan.diffusion);
                for &count in &plan.counts {
                    let end = first + count as usize;
                    let row =
                        |(slot, &p): (usize, &u32)| (if slot < first { text[p as usize] } else { mask }, p);
                    let rows: Vec<_> = plan.order[..end].iter().enumerate().map(row).collect();
                    let expected = reference.logits_behind(&rows, first.min(begun));
                    for (found, expected) in found[first..end].iter().zip(&expected[first..]) {
                        assert_eq!(found.len(), expected.len());
                        for (a, b) in found.iter().zip(expected) {
                            let difference = (f64::from(*a) - b).abs();
                            assert!(difference <= f64::from(EXACT), "{plan:?}: {difference:e}");
                            most = most.max(difference);
                        }
                    }
                    first = end;
                }
            }
        }
    }
    println!("largest difference from the definition: {most:e}");
    // The direction matters by far more than the tolerance.
    let reference = RandomModel::new(config(2, 4), 2);
    let rows: Vec<(u32, u32)> = (0..6).map(|i| (i * 7, i)).collect();
    let last = |both_ways| reference.logits_behind(&rows, both_ways)[5].clone();
    let moved = last(0).iter().zip(last(5)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(moved > 1e-2, "{moved}");
}

#[test]
fn mdlm_sees_both_ways_as_the_reference() {
    let golden = Golden::open("mdlm-tiny");
    let (x, expected) = (golden.ints("x"), golden.floats("logits"));
    for context in &mut golden.contexts(1) {
        for (x, expected) in x.chunks(LENGTH).zip(expected.chunks(LENGTH * VOCAB)) {
            let known: Vec<u32> = (0..LENGTH as u32).filter(|&p| x[p as usize] != MASK).collect();
            if known.len() == LENGTH {
                continue;
            }
            let masked = (0..LENGTH as u32).filter(|&p| x[p as usize] == MASK);
            let order: Vec<u32> = known.iter().copied().chain(masked).collect();
            let plan = Plan {
                known: known.iter().map(|&p| x[p as usize]).collect(),
                counts: vec![(LENGTH - known.len()) as u32],
                diffusion: LENGTH - known.len(),
                order: order.clone(),
            };
            let logits = replay(context, &plan, &[1; LENGTH]);
            let sorted: Vec<f32> =
                order.iter().flat_map(|&p| &expected[p as usize * VOCAB..][..VOCAB]).copied().collect();
            check("MDLM", &logits, &sorted, known.len());
        }
    }
}

#[test]
fn mdlms_single_steps_are_the_references_from_their_noise() {
    let golden = Golden::open("mdlm-tiny");
    let mut written = 0;
    for (name, top_p) in [("p1", 1.0), ("p09", 0.9)] {
        let sampling = Sampling { top_p, ..Sampling::default() };
        for time in ["t1", "t05", "tlast"] {
            let array = |part: &str| format!("step_{time}_{name}.{part}");
            let (x, u, x_new) =
                (golden.ints(&array("x")), golden.doubles(&array("u")), golden.ints(&array("x_new")));
            let texts = x.chunks(LENGTH).zip(x_new.chunks(LENGTH)).zip(u.chunks(LENGTH * VOCAB));
            for ((x, x_new), u) in texts {
                // Those that are known, those that the step makes known, and those that stay masked.
                let all = 0..LENGTH as u32;
                let (mut order, masked): (Vec<u32>, Vec<u32>) = all.partition(|&p| x[p as usize] != MASK);
                let known: Vec<u32> = order.iter().map(|&p| x[p as usize]).collect();
                let (fresh, left): (Vec<u32>, Vec<u32>) =
                    masked.into_iter().partition(|&p| x_new[p as usize] != MASK);
                // A step that makes nothing known changes nothing.
                if fresh.is_empty() {
                    assert_eq!(x, x_new);
                    continue;
                }
                let counts = [fresh.len() as u32, left.len() as u32];
                let plan = Plan {
                    diffusion: fresh.len() + left.len(),
                    counts: counts.into_iter().filter(|&count| count > 0).collect(),
                    order: {
                        order.extend(fresh.iter().chain(&left));
                        order
                    },
                    known,
                };
                for context in &mut golden.contexts(1) {
                    context.begin_planned(std::slice::from_ref(&plan), sampling, 0).unwrap();
                    let draw = |sampler: &mut esolm::Sampler, choice: &esolm::Choice<'_>| {
                        let noise = &u[choice.position as usize * VOCAB..][..VOCAB];
                        sampler.draw_gumbel(choice.logits, &sampling, noise)
                    };
                    context.step_choosing(draw).unwrap();
                    let tokens = context.tokens(0).unwrap();
                    assert_eq!(&tokens, &x_new, "{time} {name}");
                    written += fresh.len();
                }
            }
        }
    }
    assert!(written > 100, "{written}");
}

#[test]
fn mdlm_generates_what_the_reference_does_from_its_noise() {
    let golden = Golden::open("mdlm-tiny");
    let (states, u, tokens) =
        (golden.ints("gen16.states"), golden.doubles("gen16.u"), golden.ints("gen16.tokens"));
    // Which step wrote each position: where it is no mask for the first time. Steps of nothing vanish.
    let states: Vec<&[u32]> = states.chunks(LENGTH).collect();
    let step_of = |p: usize| states.iter().position(|s| s[p] != MASK).unwrap();
    let mut order: Vec<u32> = (0..LENGTH as u32).collect();
    order.sort_by_key(|&p| step_of(p as usize));
    let counts: Vec<u32> = (0..16)
        .map(|step| (0..LENGTH).filter(|&p| step_of(p) == step).count() as u32)
        .filter(|&c| c > 0)
        .collect();
    let plan = Plan { known: vec![], order, counts, diffusion: LENGTH };
    let sampling = Sampling { top_p: 0.9, ..Sampling::default() };
    for context in &mut golden.contexts(1) {
        context.begin_planned(std::slice::from_ref(&plan), sampling, 0).unwrap();
        while context
            .step_choosing(|sampler, choice| {
                let p = choice.position as usize;
                let noise = &u[(step_of(p) * LENGTH + p) * VOCAB..][..VOCAB];
                sampler.draw_gumbel(choice.logits, &sampling, noise)
            })
            .unwrap()
            .is_some()
        {}
        assert_eq!(context.tokens(0).unwrap(), tokens);
    }
}

fn left_to_right(known: &[u32]) -> Plan {
    Plan {
        known: known.to_vec(),
        order: (0..LENGTH as u32).collect(),
        counts: vec![1; LENGTH - known.len()],
        diffusion: 0,
    }
}

#[test]
fn ar_continues_as_the_reference() {
    let golden = Golden::open("ar-tiny");
    // The reference counts the beginning of the text as a token.
    let (tokens, expected) = (golden.ints("greedy.tokens"), golden.floats("greedy.logits"));
    assert_eq!(tokens[0], BOS);
    let prefix = golden.ints("prefix");
    for context in &mut golden.contexts(2) {
        for (i, prefix) in prefix.chunks(24).enumerate() {
            assert_eq!(prefix[0], BOS);
            let plan = Plan { known: vec![], order: (0..23).collect(), counts: vec![1; 23], diffusion: 0 };
            let logits = replay(context, &plan, &prefix[1..]);
            for name in ["logits", "logits_cached"] {
                check(
                    &format!("AR, {name}"),
                    &logits,
                    &golden.floats(name)[i * 24 * VOCAB..][..23 * VOCAB],
                    0,
                );
            }
        }
        let plan = left_to_right(&tokens[1..4]);
        check("AR", &replay(context, &plan, &tokens[1..]), &expected, 3);
        let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
        context.begin_planned(&[plan], greedy, 0).unwrap();
        while context.step().unwrap().is_some() {}
        assert_eq!(context.tokens(0).unwrap(), &tokens[1..]);

        for (name, top_p) in [("samp_p1", 1.0), ("samp_p09", 0.9)] {
            let (u, tokens) = (golden.doubles(&format!("{name}.u")), golden.ints(&format!("{name}.tokens")));
            let sampling = Sampling { top_p, ..Sampling::default() };
            context.begin_planned(&[left_to_right(&[]), left_to_right(&[])], sampling, 0).unwrap();
            while context
                .step_choosing(|sampler, choice| {
                    let row = choice.sequence * LENGTH + choice.position as usize;
                    sampler.draw_gumbel(choice.logits, &sampling, &u[row * VOCAB..][..VOCAB])
                })
                .unwrap()
                .is_some()
            {}
            for (sequence, expected) in tokens.chunks(LENGTH).enumerate() {
                assert_eq!(context.tokens(sequence).unwrap(), expected, "{name}");
            }
        }
    }
}

#[test]
fn ar_can_begin_with_the_mask() {
    let golden = Golden::open("ar-tiny");
    let dir = tempfile::tempdir().unwrap();
    for file in ["model.safetensors", "config.json"] {
        std::fs::copy(golden.dir.join(file), dir.path().join(file)).unwrap();
    }
    let config = dir.path().join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let changed = text.replace(r#""prepend_token": "bos""#, r#""prepend_token": "mask""#);
    assert_ne!(text, changed);
    std::fs::write(&config, changed).unwrap();
    let out = dir.path().join("model.gguf");
    // What to begin with must be known, if it is not the mask.
    let unknown = convert(&golden.dir.join("model.safetensors"), &out, &Options::default(), &mut |_| ());
    assert!(unknown.unwrap_err().to_string().contains("--bos"));
    convert(&dir.path().join("model.safetensors"), &out, &Options::default(), &mut |_| ()).unwrap();
    let model = Model::open(&out, &LoadOptions { device: "cpu".into(), ..LoadOptions::default() }).unwrap();
    let params = ContextParams { kv_type: KvType::F32, ..ContextParams::default() };
    let mut context = Context::new(&model, &params).unwrap();
    let (prefix, expected) = (golden.ints("prefix_mask"), golden.floats("logits_mask"));
    for (prefix, expected) in prefix.chunks(24).zip(expected.chunks(24 * VOCAB)) {
        assert_eq!(prefix[0], MASK);
        let plan = Plan { known: vec![], order: (0..23).collect(), counts: vec![1; 23], diffusion: 0 };
        check("AR, mask", &replay(&mut context, &plan, &prefix[1..]), &expected[..23 * VOCAB], 0);
    }
}

#[test]
fn every_variant_writes_a_whole_text_whatever_the_prompt() {
    for name in ["tiny-A", "mdlm-tiny", "ar-tiny"] {
        let [mut context, mut single] = Golden::open(name).contexts(3);
        let prompts = [Prompt::prefix(&[5, 6, 7]), Prompt::default(), Prompt::prefix(&[9])];
        let params = GenerateParams { alpha_0: 0.5, steps: 7, seed: 3, ..GenerateParams::default() };
        context.generate(&prompts, &params, |_| std::ops::ControlFlow::Continue(())).unwrap();
        for (sequence, prompt) in prompts.iter().enumerate() {
            let tokens = context.tokens(sequence).unwrap();
            assert_eq!(tokens.len(), LENGTH);
            assert!(tokens.iter().all(|&t| t != MASK));
            prompt.known.iter().for_each(|&(p, t)| assert_eq!(tokens[p as usize], t));
        }
        // The first sequence does not depend on its neighbours.
        let alone = |_: &esolm::Step<'_>| std::ops::ControlFlow::Continue(());
        single.generate(&prompts[..1], &params, alone).unwrap();
        assert_eq!(single.tokens(0).unwrap(), context.tokens(0).unwrap(), "{name}");
        let hole = Prompt { known: vec![(3, 1)] };
        let infill = context.begin(&[hole], &params);
        assert_eq!(infill.is_ok(), name != "ar-tiny", "{name}");
    }
}

#[test]
fn ggmls_kernels_refuse_what_they_cannot_do() {
    let golden = Golden::open("tiny-A");
    let [context, _] = golden.contexts(1);
    let params = ContextParams { kernels: Kernels::Ggml, ..ContextParams::default() };
    assert!(matches!(Context::new(context.model(), &params), Err(Error::Unsupported(_))));
}
