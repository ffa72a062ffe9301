//! Where downloads and models lie on this machine.
//!
//! Downloads are in the hub's own cache, which other programs share (`~/.cache/huggingface/hub`, or `hub` in HF_HOME):
//! contents under their hash in `blobs`, names in `snapshots/COMMIT`, what a branch was in `refs`. Converted models are in
//! the cache of this program: `esolm/OWNER--NAME/COMMIT/NAME-TYPE.gguf`.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use esolm::{Error, Result};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};

use super::files::{is_gguf, is_safe};
use super::hash::Hash;
use super::name::{Name, is_commit};
use crate::output::io_error;

/// More than the name of a commit and what is around it.
const MAX_REF: u64 = 1000;
/// Longest name of a file, in bytes.
const MAX_NAME: u64 = 4096;

/// The places of one repository.
pub struct Store {
    repo: CacheRepo,
    /// The token that another program of the hub has saved.
    pub saved_token: Option<String>,
    name: Name,
    /// The folder of the repository's models.
    models: PathBuf,
}

impl Store {
    /// The places of a repository; creates nothing.
    pub fn of(name: &Name) -> Result<Self> {
        let cache = match std::env::var_os("HF_HOME").filter(|home| !home.is_empty()) {
            Some(home) => Cache::new(PathBuf::from(home).join("hub")),
            None if dirs::home_dir().is_some() => Cache::default(),
            None => return Err(Error::InvalidArgument("there is no home directory; set HF_HOME".into())),
        };
        let repo = Repo::with_revision(name.repository.clone(), RepoType::Model, name.revision.clone());
        let models = models_folder()?.join(name.repository.replace('/', "--"));
        Ok(Self { saved_token: cache.token(), repo: cache.repo(repo), name: name.clone(), models })
    }

    /// The folder with the files of a commit.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.repo.pointer_path(commit)
    }

    /// Where content of this hash lies.
    pub fn blob(&self, hash: &Hash) -> PathBuf {
        self.repo.blob_path(&hash.hex)
    }

    /// The folder that downloads are written to, which is created.
    pub fn downloads(&self) -> Result<PathBuf> {
        let folder = self.repo.blob_path("");
        fs::create_dir_all(&folder).map_err(|source| io_error(&folder, source))?;
        Ok(folder)
    }

    /// The folder that models of a commit are written to, which is created.
    pub fn models(&self, commit: &str) -> Result<PathBuf> {
        let folder = self.models.join(commit);
        fs::create_dir_all(&folder).map_err(|source| io_error(&folder, source))?;
        Ok(folder)
    }

    /// The converted model of a commit, whether it is there or not.
    pub fn model(&self, commit: &str) -> PathBuf {
        self.models.join(commit).join(format!("{}-{}.gguf", self.name.short(), self.name.tensor_type.name()))
    }

    /// The GGUF file of a commit that was chosen for the type among all that the repository has, if it is here.
    pub fn chosen(&self, commit: &str) -> Option<PathBuf> {
        let name = short_text(&self.choice(commit), MAX_NAME)?;
        let file = self.snapshot(commit).join(&name);
        (is_safe(&name) && is_gguf(&name) && file.is_file()).then_some(file)
    }

    /// Notes that it was.
    pub fn choose(&self, commit: &str, name: &str) -> Result<()> {
        self.models(commit)?;
        let note = self.choice(commit);
        check_regular(&note)?;
        fs::write(&note, name).map_err(|source| io_error(&note, source))
    }

    fn choice(&self, commit: &str) -> PathBuf {
        self.models.join(commit).join(format!("{}.chosen", self.name.tensor_type.name()))
    }

    /// The commit that the revision is, or was when it was last downloaded.
    pub fn commit(&self) -> Option<String> {
        if is_commit(&self.name.revision) {
            return Some(self.name.revision.clone());
        }
        let path = self.snapshot("").parent()?.join("refs").join(&self.name.revision);
        let text = short_text(&path, MAX_REF)?;
        Some(text.trim().to_owned()).filter(|text| is_commit(text))
    }

    /// Notes which commit the revision is.
    pub fn set_commit(&self, commit: &str) -> Result<()> {
        if is_commit(&self.name.revision) {
            return Ok(());
        }
        self.repo.create_ref(commit).map_err(|source| io_error(&self.snapshot(commit), source))
    }

    /// The names of the files of a commit that are here.
    pub fn files(&self, commit: &str) -> Vec<String> {
        let entries = fs::read_dir(self.snapshot(commit)).into_iter().flatten().flatten();
        // A link whose content is gone is not there.
        entries.filter(|e| e.path().is_file()).filter_map(|e| e.file_name().into_string().ok()).collect()
    }

    /// Gives the content of this hash the name `file` in a commit.
    pub fn link(&self, commit: &str, file: &str, hash: &Hash) -> Result<()> {
        let (blob, folder) = (self.blob(hash), self.snapshot(commit));
        // Under a name of this process first: others may do the same now.
        let (link, new) = (folder.join(file), folder.join(format!(".{file}.{}.tmp", std::process::id())));
        // What a killed process of the same number may have left.
        let _ = fs::remove_file(&new);
        let linked = fs::create_dir_all(&folder).and_then(|()| {
            // As other programs of the hub do it. The chosen files are in no subfolder.
            #[cfg(unix)]
            std::os::unix::fs::symlink(Path::new("../../blobs").join(&hash.hex), &new)?;
            #[cfg(not(unix))]
            fs::hard_link(&blob, &new).or_else(|_| fs::copy(&blob, &new).map(|_| ()))?;
            fs::rename(&new, &link)
        });
        linked.map_err(|source| io_error(&link, source))?;
        if link.is_file() { Ok(()) } else { Err(io_error(&blob, std::io::ErrorKind::NotFound.into())) }
    }
}

