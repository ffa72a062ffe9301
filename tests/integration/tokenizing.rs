//! Text to tokens and back: special tokens in users' texts, texts that go on from others, the mask.

use esolm::convert::Options;
use esolm::{
    Architecture, Config, Error, MASK as MASK_TEXT, Model, Template, TokenizeOptions, Tokenizer, Variant,
};
use serde_json::{Map, Value, json};

use crate::golden;
use crate::reference::{MASK, Network, config};

const SPECIAL: TokenizeOptions = TokenizeOptions { parse_special: true, continues: false };
const CONTINUES: TokenizeOptions = TokenizeOptions { parse_special: false, continues: true };

/// The end-of-text token.
const EOS: u32 = 1;

/// A vocabulary of these words from number 0 on, filled up to the model's.
fn vocabulary(words: &[&str]) -> Map<String, Value> {
    let name =
        |id: u32| words.get(id as usize).map_or_else(|| format!("filler{id}"), |&word| word.to_owned());
    let all: Map<String, Value> = (0..MASK).map(|id| (name(id), id.into())).collect();
    assert_eq!(all.len(), MASK as usize);
    all
}

fn added(id: u32, content: &str, special: bool, lstrip: bool) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": lstrip, "rstrip": false,
           "normalized": false, "special": special})
}

/// BPE without merges: each character is a token.
fn characters(words: &[&str], parts: &Value, added: &[Value]) -> Model {
    let mut file = json!({"version": "1.0", "added_tokens": added,
        "model": {"type": "BPE", "vocab": vocabulary(words), "merges": [], "unk_token": words[0]}});
    file.as_object_mut().unwrap().extend(parts.as_object().unwrap().clone());
    model(&file)
}

fn model(file: &Value) -> Model {
    let config =
        Config { variant: Variant::EsoB, eos_token_id: Some(EOS), bos_token_id: Some(EOS), ..config(1, 4) };
    Network::random(config, 1).model_with_tokenizer(&file.to_string())
}

/// The names of tokens.
fn names(tokenizer: &Tokenizer, tokens: &[u32]) -> Vec<String> {
    let name = |&token: &u32| String::from_utf8(tokenizer.token_bytes(token).unwrap()).unwrap();
    tokens.iter().map(name).collect()
}

const LETTERS: [&str; 26] = [
    "?", "<eos>", "a", "b", "c", "<", ">", "e", "o", "s", "[", "]", "P", "A", "D", "M", "S", "K", "▁", "_",
    "U", "N", "é", "Ġ", "|", "-",
];

#[test]
fn special_tokens_in_texts_are_characters_unless_asked_for() {
    let file = [added(EOS, "<eos>", true, false), added(MASK, "[PAD]", true, false)];
    let model = characters(&LETTERS, &json!({"decoder": {"type": "Fuse"}}), &file);
    let tokenizer = model.tokenizer().unwrap();
    let text = "a<eos>[PAD]b[MASK]<eos";
    let plain = tokenizer.encode(text).unwrap();
    assert_eq!(names(tokenizer, &plain).concat(), text);
    assert_eq!(plain.len(), text.len(), "{:?}", names(tokenizer, &plain));
    // With the option they are tokens, the mask by the tokenizer's name and by ours.
    let special = tokenizer.encode_with(text, &SPECIAL).unwrap();
    assert_eq!(names(tokenizer, &special), ["a", "<eos>", MASK_TEXT, "b", MASK_TEXT, "<", "e", "o", "s"]);
    assert_eq!((special[1], special[2], special[4]), (EOS, MASK, MASK));
    let shown = tokenizer.decode(&special).unwrap();
    assert_eq!(shown, "a<eos>[MASK]b[MASK]<eos");
    assert_eq!(tokenizer.encode_with(&shown, &SPECIAL).unwrap(), special);
    // What is unknown is no special token that the text has named.
    assert_eq!(tokenizer.encode("aéz<eos>").unwrap()[..3], [2, 22, 0]);
    // A text ends with a token that is a character, too: that one is meant in both ways.
    let letter = characters(&["?", "a", "b"], &json!({}), &[]);
    let tokenizer = letter.tokenizer().unwrap();
    assert_eq!(tokenizer.encode("ba").unwrap(), [2, EOS]);
    assert_eq!(tokenizer.encode_with("ba", &SPECIAL).unwrap(), [2, EOS]);
}

