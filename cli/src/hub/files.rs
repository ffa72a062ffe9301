//! Which files of a repository make a model.

use esolm::gguf::TensorType;

/// What of a repository is used.
#[derive(Debug, Clone, PartialEq)]
pub enum Choice {
    /// A model file of this runtime, to be used as it is.
    Gguf(String),
    /// A checkpoint to convert: the small files first, the weights last, so that a folder with weights is complete.
    Checkpoint(Vec<String>),
}

impl Choice {
    /// The files to download.
    pub fn files(&self) -> &[String] {
        match self {
            Self::Gguf(file) => std::slice::from_ref(file),
            Self::Checkpoint(files) => files,
        }
    }
}

/// Files that go with the weights, if the repository has them.
const BESIDE: [&str; 8] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
];

/// Chooses among the names of a repository's files: a GGUF of this type; else a checkpoint; else the only GGUF.
///
/// # Errors
/// What is missing, or what there are several of.
pub fn choose(names: &[String], ty: TensorType) -> Result<Choice, String> {
    let has = |name: &str| names.iter().any(|n| n == name);
    let ggufs: Vec<&String> = ggufs(names).collect();
    if let Some(file) = of_type(ggufs.iter().copied(), ty) {
        return Ok(Choice::Gguf(file.clone()));
    }
    let weights = weights(names)?;
    match (weights.is_empty(), has("config.json"), ggufs.as_slice()) {
        (false, true, _) => {
            let beside = BESIDE.into_iter().filter(|name| has(name)).map(str::to_owned);
            Ok(Choice::Checkpoint(["config.json".into()].into_iter().chain(beside).chain(weights).collect()))
        }
        (_, _, &[file]) => Ok(Choice::Gguf(file.clone())),
        (_, _, [_, _, ..]) => {
            Err(format!("it has several model files, none of type {}: {}", ty.name(), list(&ggufs)))
        }
        (false, false, []) => Err("it has weights, but no config.json".into()),
        (true, _, []) => Err("it has no model.safetensors, no pytorch_model.bin and no GGUF file".into()),
    }
}

/// Among files that were downloaded before, which may be a part of the repository's, the GGUF that it has for this type: one whose
/// name says so, or the only one, if its name says no type.
pub fn gguf_of_type(names: &[String], ty: TensorType) -> Option<&String> {
    let mut ggufs = ggufs(names);
    match (of_type(ggufs.clone(), ty), ggufs.next(), ggufs.next()) {
        (Some(file), ..) => Some(file),
        (None, Some(only), None) if !says_type(only) => Some(only),
        _ => None,
    }
}

/// The GGUF files that are in no subfolder.
fn ggufs(names: &[String]) -> impl Iterator<Item = &String> + Clone {
    names.iter().filter(|name| !name.contains('/') && is_gguf(name))
}

pub fn is_gguf(name: &str) -> bool {
    stem(name).is_some()
}

/// The name in lower case, without the ending of GGUF files.
fn stem(name: &str) -> Option<String> {
    name.to_ascii_lowercase().strip_suffix(".gguf").map(str::to_owned)
}

/// The GGUF file whose name ends with that of the type; of llama.cpp's mixtures of a K type (`Q4_K_M`) the first of [`MIXTURES`].
fn of_type<'n>(names: impl Iterator<Item = &'n String> + Clone, ty: TensorType) -> Option<&'n String> {
    let mixtures = if ty.name().ends_with("_k") { &MIXTURES[..] } else { &MIXTURES[..1] };
    mixtures.iter().find_map(|mixture| {
        let ending = format!("{}{mixture}", ty.name());
        names.clone().find(|name| is_of(name, &ending))
    })
}

/// What the name of a K type may have behind it, in the order of preference.
const MIXTURES: [&str; 4] = ["", "_m", "_s", "_l"];

/// Whether the name of a GGUF file ends with that of a type. (`bf16` is no `f16`.)
fn is_of(name: &str, ty: &str) -> bool {
    let before = stem(name).and_then(|stem| stem.strip_suffix(ty).map(str::to_owned));
    before.is_some_and(|before| !before.ends_with(|c: char| c.is_ascii_alphanumeric()))
}

/// Whether the last part of the name of a GGUF file looks like that of a type, as `Q4_K_M`.
fn says_type(name: &str) -> bool {
    let stem = stem(name).unwrap_or_default();
    let last = stem.rsplit(['-', '.', ' ']).next().unwrap_or_default();
    ["iq", "q", "bf", "f"].iter().any(|kind| {
        last.strip_prefix(kind).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    })
}

/// The files of the weights: one, or all shards with their index; none if there are none.
fn weights(names: &[String]) -> Result<Vec<String>, String> {
    const INDEX: &str = "model.safetensors.index.json";
    let has = |name: &str| names.iter().any(|n| n == name);
    if has("model.safetensors") {
        return Ok(vec!["model.safetensors".into()]);
    }
    if has(INDEX) {
        // model-00001-of-00003.safetensors
        let mut shards: Vec<&String> = names.iter().filter(|name| shard_count(name).is_some()).collect();
        shards.sort();
        let count = shards.first().and_then(|name| shard_count(name));
        if count != Some(shards.len()) || shards.iter().any(|name| shard_count(name) != count) {
            return Err(format!("the shards of its weights are not complete: {}", list(&shards)));
        }
        return Ok([INDEX.to_owned()].into_iter().chain(shards.into_iter().cloned()).collect());
    }
    Ok(if has("pytorch_model.bin") { vec!["pytorch_model.bin".into()] } else { vec![] })
}

