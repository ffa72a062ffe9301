//! The documents show what their commands write: the texts in README and docs/cli.md, and the picture of README.
//! `make samples` writes them again.

use std::ops::Range;
use std::path::Path;
use std::process::Command;

use crate::command_line::{err, library_file, out};

/// What a line of a document writes to standard output, run by a shell in `dir`, with one thread, which writes the same.
fn run(command: &str, dir: &Path) -> String {
    let esolm = Path::new(env!("CARGO_BIN_EXE_esolm")).parent().unwrap();
    let path = format!("{}:{}", esolm.display(), std::env::var("PATH").unwrap());
    let mut command = command.replace("target/release/esolm", "esolm");
    if command.starts_with("esolm ") {
        command.push_str(" --threads 1");
    }
    let mut shell = Command::new("sh");
    shell.args(["-euc", &command]).current_dir(dir).env("PATH", path).env_remove("ESOLM_MODEL");
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{command}: {}", err(&output));
    out(&output)
}

/// The first line of a document that begins with `start`, and where the block that follows its own stands.
fn sample(document: &str, start: &str) -> (String, Range<usize>) {
    const BETWEEN: &str = "\n```\n\n```\n";
    let at =
        document.find(&format!("\n{start}")).unwrap_or_else(|| panic!("no line begins with {start}")) + 1;
    let from = at + document[at..].find(BETWEEN).expect("a block follows") + BETWEEN.len();
    assert!(!document[at..from - BETWEEN.len()].contains("```"), "'{start}' has no block of its own");
    let line = document[at..].lines().next().unwrap();
    let to = from + document[from..].find("```").unwrap();
    (line.split(" #").next().unwrap().trim().to_owned(), from..to)
}

/// Breaks lines that are too long for a document.
fn wrapped(text: &str) -> String {
    let mut wrapped = String::new();
    for line in text.trim_end().lines() {
        let mut column = 0;
        for word in line.split_inclusive(' ') {
            if column > 0 && column + word.trim_end().len() > 120 {
                wrapped.truncate(wrapped.trim_end().len());
                wrapped.push('\n');
                column = 0;
            }
            wrapped.push_str(word);
            column += word.len();
        }
        wrapped.push('\n');
    }
    wrapped
}

#[test]
fn documents_show_what_their_commands_write() {
    let dir = tempfile::tempdir().unwrap();
    for (file, starts) in [
        ("README.md", &["target/release/esolm generate"][..]),
        ("docs/cli.md", &["esolm generate", "echo ", "esolm score"]),
    ] {
        let path = library_file(file);
        let mut document = std::fs::read_to_string(&path).unwrap();
        for start in starts {
            let (command, shown) = sample(&document, start);
            let text = wrapped(&run(&command, dir.path()));
            if text.is_empty() {
                continue;
            }
            if std::env::var_os("ESOLM_UPDATE_SAMPLES").is_some() {
                document.replace_range(shown, &text);
                std::fs::write(&path, &document).unwrap();
            } else {
                assert_eq!(document[shown], text, "{file}: {command}");
            }
        }
    }
}

#[test]
fn demo_is_the_first_command_of_readme() {
    let [readme, makefile] =
        ["README.md", "Makefile"].map(|file| std::fs::read_to_string(library_file(file)).unwrap());
    let (command, _) = sample(&readme, "target/release/esolm generate");
    let (_, demo) = makefile.split_once("\ndemo:").unwrap();
    assert!(
        demo.split("\n\n").next().unwrap().contains(&format!("\n\t{command}")),
        "make demo does not run {command}"
    );
}

/// The last frame of docs/unmasking.svg is the text that the command in its title writes.
#[test]
fn picture_ends_with_the_text_of_its_command() {
    let picture = std::fs::read_to_string(library_file("docs/unmasking.svg")).unwrap();
    let inside = |text: &str, begin: &str, end: &str| -> String {
        text.split_once(begin).unwrap().1.split_once(end).unwrap().0.to_owned()
    };
    let command = inside(&picture, "<title>", ": ").replace("&quot;", "\"");
    let text = run(&command, Path::new("."));
    let last = picture.rsplit("class=\"label\"").next().unwrap();
    let words = last.split("textLength=").skip(1).map(|word| inside(word, ">", "</text>"));
    let unescape = |word: String| {
        let marks = [("&quot;", "\""), ("&#x27;", "'"), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")];
        marks.iter().fold(word, |word, (escaped, mark)| word.replace(escaped, mark))
    };
    let shown: String = words.map(unescape).collect();
    assert_eq!(
        shown.replace(' ', ""),
        text.split_whitespace().collect::<String>(),
        "docs/unmasking.svg: {command}"
    );
}
