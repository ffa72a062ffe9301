//! Model files made to break the loader and the network: an error or a text every time. Here a crash or an abort of
//! ggml would end the test program.

use std::path::Path;

use esolm::convert::Options;
use esolm::gguf::{Array, Gguf, TensorType, Value, Writer};
use esolm::{
    Config, Context, ContextParams, Error, GenerateParams, LoadMode, LoadOptions, Model, Prompt, Result,
};

use crate::golden::{converted, path};
use crate::reference::Random;
use crate::runs::{cpu, diffusion};

fn good() -> Vec<u8> {
    converted(&path("tiny-B/model.safetensors"), &Options::default())
}

/// Opens the bytes and writes a short text with them.
fn run(bytes: &[u8]) -> Result<()> {
    let model = Model::from_bytes(bytes, &cpu())?;
    let params = ContextParams { length: 8, threads: 1, ..ContextParams::default() };
    let mut context = Context::new(&model, &params)?;
    let params = GenerateParams { steps: 3, alpha_0: 0.5, ..diffusion() };
    context.begin(&[Prompt::default()], &params)?;
    while context.step()?.is_some() {}
    let _ = context.text(0);
    Ok(())
}

/// The file with one metadata value changed (`None` leaves the key out), tensors as they are.
fn with_key(bytes: &[u8], key: &str, value: Option<Value>) -> Vec<u8> {
    rewrite(bytes, |name| (name == key).then(|| value.clone()), |_, ty, dims| Some((ty, dims.to_vec())))
}

/// The file with some metadata values and tensor descriptions changed or left out.
fn rewrite(
    bytes: &[u8],
    change: impl Fn(&str) -> Option<Option<Value>>,
    tensor: impl Fn(&str, TensorType, &[usize]) -> Option<(TensorType, Vec<usize>)>,
) -> Vec<u8> {
    let gguf = Gguf::parse(bytes, "good").unwrap();
    let mut writer = Writer::new();
    for (key, value) in gguf.metadata() {
        match change(key) {
            None => writer.set(key, value.clone()),
            Some(Some(other)) => writer.set(key, other),
            Some(None) => {}
        }
    }
    let mut sizes = std::collections::HashMap::new();
    for t in gguf.tensors() {
        if let Some((ty, dims)) = tensor(&t.name, t.ty, &t.dims) {
            writer.declare(&t.name, ty, &dims).unwrap();
            sizes.insert(t.name.clone(), ty.tensor_bytes(&dims).unwrap());
        }
    }
    let mut out = Vec::new();
    let fill = |name: &str, data: &mut Vec<u8>| {
        data.extend_from_slice(&bytes[gguf.tensor(name).unwrap().range.clone()]);
        data.resize(sizes[name], 0);
        Ok(())
    };
    writer.write(&mut out, fill).unwrap();
    out
}

#[test]
fn undamaged_file_runs() {
    run(&good()).unwrap();
}

#[test]
fn invalid_hyperparameters_are_named() {
    let bytes = good();
    let keys: Vec<String> =
        Gguf::parse(&bytes, "good").unwrap().metadata().iter().map(|(k, _)| k.clone()).collect();
    for key in keys.iter().filter(|k| k.starts_with("esolm.")) {
        for value in [
            Some(Value::U32(0)),
            Some(Value::U32(u32::MAX)),
            Some(Value::U64(u64::MAX)),
            Some(Value::I32(-1)),
            Some(Value::F32(f32::NAN)),
            Some(Value::F32(f32::INFINITY)),
            Some(Value::F32(-1.0)),
            Some(Value::Str("x".into())),
            Some(Value::Array(Array::new(&[Value::U32(1)]).unwrap())),
            None,
        ] {
            let changed = with_key(&bytes, key, value.clone());
            match run(&changed) {
                Err(Error::BadFile { what, .. }) => assert!(!what.is_empty()),
                Err(other) => panic!("{key} = {value:?}: {other:?}"),
                // The training alpha_0 may be missing, and token 0 may be the mask.
                Ok(()) => assert!(
                    (key == "esolm.train.alpha_0" && value.is_none())
                        || (key == "esolm.mask_token_id" && value == Some(Value::U32(0))),
                    "{key} = {value:?} was accepted"
                ),
            }
        }
    }
    for (key, value) in [
        ("esolm.attention.head_count", 3),
        ("esolm.attention.head_count", 64),
        ("esolm.block_count", 2),
        ("esolm.block_count", 1024),
        ("esolm.vocab_size", 98),
        ("esolm.embedding_length", 32),
        ("esolm.feed_forward_length", 128),
        ("esolm.rope.dimension_count", 8),
    ] {
        let changed = with_key(&bytes, key, Some(Value::U32(value)));
        assert!(matches!(run(&changed), Err(Error::BadFile { .. })), "{key} = {value}");
    }
    let other = with_key(&bytes, "general.architecture", Some(Value::Str("llama".into())));
    assert!(run(&other).unwrap_err().to_string().contains("'llama'"));
    // The same weights serve any variant; an unknown one is named.
    for variant in ["b", "a", "mdlm", "ar"] {
        run(&with_key(&bytes, "esolm.variant", Some(Value::Str(variant.into())))).unwrap();
    }
    let other = with_key(&bytes, "esolm.variant", Some(Value::Str("c".into())));
    assert!(run(&other).unwrap_err().to_string().contains("'c'"));
}

