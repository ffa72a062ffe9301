//! Where `pull -o` writes to, and what it leaves alone.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::process::Command;

use super::pull;
use super::repository::{File, Hub, tiny};
use crate::command_line::err;

#[test]
fn models_that_are_copied_keep_modes_links_and_devices_as_those_that_are_converted() {
    let made = Hub::start(tiny());
    let model = fs::read(pull(&made, &[])).unwrap();
    for (copied, files) in [(false, tiny()), (true, vec![File::large("model-q8_0.gguf", model.clone())])] {
        let hub = Hub::start(files);
        let folder = hub.home.path().join("models");
        fs::create_dir(&folder).unwrap();
        let path = |name: &str| folder.join(name).display().to_string();
        let (file, link, fifo) = (path("model.gguf"), path("link.gguf"), path("fifo"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        symlink("model.gguf", &link).unwrap();
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        // What cannot be written to is told before anything is downloaded.
        for (output, code) in [(path("nowhere/model.gguf"), 3), (folder.display().to_string(), 2)] {
            let output = output.as_str();
            let refused = hub.esolm(&["pull", "owner/tiny", "-o", output, "--force"]);
            assert_eq!(refused.status.code(), Some(code), "{output}: {}", err(&refused));
            assert!(hub.downloads(None).is_empty(), "{output}");
        }
        pull(&hub, &["-o", &link, "--force"]);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let written = fs::read(&file).unwrap();
        assert!(if copied { written == model } else { written.starts_with(b"GGUF") });
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        // A pipe that nobody reads from, and a device.
        let refused = hub.esolm(&["pull", "owner/tiny", "-o", &fifo, "--force"]);
        assert_eq!(refused.status.code(), Some(3), "{}", err(&refused));
        assert!(fs::metadata(&fifo).unwrap().file_type().is_fifo());
        pull(&hub, &["-o", "/dev/null"]);
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        let full = hub.esolm(&["pull", "owner/tiny", "-o", "/dev/full", "--force"]);
        assert_eq!(full.status.code(), Some(3), "{}", err(&full));
        assert!(err(&full).contains("/dev/full: "), "{}", err(&full));
        let mut names: Vec<_> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["fifo", "link.gguf", "model.gguf"]);
    }
}

#[test]
fn names_that_are_not_utf_8_are_printed() {
    let hub = Hub::start(tiny());
    let name = hub.home.path().join(OsStr::from_bytes(b"m\xff.gguf"));
    let output = hub.command(&["pull", "owner/tiny", "--json", "-o"]).arg(&name).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(name.is_file() && output.stdout.starts_with(b"{"));
    let cache = hub.home.path().join(OsStr::from_bytes(b"cache\xff"));
    for args in [["pull", "owner/tiny", "--json"], ["pull", "--list", "--json"]] {
        let output = hub.command(&args).env("XDG_CACHE_HOME", &cache).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", err(&output));
        assert!(output.stdout.windows(10).any(|ten| ten == b"-q8_0.gguf"), "{args:?}");
    }
}

/// Other programs share the cache of downloads.
#[test]
fn what_is_no_file_in_the_cache_is_not_waited_for_or_written_to() {
    let hub = Hub::start(tiny());
    pull(&hub, &[]);
    let repository = hub.home.path().join("hf/hub/models--owner--tiny");
    let reference = repository.join("refs/main");
    for make in ["mkfifo", "ln -s /dev/zero", "mkdir"] {
        let _ = fs::remove_file(&reference).or_else(|_| fs::remove_dir(&reference));
        let made = Command::new("sh").args(["-c", &format!("{make} \"$0\"")]).arg(&reference).status();
        assert!(made.unwrap().success());
        let offline = hub.command(&["pull", "owner/tiny"]).env("HF_HUB_OFFLINE", "1").output().unwrap();
        assert_eq!(offline.status.code(), Some(3), "{make}: {}", err(&offline));
    }
    fs::remove_dir(&reference).unwrap();
    // What a download is written to. A link would have another file cut to nothing.
    let victim = hub.home.path().join("victim");
    let blob = hub.downloads(None).into_iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    fs::remove_file(&blob).unwrap();
    for ending in ["part", "lock"] {
        let at = blob.with_extension(ending);
        for is_link in [true, false] {
            fs::write(&victim, "dear").unwrap();
            match is_link {
                true => symlink(&victim, &at).unwrap(),
                false => assert!(Command::new("mkfifo").arg(&at).status().unwrap().success()),
            }
            let refused = hub.esolm(&["pull", "owner/tiny", "--force"]);
            assert_eq!(refused.status.code(), Some(3), "{}", err(&refused));
            assert!(err(&refused).contains("it is no regular file"), "{}", err(&refused));
            assert_eq!(fs::read(&victim).unwrap(), b"dear");
            fs::remove_file(&at).unwrap();
        }
    }
    pull(&hub, &["--force"]);
}
