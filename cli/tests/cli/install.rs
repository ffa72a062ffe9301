//! What `make install` puts beside the command: manual pages and shell completions.

use std::path::Path;
use std::process::Command;

use crate::command_line::{err, esolm, library_file, out};

/// The subcommands that the help lists, and their other names.
fn subcommands() -> Vec<String> {
    let help = out(&esolm(&["--help"]));
    let (_, list) = help.split_once("Commands:\n").unwrap();
    let lines = list.split("\n\n").next().unwrap().lines();
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    // Long descriptions go on in lines that begin further right.
    names.filter(|name| !name.is_empty() && *name != "help").map(str::to_owned).collect()
}

#[test]
fn command_is_installed_with_its_pages_and_completions() {
    let dest = tempfile::tempdir().unwrap();
    let installed = Command::new(library_file("packaging/install-command"))
        .args([env!("CARGO_BIN_EXE_esolm"), "/usr", dest.path().to_str().unwrap()])
        .output()
        .unwrap();
    assert!(installed.status.success(), "{}", err(&installed));
    let root = dest.path().join("usr");
    let read = |file: &str| std::fs::read_to_string(root.join(file)).expect(file);
    let version = Command::new(root.join("bin/esolm")).arg("--version").output().unwrap();
    assert_eq!(out(&version), format!("esolm {}\n", env!("CARGO_PKG_VERSION")));
    let commands = subcommands();
    assert!(commands.len() > 15 && commands.iter().any(|name| name == "generate"), "{commands:?}");
    // A page for each command, with its options and examples, which the main page names.
    let main = read("share/man/man1/esolm.1");
    for name in &commands {
        let page = read(&format!("share/man/man1/esolm-{name}.1"));
        assert!(page.contains(&format!(".TH esolm-{name} 1")) && page.contains(".SH OPTIONS"), "{page}");
        assert!(main.contains(&format!("esolm\\-{name}(1)")), "{name} is not in esolm.1");
    }
    assert!(read("share/man/man1/esolm-generate.1").contains("\\-\\-alpha0"));
    assert_eq!(read("share/man/man1/esolm-run.1"), ".so man1/esolm-generate.1\n");
    assert_eq!(std::fs::read_dir(root.join("share/man/man1")).unwrap().count(), commands.len() + 2);
    // Each shell's completion knows each command.
    for file in [
        "bash-completion/completions/esolm",
        "zsh/site-functions/_esolm",
        "fish/vendor_completions.d/esolm.fish",
    ] {
        let script = read(&format!("share/{file}"));
        for name in &commands {
            assert!(script.contains(name.as_str()), "{file}: {name}");
        }
        assert!(script.contains("alpha0"), "{file}");
    }
    let bash = root.join("share/bash-completion/completions/esolm");
    assert!(Command::new("bash").arg("-n").arg(bash).status().unwrap().success());
}

#[test]
fn make_install_installs_the_command() {
    let makefile = std::fs::read_to_string(library_file("Makefile")).unwrap();
    let target = |name: &str| {
        let (_, rest) = makefile.split_once(&format!("\n{name}:")).unwrap();
        rest.split("\n\n").next().unwrap().to_owned()
    };
    assert!(target("install").lines().next().unwrap().contains("install-command"));
    assert!(target("install-command").contains("packaging/install-command $(BUILD)/release/esolm $(PREFIX)"));
    assert!(Path::new(&library_file("packaging/install-command")).is_file());
}

#[test]
fn a_page_is_printed() {
    let page = out(&esolm(&["man", "score"]));
    assert!(page.contains(".TH esolm-score 1") && page.contains("story.txt"), "{page}");
    assert!(out(&esolm(&["man"])).contains(".TH esolm 1"));
    let none = esolm(&["man", "sing"]);
    assert!(none.status.code() == Some(2) && err(&none).contains("'sing'"), "{}", err(&none));
}
