//! Long prompts, fed in parts: of sequences that join, beside the others, and of those that begin.

use std::ops::ControlFlow;

use esolm::{Context, ContextParams, Error, GenerateParams, Kernels, Model, Prompt, StopReason, Variant};

use crate::reference::Network;
use crate::runs::{context, default_model, diffusion, finish, open, params, texts, tokens};

/// The longest prompt that leaves something to write.
const LONG: [u32; 28] = [9; 28];
const ROWS: usize = 6;

fn limits(sequences: usize) -> ContextParams {
    ContextParams { prompt_rows: ROWS, ..params(sequences) }
}

/// Models that feed prompts in parts, with parameters that write a token a step.
fn models() -> [(Model, GenerateParams<'static>); 2] {
    [Variant::EsoB, Variant::Ar].map(|variant| {
        let params =
            GenerateParams { alpha_0: 0.0, sampling: esolm::SamplingParams::FULL, ..Default::default() };
        (Network::small(variant, 1).model(), params)
    })
}

/// Which sequences the next step writes to.
fn step(context: &mut Context) -> Vec<u32> {
    context.step().unwrap().unwrap().updates.iter().map(|update| update.sequence).collect()
}

fn cached(context: &Context, sequence: usize) -> usize {
    context.cached_tokens(sequence).unwrap()
}

#[test]
fn running_sequences_write_while_a_long_prompt_joins() {
    for (model, params) in models() {
        let mut context = Context::new(&model, &limits(2)).unwrap();
        let first = context.add_sequence(&Prompt::prefix(&[1]).unwrap(), &params).unwrap();
        assert_eq!(step(&mut context), [0]);
        let second = context.add_sequence(&Prompt::prefix(&LONG).unwrap(), &params).unwrap();
        // In AR all texts have the first slot in common.
        let shared = cached(&context, second);
        // Four steps feed six rows each, the fifth the others and writes.
        for part in 1..=4 {
            assert_eq!(step(&mut context), [0]);
            assert_eq!(cached(&context, second), shared + part * ROWS);
            assert_eq!(context.stop_reason(second).unwrap(), None);
        }
        assert_eq!(step(&mut context), [0, 1]);
        finish(&mut context);
        let mut single = self::context(&model, 1);
        for (sequence, prompt) in [(first, &[1][..]), (second, &LONG)] {
            let alone = texts(&mut single, &[Prompt::prefix(prompt).unwrap()], &params).remove(0);
            assert_eq!(context.tokens(sequence).unwrap(), alone);
        }
    }
}

#[test]
fn prompts_that_join_are_fed_in_the_order_of_their_coming() {
    for (model, params) in models() {
        let mut context = Context::new(&model, &limits(5)).unwrap();
        let joined = |context: &mut Context, prompt: &[u32]| {
            context.add_sequence(&Prompt::prefix(prompt).unwrap(), &params).unwrap()
        };
        let gone = joined(&mut context, &[2]);
        joined(&mut context, &[1]);
        assert_eq!(step(&mut context), [0, 1]);
        let third = joined(&mut context, &LONG[..10]);
        context.remove_sequence(gone).unwrap();
        // It comes later and has a smaller number; the last one has no tokens to wait for.
        let fourth = joined(&mut context, &[7; 9]);
        let last = joined(&mut context, &[]);
        assert_eq!((third, fourth, last), (2, 3, 4));
        let shared = cached(&context, fourth);
        assert_eq!(step(&mut context), [1, 4]);
        assert_eq!([third, fourth].map(|sequence| cached(&context, sequence)), [shared + 6, shared]);
        // Four rows are left of the third (in AR three, as its last one writes), two or three go to the fourth.
        let two = 2 + shared;
        let written = step(&mut context);
        assert!(written.contains(&2) && !written.contains(&3), "{written:?}");
        assert_eq!(cached(&context, fourth), shared + two);
        // One that leaves halfway leaves its beginning to others.
        context.remove_sequence(fourth).unwrap();
        let again = joined(&mut context, &[7; 9]);
        assert_eq!(cached(&context, again), shared + two);
        finish(&mut context);
        let alone =
            texts(&mut self::context(&model, 1), &[Prompt::prefix(&[7; 9]).unwrap()], &params).remove(0);
        assert_eq!(context.tokens(again).unwrap(), alone);
    }
}

#[test]
fn nobody_to_wait_for_a_prompt_means_whole_batches() {
    for (model, params) in models() {
        let mut context = Context::new(&model, &ContextParams { batch_rows: 20, ..limits(2) }).unwrap();
        let only = context.add_sequence(&Prompt::prefix(&LONG).unwrap(), &params).unwrap();
        assert_eq!((step(&mut context), cached(&context, only)), (vec![], 20));
        assert_eq!(step(&mut context), [0]);
        // As many as there are: any number.
        let all = ContextParams { prompt_rows: usize::MAX, ..limits(2) };
        let mut context = Context::new(&model, &all).unwrap();
        for prompt in [&LONG[..3], &LONG] {
            context.add_sequence(&Prompt::prefix(prompt).unwrap(), &params).unwrap();
        }
        assert_eq!(step(&mut context), [0, 1]);
    }
}

#[test]
fn generation_that_begins_reads_in_parts_and_writes_together() {
    for (model, params) in models() {
        let prompts = [&[1][..], &LONG].map(|prompt| Prompt::prefix(prompt).unwrap());
        let whole = texts(&mut self::context(&model, 2), &prompts, &params);
        let steps = whole.iter().map(Vec::len).max().unwrap();
        let mut context = Context::new(&model, &ContextParams { batch_rows: 20, ..limits(2) }).unwrap();
        context.begin(&prompts, &params).unwrap();
        // One step more than there are tokens to write, which is known at once.
        let all = context.progress().1;
        assert_eq!(all, steps);
        assert_eq!((step(&mut context), context.progress()), (vec![], (1, all)));
        assert_eq!([0, 1].map(|sequence| cached(&context, sequence)), [1, 19]);
        assert_eq!((step(&mut context), context.progress()), (vec![0, 1], (2, all)));
        finish(&mut context);
        assert_eq!((tokens(&context), context.progress()), (whole.clone(), (all, all)));
        // A callback may end it meanwhile; then it can go on.
        let mut calls = 0;
        let ended = context.generate(&prompts, &params, |step| {
            calls += 1;
            assert!(step.updates.is_empty());
            ControlFlow::Break(())
        });
        assert!(matches!(ended, Err(Error::Cancelled)));
        assert_eq!((calls, context.stop_reason(1).unwrap()), (1, Some(StopReason::Cancelled)));
        assert_eq!(cached(&context, 1), 19);
        finish(&mut context);
        assert_eq!(tokens(&context), whole);
        // One that joins meanwhile is no reason to wait.
        context.begin(&prompts[1..], &params).unwrap();
        assert!(step(&mut context).is_empty());
        context.add_sequence(&Prompt::default(), &params).unwrap();
        assert_eq!(step(&mut context), [1]);
        finish(&mut context);
        let alone = texts(&mut self::context(&model, 1), &prompts[1..], &params).remove(0);
        assert_eq!(context.tokens(0).unwrap(), alone);
    }
}

#[test]
fn generation_that_goes_on_reads_in_parts() {
    for (model, params) in models() {
        let params = GenerateParams { length: 4, ..params };
        let [mut parts, mut whole] = [limits(2), self::params(2)].map(|limits| {
            let mut context =
                Context::new(&model, &ContextParams { batch_rows: limits.prompt_rows, ..limits }).unwrap();
            texts(&mut context, &[Prompt::prefix(&[5, 6]).unwrap(), Prompt::default()], &params);
            context
        });
        let more = [Prompt { known: (4..).zip([8; 16]).collect() }, Prompt::default()];
        let params = GenerateParams { length: 0, ..params };
        parts.extend(&more, &params).unwrap();
        let all = parts.progress().1;
        for _ in 0..2 {
            assert!(step(&mut parts).is_empty());
        }
        assert_eq!(step(&mut parts), [0, 1]);
        finish(&mut parts);
        assert_eq!(parts.progress(), (all, all));
        whole.extend(&more, &params).unwrap();
        assert_eq!(step(&mut whole), [0, 1]);
        finish(&mut whole);
        assert_eq!(tokens(&parts), tokens(&whole));
    }
}

#[test]
fn long_continuation_is_fed_in_parts_too() {
    for (model, params) in models() {
        let mut context = Context::new(&model, &limits(2)).unwrap();
        let short = GenerateParams { length: 4, ..params };
        context.add_sequence(&Prompt::prefix(&[1]).unwrap(), &params).unwrap();
        let second = context.add_sequence(&Prompt::prefix(&[5, 6]).unwrap(), &short).unwrap();
        while context.stop_reason(second).unwrap().is_none() {
            step(&mut context);
        }
        let more = Prompt { known: (4..).zip([8; 16]).collect() };
        context.extend_sequence(second, &more, &params).unwrap();
        let before = cached(&context, second);
        assert_eq!(step(&mut context), [0]);
        assert_eq!(cached(&context, second), before + ROWS);
        finish(&mut context);
        let mut single = self::context(&model, 1);
        single.begin(&[Prompt::prefix(&[5, 6]).unwrap()], &short).unwrap();
        finish(&mut single);
        single.extend(&[more], &params).unwrap();
        finish(&mut single);
        assert_eq!(context.tokens(second).unwrap(), single.tokens(0).unwrap());
    }
}

#[test]
fn failed_step_feeds_its_part_again() {
    for (model, params) in models() {
        let mut context = Context::new(&model, &limits(2)).unwrap();
        context.add_sequence(&Prompt::prefix(&[1]).unwrap(), &params).unwrap();
        step(&mut context);
        let second = context.add_sequence(&Prompt::prefix(&LONG).unwrap(), &params).unwrap();
        let shared = cached(&context, second);
        for part in 0..4 {
            let failed = context.step_with_logits(|_, _| Err(Error::Cancelled));
            assert!(failed.is_err());
            assert_eq!(cached(&context, second), shared + part * ROWS);
            // Its logits can be asked for meanwhile.
            let mut logits = vec![0.0; model.config().vocab_size];
            context.logits(second, &[LONG.len() as u32], &mut logits).unwrap();
            step(&mut context);
        }
        finish(&mut context);
        let alone =
            texts(&mut self::context(&model, 1), &[Prompt::prefix(&LONG).unwrap()], &params).remove(0);
        assert_eq!(context.tokens(second).unwrap(), alone);
    }
}

#[test]
fn models_that_attend_both_ways_feed_prompts_whole() {
    for variant in [Variant::EsoA, Variant::Mdlm] {
        let model = Network::small(variant, 1).model();
        let mut context = Context::new(&model, &limits(2)).unwrap();
        for prompt in [&LONG[..1], &LONG] {
            context.add_sequence(&Prompt::prefix(prompt).unwrap(), &diffusion()).unwrap();
        }
        let mut steps = 0;
        while context.stop_reason(1).unwrap().is_none() {
            steps += usize::from(step(&mut context).contains(&1));
        }
        assert!(steps > 0);
        let alone =
            texts(&mut self::context(&model, 1), &[Prompt::prefix(&LONG).unwrap()], &diffusion()).remove(0);
        assert_eq!(context.tokens(1).unwrap(), alone);
    }
}

#[test]
fn default_is_64_rows() {
    let model = open(&default_model());
    let params = GenerateParams { max_tokens: 8, ignore_eos: true, ..GenerateParams::default() };
    let mut context = Context::new(&model, &ContextParams { sequences: 2, ..Default::default() }).unwrap();
    let prompt: Vec<u32> = (0..200).map(|place| 300 + place * 7 % 900).collect();
    context.add_sequence(&Prompt::prefix(&[1, 300]).unwrap(), &params).unwrap();
    assert_eq!(step(&mut context), [0]);
    context.add_sequence(&Prompt::prefix(&prompt).unwrap(), &params).unwrap();
    let written: Vec<_> = (0..4).map(|_| step(&mut context)).collect();
    assert_eq!(written, [vec![0], vec![0], vec![0], vec![0, 1]]);
    finish(&mut context);
    let mut single = Context::new(&model, &ContextParams::default()).unwrap();
    assert_eq!(
        context.tokens(1).unwrap(),
        texts(&mut single, &[Prompt::prefix(&prompt).unwrap()], &params)[0]
    );
}

#[test]
fn ggml_s_kernels_feed_parts_too() {
    for (model, params) in models() {
        let limits = ContextParams { kernels: Kernels::Ggml, ..limits(2) };
        let mut context = Context::new(&model, &limits).unwrap();
        context.add_sequence(&Prompt::prefix(&[1]).unwrap(), &params).unwrap();
        step(&mut context);
        let second = context.add_sequence(&Prompt::prefix(&LONG).unwrap(), &params).unwrap();
        let shared = cached(&context, second);
        for part in 0..4 {
            assert_eq!(cached(&context, second), shared + part * ROWS);
            assert_eq!(step(&mut context), [0]);
        }
        // A step that writes nothing at all: nobody else is there.
        context.remove_sequence(0).unwrap();
        finish(&mut context);
        assert!(context.stop_reason(second).unwrap().is_some());
        context.reset();
        let alone = context.add_sequence(&Prompt::prefix(&LONG).unwrap(), &params).unwrap();
        finish(&mut context);
        assert!(context.stop_reason(alone).unwrap().is_some());
    }
}
