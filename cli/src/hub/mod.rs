//! Models of a hub: fetched, converted, found again.
//!
//! `name` is what the user writes, `client` asks the hub, `files` chooses among its files, `download` fetches them,
//! `store` says where everything lies, `hash` checks, `published` knows some models.

mod client;
mod download;
mod files;
mod hash;
mod name;
mod pace;
mod published;
mod store;

use std::path::PathBuf;

use esolm::convert::{Options, convert};
use esolm::{Error, LoadOptions, Model, Result, Variant, check_writable, copy_file};

use crate::output::{human_bytes, io_error, print_notes, tell};
use crate::progress;
use client::{Client, Listing, RemoteFile};
use files::{Choice, choose, gguf_of_type, is_gguf};
use store::{Store, check_space};

pub use name::Name;
pub use published::{PUBLISHED, Published};
pub use store::models_folder;

/// What `esolm pull` is asked for.
pub struct Request {
    pub name: Name,
    pub variant: Option<Variant>,
    pub tokenizer: Option<PathBuf>,
    /// Where the model goes instead of the cache.
    pub output: Option<PathBuf>,
    /// Checks and converts again what is there.
    pub force: bool,
    /// Tells what the file asks of who runs it, who is somebody else.
    pub tells_wants: bool,
}

/// The file of a model. Without a request to the hub if the model is there.
pub fn model(name: &str) -> Result<PathBuf> {
    let name = Name::parse(name)?;
    let store = Store::of(&name)?;
    if let Some(commit) = store.commit() {
        if store.model(&commit).is_file() {
            return Ok(store.model(&commit));
        }
        if let Some(file) = gguf_of_type(&store.files(&commit), name.tensor_type) {
            return Ok(store.snapshot(&commit).join(file));
        }
        if let Some(file) = store.chosen(&commit) {
            return Ok(file);
        }
    }
    pull(&Request { name, variant: None, tokenizer: None, output: None, force: false, tells_wants: false })
}

/// The folder with the checkpoint of a repository.
pub fn checkpoint(name: &str) -> Result<PathBuf> {
    if let Some((_, ty)) = name.rsplit_once(':') {
        let what = format!("hf:{name}: what is converted has no type yet; say it with --type {ty}");
        return Err(Error::InvalidArgument(what));
    }
    let name = Name::parse(name)?;
    let source = Source::find(&name)?;
    let mut names = source.names();
    names.retain(|name| !is_gguf(name));
    match choose(&names, name.tensor_type) {
        Ok(choice) => source.fetch(choice.files(), None, false),
        Err(what) => match source.choose()? {
            Choice::Gguf(file) => Err(name.bad(format!("{file:?} needs no conversion; use `esolm pull`"))),
            Choice::Checkpoint(_) => Err(name.bad(what)),
        },
    }
}

/// The `tokenizer.json` of a repository. Without a request to the hub if it is there.
pub fn tokenizer(name: &str) -> Result<PathBuf> {
    const FILE: &str = "tokenizer.json";
    let name = Name::parse(name)?;
    let store = Store::of(&name)?;
    if let Some(commit) = store.commit() {
        let path = store.snapshot(&commit).join(FILE);
        if path.is_file() {
            return Ok(path);
        }
    }
    let source = Source::find(&name)?;
    if !source.names().iter().any(|name| name == FILE) {
        return Err(name.bad(format!("it has no {FILE}")));
    }
    Ok(source.fetch(&[FILE.into()], None, false)?.join(FILE))
}

