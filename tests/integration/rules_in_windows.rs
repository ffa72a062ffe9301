//! What may be written and what ends a text, where several positions are filled in a step: in windows that slide, and in
//! BD3-LM's blocks.

use esolm::{
    Adaptive, Architecture, Config, Constraints, Context, GenerateParams, Model, Prompt, SamplingParams,
    StopReason, Variant,
};

use crate::reference::{MASK, Network, Random, config};
use crate::runs::{context, own, texts};
use crate::stopping::words;

/// Models with a tokenizer, and how they write.
fn ways() -> Vec<(Model, GenerateParams<'static>)> {
    let window = Adaptive { window: 9, threshold: 4.2, ..Adaptive::WEDLM };
    let sampling = SamplingParams { temperature: 0.8, ..SamplingParams::FULL };
    let default = GenerateParams { sampling, seed: 5, ..GenerateParams::DEFAULT };
    let sliding = GenerateParams { adaptive: Some(window), alpha_0: 1.0, ..default };
    let model = |network: Network| network.model_with_tokenizer(&words());
    let bd3lm = || Network::random(Config { variant: Variant::Bd3Lm, block_length: 6, ..config(2, 4) }, 3);
    vec![
        (model(Network::qwen(Variant::WeDlm, Architecture::QWEN3, 4)), sliding),
        (model(Network::qwen(Variant::WeDlm, Architecture::QWEN2, 4)), default),
        (model(Network::small(Variant::EsoB, 4)), sliding),
        (model(bd3lm()), default),
        (model(bd3lm()), GenerateParams { steps: 3, ..default }),
    ]
}

fn prompts() -> [Prompt; 3] {
    [2, 5, 3].map(|length| Prompt::prefix(&Random(length as u64).text(length)).unwrap())
}

/// The length of each prompt.
fn given() -> [usize; 3] {
    prompts().map(|prompt| prompt.known.len())
}

#[test]
fn a_stop_token_ends_a_text_where_the_whole_one_has_it() {
    for (number, (model, params)) in ways().into_iter().enumerate() {
        for mut context in own(&model, 3) {
            let whole = texts(&mut context, &prompts(), &params);
            let stop_tokens = [whole[1][9]];
            let stopping = GenerateParams { stop_tokens: &stop_tokens, ..params };
            let stopped = texts(&mut context, &prompts(), &stopping);
            let mut ends = 0;
            for (sequence, ((whole, stopped), given)) in whole.iter().zip(&stopped).zip(given()).enumerate() {
                let end = whole[given..].iter().position(|token| stop_tokens.contains(token));
                let expected = &whole[..end.map_or(whole.len(), |end| given + end + 1)];
                assert_eq!(stopped, expected, "way {number}, text {sequence}");
                let reason = if end.is_some() { StopReason::StopToken } else { StopReason::Length };
                assert_eq!(context.stop_reason(sequence).unwrap(), Some(reason));
                ends += usize::from(end.is_some());
            }
            assert!(ends > 0);
        }
    }
}

/// The joined texts of the steps, each behind its prompt's.
fn joined(context: &mut Context, params: &GenerateParams<'_>) -> Vec<String> {
    context.begin(&prompts(), params).unwrap();
    let mut all: Vec<String> = (0..3).map(|sequence| context.text(sequence).unwrap()).collect();
    while let Some(step) = context.step().unwrap() {
        for (sequence, text) in all.iter_mut().enumerate() {
            text.push_str(step.text(sequence));
        }
    }
    all
}

#[test]
fn a_stop_string_ends_a_text_before_it_and_steps_tell_what_is_final() {
    for (number, (model, params)) in ways().into_iter().enumerate() {
        let mut context = context(&model, 3);
        let params = GenerateParams { step_text: true, ..params };
        let whole = joined(&mut context, &params);
        let tokenizer = model.tokenizer().unwrap();
        let begins: Vec<usize> = prompts()
            .iter()
            .map(|prompt| {
                let tokens: Vec<u32> = prompt.known.iter().map(|&(_, token)| token).collect();
                tokenizer.decode(&tokens).unwrap().len()
            })
            .collect();
        for (sequence, text) in whole.iter().enumerate() {
            assert_eq!(text, &context.text(sequence).unwrap(), "way {number}");
        }
        let string = &whole[1][begins[1] + 20..][..9];
        let stop_strings = [string];
        let stopping = GenerateParams { stop_strings: &stop_strings, ..params };
        let stopped = joined(&mut context, &stopping);
        for (sequence, (whole, stopped)) in whole.iter().zip(&stopped).enumerate() {
            let found = whole[begins[sequence]..].find(string).map(|at| begins[sequence] + at);
            assert_eq!(stopped, &whole[..found.unwrap_or(whole.len())], "way {number}, text {sequence}");
            assert_eq!(stopped, &context.text(sequence).unwrap());
            let reason = if found.is_some() { StopReason::StopString } else { StopReason::Length };
            assert_eq!(context.stop_reason(sequence).unwrap(), Some(reason));
        }
    }
}

#[test]
fn constraints_hold_in_every_text_of_a_batch() {
    let constraints = Constraints {
        banned: (0..MASK).filter(|token| token % 3 == 0).collect(),
        allowed: vec![(20, vec![7]), (21, vec![8, 10])],
        ..Constraints::default()
    };
    let constraints = [constraints];
    for (number, (model, params)) in ways().into_iter().enumerate() {
        let params = GenerateParams { constraints: &constraints, ..params };
        let all = texts(&mut context(&model, 3), &prompts(), &params);
        for (tokens, given) in all.iter().zip(given()) {
            assert!(tokens[given..].iter().all(|token| token % 3 != 0), "way {number}: {tokens:?}");
            assert!(tokens[20] == 7 && [8, 10].contains(&tokens[21]), "way {number}: {tokens:?}");
        }
        let alone = texts(&mut context(&model, 1), &prompts()[..1], &params);
        assert_eq!(alone[0], all[0], "way {number}");
    }
}
