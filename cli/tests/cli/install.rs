//! What `make lib`, `make command` and `make install` put where: the library's files, the command's manual pages and completions.

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

/// Runs a script of the source tree; what it says.
fn run(script: &str, arguments: &[&Path]) -> String {
    let mut command = Command::new(library_file(script));
    for variable in ["LIBDIR", "INCLUDEDIR", "LIBS", "SHARED"] {
        command.env_remove(variable);
    }
    let done = command.args(arguments).output().unwrap();
    assert!(done.status.success(), "{script}: {}", err(&done));
    out(&done)
}

/// Packs the command as one of this platform.
fn pack_command(dist: &Path) {
    run("packaging/pack-command", &[Path::new(env!("CARGO_BIN_EXE_esolm")), dist, Path::new("here")]);
}

/// Puts what `make lib` would into `dist`, with empty libraries.
fn pack_empty_library(dist: &Path) {
    std::fs::create_dir_all(dist.join("include")).unwrap();
    std::fs::create_dir_all(dist.join("lib")).unwrap();
    for header in ["esolm.h", "esolm.hpp", "module.modulemap"] {
        std::fs::copy(library_file(&format!("include/{header}")), dist.join("include").join(header)).unwrap();
    }
    std::fs::write(dist.join("lib/libesolm.a"), "").unwrap();
    std::fs::write(dist.join("lib/libesolm.so"), "").unwrap();
}

#[test]
fn command_is_installed_with_its_pages_and_completions() {
    let dest = tempfile::tempdir().unwrap();
    let (dist, staged) = (dest.path().join("dist"), dest.path().join("staged"));
    pack_command(&dist);
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
    pack_command(&dist);
    pack_empty_library(&dist);
    // Another project's module map is not replaced, and not removed.
    let others =
        ["bin/other", "include/module.modulemap", "lib/pkgconfig/other.pc", "share/man/man1/other.1"];
    for other in others {
        std::fs::create_dir_all(prefix.join(other).parent().unwrap()).unwrap();
        std::fs::write(prefix.join(other), "kept").unwrap();
    }
    run("packaging/install", &[&dist, &prefix]);
    run("packaging/install-command", &[&dist, &prefix]);
    let soname = format!("lib/libesolm.so.{}", abi_version());
    assert!(prefix.join(soname).exists() && prefix.join("bin/esolm").exists());
    let map = std::fs::read_to_string(prefix.join("include/CEsolm/module.modulemap")).unwrap();
    assert!(map.contains("module CEsolm ") && map.contains("header \"../esolm.h\""), "{map}");
    run("packaging/uninstall", &[&dist, &prefix]);
    // An older esolm's own, which would be a second module of that name, is removed.
    let older = folder.path().join("older/include/module.modulemap");
    std::fs::create_dir_all(older.parent().unwrap()).unwrap();
    std::fs::write(&older, "// For Swift.\nmodule CEsolm [system] {\n}\n").unwrap();
    run("packaging/install", &[&dist, &folder.path().join("older")]);
    assert!(!older.exists());
    let mut left = files(&prefix);
    left.sort();
    assert_eq!(left, others.map(|other| prefix.join(other)));
    for other in others {
        assert_eq!(std::fs::read_to_string(prefix.join(other)).unwrap(), "kept", "{other}");
    }
    for folder in ["lib/cmake/esolm", "share/doc/esolm", "include/CEsolm"] {
        assert!(!prefix.join(folder).exists(), "{folder} is left");
    }
}

/// The number in the shared library's name, which include/esolm.h has.
fn abi_version() -> String {
    let header = std::fs::read_to_string(library_file("include/esolm.h")).unwrap();
    let lines = header.lines().find_map(|line| line.strip_prefix("#define ESOLM_ABI_VERSION "));
    lines.unwrap().to_owned()
}

/// Where programs do not look for libraries, `install` says so; where files are collected for a package, it does not.
#[test]
fn who_installs_elsewhere_is_told_how_programs_find_the_library() {
    let folder = tempfile::tempdir().unwrap();
    let (dist, prefix, staged) =
        (folder.path().join("dist"), folder.path().join("prefix"), folder.path().join("staged"));
    pack_empty_library(&dist);
    let said = run("packaging/install", &[&dist, &prefix]);
    for part in [&*prefix.join("lib").to_string_lossy(), "LD_LIBRARY_PATH", "/etc/ld.so.conf.d"] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(run("packaging/install", &[&dist, &prefix, &staged]), "");
}

