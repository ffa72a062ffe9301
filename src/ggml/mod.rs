//! The safe wrapper around ggml.
//!
//! ggml ends the process when it is misused, so everything here checks shapes, types, sizes and indices first
//! and answers with an error. Nothing of ggml's own types shows in this module's public items.
//!
//! * [`Device`]: what can compute. [`Backend`]: a device made ready, with its persistent threads.
//! * [`Weights`]: a model's tensors on a device, in place in a mapped file where that is possible.
//! * [`Workspace`]: a context's memory, divided once. [`Graph`]: one computation, built in that memory.
#![allow(unsafe_code)]

mod backend;
mod buffer;
mod device;
mod graph;
#[cfg(feature = "convert")]
mod observe;
mod operations;
mod quantize;
mod weights;
mod workspace;

pub(crate) use backend::{Backend, MAX_THREADS};
pub(crate) use buffer::in_host_memory;
pub use device::{Device, DeviceInfo, DeviceKind, devices};
pub(crate) use graph::{Graph, Tensor};
#[cfg(feature = "convert")]
pub(crate) use observe::{Observed, observe};
#[cfg_attr(not(feature = "convert"), allow(unused_imports, reason = "only the converter packs tensors"))]
pub(crate) use quantize::{dequantize, quantize};
pub(crate) use weights::Weights;
pub(crate) use workspace::{Workspace, WorkspaceSize};
