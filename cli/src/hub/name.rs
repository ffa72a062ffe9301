//! What a user calls a model of a hub: `OWNER/NAME[@REVISION][:TYPE]`.

use std::fmt::{Display, Formatter};

use esolm::gguf::TensorType;
use esolm::{Error, Result};

use crate::tensor_types::tensor_type;

/// The type that a model is converted to if nobody says otherwise. A quarter of the size of f32, and what it loses is not
/// measurable in the text (docs/quality.md).
pub const DEFAULT_TYPE: TensorType = TensorType::Q8_0;

/// A repository, a revision of it, and the type that its model is to have here.
#[derive(Debug, Clone, PartialEq)]
pub struct Name {
    /// `OWNER/NAME`.
    pub repository: String,
    /// A branch, a tag or a commit.
    pub revision: String,
    /// The type of the weight matrices, [`DEFAULT_TYPE`] if none is named.
    pub tensor_type: TensorType,
}

impl Name {
    /// Reads a name; the `hf:` before it is optional here.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] saying which part is wrong. What passes is safe in paths and addresses.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |what: String| {
            Error::InvalidArgument(format!("'{text}' is no OWNER/NAME[@REVISION][:TYPE]: {what}"))
        };
        let rest = text.strip_prefix("hf:").unwrap_or(text);
        let (rest, ty) = rest.rsplit_once(':').map_or((rest, None), |(rest, ty)| (rest, Some(ty)));
        let (repository, revision) = rest.split_once('@').unwrap_or((rest, "main"));
        let tensor_type = match ty {
            Some(ty) => {
                tensor_type(ty).ok_or_else(|| bad(format!("'{ty}' is no type that a model can have")))?
            }
            None => DEFAULT_TYPE,
        };
        if repository.split('/').count() != 2 || !is_safe(repository) {
            return Err(bad(format!("'{repository}' is no owner and name")));
        }
        let name = Self { repository: repository.into(), revision: "main".into(), tensor_type };
        name.at(revision)
    }

    /// The same model at another revision.
    pub fn at(self, revision: &str) -> Result<Self> {
        if !is_safe(revision) {
            return Err(Error::InvalidArgument(format!("'{revision}' is no revision of a repository")));
        }
        Ok(Self { revision: revision.into(), ..self })
    }

    /// The name without its owner.
    pub fn short(&self) -> &str {
        self.repository.rsplit('/').next().unwrap_or(&self.repository)
    }

    /// The error that something is wrong with this repository.
    pub fn bad(&self, what: impl Into<String>) -> Error {
        Error::BadFile { file: self.to_string(), what: what.into(), source: None }
    }
}

impl Display for Name {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let Self { repository, revision, .. } = self;
        if revision == "main" {
            write!(f, "hf:{repository}")
        } else {
            write!(f, "hf:{repository}@{revision}")
        }
    }
}

/// Whether `text` is the full name of a commit.
pub fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Whether each part between slashes can be a folder's name and needs no escaping in an address.
fn is_safe(text: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"._-+".contains(&b);
    text.split('/').all(|part| !part.is_empty() && !part.starts_with('.') && part.bytes().all(is_plain))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn name_has_repository_revision_and_type() {
        let name = Name::parse("hf:owner/name").unwrap();
        let Name { repository, revision, tensor_type } = &name;
        assert_eq!(
            (repository.as_str(), revision.as_str(), *tensor_type),
            ("owner/name", "main", DEFAULT_TYPE)
        );
        let name = Name::parse("o.w-n_er/Na.me-1@refs/pr/1:q4_k").unwrap();
        assert_eq!(name.revision, "refs/pr/1");
        assert_eq!((name.tensor_type, name.short()), (TensorType::Q4K, "Na.me-1"));
    }

    #[test]
    fn name_that_would_leave_its_folder_is_refused() {
        for text in [
            "",
            "name",
            "a/b/c",
            "/a/b",
            "a/",
            "/b",
            "../b",
            "a/..",
            "a/.b",
            "a/b@",
            "a/b@..",
            "a/b@x/../y",
            "a/b:",
            "a/b:q9",
            "a b/c",
            "a/b@x y",
            "a\\b/c",
            "a/b\n",
            "a/b?c",
            "a/b#c",
            "a/b%2e",
            "a/é",
        ] {
            let error = Name::parse(text);
            assert!(matches!(error, Err(Error::InvalidArgument(_))), "{text:?}: {error:?}");
        }
    }
}