#[test]
fn sizes_beyond_their_limits_are_said_as_they_are() {
    let good = Model::from_bytes(&good(), &cpu()).unwrap().config().clone();
    good.validate().unwrap();
    let places: [fn(&mut Config) -> &mut usize; 6] = [
        |config| &mut config.context_length,
        |config| &mut config.embedding_length,
        |config| &mut config.block_count,
        |config| &mut config.feed_forward_length,
        |config| &mut config.head_count,
        |config| &mut config.vocab_size,
    ];
    // The second one is 64 in 32 bits.
    for (place, size) in
        places.iter().flat_map(|place| [0, (1 << 32) + 64, usize::MAX].map(|size| (place, size)))
    {
        let mut config = good.clone();
        *place(&mut config) = size;
        let said = config.validate().unwrap_err();
        assert!(said.contains(&format!(" is {size}, not in 1..=")), "{said}");
        // A file that is written all the same.
        if config.head_count > 0 {
            let (mut writer, mut bytes) = (Writer::new(), Vec::new());
            config.write(&mut writer).unwrap();
            writer.write(&mut bytes, |_, _| Ok(())).unwrap();
            let said = Config::from_gguf(&Gguf::parse(&bytes, "it").unwrap()).unwrap_err().to_string();
            assert!(said.contains(&format!(" is {size}, not in 1..=")), "{said}");
        }
    }
}