/// The paths in the installed files are relative to them, by the same rules as `realpath`'s.
#[test]
fn installed_files_name_their_folders_by_relative_paths() {
    let folder = tempfile::tempdir().unwrap();
    let dist = folder.path().join("dist");
    pack_empty_library(&dist);
    for (prefix, libdir, includedir, expected) in [
        ("/usr", "", "", ["../..", "..", "../../include"]),
        ("/", "", "", ["../..", "..", "../../include"]),
        ("/opt/esolm/", "/opt/esolm/lib64/./arm//", "", ["../../..", "..", "../../../include"]),
        (
            "/usr",
            "/usr/lib/x86_64-linux-gnu",
            "/usr/local/../include",
            ["../../..", "..", "../../../include"],
        ),
        ("/usr", "/srv/lib", "/srv/lib/pkgconfig/h", ["../../../usr", "..", "h"]),
    ] {
        let staged = tempfile::tempdir().unwrap();
        let mut install = Command::new(library_file("packaging/install"));
        install.args([dist.as_path(), Path::new(prefix), staged.path()]);
        install.env("LIBDIR", libdir).env("INCLUDEDIR", includedir).env_remove("SHARED");
        let done = install.output().unwrap();
        assert!(done.status.success(), "{}", err(&done));
        let files = files(staged.path());
        let pc = files.iter().find(|file| file.ends_with("pkgconfig/esolm.pc")).unwrap();
        let text = std::fs::read_to_string(pc).unwrap();
        let paths = text.lines().take(3).map(|line| line.split_once("=${pcfiledir}/").unwrap().1);
        assert_eq!(paths.collect::<Vec<_>>(), expected, "{prefix} {libdir} {includedir}");
    }
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

/// What `make lib` would run.
fn make_lib(argument: Option<&str>, variable: Option<&str>) -> String {
    let mut make = Command::new("make");
    // What the make that runs the tests was given.
    for variable in ["MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS", "TARGET", "CARGO_BUILD_TARGET", "BUILD", "DIST"]
    {
        make.env_remove(variable);
    }
    make.envs(variable.map(|target| ("CARGO_BUILD_TARGET", target)));
    make.args(["-n", "-C", &library_file("."), "lib"]).args(argument);
    let done = make.output().unwrap();
    assert!(done.status.success(), "{}", err(&done));
    out(&done)
}

/// Another platform's library is built with `--target` and packed from its folder, by either way to name it.
#[test]
fn make_builds_for_another_platform() {
    const ARM: &str = "aarch64-unknown-linux-gnu";
    let packed = format!("packaging/pack-library target/{ARM}/release dist {ARM}");
    for (argument, variable) in [
        (Some("TARGET=aarch64-unknown-linux-gnu"), None),
        (None, Some(ARM)),
        (Some("TARGET=aarch64-unknown-linux-gnu"), Some("riscv64gc-unknown-linux-gnu")),
    ] {
        let lines = make_lib(argument, variable);
        assert!(lines.contains(&format!(" --target {ARM} ")), "{lines}");
        assert!(lines.lines().any(|line| line == packed), "{lines}");
    }
    let lines = make_lib(None, None);
    assert!(!lines.contains("--target "), "{lines}");
    assert!(lines.contains("packaging/pack-library target/release dist "), "{lines}");
}

/// What was packed for one platform is not installed with what is packed for another.
#[test]
fn files_of_another_platform_are_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (dist, built) = (folder.path().join("dist"), folder.path().join("built"));
    pack_command(&dist);
    std::fs::write(dist.join("bin/other"), "").unwrap();
    // Again for the same: what the other part packed stays.
    run("packaging/clear-other", &[&dist, Path::new("here")]);
    assert!(dist.join("bin/esolm").exists() && dist.join("share/man/man1/esolm.1").exists());
    // A library for a platform whose archive is packed as it is.
    std::fs::create_dir(&built).unwrap();
    std::fs::write(built.join("libesolm.a"), "").unwrap();
    run("packaging/pack-library", &[&built, &dist, Path::new("aarch64-apple-darwin")]);
    let left: Vec<_> = files(&dist).iter().map(|file| file.strip_prefix(&dist).unwrap().to_owned()).collect();
    let mut left: Vec<_> = left.iter().map(|file| file.to_str().unwrap()).collect();
    left.sort();
    assert_eq!(
        left,
        [
            "bin/other",
            "include/esolm.h",
            "include/esolm.hpp",
            "include/module.modulemap",
            "lib/libesolm.a",
            "target"
        ]
    );
    // And the other way round.
    pack_command(&dist);
    assert!(dist.join("bin/esolm").exists() && !dist.join("lib/libesolm.a").exists());
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
