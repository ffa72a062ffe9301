//! Models whose names are known.

use std::collections::BTreeSet;

use super::generate;
use super::repository::{Behaviour, Hub, tiny};
use crate::command_line::{err, library_file, out};

/// The names in the tables of docs/models.md, and what stands behind them.
fn documented() -> BTreeSet<(String, String)> {
    let document = std::fs::read_to_string(library_file("docs/models.md")).unwrap();
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `"));
    let mut all = BTreeSet::new();
    for row in rows {
        let (names, rest) = row.split_once(" | ").unwrap();
        let what = rest.split(" |").next().unwrap();
        for name in names.split('`').filter(|name| name.contains('/')) {
            all.insert((name.to_owned(), what.to_owned()));
        }
    }
    all
}

#[test]
fn help_names_the_models_of_the_document() {
    let hub = Hub::start(vec![]);
    let help = out(&hub.esolm(&["pull", "--help"]));
    let (_, list) = help.split_once("Models whose names are known").unwrap();
    let lines = list.lines().skip(1).take_while(|line| !line.trim().is_empty());
    let told: BTreeSet<(String, String)> = lines
        .map(|line| {
            let (name, what) = line.trim().split_once(' ').unwrap();
            (name.to_owned(), what.trim().to_owned())
        })
        .collect();
    assert!(told.len() > 10, "{help}");
    assert_eq!(told, documented());
}

#[test]
fn known_model_gets_the_variant_and_the_tokenizer_that_its_repository_lacks() {
    let mut files = tiny();
    files.iter_mut().find(|file| file.name == "config.json").unwrap().content =
        br#"{"model_type": "EsoLM", "vocab_size": 97, "model_length": 64, "mask_index": 96}"#.to_vec();
    let hub = Hub::start(files);
    let lacking = "sahoo-diffusion/Eso-LM-B-alpha-1";
    let complete = "sahoo-diffusion/Eso-LM-B-alpha-0_25";
    let others = vec![(lacking, "tokenizer.json"), (complete, ""), ("openai-community/gpt2", "")];
    hub.set(Behaviour { others, ..Behaviour::default() });
    let asks_for_gpt2 = || {
        let requests = hub.hub.as_ref().unwrap().take_requests();
        requests.iter().any(|request| request.path.contains("openai-community/gpt2"))
    };
    let pulled = hub.esolm(&["pull", lacking]);
    assert_eq!(pulled.status.code(), Some(0), "{}", err(&pulled));
    assert!(err(&pulled).contains("that of hf:openai-community/gpt2 is used"), "{}", err(&pulled));
    assert!(asks_for_gpt2());
    let text = generate(&hub, &format!("hf:{lacking}"));
    assert!(text.starts_with("w3 w4 w"), "{text}");
    // Its own counts more; and by the name alone, where nothing was pulled yet.
    assert_eq!(generate(&hub, &format!("hf:{complete}")), text);
    assert!(!asks_for_gpt2());
    // A model of another name is asked for what it lacks.
    let refused = hub.esolm(&["pull", "owner/tiny"]);
    assert!(refused.status.code() == Some(2) && err(&refused).contains("--variant"), "{}", err(&refused));
}