#[test]
fn invalid_tensors_are_named() {
    let bytes = good();
    let names: Vec<String> =
        Gguf::parse(&bytes, "good").unwrap().tensors().iter().map(|t| t.name.clone()).collect();
    for name in &names {
        let without = rewrite(&bytes, |_| None, |n, ty, dims| (n != name).then(|| (ty, dims.to_vec())));
        assert!(matches!(run(&without), Err(Error::BadFile { .. })), "{name} left out");
        let longer = rewrite(
            &bytes,
            |_| None,
            |n, ty, dims| {
                let mut dims = dims.to_vec();
                if n == name {
                    dims[0] += 32;
                }
                Some((ty, dims))
            },
        );
        let error = run(&longer).unwrap_err().to_string();
        assert!(error.contains(name.as_str()), "{error}");
        let half = rewrite(
            &bytes,
            |_| None,
            |n, ty, dims| Some((if n == name { TensorType::F16 } else { ty }, dims.to_vec())),
        );
        // A matrix may be f16 (with the wrong bytes here: any numbers at all); a vector may not.
        match run(&half) {
            Err(Error::BadFile { what, .. }) => assert!(what.contains(name.as_str()), "{what}"),
            Ok(()) | Err(Error::NotFinite(_)) => {
                assert!(name.contains("weight"), "{name} as f16 was accepted")
            }
            Err(other) => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn random_damage_is_an_error_or_a_text() {
    let bytes = good();
    let header = Gguf::parse(&bytes, "good").unwrap().tensors()[0].range.start;
    let mut random = Random(12345);
    for case in 0..1500 {
        let mut bad = bytes.clone();
        for _ in 0..1 + case % 4 {
            // Mostly the header, where a byte can do most harm.
            let at = if case % 5 == 0 { random.below(bad.len()) } else { random.below(header) };
            bad[at] = random.below(256) as u8;
        }
        if case % 7 == 0 {
            let len = random.below(bad.len());
            bad.truncate(len);
        }
        let _ = run(&bad);
    }
}

#[test]
fn files_that_are_no_model_are_refused() {
    let open = |path: &Path, mode| Model::open(path, &LoadOptions { mode, ..cpu() });
    for mode in [LoadMode::Map, LoadMode::Copy] {
        assert!(matches!(open(Path::new("no/such/file"), mode), Err(Error::Io { .. })));
        let dir = tempfile::tempdir().unwrap();
        assert!(open(dir.path(), mode).is_err());
        let empty = dir.path().join("empty.gguf");
        std::fs::write(&empty, b"").unwrap();
        assert!(open(&empty, mode).unwrap_err().to_string().contains("empty"));
        let text = dir.path().join("text.gguf");
        std::fs::write(&text, b"This is no model, it is prose.").unwrap();
        assert!(open(&text, mode).unwrap_err().to_string().contains("not a GGUF file"));
    }
    let options = LoadOptions { device: "cuda:7".into(), ..LoadOptions::default() };
    let error = Model::from_bytes(&good(), &options).unwrap_err();
    assert!(
        matches!(&error, Error::Device(what) if what.contains("cuda:7") && what.contains("cpu")),
        "{error}"
    );
}

/// A model file with a tokenizer of all tokens but the mask.
fn with_tokenizer() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokenizer.json");
    std::fs::write(&file, tokenizer_json(96)).unwrap();
    converted(&path("tiny-B/model.safetensors"), &Options { tokenizer: Some(file), ..Options::default() })
}

fn tokenizer_json(tokens: usize) -> String {
    let vocab: Vec<String> = (0..tokens).map(|id| format!("\"w{id}\": {id}")).collect();
    let model =
        format!("{{\"type\": \"WordLevel\", \"vocab\": {{{}}}, \"unk_token\": \"w0\"}}", vocab.join(", "));
    format!("{{\"version\": \"1.0\", \"added_tokens\": [], \"model\": {model}}}")
}

#[test]
fn unusable_tokenizer_is_a_bad_file() {
    let bytes = with_tokenizer();
    let error = |value: Option<Value>| {
        let changed = with_key(&bytes, "tokenizer.huggingface.json", value);
        let model = Model::from_bytes(&changed, &cpu()).unwrap();
        let [first, again] = [(); 2].map(|()| model.tokenizer().unwrap_err());
        assert_eq!(first.to_string(), again.to_string());
        first
    };
    let missing = error(None);
    assert!(matches!(&missing, Error::Tokenizer { .. }), "{missing:?}");
    assert_eq!(missing.to_string(), "(memory) has no tokenizer");

    let damaged = error(Some(Value::Str("{".into())));
    assert!(matches!(&damaged, Error::BadFile { .. }), "{damaged:?}");
    let cause = std::error::Error::source(&damaged).unwrap();
    assert_eq!(damaged.to_string(), format!("(memory): the tokenizer is damaged: {cause}"));

    for value in [Value::Str(tokenizer_json(98)), Value::U32(7)] {
        let unusable = error(Some(value));
        assert!(matches!(&unusable, Error::BadFile { what, .. } if what.contains("token")), "{unusable:?}");
        assert!(std::error::Error::source(&unusable).is_none(), "{unusable:?}");
    }
}

#[test]
fn unknown_token_is_a_tokenizer_error() {
    let model = Model::from_bytes(&with_tokenizer(), &cpu()).unwrap();
    let error = model.tokenizer().unwrap().decode(&[97]).unwrap_err();
    assert!(matches!(&error, Error::Tokenizer { .. }), "{error:?}");
    assert_eq!(error.to_string(), "the tokenizer has no token 97");
    assert_eq!(model.tokenizer().unwrap().token_piece(97).unwrap(), None);
    assert!(model.tokenizer().unwrap().token_piece(1).unwrap().is_some());
}
