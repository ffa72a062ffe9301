//! The documents keep their word: links lead somewhere, and files that they name exist.

use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Markdown files for people.
fn documents() -> Vec<PathBuf> {
    let folders = ["", "docs", "models", "bindings/go", "bindings/swift", "bindings/python"]
        .map(|folder| root().join(folder));
    let entries = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|ending| ending == "md")).collect()
}

/// The targets of a document's links, `](target)`, outside of code blocks.
fn links(text: &str) -> Vec<&str> {
    let prose = text.split("\n```").step_by(2);
    prose.flat_map(|part| part.split("](").skip(1)).filter_map(|rest| rest.split(')').next()).collect()
}

/// The anchors of a document: its headings as GitHub writes them.
fn anchors(text: &str) -> Vec<String> {
    let prose = text.split("\n```").step_by(2).flat_map(str::lines);
    let headings = prose.filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let kept = |c: &char| c.is_alphanumeric() || "-_ ".contains(*c);
    headings
        .map(|heading| heading.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-"))
        .collect()
}

#[test]
fn links_resolve() {
    let documents = documents();
    let mut checked = 0;
    for document in &documents {
        let text = std::fs::read_to_string(document).unwrap();
        for link in links(&text).into_iter().filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { document.clone() } else { document.with_file_name(file) };
            assert!(target.exists(), "{}: {link} leads nowhere", document.display());
            let found = || anchors(&std::fs::read_to_string(&target).unwrap());
            assert!(
                anchor.is_empty() || found().iter().any(|a| a == anchor),
                "{}: {link}",
                document.display()
            );
            checked += 1;
        }
    }
    assert!(checked > 50, "only {checked} links in {} documents", documents.len());
}

/// The source files and folders that ARCHITECTURE.md and CONTRIBUTING.md name, `file.rs` or `folder/`, exist.
#[test]
fn architecture_names_existing_files() {
    let [mut text, more] = ["ARCHITECTURE.md", "CONTRIBUTING.md"]
        .map(|name| std::fs::read_to_string(root().join(name)).unwrap());
    text.push_str(&more);
    let mut files = Vec::new();
    for folder in
        ["src", "cli", "tests", "bindings", "examples", "examples-c", "ffi-tests", "packaging", "docs"]
    {
        list(&root().join(folder), &mut files);
    }
    let named: Vec<&str> = text.split('`').skip(1).step_by(2).collect();
    let named = named.into_iter().filter(|name| name.ends_with(".rs") || name.ends_with('/'));
    let mut checked = 0;
    for name in named {
        let end = format!("/{}", name.trim_end_matches('/'));
        let found = files.iter().any(|file| file.ends_with(&end)) || root().join(name).exists();
        assert!(found, "there is no {name}");
        checked += 1;
    }
    assert!(checked > 80, "only {checked} names");
}

/// What a document has between backticks, outside of code blocks.
fn code(text: &str) -> Vec<&str> {
    let prose = text.split("\n```").step_by(2);
    prose.flat_map(|part| part.split('`').skip(1).step_by(2)).collect()
}

/// Each `make target` of the documents, and of the script that runs all checks, is in the Makefile.
#[test]
fn documents_name_existing_targets_of_make() {
    let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
    let mut checked = 0;
    let mut check = |document: &Path, command: &str| {
        let Some(target) = command.strip_prefix("make ").and_then(|rest| rest.split_whitespace().next())
        else {
            return;
        };
        let defined =
            makefile.lines().any(|line| line.strip_prefix(target).is_some_and(|rest| rest.starts_with(':')));
        assert!(defined, "{}: there is no `make {target}`", document.display());
        checked += 1;
    };
    for document in documents() {
        let text = std::fs::read_to_string(&document).unwrap();
        code(&text).into_iter().for_each(|command| check(&document, command));
    }
    let script = root().join("tests/hardened");
    let text = std::fs::read_to_string(&script).unwrap();
    let commands = text.lines().filter_map(|line| line.split('|').nth(2));
    commands.for_each(|command| check(&script, command.trim_end_matches('"')));
    assert!(checked > 60, "only {checked} commands");
}

/// The documents about what is tested name files and tests that exist.
#[test]
fn documents_name_existing_tests() {
    let (mut files, mut sources) = (Vec::new(), String::new());
    for folder in
        ["src", "cli", "tests", "bindings", "ffi-tests", "fuzz", "packaging", "benches", "docs", "examples-c"]
    {
        list(&root().join(folder), &mut files);
    }
    let holds_tests = |file: &&String| [".rs", "_test.go", ".py"].iter().any(|ending| file.ends_with(ending));
    for file in files.iter().filter(holds_tests) {
        sources.push_str(&std::fs::read_to_string(file).unwrap());
    }
    let mut checked = 0;
    for document in ["docs/verification.md", "docs/fuzzing.md", "SECURITY.md"] {
        let text = std::fs::read_to_string(root().join(document)).unwrap();
        for name in code(&text) {
            let words = name.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit());
            let ending = name.rsplit_once('.').is_some_and(|(_, ending)| {
                ["rs", "c", "cpp", "md", "go", "py", "txt", "toml"].contains(&ending)
            });
            let found = if name.starts_with("Test") {
                sources.contains(&format!("func {}", name.trim_end_matches("..")))
            } else if name.starts_with("test_") && !ending {
                sources.contains(&format!("def {}", name.trim_end_matches("..")))
            } else if words && name.matches('_').count() > 2 {
                sources.contains(&format!("fn {name}("))
            } else if !name.contains([' ', '*', '$', '<'])
                && (ending || name.starts_with("tests/") || name.starts_with("ffi-tests/"))
            {
                let end = format!("/{}", name.trim_end_matches('/'));
                files.iter().any(|file| file.ends_with(&end)) || root().join(name).exists()
            } else {
                continue;
            };
            assert!(found, "{document}: there is no {name}");
            checked += 1;
        }
    }
    assert!(checked > 80, "only {checked} names");
}

