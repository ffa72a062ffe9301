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

/// Runs a script of the source tree.
fn run(script: &str, arguments: &[&Path]) {
    let done = Command::new(library_file(script)).args(arguments).output().unwrap();
    assert!(done.status.success(), "{script}: {}", err(&done));
}

#[test]
fn command_is_installed_with_its_pages_and_completions() {
    let dest = tempfile::tempdir().unwrap();
    let (dist, staged) = (dest.path().join("dist"), dest.path().join("staged"));
    run("packaging/pack-command", &[Path::new(env!("CARGO_BIN_EXE_esolm")), &dist]);
    run("packaging/install-command", &[&dist, Path::new("/usr"), &staged]);
    let root = staged.join("usr");
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
fn what_was_installed_is_removed_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (dist, prefix) = (folder.path().join("dist"), folder.path().join("prefix"));
    run("packaging/pack-command", &[Path::new(env!("CARGO_BIN_EXE_esolm")), &dist]);
    std::fs::create_dir_all(dist.join("include")).unwrap();
    std::fs::create_dir_all(dist.join("lib")).unwrap();
    for header in ["esolm.h", "esolm.hpp", "module.modulemap"] {
        std::fs::copy(library_file(&format!("include/{header}")), dist.join("include").join(header)).unwrap();
    }
    std::fs::write(dist.join("lib/libesolm.a"), "").unwrap();
    std::fs::write(dist.join("lib/libesolm.so"), "").unwrap();
    let others = ["bin/other", "lib/pkgconfig/other.pc", "share/man/man1/other.1"];
    for other in others {
        std::fs::create_dir_all(prefix.join(other).parent().unwrap()).unwrap();
        std::fs::write(prefix.join(other), "kept").unwrap();
    }
    run("packaging/install", &[&dist, &prefix]);
    run("packaging/install-command", &[&dist, &prefix]);
    assert!(prefix.join("lib/libesolm.so.0").exists() && prefix.join("bin/esolm").exists());
    run("packaging/uninstall", &[&dist, &prefix]);
    let mut left = files(&prefix);
    left.sort();
    assert_eq!(left, others.map(|other| prefix.join(other)));
    assert!(!prefix.join("lib/cmake/esolm").exists() && !prefix.join("share/doc/esolm").exists());
}

/// All files and links below a folder.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let below = entries.map(|entry| {
        if entry.file_type().unwrap().is_dir() { files(&entry.path()) } else { vec![entry.path()] }
    });
    below.flatten().collect()
}

#[test]
fn make_installs_what_was_built() {
    let none = tempfile::tempdir().unwrap();
    let dist = none.path().join("dist");
    for what in ["install-lib", "install-command"] {
        let output = Command::new("make")
            .args(["-C", &library_file("."), what, &format!("DIST={}", dist.display()), "PREFIX=/nowhere"])
            .output()
            .unwrap();
        assert!(!output.status.success() && err(&output).contains("nothing built"), "{}", err(&output));
    }
}

#[test]
fn a_page_is_printed() {
    let page = out(&esolm(&["man", "score"]));
    assert!(page.contains(".TH esolm-score 1") && page.contains("story.txt"), "{page}");
    let first = out(&esolm(&["man"]));
    assert!(first.contains(".TH esolm 1") && first.contains("\n.ad l\n.nh\n.SH NAME"), "{first}");
    let none = esolm(&["man", "sing"]);
    assert!(none.status.code() == Some(2) && err(&none).contains("'sing'"), "{}", err(&none));
}