/// Of how many shards `name` is one.
fn shard_count(name: &str) -> Option<usize> {
    let (number, count) = name.strip_prefix("model-")?.strip_suffix(".safetensors")?.split_once("-of-")?;
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    if is_number(number) && is_number(count) { count.parse().ok() } else { None }
}

fn list(names: &[&String]) -> String {
    // With escapes: these are words of a server.
    names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}

/// Whether a file of this name stays in the folder that it is written to, on any system.
pub fn is_safe(name: &str) -> bool {
    let is_part = |part: &str| !matches!(part, "" | "." | "..");
    name.split('/').all(is_part) && !name.chars().any(|c| c.is_control() || c == '\\' || c == ':')
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn chosen(names: &[&str]) -> Result<Choice, String> {
        choose(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>(), TensorType::Q8_0)
    }

    fn checkpoint(files: &[&str]) -> Result<Choice, String> {
        Ok(Choice::Checkpoint(files.iter().map(|&file| file.to_owned()).collect()))
    }

    #[test]
    fn checkpoint_takes_what_convert_reads_and_nothing_else() {
        let all =
            ["model.safetensors", "model.py", "README.md", "config.json", "vocab.json", "pytorch_model.bin"];
        assert_eq!(chosen(&all), checkpoint(&["config.json", "vocab.json", "model.safetensors"]));
        let shards = ["model-00002-of-00002.safetensors", "model-00001-of-00002.safetensors"];
        let all =
            [&shards[..], &["config.json", "model.safetensors.index.json", "model-x.safetensors"]].concat();
        let files = ["config.json", "model.safetensors.index.json", shards[1], shards[0]];
        assert_eq!(chosen(&all), checkpoint(&files));
        assert!(chosen(&all[1..]).unwrap_err().contains("not complete"));
        assert_eq!(
            chosen(&["pytorch_model.bin", "config.json"]),
            checkpoint(&["config.json", "pytorch_model.bin"])
        );
    }

    #[test]
    fn gguf_of_the_type_or_the_only_one_is_used() {
        let gguf = |name: &str| Ok(Choice::Gguf(name.into()));
        let weights = ["model.safetensors", "config.json"];
        assert_eq!(chosen(&[&weights[..], &["a-Q8_0.gguf", "a-q4_k.gguf"]].concat()), gguf("a-Q8_0.gguf"));
        assert_eq!(chosen(&["a.gguf", "README.md"]), gguf("a.gguf"));
        let converted = chosen(&[&weights[..], &["a-q4_k.gguf"]].concat());
        assert_eq!(converted, checkpoint(&["config.json", "model.safetensors"]));
        assert!(chosen(&["a-q4_k.gguf", "a-q6_k.gguf"]).unwrap_err().contains("a-q6_k.gguf"));
        assert!(chosen(&["b/a-q8_0.gguf"]).unwrap_err().contains("no GGUF"));
        assert!(chosen(&["model.safetensors"]).unwrap_err().contains("config.json"));
        let names = ["m-BF16.gguf".to_owned(), "m-F16.gguf".to_owned()];
        assert_eq!(choose(&names, TensorType::F16), gguf("m-F16.gguf"));
        assert_eq!(choose(&names, TensorType::Bf16), gguf("m-BF16.gguf"));
    }

    #[test]
    fn mixture_of_a_k_type_is_of_this_type() {
        let of = |names: &[&str], ty| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            match choose(&names, ty) {
                Ok(Choice::Gguf(file)) => file,
                other => format!("{other:?}"),
            }
        };
        let all = ["m-Q4_K_S.gguf", "m-Q4_K_M.gguf", "m-q3_k_l.gguf", "m-Q5_0.gguf", "m-Q8_0.gguf"];
        assert_eq!(of(&all, TensorType::Q4K), "m-Q4_K_M.gguf");
        assert_eq!(of(&all, TensorType::Q3K), "m-q3_k_l.gguf");
        assert_eq!(of(&all[..1], TensorType::Q4K), "m-Q4_K_S.gguf");
        assert_eq!(of(&["m-Q4_K_M.gguf", "m-Q4_K.gguf"], TensorType::Q4K), "m-Q4_K.gguf");
        // Of other types nothing stands behind the name, and there may be none.
        assert!(of(&["m-Q8_0_L.gguf", "m-Q5_0.gguf"], TensorType::Q8_0).contains("none of type q8_0"));
        assert!(of(&all, TensorType::Q6K).contains("none of type q6_k"));
        // Also without a request, once it is here.
        let here = all.map(str::to_owned);
        assert_eq!(gguf_of_type(&here, TensorType::Q4K), Some(&here[1]));
    }

    #[test]
    fn file_of_another_type_that_is_here_is_not_what_was_asked_for() {
        let here = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            gguf_of_type(&names, TensorType::Q8_0).cloned()
        };
        assert_eq!(here(&["m-q4_k.gguf"]), None);
        assert_eq!(here(&["m.Q4_K_M.gguf", "config.json"]), None);
        assert_eq!(here(&["m-q4_k.gguf", "m-Q8_0.gguf"]).as_deref(), Some("m-Q8_0.gguf"));
        assert_eq!(here(&["qwen3.gguf", "README.md"]).as_deref(), Some("qwen3.gguf"));
        assert_eq!(here(&["a.gguf", "b.gguf"]), None);
    }

    #[test]
    fn names_that_leave_the_folder_are_not_safe() {
        for name in
            ["", "/a", "a/", "..", "../a", "a/../b", "a//b", ".\\a", "a\nb", "C:a", "\u{1b}[2J", "a/."]
        {
            assert!(!is_safe(name), "{name:?}");
        }
        for name in ["model.safetensors", "a/b.json", "..a", "a b", "é"] {
            assert!(is_safe(name), "{name:?}");
        }
    }
}
