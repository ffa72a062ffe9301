//! The safe wrapper around ggml.
//!
//! ggml aborts the process when it is misused, so this module checks shapes, types, sizes and indices first and
//! returns an error instead. Its public items show none of ggml's own types.
//!
//! * [`Device`]: a device of ggml's registry. [`Backend`]: a device that has been started, with its threads.
//! * [`Weights`]: a model's tensors on a device, in place in a mapped file where that is possible.
//! * [`Workspace`]: a context's memory, divided once. [`Graph`]: one ggml graph, built and computed in that memory.
#![allow(unsafe_code)]

mod backend;
mod buffer;
mod device;
mod draw;
mod graph;
#[cfg(feature = "convert")]
mod observe;
mod operations;
mod quantize;
mod table;
mod version;
mod weights;
mod workspace;

pub(crate) use backend::{Backend, MAX_THREADS};
pub(crate) use buffer::{alignment, in_host_memory};
pub use device::{Device, DeviceInfo, DeviceKind, devices};
pub(crate) use draw::{DrawRegions, DrawRow, draws};
pub(crate) use graph::{Graph, GraphSize};
#[cfg(feature = "convert")]
pub(crate) use observe::{Observed, observe};
#[cfg_attr(not(feature = "convert"), allow(unused_imports, reason = "only the converter packs tensors"))]
pub(crate) use quantize::{dequantize, quantize};
pub(crate) use table::Tensor;
pub(crate) use version::system_info;
pub(crate) use weights::Weights;
#[cfg(test)]
pub(crate) use workspace::Counts;
pub(crate) use workspace::{GraphShape, Workspace, WorkspaceSize};