/// Downloads and converts a model, and returns its file.
pub fn pull(request: &Request) -> Result<PathBuf> {
    let name = &request.name;
    // Before the download, which may take hours.
    if let Some(output) = &request.output {
        if !request.force && output.is_file() {
            return Err(Error::InvalidArgument(format!("{} exists; --force replaces it", output.display())));
        }
        check_writable(output)?;
    }
    let source = Source::find(name)?;
    let cached = source.store.model(&source.commit);
    // What these options say may not be how it was converted.
    let as_it_is = request.tokenizer.is_none() && request.variant.is_none();
    if cached.is_file() && request.output.is_none() && !request.force && as_it_is {
        source.store.set_commit(&source.commit)?;
        return Ok(cached);
    }
    let choice = source.choose()?;
    if let Choice::Gguf(file) = &choice {
        if !as_it_is {
            let what = format!("{file:?} is a GGUF, for which there is no --variant and no --tokenizer");
            return Err(Error::InvalidArgument(what));
        }
        if source.hub.is_none() && gguf_of_type(&source.names(), name.tensor_type).is_none() {
            tell(&format!("note: {file:?} is what was downloaded before"));
        }
    }
    let folder_of = |output: &PathBuf| match output.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    let output_folder = request.output.as_ref().map(folder_of);
    let known = Published::named(&name.repository);
    let other = known.filter(|_| request.tokenizer.is_none()).and_then(|known| match &choice {
        Choice::Gguf(_) => None,
        Choice::Checkpoint(files) => known.missing_tokenizer(files),
    });
    let given_tokenizer = match other {
        None => request.tokenizer.clone(),
        Some(other) => {
            tell(&format!("{name} has no tokenizer; that of hf:{other} is used"));
            Some(tokenizer(other)?)
        }
    };
    let made = match &choice {
        Choice::Gguf(_) => output_folder.map(|folder| Made { folder, bits: 32 }),
        Choice::Checkpoint(_) => {
            let folder = output_folder.map_or_else(|| source.store.models(&source.commit), Ok)?;
            // Most weights are of 32 bits, some of 16: it takes at least this.
            Some(Made { folder, bits: 8 * name.tensor_type.block_bytes() / name.tensor_type.block_len() })
        }
    };
    let folder = source.fetch(choice.files(), made, request.force)?;
    match choice {
        Choice::Gguf(chosen) => {
            let file = folder.join(&chosen);
            let cpu = LoadOptions { device: "cpu".into(), ..LoadOptions::default() };
            match Model::open(&file, &cpu) {
                // It wants options, such as --mask-token, which are those of the command that runs it.
                Err(Error::InvalidArgument(what)) => {
                    if request.tells_wants {
                        tell(&format!("note: {what}"));
                    }
                }
                opened => drop(opened?),
            }
            match &request.output {
                Some(output) => copy_file(&file, output).map(|()| output.clone()),
                None => {
                    // Of all that the hub has; what is here does not tell.
                    if source.hub.is_some() && gguf_of_type(&source.names(), name.tensor_type).is_none() {
                        source.store.choose(&source.commit, &chosen)?;
                    }
                    Ok(file)
                }
            }
        }
        Choice::Checkpoint(_) => {
            let output = match &request.output {
                Some(output) => output.clone(),
                None => source.store.models(&source.commit).map(|_| cached)?,
            };
            let options = Options {
                tokenizer: given_tokenizer,
                tensor_type: name.tensor_type,
                variant: request.variant.or(known.and_then(Published::variant)),
                // In the cache another process may have been faster, with the same result.
                force: request.force || request.output.is_none(),
                ..Options::default()
            };
            let report = progress::of_file(|show| convert(&folder, &output, &options, show));
            print_notes(&report.map_err(|error| with_advice(error, name))?.notes);
            Ok(output)
        }
    }
}

/// Says where options go that the conversion asks for.
fn with_advice(error: Error, name: &Name) -> Error {
    match error {
        Error::InvalidArgument(what) => Error::InvalidArgument(format!(
            "{what}. `esolm pull {}` has the options --variant and --tokenizer, `esolm convert {name}` all others",
            name.repository
        )),
        error => error,
    }
}

/// A file that is made of what is fetched.
struct Made {
    folder: PathBuf,
    /// What becomes of 32 bits.
    bits: usize,
}

/// A commit of a repository, on the hub or on this machine alone.
struct Source<'a> {
    name: &'a Name,
    store: Store,
    commit: String,
    /// `None` if only this machine can be asked.
    hub: Option<(Client, Listing)>,
}

