//! The text of each step: what has become final, whatever the decoder.

use esolm::{Config, Context, ContextParams, Error, GenerateParams, Model, Prompt, StopReason, Variant};

use crate::reference::{LENGTH, MASK, Network, Random, config};
use crate::runs::{context, diffusion, params};
use crate::stopping::tokenizer;

/// Byte-level BPE's characters: a byte that is a printable Latin-1 character is that one, the others are U+0100 and on.
fn byte_character(byte: u8) -> char {
    let as_is = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let others = (0..byte).filter(|&byte| !as_is(byte)).count() as u32;
    if as_is(byte) { byte.into() } else { char::from_u32(0x100 + others).unwrap() }
}

/// Parts of characters of two to four bytes, and some ASCII.
fn bytes_of(id: u32) -> Vec<u8> {
    let text = "aé€🐙 Ж".as_bytes();
    let (start, len) = (id as usize % text.len(), 1 + id as usize / text.len() % 3);
    text.iter().cycle().skip(start).take(len).copied().collect()
}

/// See [`decoders`].
type Decoder = (&'static str, fn(u32) -> String, bool);

/// The decoders of known tokenizers, each with tokens that it has something to do with. With `false` it has to look at the
/// whole text.
fn decoders() -> Vec<Decoder> {
    let level = |id: u32| {
        let text: String = bytes_of(id).into_iter().map(byte_character).collect();
        if id < 24 { text } else { format!("{text}{}", id / 24) }
    };
    let fallback = |id: u32| match id {
        // Parts of characters of two to four bytes.
        0..9 => format!("<0x{:02X}>", b"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x90\xBC"[id as usize]),
        9..60 => format!("<0x{:02X}>", 0x40 + id),
        60..80 => format!("▁w{id}"),
        80..90 => format!("▁{}", "▁".repeat(id as usize - 80)),
        _ => format!("x{id}▁"),
    };
    let meta = |id: u32| match id % 4 {
        0 => format!("▁w{id}"),
        1 => format!("▁▁{id}▁é"),
        2 => format!("🐟{id}"),
        _ => format!("{id}▁"),
    };
    let piece = |id: u32| match id % 5 {
        0 => format!("##w{id}"),
        1 => format!(".{id}"),
        2 => format!("n't{id} ."),
        3 => format!("é{id}"),
        _ => format!("' {id}"),
    };
    let ended = |id: u32| match id % 3 {
        0 => format!("w{id}</w>"),
        1 => format!("é{id}"),
        _ => format!("{id}x</w>"),
    };
    let inside = |id: u32| format!("w{id}</w>{id}");
    let all: [Decoder; 13] = [
        ("null", piece, true),
        (
            r#"{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}"#,
            level,
            true,
        ),
        (
            r#"{"type": "Sequence", "decoders": [{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}, {"type": "Fuse"}]}"#,
            level,
            true,
        ),
        (r#"{"type": "Fuse"}"#, meta, true),
        (r#"{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}"#, meta, true),
        (r#"{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never"}"#, meta, true),
        (r###"{"type": "WordPiece", "prefix": "##", "cleanup": true}"###, piece, true),
        (r###"{"type": "WordPiece", "prefix": "##", "cleanup": false}"###, piece, true),
        (
            r#"{"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}"#,
            fallback,
            true,
        ),
        (
            r#"{"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 3, "stop": 0}]}"#,
            meta,
            true,
        ),
        (r#"{"type": "BPEDecoder", "suffix": "</w>"}"#, ended, true),
        (r#"{"type": "BPEDecoder", "suffix": "</w>"}"#, inside, false),
        (
            r#"{"type": "Sequence", "decoders": [{"type": "Fuse"},
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}]}"#,
            meta,
            false,
        ),
    ];
    all.to_vec()
}

fn model(decoder: &str, text: fn(u32) -> String) -> Model {
    let network = Network::random(Config { variant: Variant::EsoB, ..config(1, 4) }, 1);
    network.model_with_tokenizer(&tokenizer(decoder, text))
}

/// Writes random tokens, and checks after each step that its text goes on from the one before. Returns the texts.
fn write(context: &mut Context, random: &mut Random) -> Vec<String> {
    let count = context.sequences();
    let mut joined: Vec<String> = (0..count).map(|number| context.text(number).unwrap()).collect();
    while let Some(step) = context.step_with_tokens(|_, _| Ok(random.below(MASK as usize) as u32)).unwrap() {
        for (number, text) in joined.iter_mut().enumerate() {
            text.push_str(step.text(number));
        }
        assert_eq!(step.text(count), "");
        for (number, text) in joined.iter().enumerate() {
            assert_eq!(context.text(number).unwrap(), *text);
        }
    }
    joined
}

#[test]
fn texts_of_steps_join_to_the_text_with_every_decoder() {
    let mut random = Random(4);
    for (decoder, text, streams) in decoders() {
        let model = model(decoder, text);
        let tokenizer = model.tokenizer().unwrap();
        let mut context = context(&model, 2);
        let params = GenerateParams { step_text: true, steps: 12, ..diffusion() };
        if !streams {
            let refused = context.begin(&[Prompt::default()], &params);
            assert!(matches!(refused, Err(Error::Unsupported(_))), "{decoder}: {refused:?}");
            // Its text is that of its tokens all the same.
            context.begin(&[Prompt::default()], &GenerateParams { step_text: false, ..params }).unwrap();
            while context.step().unwrap().is_some() {}
            let whole = tokenizer.decode(context.tokens(0).unwrap()).unwrap();
            assert_eq!(context.text(0).unwrap(), whole, "{decoder}");
            continue;
        }
        for case in 0..12 {
            let prompts =
                [Prompt::prefix(&random.text(case)).unwrap(), Prompt { known: vec![(30, 7), (0, 9)] }];
            let alpha_0 = [1.0, 0.5, 0.0][case % 3];
            context.begin(&prompts, &GenerateParams { alpha_0, seed: case as u64, ..params }).unwrap();
            let joined = write(&mut context, &mut random);
            for (number, text) in joined.iter().enumerate() {
                let tokens = context.tokens(number).unwrap();
                let whole = tokenizer.decode(tokens).unwrap();
                // Of a run of bytes that is not UTF-8 as a whole, byte fallback makes as many U+FFFD as it has bytes.
                if !decoder.contains("ByteFallback") || !whole.contains('\u{fffd}') {
                    assert_eq!(*text, whole, "{decoder}");
                }
                if decoder.contains("ByteLevel") {
                    let bytes = tokens.iter().flat_map(|&token| tokenizer.token_bytes(token).unwrap());
                    assert_eq!(String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()), *text);
                }
                assert_eq!(context.stop_reason(number).unwrap(), Some(StopReason::Length));
            }
        }
    }
}

#[test]
fn bytes_of_fallback_tokens_join_to_characters() {
    let (decoder, text, _) = decoders()[8];
    let model = model(decoder, text);
    let tokenizer = model.tokenizer().unwrap();
    assert_eq!(tokenizer.token_bytes(0).unwrap(), [0xC3]);
    assert_eq!(tokenizer.token_bytes(60).unwrap(), b" w60");
    let mut context = context(&model, 1);
    let params = GenerateParams { step_text: true, alpha_0: 0.0, max_tokens: 3, ..diffusion() };
    context.begin(&[Prompt::prefix(&[60]).unwrap()], &params).unwrap();
    assert_eq!(context.text(0).unwrap(), "w60");
    // The two bytes of a character, and one that begins another.
    let mut texts = vec![];
    let mut tokens = [0, 1, 2].into_iter();
    while let Some(step) = context.step_with_tokens(|_, _| Ok(tokens.next().unwrap())).unwrap() {
        texts.push(step.text(0).to_owned());
    }
    assert_eq!(texts, ["", "é", "\u{fffd}"]);
}

#[test]
fn beginning_of_a_stop_string_is_held_back() {
    let words = |id: u32| format!("{}{}", ["a", "b", "c"][id as usize % 3], id / 3);
    let model = model(r#"{"type": "Fuse"}"#, words);
    let mut context = context(&model, 1);
    let write = |context: &mut Context, tokens: &[u32]| -> (Vec<String>, Option<StopReason>) {
        let stop_strings = &["b0c0a1", "c0c0"];
        let params = GenerateParams {
            step_text: true,
            stop_strings,
            alpha_0: 0.0,
            length: tokens.len(),
            ..diffusion()
        };
        context.begin(&[Prompt::default()], &params).unwrap();
        let (mut texts, mut next) = (vec![], tokens.iter().copied());
        while let Some(step) = context.step_with_tokens(|_, _| Ok(next.next().unwrap())).unwrap() {
            texts.push(step.text(0).to_owned());
        }
        (texts, context.stop_reason(0).unwrap())
    };
    let (texts, reason) = write(&mut context, &[0, 1, 2, 3, 4, 5]);
    assert_eq!(
        (texts, reason),
        (["a0", "", "", ""].map(str::to_owned).to_vec(), Some(StopReason::StopString))
    );
    assert_eq!(context.text(0).unwrap(), "a0");
    let (texts, reason) = write(&mut context, &[0, 1, 2, 2, 3]);
    assert_eq!(
        (texts, reason),
        (["a0", "", "", "b0"].map(str::to_owned).to_vec(), Some(StopReason::StopString))
    );
    // What does not become one is given out, at the end as well.
    let (texts, reason) = write(&mut context, &[0, 1, 2, 4, 1, 2]);
    let expected = ["a0", "", "", "b0c0b1", "", "b0c0"].map(str::to_owned).to_vec();
    assert_eq!((texts, reason), (expected, Some(StopReason::Length)));
}

#[test]
fn texts_are_there_only_if_they_are_wanted() {
    let (decoder, text, _) = decoders()[1];
    let model = model(decoder, text);
    let mut context = context(&model, 2);
    let prompts = [Prompt::default(), Prompt::prefix(&(0..LENGTH as u32).collect::<Vec<_>>()).unwrap()];
    context.begin(&prompts, &diffusion()).unwrap();
    while let Some(step) = context.step().unwrap() {
        assert_eq!((step.sequences(), step.text(0)), (2, ""));
        assert_eq!(step.stop_reason(1), Some(StopReason::Length));
    }
    let plain = Network::small(Variant::EsoB, 1).model();
    let mut without = self::context(&plain, 1);
    let wanted = GenerateParams { step_text: true, ..diffusion() };
    assert!(matches!(without.begin(&prompts[..1], &wanted), Err(Error::Tokenizer { .. })));
}

#[test]
fn text_longer_than_the_room_for_it_is_as_any_other() {
    /// 1.1 MB of text, where there is room for 1 MiB.
    const TOKENS: usize = 4700;
    let long = |id: u32| {
        let text = "aé€🐙 Ж".as_bytes();
        // Token 0 is the unknown one, whose name may not be long.
        let bytes = text.iter().cycle().skip(id as usize % text.len()).take(if id == 0 { 1 } else { 235 });
        format!("{}{id}", bytes.map(|&byte| byte_character(byte)).collect::<String>())
    };
    let config = Config { context_length: TOKENS + 20, ..config(1, 4) };
    let decoder = decoders()[1].0;
    let model = Network::random(config, 1).model_with_tokenizer(&tokenizer(decoder, long));
    let length = TOKENS + 20;
    let mut context = Context::new(&model, &ContextParams { length, ..params(1) }).unwrap();
    let mut random = Random(5);
    let tokens: Vec<u32> = (0..TOKENS).map(|_| random.below(MASK as usize) as u32).collect();
    let wanted = GenerateParams { step_text: true, alpha_0: 0.0, length: TOKENS + 4, ..diffusion() };
    let whole = |context: &Context| {
        let bytes = context.tokens(0).unwrap().iter().map(|&token| bytes_of_token(&model, token));
        String::from_utf8_lossy(&bytes.collect::<Vec<_>>().concat()).into_owned()
    };
    context.begin(&[Prompt::prefix(&tokens).unwrap()], &wanted).unwrap();
    let joined = write(&mut context, &mut random);
    assert_eq!(joined, [whole(&context)]);
    // Here the first token makes all of it new.
    let known = (1..).zip(tokens.iter().copied()).collect();
    context.begin(&[Prompt { known }], &wanted).unwrap();
    let joined = write(&mut context, &mut random);
    assert_eq!(joined, [whole(&context)]);
}

fn bytes_of_token(model: &Model, token: u32) -> Vec<u8> {
    model.tokenizer().unwrap().token_bytes(token).unwrap()
}
