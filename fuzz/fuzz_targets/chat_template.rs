//! A chat template: applied to messages with the text behind a zero byte among them, with the variables behind another one, and to an
//! answer's end. The text has a bound.
#![no_main]

use esolm::{ChatTemplate, Message};
use esolm_fuzz::ok;
use libfuzzer_sys::fuzz_target;

/// Most text of a template, for messages as small as these.
const MOST: usize = 2 << 20;

fuzz_target!(|input: &[u8]| {
    let Ok(input) = str::from_utf8(input) else { return };
    let (template, rest) = input.split_once('\0').unwrap_or((input, "Hello"));
    let (content, kwargs) = rest.split_once('\0').unwrap_or((rest, "{}"));
    let Some(template) = ok(ChatTemplate::from_text(template)) else { return };
    // Those that are refused change nothing.
    let template = ok(template.clone().with_kwargs(kwargs)).unwrap_or(template);
    let messages = [
        Message::system("Be brief."),
        Message::user(content),
        Message::assistant("Hi <think>so</think>"),
        Message::user("Bye"),
    ];
    for add_generation_prompt in [false, true] {
        let text = ok(template.apply(&messages, add_generation_prompt));
        assert_eq!(
            text,
            ok(template.apply(&messages, add_generation_prompt)),
            "the same messages, another text"
        );
        assert!(text.is_none_or(|text| text.len() <= MOST));
    }
    ok(template.answer_end());
});
