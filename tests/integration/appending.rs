//! Going on behind the text of a sequence, such as an answer, with a new prompt: what is fed, and what comes out.

use esolm::{
    Context, ContextParams, Error, GenerateParams, Model, Plan, Prompt, SamplingParams, StopReason, Variant,
};

use crate::extend::{Run, SAME, finish};
use crate::reference::{MASK, Network};
use crate::replay::{largest_difference, replay};
use crate::runs::{context, diffusion, params, texts};

const QUESTION: [u32; 3] = [1, 2, 3];
const NEXT: [u32; 4] = [4, 5, 6, 7];

/// One token a step, drawn from the model's own distribution.
fn one_by_one(seed: u64) -> GenerateParams<'static> {
    let sampling = SamplingParams::FULL;
    GenerateParams { alpha_0: 0.0, max_tokens: 7, sampling, seed, ..GenerateParams::default() }
}

fn causal() -> [(Variant, Model); 2] {
    [Variant::EsoB, Variant::Ar].map(|variant| (variant, Network::small(variant, 1).model()))
}

/// Runs the generation to its end, and counts the steps that only feed a prompt.
fn feeding_steps(context: &mut Context) -> usize {
    let mut steps = 0;
    while let Some(step) = context.step().unwrap() {
        steps += usize::from(step.updates.is_empty());
    }
    steps
}

#[test]
fn only_the_new_tokens_are_fed() {
    for (variant, model) in causal() {
        // A step that writes nothing feeds one row.
        let mut context = Context::new(&model, &ContextParams { prompt_rows: 1, ..params(1) }).unwrap();
        context.begin(&[Prompt::prefix(&QUESTION).unwrap()], &one_by_one(1)).unwrap();
        finish(&mut context);
        let answered = context.tokens(0).unwrap().to_vec();
        assert_eq!(answered.len(), 10);
        for turn in 1..=2 {
            let length = context.tokens(0).unwrap().len();
            context.append_sequence(0, None, &Prompt::prefix(&NEXT).unwrap(), &one_by_one(1 + turn)).unwrap();
            // All but the answer's last token.
            let cached = context.cached_tokens(0).unwrap();
            assert!(
                cached == length - 1 || variant == Variant::Ar && cached == length,
                "{variant:?}: {cached}"
            );
            let fed = feeding_steps(&mut context);
            assert!(fed <= NEXT.len() + 1, "{variant:?}, turn {turn}: {fed} rows before the answer");
            assert_eq!(context.tokens(0).unwrap().len(), length + NEXT.len() + 7);
        }
        assert_eq!(context.tokens(0).unwrap()[..10], answered);
    }
}

#[test]
fn answer_is_the_one_of_a_new_prompt_with_the_same_tokens() {
    for (variant, model) in causal() {
        for keep in [None, Some(5), Some(0), Some(100)] {
            let (mut kept, mut fresh) = (context(&model, 1), context(&model, 1));
            kept.begin(&[Prompt::prefix(&QUESTION).unwrap()], &one_by_one(1)).unwrap();
            finish(&mut kept);
            let tokens = kept.tokens(0).unwrap().to_vec();
            kept.append_sequence(0, keep, &Prompt::prefix(&NEXT).unwrap(), &one_by_one(2)).unwrap();
            let run = finish(&mut kept);
            let stays = keep.unwrap_or(tokens.len()).min(tokens.len());
            let all = [&tokens[..stays], &NEXT].concat();
            fresh.begin(&[Prompt::prefix(&all).unwrap()], &one_by_one(2)).unwrap();
            let anew: Run = finish(&mut fresh);
            assert_eq!(run.steps, anew.steps, "{variant:?}, keep {keep:?}");
            assert!(largest_difference(&run.logits, &anew.logits) <= SAME);
            assert_eq!(kept.tokens(0).unwrap(), fresh.tokens(0).unwrap());
        }
    }
}

/// Eso-LM (B) writes its answer in a random order: the next one is that of the same order, computed from the start.
#[test]
fn answer_in_a_random_order_is_followed_as_if_computed_in_that_order() {
    let model = Network::small(Variant::EsoB, 1).model();
    let (mut kept, mut fresh) = (context(&model, 1), context(&model, 1));
    let random = GenerateParams { steps: 5, max_tokens: 12, alpha_0: 0.7, seed: 3, ..diffusion() };
    kept.begin(&[Prompt::prefix(&QUESTION).unwrap()], &random).unwrap();
    finish(&mut kept);
    assert!(!kept.order(0).unwrap().is_sorted());
    kept.append_sequence(0, None, &Prompt::prefix(&NEXT).unwrap(), &GenerateParams { seed: 4, ..random })
        .unwrap();
    let run = finish(&mut kept);
    let (text, order) = (kept.tokens(0).unwrap().to_vec(), kept.order(0).unwrap().to_vec());
    assert_eq!(text.len(), 15 + NEXT.len() + 12);
    let counts: Vec<u32> = run.steps.iter().map(|step| step.len() as u32).collect();
    let known = order.len() - counts.iter().sum::<u32>() as usize;
    assert_eq!(known, 15 + NEXT.len());
    let tokens = order[..known].iter().map(|&position| text[position as usize]).collect();
    let plan = Plan { known: tokens, order, counts, diffusion: 0 };
    let expected = replay(&mut fresh, &[plan], &[&text]).remove(0);
    assert!(largest_difference(&run.logits, &expected[known..]) <= SAME);
}

