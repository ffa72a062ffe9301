//! Templates: infilled text keeps every given token and position.

use esolm::{Adaptive, Confidence, GenerateParams, Order, Template, TokenizeOptions};

use crate::reference::Random;
use crate::runs::{context, default_model, diffusion, finish, open};

const WORDS: [&str; 12] = [
    "Once upon a time",
    " there was",
    " a king,",
    " {{{{brave}}",
    " the fox\n",
    "é",
    " happily ever after.",
    " 7",
    "\"No\"",
    " ☃",
    " <|endoftext|>",
    " ",
];

#[test]
fn infilling_keeps_given_tokens_and_positions() {
    let model = open(&default_model());
    let tokenizer = model.tokenizer().unwrap();
    let mask = model.config().mask_token_id;
    let special = TokenizeOptions { parse_special: true, ..TokenizeOptions::default() };
    let mut context = context(&model, 1);
    let eos = model.config().eos_token_id;
    let mut with_eos = 0;
    let mut random = Random(4);
    for case in 0..60 {
        // Pieces of text and holes in turn, sometimes with nothing between two holes.
        let (mut text, mut expected, mut piece) = (String::new(), vec![], String::new());
        // The space before a hole belongs to it.
        let close = |piece: &mut String, hole: bool, expected: &mut Vec<Option<u32>>| {
            let literal = std::mem::take(piece).replace("{{{{", "{{");
            let literal = if hole { literal.strip_suffix(' ').unwrap_or(&literal) } else { &literal };
            expected.extend(tokenizer.encode_with(literal, &special).unwrap().into_iter().map(Some));
        };
        for _ in 0..2 + random.below(7) {
            if random.below(2) == 0 {
                close(&mut piece, true, &mut expected);
                let count = 1 + random.below(9);
                expected.extend(std::iter::repeat_n(None, count));
                text.push_str(&format!("{{{{mask {count}}}}}"));
            } else {
                let word = WORDS[random.below(WORDS.len())];
                piece.push_str(word);
                text.push_str(word);
            }
        }
        close(&mut piece, false, &mut expected);
        let (prompt, length) = Template::parse(&text).unwrap().prompt_with(tokenizer, &special).unwrap();
        assert_eq!(length, expected.len(), "{text}");
        let order = match case % 4 {
            0 => Order::Random,
            1 => Order::LeftToRight,
            2 => Order::Strided { stride: 1 + random.below(length), shuffle: true },
            _ => Order::Blocks { size: 1 + random.below(length) },
        };
        let adaptive = Adaptive {
            confidence: Confidence::Probability,
            threshold: 0.5,
            window: 4,
            ..Adaptive::default()
        };
        let adaptive = (case % 5 == 0).then_some(adaptive);
        let alpha_0 = if adaptive.is_some() { 1.0 } else { [1.0, 0.5, 0.0][random.below(3)] };
        let params = GenerateParams {
            length,
            order,
            adaptive,
            alpha_0,
            steps: 1 + random.below(12),
            seed: case,
            ignore_eos: true,
            ..diffusion()
        };
        context.begin(std::slice::from_ref(&prompt), &params).unwrap();
        finish(&mut context);
        let tokens = context.tokens(0).unwrap();
        assert_eq!(tokens.len(), length);
        assert!(!tokens.contains(&mask));
        for (position, (token, expected)) in tokens.iter().zip(&expected).enumerate() {
            assert!(expected.is_none_or(|expected| expected == *token), "{text}: position {position}");
        }
        // EOS tokens, here those of the template, are not shown, and end nothing.
        let shown: Vec<u32> = tokens.iter().copied().filter(|&token| Some(token) != eos).collect();
        assert_eq!(context.text(0).unwrap(), tokenizer.decode(&shown).unwrap(), "{text}");
        with_eos += usize::from(shown.len() < length);
    }
    assert!(with_eos > 5, "texts with an EOS token: {with_eos}");
}
