//! Tests of synthetic models. (`benches/peers` shares `synthetic.rs`.)

use std::os::unix::fs::{PermissionsExt, symlink};

use super::synthetic::SyntheticModel;

#[test]
fn files_are_in_a_folder_of_the_users_alone() {
    let temporary = tempfile::tempdir().unwrap();
    let name = format!("esolm-bench-{}", std::process::id());
    // What somebody else has put there is not followed.
    let elsewhere = temporary.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, temporary.path().join(format!("{name}-0"))).unwrap();
    let file = SyntheticModel::place_in(temporary.path(), "q8_0.gguf").unwrap();
    assert_eq!(file.path, temporary.path().join(format!("{name}-1/q8_0.gguf")));
    let folder = file.path.parent().unwrap().to_owned();
    assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    std::fs::write(&file.path, "model").unwrap();
    drop(file);
    assert!(!folder.exists() && elsewhere.exists());
}