#[test]
fn text_that_is_not_finished_is_followed_up_to_its_first_gap() {
    let model = Network::small(Variant::EsoB, 1).model();
    let mut context = context(&model, 1);
    let random = GenerateParams { steps: 8, max_tokens: 20, seed: 5, ..diffusion() };
    context.begin(&[Prompt::prefix(&QUESTION).unwrap()], &random).unwrap();
    for _ in 0..5 {
        context.step().unwrap();
    }
    let tokens = context.tokens(0).unwrap().to_vec();
    let gap = tokens.iter().position(|&token| token == MASK).unwrap();
    assert!(tokens[gap..].iter().any(|&token| token != MASK));
    context.append_sequence(0, None, &Prompt::prefix(&NEXT).unwrap(), &one_by_one(6)).unwrap();
    finish(&mut context);
    let text = context.tokens(0).unwrap();
    assert_eq!(text[..gap], tokens[..gap]);
    assert_eq!(text[gap..gap + 4], NEXT);
    assert_eq!(text.len(), gap + 4 + 7);
}

#[test]
fn token_that_ended_an_answer_stays_and_others_are_not_disturbed() {
    for (_, model) in causal() {
        let mut both = context(&model, 2);
        let stops: Vec<u32> = (8..40).collect();
        let ending = GenerateParams { stop_tokens: &stops, ..one_by_one(1) };
        let other = GenerateParams { max_tokens: 25, ..one_by_one(9) };
        let first = both.add_sequence(&Prompt::prefix(&QUESTION).unwrap(), &ending).unwrap();
        let second = both.add_sequence(&Prompt::prefix(&[9]).unwrap(), &other).unwrap();
        while both.stop_reason(first).unwrap().is_none() {
            both.step().unwrap();
        }
        assert_eq!(both.stop_reason(first).unwrap(), Some(StopReason::StopToken));
        let answered = both.tokens(first).unwrap().to_vec();
        both.append_sequence(first, None, &Prompt::prefix(&NEXT).unwrap(), &one_by_one(2)).unwrap();
        finish(&mut both);
        assert_eq!(both.tokens(first).unwrap()[..answered.len()], answered);
        assert_eq!(both.tokens(first).unwrap()[answered.len()..][..4], NEXT);
        let alone = texts(&mut context(&model, 1), &[Prompt::prefix(&[9]).unwrap()], &other).remove(0);
        assert_eq!(both.tokens(second).unwrap(), alone);
    }
}

#[test]
fn impossible_prompts_behind_a_text_are_refused() {
    for (_, model) in causal() {
        let mut context = context(&model, 1);
        let append = |context: &mut Context, sequence, prompt: &[u32]| {
            context
                .append_sequence(sequence, None, &Prompt::prefix(prompt).unwrap(), &one_by_one(2))
                .unwrap_err()
        };
        assert!(matches!(append(&mut context, 0, &NEXT), Error::InvalidArgument(_)));
        context.begin(&[Prompt::prefix(&QUESTION).unwrap()], &one_by_one(1)).unwrap();
        finish(&mut context);
        let before = context.tokens(0).unwrap().to_vec();
        for (prompt, says) in
            [(&[9; 60][..], "at most"), (&[MASK], "the mask stands for"), (&[9999], "no such token")]
        {
            let error = append(&mut context, 0, prompt);
            assert!(matches!(&error, Error::InvalidArgument(what) if what.contains(says)), "{error}");
            assert_eq!(context.tokens(0).unwrap(), before);
        }
        let far = Prompt { known: vec![(u32::MAX, 5)] };
        assert!(context.append_sequence(0, None, &far, &one_by_one(2)).is_err());
        append(&mut context, 1, &NEXT);
    }
    for variant in [Variant::EsoA, Variant::Mdlm] {
        let model = Network::small(variant, 1).model();
        let mut context = context(&model, 1);
        context.begin(&[Prompt::prefix(&QUESTION).unwrap()], &diffusion()).unwrap();
        let refused = context.append_sequence(0, None, &Prompt::prefix(&NEXT).unwrap(), &diffusion());
        assert!(matches!(refused, Err(Error::Unsupported(_))));
    }
}