/// docs/training.md names only options that training/train.py has, and the script stays short enough to be read.
#[test]
fn training_document_names_existing_options() {
    let text = std::fs::read_to_string(root().join("docs/training.md")).unwrap();
    let script = std::fs::read_to_string(root().join("training/train.py")).unwrap();
    assert!(script.lines().count() <= 400, "train.py has {} lines", script.lines().count());
    // Code in backticks or in blocks: what begins with --, or follows train.py in a line.
    let of_script = |part: &&str| part.starts_with("--") || part.contains("train.py");
    let code = text.split('`').skip(1).step_by(2).flat_map(str::lines).filter(of_script);
    let options: Vec<&str> = code
        .flat_map(str::split_whitespace)
        .filter(|word| word.starts_with("--") && *word != "--help")
        .collect();
    for option in &options {
        assert!(script.contains(&format!("\"{option}\"")), "docs/training.md: train.py has no {option}");
    }
    assert!(options.len() > 20, "only {} options", options.len());
}

/// Appends the paths of all files and folders below `folder`, and its own.
fn list(folder: &Path, paths: &mut Vec<String>) {
    paths.push(folder.display().to_string());
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { list(&path, paths) } else { paths.push(path.display().to_string()) }
    }
}

#[test]
fn the_project_has_one_address() {
    let read = |file: &str| std::fs::read_to_string(root().join(file)).unwrap();
    let after = |file: &str, key: &str| {
        let text = read(file);
        let line = text.lines().find_map(|line| line.strip_prefix(key)).expect(key);
        line.trim_matches('"').to_owned()
    };
    let address = after("packaging/project", "PROJECT_URL=");
    for key in ["repository = ", "documentation = "] {
        assert_eq!(after("Cargo.toml", key), address, "{key}");
    }
    // Go's module, and who imports its packages.
    let module = after("packaging/project", "PROJECT_GO_MODULE=");
    assert_eq!(after("bindings/go/go.mod", "module "), module);
    let mut files = vec![];
    for folder in ["bindings/go", "ffi-tests"] {
        list(&root().join(folder), &mut files);
    }
    let mut imports = 0;
    for file in files.iter().filter(|file| file.ends_with(".go")) {
        let text = std::fs::read_to_string(file).unwrap();
        for line in text.lines().map(|line| line.trim().trim_start_matches("import ")) {
            // In a line of imports, whose name may stand before it.
            let Some(path) = line.strip_suffix('"').and_then(|line| line.rsplit('"').next()) else {
                continue;
            };
            let ours = path == module || path.starts_with(&format!("{module}/"));
            // The name that it had before there was an address, and any other address.
            let named_so = path.split('/').any(|part| part == "esolm");
            if line.split('"').count() == 3 && (ours || named_so) {
                assert!(ours, "{file}: {line}");
                imports += 1;
            }
        }
    }
    assert!(imports >= 4, "only {imports} imports");
    // And the pages that tell a program's author what to write.
    for file in ["bindings/go/README.md", "docs/linking.md"] {
        let text = read(file);
        let (before, after) = text.split_once("-replace ").expect(file);
        let required = before.rsplit_once("-require ").expect(file).1;
        assert!(required.starts_with(&format!("{module}@v")), "{file}: {required}");
        assert!(after.starts_with(&format!("{module}=")), "{file}: the module that is replaced");
    }
    assert!(
        read("bindings/go/README.md").contains(&format!("\t\"{module}\"\n")),
        "the import of its program"
    );
}

/// The oldest Rust that Cargo.toml promises is the one that people read of.
#[test]
fn documents_name_the_oldest_rust() {
    let read = |file: &str| std::fs::read_to_string(root().join(file)).unwrap();
    let cargo = read("Cargo.toml");
    let version =
        cargo.lines().find_map(|line| line.strip_prefix("rust-version = \"")?.strip_suffix('"')).unwrap();
    let readme = format!("\nRust {version} or later ");
    assert!(read("README.md").contains(&readme), "README.md says another oldest Rust than {version}");
    let stability = format!("\n| oldest Rust | {version}, in `Cargo.toml`;");
    assert!(
        read("docs/stability.md").contains(&stability),
        "docs/stability.md says another one than {version}"
    );
}

/// ggml is compiled again where its configuration changed, as the build script of its package watches this variable, not the file.
#[test]
fn the_build_knows_how_ggml_is_configured() {
    let configuration = std::fs::read(root().join("packaging/ggml.cmake")).unwrap();
    let line = format!("GGML_CONFIGURED_BY = \"{:08x}\"", crc32fast::hash(&configuration));
    let cargo = std::fs::read_to_string(root().join(".cargo/config.toml")).unwrap();
    assert!(cargo.lines().any(|known| known == line), ".cargo/config.toml should have the line\n{line}");
}
