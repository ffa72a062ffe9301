//! What the model makes of a position: its logits and probabilities on demand, and the most likely tokens in the steps.

use esolm::{
    Adaptive, Architecture, Confidence, Config, Constraints, Context, ContextParams, Dry, Error,
    GenerateParams, Kernels, Order, Prompt, Sampler, SamplingParams, Schedule, Variant,
};

use crate::reference::{Attention, LENGTH, MASK, Network, Random, Row, config};
use crate::runs::{context, diffusion, params, texts, tokens};

const VOCAB: usize = MASK as usize + 1;

/// Between logits and the f64 network. Measured 2e-5.
const EXACT: f64 = 3e-4;

/// The logits that the definition has at a masked position, if it were written next.
fn reference(network: &Network, text: &[u32], order: &[u32], begun: usize, position: u32) -> Vec<f64> {
    let variant = network.config.variant;
    let written: Vec<u32> = order.iter().copied().filter(|&p| text[p as usize] != MASK).collect();
    let first = network.config.prepend_token_id.or(network.config.bos_token_id).unwrap_or(MASK);
    let rows: Vec<Row> = match variant {
        Variant::Ar => {
            (0..=position).map(|p| (if p == 0 { first } else { text[p as usize - 1] }, p)).collect()
        }
        Variant::Mdlm => {
            let others = (0..text.len() as u32).filter(|&p| p != position);
            others.chain([position]).map(|p| (text[p as usize], p)).collect()
        }
        _ => written.iter().map(|&p| (text[p as usize], p)).chain([(MASK, position)]).collect(),
    };
    let attention = Attention::of(&network.config, written.len(), begun);
    network.logits(&rows, attention).pop().unwrap()
}

#[test]
fn logits_on_demand_are_those_of_the_reference_network() {
    for variant in [Variant::EsoB, Variant::EsoA, Variant::Mdlm, Variant::Ar] {
        let network = Network::small(variant, 1);
        let model = network.model();
        let mut kinds = vec![params(2), ContextParams { batch_rows: 5, ..params(2) }];
        if variant == Variant::EsoB {
            kinds.push(ContextParams { kernels: Kernels::Ggml, ..params(2) });
        }
        for kind in kinds {
            let mut context = Context::new(&model, &kind).unwrap();
            for alpha_0 in [1.0, 0.0] {
                let scattered = Prompt { known: vec![(3, 8), (20, 9), (1, 7)] };
                let second = if variant == Variant::Ar { Prompt::prefix(&[5]).unwrap() } else { scattered };
                let given = second.known.len();
                let prompts = [Prompt::prefix(&[1, 2]).unwrap(), second];
                let how = GenerateParams { alpha_0, steps: 7, seed: 2, ..diffusion() };
                let whole = texts(&mut context, &prompts, &how);
                context.begin(&prompts, &how).unwrap();
                let mut random = Random(5);
                loop {
                    let (text, order) =
                        (context.tokens(1).unwrap().to_vec(), context.order(1).unwrap().to_vec());
                    let mut wanted: Vec<u32> = random.permutation(LENGTH);
                    wanted.retain(|&p| text[p as usize] == MASK);
                    wanted.truncate(7);
                    if variant == Variant::Ar {
                        wanted = (0..LENGTH as u32).find(|&p| text[p as usize] == MASK).into_iter().collect();
                    }
                    let mut out = vec![0.0; wanted.len() * VOCAB];
                    context.logits(1, &wanted, &mut out).unwrap();
                    let begun = if alpha_0 == 1.0 { LENGTH } else { given };
                    for (&position, logits) in wanted.iter().zip(out.chunks_exact(VOCAB)).take(2) {
                        let expected = reference(&network, &text, &order, begun, position);
                        let difference = logits.iter().zip(&expected).map(|(&a, b)| (f64::from(a) - b).abs());
                        let most = difference.fold(0.0, f64::max);
                        assert!(most < EXACT, "{variant:?}, position {position}: {most}");
                    }
                    if context.step().unwrap().is_none() {
                        break;
                    }
                }
                // Looking changed nothing.
                assert_eq!(tokens(&context), whole, "{variant:?} {alpha_0}");
            }
        }
    }
}

