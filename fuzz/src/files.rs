//! Files for functions that take paths, in memory where the system has such a folder.

use std::path::{Path, PathBuf};

/// A folder that the process removes when it ends.
pub struct Folder(tempfile::TempDir);

impl Folder {
    /// Makes one.
    pub fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        Self(folder.expect("a folder"))
    }

    /// Where the file of this name is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file.
    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).expect("room");
        path
    }
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}

/// The names of the shards of a model in two.
pub const SHARDS: [&str; 2] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];

/// The `config.json` of the model in two shards: a small Qwen3's.
pub const SHARDS_CONFIG: &[u8] = include_bytes!("../seeds/read_config/qwen3");

/// Numbers of the storages beside a pickle, `data/0`, `data/1` and so on: those of the checkpoint among the seeds.
const STORAGES: [usize; 20] =
    [192, 1024, 4, 16, 4, 8, 192, 64, 8, 256, 32, 256, 8, 192, 48, 8, 192, 24, 64, 16];

/// A zip as PyTorch writes it: this pickle, and storages of zeros.
pub fn zip(pickle: &[u8]) -> Vec<u8> {
    zip_of(pickle, &STORAGES)
}

/// A zip with storages of so many f32.
pub fn zip_of(pickle: &[u8], storages: &[usize]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::<u8>::new(), Vec::<u8>::new());
    let mut add = |name: &str, data: &[u8]| {
        let (len, name_len) = ((data.len() as u32).to_le_bytes(), (name.len() as u16).to_le_bytes());
        let offset = (out.len() as u32).to_le_bytes();
        for part in [b"PK\x03\x04", &[0; 14][..], &len, &len, &name_len, &[0; 2], name.as_bytes(), data] {
            out.extend(part);
        }
        for part in [b"PK\x01\x02", &[0; 16][..], &len, &len, &name_len, &[0; 12], &offset, name.as_bytes()] {
            directory.extend(part);
        }
    };
    add("archive/data.pkl", pickle);
    for (number, len) in storages.iter().enumerate() {
        add(&format!("archive/data/{number}"), &vec![0; 4 * len]);
    }
    let (start, len) = ((out.len() as u32).to_le_bytes(), (directory.len() as u32).to_le_bytes());
    let count = (storages.len() as u16 + 1).to_le_bytes();
    out.extend(directory);
    for part in [b"PK\x05\x06", &[0; 4][..], &count, &count, &len, &start, &[0; 2]] {
        out.extend(part);
    }
    out
}
