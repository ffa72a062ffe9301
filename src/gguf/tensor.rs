//! A tensor's description, and its bytes.

use std::borrow::Cow;
use std::ops::Range;

use super::panels::{self, Layout};
use super::tensor_type::TensorType;
use crate::error::{Error, Result};
use crate::memory::{collected, copied};

/// A tensor's description.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorInfo {
    /// The name, for example `blk.0.attn_qkv.weight`.
    pub name: String,
    /// Element type.
    pub ty: TensorType,
    /// How its rows lie.
    pub layout: Layout,
    /// Shape, fastest dimension first (elements of a row, then rows); one to four entries.
    pub dims: Vec<usize>,
    /// Its bytes, as offsets from the start of the file.
    pub range: Range<usize>,
}

impl TensorInfo {
    /// A copy.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn copied(&self) -> Result<Self> {
        let (name, dims) = (copied(&self.name)?, collected(self.dims.iter().copied())?);
        Ok(Self { name, dims, range: self.range.clone(), ..*self })
    }

    /// Elements of a row.
    ///
    /// # Errors
    /// [`Error::Internal`] if the shape is empty.
    #[cfg_attr(not(feature = "convert"), allow(dead_code, reason = "only `convert` quantizes"))]
    pub(crate) fn row_len(&self) -> Result<usize> {
        let row = self.dims.first().copied();
        row.ok_or_else(|| Error::internal(format!("tensor '{}' has no dimensions", self.name)))
    }

    /// The tensor's bytes in `file`, the bytes that [`TensorInfo::range`] counts in.
    ///
    /// # Errors
    /// [`Error::Internal`] if they are outside.
    pub(crate) fn bytes<'a>(&self, file: &'a [u8]) -> Result<&'a [u8]> {
        let bytes = file.get(self.range.clone());
        bytes.ok_or_else(|| Error::internal(format!("tensor '{}' is outside its file", self.name)))
    }
}

impl TensorInfo {
    /// The tensor in `file`, the bytes that [`TensorInfo::range`] counts in, with its rows in `layout`.
    ///
    /// # Errors
    /// As [`TensorInfo::bytes`]; [`Error::OutOfMemory`]; [`Error::Internal`] for what cannot lie in panels.
    pub(crate) fn in_layout<'a>(&self, file: &'a [u8], layout: Layout) -> Result<Cow<'a, [u8]>> {
        let bytes = self.bytes(file)?;
        if layout == self.layout {
            return Ok(Cow::Borrowed(bytes));
        }
        panels::convert(self.ty, &self.dims, bytes, layout).map(Cow::Owned)
    }

    /// Its size with its rows in `layout`.
    pub(crate) fn len_in(&self, layout: Layout) -> Option<usize> {
        panels::tensor_bytes(self.ty, layout, &self.dims)
    }
}