impl<'a> Source<'a> {
    /// Asks the hub which commit the revision is; without a network, the files of the last download.
    fn find(name: &'a Name) -> Result<Self> {
        let mut store = Store::of(name)?;
        let here = store.commit();
        let offline = is_offline();
        let hub = if offline {
            None
        } else {
            let client = Client::from_environment(store.saved_token.take())?;
            match client.listing(name) {
                Ok(listing) => {
                    let licence = listing.licence.as_deref().unwrap_or("not stated");
                    tell(&format!(
                        "{name}: commit {:.12}, licence: {licence} ({})",
                        listing.commit,
                        client.page(name)
                    ));
                    Some((client, listing))
                }
                Err(failure) if failure.passing && here.is_some() => {
                    tell(&format!("note: {}; what was downloaded before is used", failure.error));
                    None
                }
                Err(failure) => return Err(failure.error),
            }
        };
        let commit = hub.as_ref().map(|(_, listing)| listing.commit.clone()).or(here);
        match commit {
            Some(commit) => Ok(Self { name, store, commit, hub }),
            None => Err(name.bad("was not downloaded yet, and HF_HUB_OFFLINE forbids it")),
        }
    }

    /// The names of the commit's files.
    fn names(&self) -> Vec<String> {
        match &self.hub {
            Some((_, listing)) => listing.files.clone(),
            None => self.store.files(&self.commit),
        }
    }

    /// What of the commit makes the model.
    fn choose(&self) -> Result<Choice> {
        choose(&self.names(), self.name.tensor_type).map_err(|what| match self.hub {
            Some(_) => self.name.bad(what),
            None => {
                self.name.bad(format!("{what} (among what was downloaded before; the hub was not asked)"))
            }
        })
    }

    /// Downloads these files unless they are there, and returns the folder that they are in. Demands the space for them and for
    /// what is `made` of them. With `check`, content that is there is compared with its hash.
    fn fetch<'f>(&self, files: &'f [String], made: Option<Made>, check: bool) -> Result<PathBuf> {
        let (store, commit) = (&self.store, &self.commit);
        let folder = store.snapshot(commit);
        let Some((client, _)) = &self.hub else {
            return Ok(folder);
        };
        let missing = |file: &&String| check || !folder.join(file).is_file();
        let describe = |file: &'f String| Ok((file, client.describe(self.name, commit, file)?));
        let remote =
            files.iter().filter(missing).map(describe).collect::<Result<Vec<(&String, RemoteFile)>>>()?;
        for (_, file) in remote.iter().filter(|_| check) {
            let blob = store.blob(&file.hash);
            if blob.is_file() && !file.hash.is_of(&blob).map_err(|source| io_error(&blob, source))? {
                std::fs::remove_file(&blob).map_err(|source| io_error(&blob, source))?;
            }
        }
        let all: u64 = remote.iter().fold(0, |sum, (_, file)| sum.saturating_add(file.size));
        let needed =
            remote.iter().fold(0u64, |sum, (_, file)| sum.saturating_add(download::missing(store, file)));
        let mut needs = vec![(store.downloads()?, needed)];
        if let Some(Made { folder: place, bits }) = made {
            let size = |file: &String| folder.join(file).metadata().map_or(0, |file| file.len());
            let here = files.iter().filter(|file| !missing(file)).map(size);
            let whole = here.fold(all, u64::saturating_add);
            needs.push((place, whole / 32 * bits as u64));
        }
        check_space(&needs)?;
        progress::of_download(all, |show| {
            let mut before = 0;
            for (file, remote) in &remote {
                download::download(client, store, self.name, remote, &mut |done| show(file, before + done))?;
                store.link(commit, file, &remote.hash)?;
                before += remote.size;
            }
            Ok::<_, Error>(())
        })?;
        if needed > 0 {
            tell(&format!("{}: {} downloaded to {}", self.name, human_bytes(needed), folder.display()));
        }
        // Last: what a branch's commit has is then complete.
        store.set_commit(commit)?;
        Ok(folder)
    }
}

/// Whether HF_HUB_OFFLINE forbids requests.
fn is_offline() -> bool {
    let value = std::env::var("HF_HUB_OFFLINE").unwrap_or_default().to_ascii_lowercase();
    matches!(value.as_str(), "1" | "true" | "yes" | "on")
}
