//! Folders of Qwen's kind and WeDLM's: every value of the configuration, and tensors that are not what it says.

use std::path::Path;

use esolm::convert::{Options, convert};

use super::corpus::Tally;
use super::gguf::use_model;

/// Configuration, the header of the weights, and the weights, with a zero byte between each: those that fuzzing begins with.
const FOLDERS: [(&str, &[u8]); 3] = [
    ("qwen2", include_bytes!("../../fuzz/seeds/safetensors/qwen2")),
    ("qwen3", include_bytes!("../../fuzz/seeds/safetensors/qwen3")),
    ("wedlm", include_bytes!("../../fuzz/seeds/safetensors/wedlm")),
];

/// What stands at the end of such configurations, too: values that change the network's results are refused by name.
const MORE: &str = r#","rope_scaling":{"rope_type":"default","factor":1},"use_sliding_window":false,"layer_types":["full_attention"]}"#;

/// What is put in place of each value, as JSON.
const VALUES: [&str; 18] = [
    "0",
    "1",
    "3",
    "-1",
    "255",
    "65536",
    "2147483647",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "1e308",
    "-1e-308",
    "NaN",
    "null",
    "true",
    "\"x\"",
    "[[],{}]",
];

pub fn all(folder: &Path) -> Tally {
    let mut tally = Tally::default();
    for (name, bytes) in FOLDERS {
        let mut parts = bytes.splitn(3, |&byte| byte == 0);
        let mut part = || parts.next().expect("a part");
        let (config, header, data) = (part(), part(), part());
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("JSON");
        let (config, header) = (text(config), text(header));
        let config = format!("{}{MORE}", config.trim_end().strip_suffix('}').expect("an object"));
        let mut one = |case: &str, config: &str, header: &str, data: &[u8]| -> bool {
            let (output, weights) = (folder.join("out.gguf"), folder.join("model.safetensors"));
            std::fs::write(folder.join("config.json"), config).expect("room");
            std::fs::write(
                &weights,
                [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat(),
            )
            .expect("room");
            let options = Options { force: true, threads: 1, ..Options::default() };
            let converted =
                tally.case(case, &weights, 0, |_| match convert(&weights, &output, &options, &mut |_| ()) {
                    // Of what is in the folder either file may be named; options are for what neither says.
                    Err(esolm::Error::BadFile { file, what, source }) if file.ends_with("config.json") => {
                        Err(esolm::Error::BadFile { file: "model.safetensors".into(), what, source })
                    }
                    Err(esolm::Error::InvalidArgument(what) | esolm::Error::Unsupported(what)) => {
                        Err(esolm::Error::InvalidArgument(format!("model.safetensors: {what}")))
                    }
                    other => other.map(|_| ()),
                });
            // What is accepted can be used, or says why not.
            if converted.is_some() {
                tally.case(case, &output, 64 << 20, use_model);
            }
            converted.is_some()
        };
        assert!(one(name, &config, &header, data), "{name} is refused");
        for (start, end) in values_of(&config) {
            let there = &config[start..end];
            assert!(serde_json::from_str::<serde_json::Value>(there).is_ok(), "{there}");
            for value in VALUES {
                let changed = format!("{}{value}{}", &config[..start], &config[end..]);
                one(&format!("{name}: {changed}"), &changed, &header, data);
            }
        }
        // Each tensor under another name, and each number of the header.
        for (at, _) in header.match_indices(".weight\"") {
            let changed = format!("{}.other\"{}", &header[..at], &header[at + 8..]);
            assert!(!one(&format!("{name}: {changed}"), &config, &changed, data), "{changed}");
        }
        for (start, end) in numbers_of(&header) {
            for value in ["0", "1", "7", "4294967296", "18446744073709551615"] {
                let changed = format!("{}{value}{}", &header[..start], &header[end..]);
                one(&format!("{name}: {changed}"), &config, &changed, data);
            }
        }
        assert!(!one("cut off", &config, &header, &data[..data.len() - 1]));
    }
    tally
}

/// Where the values of an object and of those in it are, in its text.
fn values_of(json: &str) -> Vec<(usize, usize)> {
    json.match_indices("\":").map(|(at, _)| (at + 2, end_of(json, at + 2))).collect()
}

/// Where the value ends that begins at `start`: before a comma or a bracket that is no part of it.
fn end_of(json: &str, start: usize) -> usize {
    let (mut depth, mut quoted) = (0, false);
    let is_end = |byte: u8| {
        quoted ^= byte == b'"';
        match byte {
            b',' | b']' | b'}' if depth == 0 && !quoted => return true,
            b'[' | b'{' if !quoted => depth += 1,
            b']' | b'}' if !quoted => depth -= 1,
            _ => (),
        }
        false
    };
    start + json[start..].bytes().position(is_end).expect("an object")
}

/// Where the numbers of lists are.
fn numbers_of(json: &str) -> Vec<(usize, usize)> {
    let is_digit = |at: usize| json.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
    let starts = (1..json.len()).filter(|&at| is_digit(at) && matches!(json.as_bytes()[at - 1], b'[' | b','));
    starts.map(|start| (start, (start..).find(|&at| !is_digit(at)).unwrap_or(json.len()))).collect()
}
