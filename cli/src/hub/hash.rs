//! What a file of the hub is checked with.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use ring::digest;

/// A hash that the hub states as the ETag of a file: SHA-256 for a large one (LFS), git's name of the content for a small one.
#[derive(Debug, Clone, PartialEq)]
pub struct Hash {
    /// In hexadecimal, lower case: also the file's name in the cache.
    pub hex: String,
}

impl Hash {
    /// Reads an ETag, which may be weak.
    pub fn from_etag(etag: &str) -> Option<Self> {
        let hex = etag.trim_start_matches("W/").trim_matches('"');
        let is_hex = hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        (is_hex && matches!(hex.len(), 40 | 64)).then(|| Self { hex: hex.into() })
    }

    /// Whether the content of this file has this hash.
    ///
    /// # Errors
    /// The system's, if the file cannot be read.
    pub fn is_of(&self, path: &Path) -> std::io::Result<bool> {
        let mut file = File::open(path)?;
        let mut context = if self.hex.len() == 64 {
            digest::Context::new(&digest::SHA256)
        } else {
            // The hub's choice for its small files, not one of this program.
            let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
            context.update(format!("blob {}\0", file.metadata()?.len()).as_bytes());
            context
        };
        let mut buffer = vec![0; 1 << 16];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                count => context.update(buffer.get(..count).unwrap_or_default()),
            }
        }
        let hex: String = context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(hex == self.hex)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_sha256sum_and_git() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "hello\n").unwrap();
        // sha256sum; git hash-object
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        for etag in [sha256.to_owned(), format!("\"{sha256}\""), format!("W/\"{git}\"")] {
            let hash = Hash::from_etag(&etag).unwrap();
            assert!(hash.is_of(&path).unwrap(), "{etag}");
            std::fs::write(&path, "hello!\n").unwrap();
            assert!(!hash.is_of(&path).unwrap(), "{etag}");
            std::fs::write(&path, "hello\n").unwrap();
        }
    }

    #[test]
    fn etags_that_are_no_hash_are_none() {
        for etag in
            ["", "\"abc\"", "../../../../../../../../../../../../../x", &"A".repeat(40), &"g".repeat(64)]
        {
            assert_eq!(Hash::from_etag(etag), None, "{etag}");
        }
    }
}