/// The mask is what its name here means, also where the tokenizer has another token of that name.
#[test]
fn name_of_the_mask_is_the_mask_whatever_else_has_it() {
    let words = ["?", "<eos>", "a", "[MASK]"];
    let pad = added(MASK, "[PAD]", true, false);
    for more in [&[][..], &[added(3, "[MASK]", true, false)]] {
        let model = characters(
            &words,
            &json!({"decoder": {"type": "Fuse"}}),
            &[std::slice::from_ref(&pad), more].concat(),
        );
        let tokenizer = model.tokenizer().unwrap();
        assert_eq!(tokenizer.encode_with("a[MASK]a[PAD]", &SPECIAL).unwrap(), [2, MASK, 2, MASK], "{more:?}");
    }
    // An ordinary word, which the tokenizer would cut in three.
    let mut vocabulary = vocabulary(&words[..3]);
    vocabulary.insert("[MASK]".into(), MASK.into());
    let model =
        model(&json!({"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "?"}}));
    let tokenizer = model.tokenizer().unwrap();
    assert_eq!(tokenizer.encode_with("a [MASK] a", &SPECIAL).unwrap(), [2, MASK, 2]);
}

#[test]
fn every_token_that_ends_a_text_ends_what_is_known_of_it_and_is_hidden() {
    let config = Config {
        architecture: Architecture { kv_head_count: Some(2), ..Architecture::QWEN2 },
        eos_token_id: Some(EOS),
        other_eos_token_ids: vec![4, 5],
        ..Network::qwen_config(Variant::WeDlm)
    };
    let file = json!({"version": "1.0", "added_tokens": [], "decoder": {"type": "Fuse"},
        "model": {"type": "BPE", "vocab": vocabulary(&LETTERS), "merges": [], "unk_token": "?"}});
    let model = Network::random(config, 1).model_with_tokenizer(&file.to_string());
    assert_eq!(model.config().other_eos_token_ids, [4, 5]);
    let tokenizer = model.tokenizer().unwrap();
    for (tokens, text) in [
        (&[2, 3, EOS, 2][..], "ab"),
        (&[2, 3, 4, 2], "ab"),
        (&[2, 5, 3], "a"),
        // The first one does not end it, and is not shown.
        (&[4, 2, 3], "ab"),
        (&[2, MASK, 3], "a"),
        (&[2, 3], "ab"),
    ] {
        assert_eq!(tokenizer.decode_prefix(tokens).unwrap(), text, "{tokens:?}");
    }
}

#[test]
fn special_token_that_is_a_word_of_the_vocabulary_is_cut() {
    let words = ["[UNK]", "<eos>", "a", "[SEP]", "[", "SEP]", "_"];
    let file = |added: &[Value]| {
        model(&json!({"version": "1.0", "added_tokens": added, "pre_tokenizer": {"type": "WhitespaceSplit"},
            "model": {"type": "WordLevel", "vocab": vocabulary(&words), "unk_token": "[UNK]"}}))
    };
    // The end-of-text token takes the spaces before it along, and the file does not say that it is special.
    let marked = [
        added(0, "[UNK]", true, false),
        added(EOS, "<eos>", false, true),
        added(3, "[SEP]", true, false),
        added(6, "_", true, false),
    ];
    let model = file(&marked);
    let tokenizer = model.tokenizer().unwrap();
    assert_eq!(tokenizer.encode_with("a [SEP]  <eos> [UNK]", &SPECIAL).unwrap(), [2, 3, EOS, 0]);
    assert_eq!(tokenizer.encode("a [SEP] a").unwrap(), [2, 4, 5, 2]);
    assert_eq!(tokenizer.encode("[SEP] [SEP]  <eos> a").unwrap(), [4, 5, 4, 5, 0, 0, 2]);
    assert_eq!(tokenizer.encode("[UNK] a z").unwrap(), [0, 2, 0]);
    // A single character has no parts.
    let refused = tokenizer.encode("a _");
    assert!(matches!(&refused, Err(Error::Tokenizer { what, .. }) if what.contains("'_'")), "{refused:?}");
    assert_eq!(tokenizer.encode_with("a _", &SPECIAL).unwrap(), [2, 6]);
}

#[test]
fn text_that_goes_on_from_another_gets_no_space() {
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let metaspace = |scheme: &str| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme});
    let sequence = |kind: &str, parts: &[Value]| json!({"type": "Sequence", kind: parts});
    let level = |prefix: bool| json!({"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": true});
    for (parts, space, prefix) in [
        (json!({"pre_tokenizer": metaspace("always")}), "▁", true),
        (json!({"pre_tokenizer": metaspace("first")}), "▁", true),
        (json!({"pre_tokenizer": metaspace("never")}), "▁", false),
        (json!({"pre_tokenizer": sequence("pretokenizers", &[metaspace("always")])}), "▁", true),
        (
            json!({"normalizer": sequence("normalizers", &[json!({"type": "Prepend", "prepend": "▁"}), replace])}),
            "▁",
            true,
        ),
        (json!({"pre_tokenizer": level(true)}), "Ġ", true),
        (json!({"pre_tokenizer": level(false)}), "Ġ", false),
    ] {
        let model = characters(&LETTERS, &parts, &[added(EOS, "<eos>", true, false)]);
        let tokenizer = model.tokenizer().unwrap();
        let pieces = |text: &str, options: &TokenizeOptions| {
            let tokens = tokenizer.encode_with(text, options).unwrap();
            tokens.iter().map(|&token| LETTERS[token as usize]).collect::<String>()
        };
        let first = if prefix { space } else { "" };
        let default = TokenizeOptions::default();
        assert_eq!(pieces("a b", &default), format!("{first}a{space}b"), "{parts}");
        assert_eq!(pieces("a b", &CONTINUES), format!("a{space}b"), "{parts}");
        assert_eq!(pieces(" a", &CONTINUES), format!("{space}a"), "{parts}");
        // A special token's name, cut or not, does not begin a text either.
        assert_eq!(pieces("a<eos>", &CONTINUES), "a<eos>", "{parts}");

        // The holes of a template: what follows one begins nothing, and the space before one is its own.
        let template = |text: &str, options: &TokenizeOptions| {
            let (prompt, length) = Template::parse(text).unwrap().prompt_with(tokenizer, options).unwrap();
            let mut all = vec!["*"; length];
            prompt.known.iter().for_each(|&(place, token)| all[place as usize] = LETTERS[token as usize]);
            all.concat()
        };
        assert_eq!(
            template("a{{mask 2}}b {{mask 1}} c", &default),
            format!("{first}a**b*{space}c"),
            "{parts}"
        );
        assert_eq!(
            template("a  {{mask 1}}{{mask 1}} ", &default),
            format!("{first}a{space}**{space}"),
            "{parts}"
        );
        assert_eq!(template(" {{mask 1}} {{mask 1}}b", &default), "**b", "{parts}");
        assert_eq!(template("a{{mask 1}}", &CONTINUES), "a*", "{parts}");
        assert_eq!(template("a<eos>{{mask 1}}", &SPECIAL).matches("<eos>").count(), 1, "{parts}");
    }
}

/// The mask stands where it stands: it is no beginning of a text, and takes no space.
#[test]
fn mask_is_shown_by_its_name() {
    let meta = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"});
    let pieces = json!({"type": "WordPiece", "prefix": "##", "cleanup": false});
    let words = ["[UNK]", "<eos>", "▁a", "b", "##c"];
    for (decoder, tokens, shown) in [
        (&meta, [2, MASK, MASK, 2, 3].as_slice(), "a[MASK][MASK] ab"),
        (&meta, &[MASK, 2], "[MASK] a"),
        (&meta, &[2], "a"),
        (&pieces, &[3, 4, MASK, 4, 3], "bc[MASK]c b"),
        (&Value::Null, &[3, MASK, 3], "b[MASK] b"),
    ] {
        let model = model(&json!({"version": "1.0", "added_tokens": [], "decoder": decoder,
            "model": {"type": "WordLevel", "vocab": vocabulary(&words), "unk_token": "[UNK]"}}));
        let tokenizer = model.tokenizer().unwrap();
        assert_eq!(tokenizer.decode(tokens).unwrap(), shown, "{decoder}");
        assert_eq!(tokenizer.token_bytes(MASK).unwrap(), MASK_TEXT.as_bytes());
        assert!(matches!(tokenizer.token_bytes(MASK + 1), Err(Error::Tokenizer { .. })));
        assert!(matches!(tokenizer.decode(&[MASK, MASK + 1]), Err(Error::Tokenizer { .. })));
        let bytes = |token: u32| String::from_utf8(tokenizer.token_bytes(token).unwrap()).unwrap();
        if decoder == &meta {
            assert_eq!((bytes(2), bytes(3)), (" a".into(), "b".into()));
        } else if decoder == &pieces {
            assert_eq!((bytes(3), bytes(4)), (" b".into(), "c".into()));
        }
    }
}

/// Models as WeDLM and Qwen have rows for more tokens than their tokenizers: texts are as the tokenizer library makes them.
#[test]
fn tokens_that_the_tokenizer_does_not_have_add_nothing() {
    let meta = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"});
    let ends = json!({"type": "BPEDecoder", "suffix": "</w>"});
    let whole = json!({"type": "Sequence", "decoders": [
        {"type": "Fuse"}, {"type": "Replace", "pattern": {"String": "w>▁"}, "content": "-"}]});
    for (decoder, streams, shown) in [
        (&Value::Null, true, "a</w> ▁b"),
        (&meta, true, "a</w> b"),
        (&ends, true, "a ▁b"),
        (&whole, false, "a</-b"),
    ] {
        let file = json!({"version": "1.0", "added_tokens": [], "decoder": decoder,
            "model": {"type": "WordLevel", "vocab": {"a</w>": 0, "▁b": 1}, "unk_token": "a</w>"}});
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokenizer.json");
        std::fs::write(&path, file.to_string()).unwrap();
        let options = Options { tokenizer: Some(path), ..Options::default() };
        let model = golden::model(&golden::path("wedlm-qwen3"), &options);
        let (tokenizer, tokens) = (model.tokenizer().unwrap(), model.config().vocab_size as u32);
        assert_eq!(tokenizer.can_stream(), streams, "{decoder}");
        for known in
            [[0, 1].as_slice(), &[9, 0, 1], &[0, 9, 10, 1], &[0, 1, 9], &[tokens - 2, 0, 1, tokens - 2]]
        {
            assert_eq!(tokenizer.decode(known).unwrap(), shown, "{decoder} {known:?}");
            assert_eq!(tokenizer.decode_prefix(known).unwrap(), shown, "{decoder} {known:?}");
        }
        let mask = model.config().mask_token_id;
        assert_eq!(tokenizer.decode(&[9, mask, 9, mask, 9]).unwrap(), MASK_TEXT.repeat(2), "{decoder}");
        assert_eq!(tokenizer.token_piece(9).unwrap(), None, "{decoder}");
        assert!(tokenizer.token_bytes(9).is_err() && tokenizer.decode(&[0, tokens]).is_err(), "{decoder}");
    }
}
