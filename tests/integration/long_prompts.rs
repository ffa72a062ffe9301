//! Prompts of sequences that join, fed in parts beside the others.

use esolm::{Context, ContextParams, Error, GenerateParams, Kernels, Model, Prompt, Variant};

use crate::reference::Network;
use crate::runs::{context, default_model, diffusion, finish, open, params, texts};

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
        // A generation that begins feeds its prompts in one step, as all of its sequences begin with it.
        context.begin(&[Prompt::prefix(&LONG).unwrap(), Prompt::prefix(&[1]).unwrap()], &params).unwrap();
        assert_eq!(step(&mut context), [0, 1]);
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