#[test]
fn probabilities_on_demand_are_those_that_the_next_token_is_drawn_with() {
    let dry = Dry { multiplier: 0.8, breakers: vec![2], ..Dry::DEFAULT };
    let rules = [Constraints {
        allowed: vec![(20, vec![3, 9, 11])],
        banned: vec![7],
        presence_penalty: 0.5,
        frequency_penalty: 0.25,
        dry,
        ..Constraints::default()
    }];
    let mut context = context(&Network::small(Variant::EsoB, 1).model(), 1);
    let mut sampler = Sampler::new(VOCAB, MASK).unwrap();
    for temperature in [0.8, 0.0] {
        let sampling = SamplingParams { temperature, top_k: 30, min_p: 0.1, ..SamplingParams::FULL };
        let schedule = Schedule::Custom(&[1]);
        let how = GenerateParams { constraints: &rules, sampling, schedule, seed: 3, ..diffusion() };
        context.begin(&[Prompt::prefix(&[1, 2, 3, 1, 2]).unwrap()], &how).unwrap();
        while let Some(&next) =
            context.order(0).unwrap().iter().find(|&&p| context.tokens(0).unwrap()[p as usize] == MASK)
        {
            let mut seen = vec![0.0; VOCAB];
            context.probabilities(0, &[next], &mut seen).unwrap();
            assert!((seen.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            let step = context.step_with_logits(|row, logits| {
                assert_eq!(row.position, next);
                if temperature == 0.0 {
                    let best = (0..VOCAB).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
                    assert_eq!(seen[best], 1.0);
                    return Ok(());
                }
                let weights = sampler.filter(logits, &sampling)?;
                let total: f32 = weights.iter().sum();
                for (&weight, &seen) in weights.iter().zip(&seen) {
                    assert!((weight / total - seen).abs() < 1e-6, "{} {seen}", weight / total);
                }
                Ok(())
            });
            let token = step.unwrap().unwrap().updates[0].token;
            assert!(seen[token as usize] > 0.0);
        }
    }
}

#[test]
fn steps_report_the_most_likely_tokens() {
    let model = Network::small(Variant::EsoB, 1).model();
    let mut context = context(&model, 2);
    let adaptive =
        Adaptive { confidence: Confidence::Margin, threshold: 0.2, window: 6, ..Adaptive::default() };
    for (n, adaptive) in [(1, None), (5, None), (VOCAB - 1, None), (3, Some(adaptive))] {
        let order = Order::Random;
        let how = GenerateParams { top_log_probs: n, steps: 9, order, adaptive, ..diffusion() };
        let prompts = [Prompt::default(), Prompt::prefix(&[4, 5]).unwrap()];
        context.begin(&prompts, &how).unwrap();
        let mut steps = 0;
        loop {
            let mut rows = std::collections::HashMap::new();
            let step = context.step_with_logits(|row, _| {
                rows.insert((row.sequence as u32, row.position), row.logits.to_vec());
                Ok(())
            });
            let Some(step) = step.unwrap() else { break };
            steps += 1;
            assert_eq!(step.top_log_probs.len(), n * step.updates.len());
            assert_eq!(step.log_probs.len(), step.updates.len());
            for (i, update) in step.updates.iter().enumerate() {
                let logits = &rows[&(update.sequence, update.position)];
                let total: f64 = logits[..MASK as usize].iter().map(|&l| f64::from(l).exp()).sum();
                let mut best: Vec<usize> = (0..MASK as usize).collect();
                best.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
                for (entry, &token) in step.top_log_probs[i * n..][..n].iter().zip(&best) {
                    assert_eq!(entry.token as usize, token);
                    let expected = f64::from(logits[token]) - total.ln();
                    assert!((f64::from(entry.log_prob) - expected).abs() < 1e-4);
                    if entry.token == update.token {
                        assert!((f64::from(entry.log_prob) - step.log_probs[i]).abs() < 1e-4);
                    }
                }
            }
        }
        assert!(steps > 3);
    }
    let too_many = GenerateParams { top_log_probs: VOCAB, ..diffusion() };
    let error = context.begin(&[Prompt::default()], &too_many).unwrap_err();
    assert!(error.to_string().contains("there are 100 tokens"), "{error}");
}

#[test]
fn positions_without_logits_are_refused() {
    let model = Network::small(Variant::EsoB, 1).model();
    let mut context = context(&model, 1);
    let mut out = vec![0.0; 2 * VOCAB];
    let nothing = context.logits(0, &[3, 4], &mut out).unwrap_err();
    assert!(nothing.to_string().contains("no sequence 0"), "{nothing}");
    context.begin(&[Prompt::prefix(&[1, 2]).unwrap()], &diffusion()).unwrap();
    for (positions, says) in [
        (&[3, 48][..], "position 48 is beyond the text"),
        (&[3, u32::MAX], "is beyond the text"),
        (&[3, 1], "position 1 is written already"),
        (&[3, 3], "position 3 is given twice"),
        (&[3], "room for 202 logits at 1 positions"),
    ] {
        let error = context.logits(0, positions, &mut out).unwrap_err();
        assert!(matches!(&error, Error::InvalidArgument(what) if what.contains(says)), "{error}");
    }
    assert!(context.logits(1, &[3, 4], &mut out).is_err());
    context.logits(0, &[], &mut []).unwrap();
    context.cancel_token().cancel();
    assert!(matches!(context.logits(0, &[3, 4], &mut out), Err(Error::Cancelled)));

    let mut ar = self::context(&Network::small(Variant::Ar, 1).model(), 1);
    ar.begin(
        &[Prompt::prefix(&[1, 2]).unwrap()],
        &GenerateParams { alpha_0: 0.0, ..GenerateParams::default() },
    )
    .unwrap();
    ar.logits(0, &[2], &mut out[..VOCAB]).unwrap();
    let error = ar.logits(0, &[3], &mut out[..VOCAB]).unwrap_err();
    assert!(matches!(&error, Error::Unsupported(what) if what.contains("that is 2")), "{error}");
}

/// A saved state has no order for what is not known, but logits there.
#[test]
fn logits_of_a_restored_text_are_those_from_before() {
    let networks = [Variant::EsoB, Variant::Ar].map(|variant| Network::small(variant, 1));
    let qwen = Network::qwen(Variant::WeDlm, Architecture::QWEN3, 91);
    let blocks = Network::random(Config { variant: Variant::Bd3Lm, block_length: 4, ..config(2, 2) }, 3);
    for network in networks.into_iter().chain([qwen, blocks]) {
        let (model, variant) = (network.model(), network.config.variant);
        for (kernels, steps) in
            [Kernels::Own, Kernels::Ggml].into_iter().flat_map(|k| [0, 2, 5].map(|s| (k, s)))
        {
            let kind = ContextParams { kernels, ..params(1) };
            let [mut context, mut again] = [(); 2].map(|()| Context::new(&model, &kind).unwrap());
            let how = GenerateParams { seed: 2, ignore_eos: true, ..GenerateParams::DEFAULT };
            context.begin(&[Prompt::prefix(&[1, 2]).unwrap()], &how).unwrap();
            // What a window has filled behind a gap is not saved.
            let steps = if variant == Variant::WeDlm { 0 } else { steps };
            for _ in 0..steps {
                context.step().unwrap().unwrap();
            }
            let next = context.tokens(0).unwrap().iter().position(|&token| token == MASK).unwrap() as u32;
            again.restore(&context.save().unwrap()).unwrap();
            let [before, after] = [&mut context, &mut again].map(|context| {
                let mut logits = vec![0.0; VOCAB];
                context
                    .logits(0, &[next], &mut logits)
                    .unwrap_or_else(|error| panic!("{variant:?}: {error}"));
                logits
            });
            let largest = before.iter().zip(&after).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(largest < 1e-4, "{variant:?} {kernels:?} {steps}: {largest}");
        }
    }
}