/// The text of a regular file, at most so many bytes of it.
fn short_text(path: &Path, most: u64) -> Option<String> {
    // Opening a pipe waits.
    fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let mut text = String::new();
    File::open(path).ok()?.take(most).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The folder of converted models: `esolm` in XDG_CACHE_HOME or `~/.cache`; macOS: `~/Library/Caches`; Windows:
/// `%LOCALAPPDATA%`.
pub fn models_folder() -> Result<PathBuf> {
    let folder = dirs::cache_dir().map(|cache| cache.join("esolm"));
    folder.ok_or_else(|| Error::InvalidArgument("there is no home directory; set XDG_CACHE_HOME".into()))
}

/// Refuses to write to what is there and no regular file: other programs share the cache, opening a pipe waits, and a link leads
/// elsewhere.
pub fn check_regular(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            Err(io_error(path, std::io::Error::other("it is no regular file")))
        }
        _ => Ok(()),
    }
}

/// Refuses to begin what cannot end: `needs` has folders with the bytes that are to be written to each.
pub fn check_space(needs: &[(PathBuf, u64)]) -> Result<()> {
    for (folder, _) in needs {
        let free = fs4::available_space(folder).map_err(|source| io_error(folder, source))?;
        let shared = needs.iter().filter(|(other, _)| same_disk(folder, other));
        let bytes = shared.fold(0u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
        if bytes > free {
            let [bytes, free] = [bytes, free].map(crate::output::human_bytes);
            let what = format!("{bytes} are needed, {free} are free; nothing was downloaded");
            return Err(io_error(folder, std::io::Error::new(std::io::ErrorKind::StorageFull, what)));
        }
    }
    Ok(())
}

#[cfg(unix)]
fn same_disk(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| fs::metadata(path).map(|m| m.dev()).ok();
    device(a) == device(b)
}

#[cfg(not(unix))]
fn same_disk(a: &Path, b: &Path) -> bool {
    a.components().next() == b.components().next()
}
