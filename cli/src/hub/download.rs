//! Downloads of files: continued where they ended, checked before they get their name.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use esolm::Result;

use super::client::{Client, Failure, RemoteFile, unreachable};
use super::name::Name;
use super::pace::{Paced, TooSlow};
use super::store::{Store, check_regular};
use crate::output::io_error;

/// So many times in a row a download is continued that broke off with too few bytes.
const RETRIES: u32 = 4;

/// How many bytes are still to be downloaded.
pub fn missing(store: &Store, file: &RemoteFile) -> u64 {
    let size = |path: &Path| fs::metadata(path).map_or(0, |m| m.len());
    let blob = store.blob(&file.hash);
    if is_complete(&blob, file) { 0 } else { file.size.saturating_sub(size(&blob.with_extension("part"))) }
}

/// Puts a file's content into the store. `show` is called with the bytes of it that are there.
///
/// # Errors
/// A failure of the hub or of the disk, after which a later call continues; [`esolm::Error::BadFile`] for a content of
/// another size or hash than the hub stated, which is removed.
pub fn download(
    client: &Client,
    store: &Store,
    name: &Name,
    file: &RemoteFile,
    show: &mut dyn FnMut(u64),
) -> Result<()> {
    let blob = store.blob(&file.hash);
    let (part, lock_file) = (blob.with_extension("part"), blob.with_extension("lock"));
    [&part, &lock_file].into_iter().try_for_each(|path| check_regular(path))?;
    // The names that hf-hub gives them. One process at a time; the lock ends with the process, however that ends.
    let lock = File::create(&lock_file).and_then(|lock| lock.lock().map(|()| lock));
    let lock = lock.map_err(|source| io_error(&lock_file, source))?;
    if !is_complete(&blob, file) {
        complete(client, name, file, &part, show)?;
        if !file.hash.is_of(&part).map_err(|source| io_error(&part, source))? {
            fs::remove_file(&part).map_err(|source| io_error(&part, source))?;
            return Err(name.bad(format!(
                "{}: what was sent does not have the hash {} that the hub states; it was removed",
                file.url, file.hash.hex
            )));
        }
        let synced = File::open(&part).and_then(|file| file.sync_all());
        synced.and_then(|()| fs::rename(&part, &blob)).map_err(|source| io_error(&blob, source))?;
    }
    show(file.size);
    drop(lock);
    // Nothing depends on it.
    let _ = fs::remove_file(&lock_file);
    Ok(())
}

fn is_complete(blob: &Path, file: &RemoteFile) -> bool {
    fs::metadata(blob).is_ok_and(|m| m.is_file() && m.len() == file.size)
}

/// Downloads until `part` is as long as the file is to be.
fn complete(
    client: &Client,
    name: &Name,
    file: &RemoteFile,
    part: &Path,
    show: &mut dyn FnMut(u64),
) -> Result<()> {
    let mut retries = 0;
    loop {
        let mut out =
            OpenOptions::new().create(true).append(true).open(part).map_err(|e| io_error(part, e))?;
        let start = out.metadata().map_err(|e| io_error(part, e))?.len();
        if start > file.size {
            // Of another file, or of a server that does not keep to its word.
            out.set_len(0).map_err(|e| io_error(part, e))?;
            continue;
        }
        show(start);
        if start == file.size {
            return Ok(());
        }
        match append(client, name, file, start, (&mut out, part), show) {
            Ok(()) => {}
            Err(failure) if failure.passing => {
                let length = out.metadata().map_err(|e| io_error(part, e))?.len();
                let is_much = length.saturating_sub(start) >= client.patience.least();
                retries = if is_much { 1 } else { retries + 1 };
                if retries > RETRIES {
                    return Err(failure.error);
                }
                std::thread::sleep(Duration::from_secs(retries.into()));
            }
            Err(failure) => return Err(failure.error),
        }
    }
}

/// Bytes that are written together, a huge page: the system keeps them in such, and the model is read faster from them.
const BLOCK: usize = 2 << 20;

/// Reads until `block` is full, nothing comes any more, or a second is over: what is here is lost if the command is ended. `show` is
/// called with how much of the block is. Returns that, and whether there may be more.
fn fill(
    body: &mut impl Read,
    block: &mut [u8],
    show: &mut dyn FnMut(usize),
) -> (usize, std::io::Result<bool>) {
    let (mut count, start) = (0, Instant::now());
    while let Some(rest) = block.get_mut(count..).filter(|rest| !rest.is_empty()) {
        match body.read(rest) {
            Ok(0) => return (count, Ok(false)),
            Ok(more) => count += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return (count, Err(error)),
        }
        show(count);
        if start.elapsed() >= Duration::from_secs(1) {
            break;
        }
    }
    (count, Ok(true))
}

/// Appends what the hub sends to `out`, which has `start` bytes of the file.
fn append(
    client: &Client,
    name: &Name,
    file: &RemoteFile,
    start: u64,
    (out, path): (&mut File, &Path),
    show: &mut dyn FnMut(u64),
) -> Result<(), Failure> {
    let response = client.read(name, &file.url, start)?;
    let mut length = start;
    if response.status() == 200 && start > 0 {
        // The server does not know ranges and begins from the start.
        out.set_len(0).map_err(|source| io_error(path, source))?;
        length = 0;
    }
    let mut body = Paced::new(response.into_body().into_reader(), client.patience);
    let mut buffer = vec![0; BLOCK];
    loop {
        let room = BLOCK - (length % BLOCK as u64) as usize;
        let block = buffer.get_mut(..room).unwrap_or_default();
        let (count, more) = fill(&mut body, block, &mut |count| show(length + count as u64));
        length += count as u64;
        if length > file.size {
            fs::remove_file(path).map_err(|source| io_error(path, source))?;
            let what = format!("{}: longer than the {} bytes that the hub states", file.url, file.size);
            return Err(name.bad(what).into());
        }
        out.write_all(buffer.get(..count).unwrap_or_default()).map_err(|source| io_error(path, source))?;
        let more = more.map_err(|error| {
            // Of a hub that is that slow nothing better is to be expected at once.
            let passing = !TooSlow::is(&error);
            Failure { passing, ..unreachable(&file.url, &error) }
        })?;
        if !more {
            break;
        }
    }
    if length < file.size {
        return Err(unreachable(&file.url, &format!("{length} of {} bytes came", file.size)));
    }
    Ok(())
}
