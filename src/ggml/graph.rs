//! A ggml graph being built: inputs, views, and where the data of its tensors is. Its operations: [`super::operations`].

use std::ptr::NonNull;

use ggml_sys::{ggml_cgraph, ggml_context, ggml_tensor};

use super::buffer::Buffer;
use super::device::{Device, text};
use super::table::{Tensor, TensorTable, put};
use crate::error::{Error, Result};
use crate::gguf::TensorType;
use crate::memory::Region;

/// How large a graph can be: tensors in all, and how many parts ([`Graph::cut`]) of how many tensors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct GraphSize {
    pub(crate) tensors: usize,
    pub(crate) parts: usize,
    pub(crate) part_tensors: usize,
}

impl GraphSize {
    /// A graph that is computed in one go.
    pub(crate) fn whole(tensors: usize) -> Self {
        Self { tensors, parts: 1, part_tensors: tensors }
    }

    /// Whether a place of this size has room for a graph of `other`.
    pub(super) fn holds(&self, other: &Self) -> bool {
        self.tensors >= other.tensors && self.table_bytes() >= other.table_bytes()
    }

    /// Bytes of a table for it.
    pub(super) fn table_bytes(&self) -> usize {
        TensorTable::size(self.tensors, (self.parts, self.part_tensors))
    }
}

/// What was built: parts that are computed one after the other, where the input is written to, and the result.
#[derive(Debug)]
pub(super) struct CompleteGraph {
    pub(super) parts: Vec<NonNull<ggml_cgraph>>,
    pub(super) input: Option<NonNull<ggml_tensor>>,
    pub(super) result: Option<NonNull<ggml_tensor>>,
}

/// A graph being built; operations run in the order in which they are added.
#[derive(Debug)]
pub(crate) struct Graph<'g> {
    table: &'g mut TensorTable,
    complete: &'g mut CompleteGraph,
    buffer: Option<&'g Buffer>,
    size: GraphSize,
    /// How many more tensors fit the last part.
    left: usize,
    /// Whether products are asked for in single precision, where a device would take half.
    pub(super) is_exact: bool,
}

impl<'g> Graph<'g> {
    /// Removes all tensors of `table`, which was made for `size`, and begins a graph whose data is in `buffer`. Without a
    /// buffer the graph can be measured but not computed.
    pub(super) fn new(
        table: &'g mut TensorTable,
        complete: &'g mut CompleteGraph,
        buffer: Option<&'g Buffer>,
        size: GraphSize,
    ) -> Result<Self> {
        complete.parts.clear();
        (complete.input, complete.result) = (None, None);
        // SAFETY: `complete` was the last to refer to them.
        unsafe { table.empty(size.tensors) };
        let mut graph = Self { table, complete, buffer, size, left: 0, is_exact: false };
        graph.cut()?;
        Ok(graph)
    }

    /// Begins another part, after which cancelling takes effect. An operation of an earlier part must not be an operand
    /// in a later one: what lies in memory is named anew with [`Graph::tensor`].
    pub(crate) fn cut(&mut self) -> Result<()> {
        if self.complete.parts.len() >= self.size.parts {
            return Err(Error::internal("too many parts of a graph"));
        }
        self.complete.parts.push(self.table.new_graph(self.size.part_tensors)?);
        self.left = self.size.part_tensors;
        Ok(())
    }

    /// Asks for products in single precision from here on, where a device would take half.
    pub(crate) fn set_exact(&mut self, is_exact: bool) {
        self.is_exact = is_exact;
    }

    /// The graph is complete, and its result is `result`.
    pub(super) fn finish(self, result: Option<Tensor<'g>>) {
        self.complete.result = result.and_then(|result| NonNull::new(result.as_ptr()));
    }

    fn part(&self) -> *mut ggml_cgraph {
        self.complete.parts.last().map_or(std::ptr::null_mut(), |part| part.as_ptr())
    }

    pub(super) fn ctx(&self) -> *mut ggml_context {
        self.table.ctx()
    }

    /// Adds an operation's result to the graph, with memory at `at` (None: a view, in its parent's memory).
    pub(super) fn node(&mut self, raw: *mut ggml_tensor, at: Option<Region>) -> Result<Tensor<'g>> {
        let tensor = self.leaf(raw, at)?;
        // SAFETY: the part has room for every tensor that was taken since it began.
        unsafe { ggml_sys::ggml_build_forward_expand(self.part(), raw) };
        Ok(tensor)
    }

    pub(super) fn leaf(&mut self, raw: *mut ggml_tensor, at: Option<Region>) -> Result<Tensor<'g>> {
        let tensor = Tensor::new(raw)?;
        match (self.buffer, at) {
            (Some(buffer), Some(region)) => put(tensor, buffer, region.offset, region.len)?,
            (Some(_), None) => {
                let parent = tensor.get().view_src;
                // SAFETY: a view's parent lives in the same or a longer-lived context.
                if parent.is_null() || unsafe { (*parent).buffer.is_null() } {
                    return Err(Error::internal("a view of a tensor without memory"));
                }
                // SAFETY: the parent has memory, and the view lies within it (each view checks).
                unsafe { ggml_sys::ggml_backend_view_init(raw) };
            }
            (None, _) => {}
        }
        Ok(tensor)
    }

    /// Reserves one more tensor; an error unless its operands fit (`fits`).
    pub(super) fn take(&mut self, fits: bool, what: &str) -> Result<()> {
        if !fits {
            return Err(Error::internal(format!("{what}: the shapes or types do not fit")));
        }
        self.left = self.left.checked_sub(1).ok_or_else(|| Error::internal("too many tensors in a part"))?;
        self.table.take()
    }

    /// A tensor at `at` that other graphs filled, or earlier parts.
    pub(crate) fn tensor(&mut self, ty: TensorType, dims: [usize; 3], at: Region) -> Result<Tensor<'g>> {
        self.take(ty.tensor_bytes(&dims).is_some() && dims.iter().all(|&d| d > 0), "tensor")?;
        let [a, b, c] = dims.map(|d| d as i64);
        // SAFETY: the table has room and the dimensions are positive.
        let raw = unsafe { ggml_sys::ggml_new_tensor_3d(self.ctx(), ty.code() as _, a, b, c) };
        self.leaf(raw, Some(at))
    }

    /// Says that the graph's input, `len` numbers of 32 bits, is written to `at` before each run.
    pub(crate) fn input(&mut self, len: usize, at: Region) -> Result<()> {
        let tensor = self.indices(len, at)?;
        self.complete.input = NonNull::new(tensor.as_ptr());
        Ok(())
    }

    /// `len` indices of 32 bits at `at`, part of the input.
    pub(crate) fn indices(&mut self, len: usize, at: Region) -> Result<Tensor<'g>> {
        self.take(len > 0, "indices")?;
        // SAFETY: the table has room and the length is positive.
        let raw = unsafe { ggml_sys::ggml_new_tensor_1d(self.ctx(), ggml_sys::GGML_TYPE_I32, len as i64) };
        self.leaf(raw, Some(at))
    }

    /// `len` indices of 64 bits at `at`, part of the input.
    pub(crate) fn long_indices(&mut self, len: usize, at: Region) -> Result<Tensor<'g>> {
        self.take(len > 0, "indices")?;
        // SAFETY: the table has room and the length is positive.
        let raw = unsafe { ggml_sys::ggml_new_tensor_1d(self.ctx(), ggml_sys::GGML_TYPE_I64, len as i64) };
        self.leaf(raw, Some(at))
    }

    /// A view of `a`: `dims` elements from byte `offset`, `strides` bytes between rows, between planes and between cubes.
    pub(crate) fn view(
        &mut self,
        a: Tensor<'g>,
        dims: [usize; 4],
        strides: [usize; 3],
        offset: usize,
    ) -> Result<Tensor<'g>> {
        let ty = TensorType::from_code(a.code()).ok_or_else(|| Error::internal("view of an index"))?;
        let mut last = ty.row_bytes(dims[0]).and_then(|row| offset.checked_add(row));
        for (dim, stride) in dims.iter().skip(1).zip(strides) {
            let more = dim.checked_sub(1).and_then(|n| n.checked_mul(stride));
            last = last.zip(more).and_then(|(last, more)| last.checked_add(more));
        }
        // SAFETY: `a` is valid.
        let len = unsafe { ggml_sys::ggml_nbytes(a.as_ptr()) };
        self.take(dims[0] > 0 && last.is_some_and(|last| last <= len), "view")?;
        let ([x, y, z, w], [row, plane, cube]) = (dims.map(|d| d as i64), strides);
        // SAFETY: the window lies within `a`.
        let raw =
            unsafe { ggml_sys::ggml_view_4d(self.ctx(), a.as_ptr(), x, y, z, w, row, plane, cube, offset) };
        self.leaf(raw, None)
    }

    /// A view of `count` rows of `a` from byte `offset`, `stride` bytes apart, of `len` elements each.
    pub(crate) fn rows(
        &mut self,
        a: Tensor<'g>,
        [len, count]: [usize; 2],
        stride: usize,
        offset: usize,
    ) -> Result<Tensor<'g>> {
        let all = stride.saturating_mul(count);
        self.view(a, [len, count, 1, 1], [stride, all, all], offset)
    }
}

impl CompleteGraph {
    /// One with room for `parts` parts.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(super) fn with_room(parts: usize) -> Result<Self> {
        Ok(Self { parts: crate::memory::with_room(parts)?, input: None, result: None })
    }

    /// Asks `device` about every operation.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with the first one that the device does not have, [`Error::OutOfMemory`] if it has that of smaller
    /// tensors. ggml would end the process.
    pub(super) fn check_support(&self, device: Device) -> Result<()> {
        for node in self.parts.iter().flat_map(|&part| nodes(part)) {
            // SAFETY: the node is one of a complete graph; the device is valid and reads descriptions only.
            if unsafe { ggml_sys::ggml_backend_dev_supports_op(device.as_ptr(), node) } {
                continue;
            }
            // SAFETY: as above.
            if let Some(bytes) = unsafe { too_large(device, node) } {
                let (name, free) = (device.name(), device.memory_free());
                return Err(Error::OutOfMemory(format!(
                    "device {name} does not take {bytes} bytes in one piece, and {free} are free there"
                )));
            }
            // SAFETY: the node is valid, and names of operations and types are static strings.
            let (operation, types, bytes) = unsafe {
                let name = |ty| text(ggml_sys::ggml_type_name(ty));
                let sources = (*node).src.iter().take_while(|s| !s.is_null()).map(|&s| name((*s).type_));
                let types = sources.collect::<Vec<_>>().join(", ");
                (text(ggml_sys::ggml_op_desc(node)), types, ggml_sys::ggml_nbytes(node))
            };
            let device = device.name();
            return Err(Error::Unsupported(format!(
                "device {device} has no {operation} of {types} that gives {bytes} bytes"
            )));
        }
        Ok(())
    }

    /// Gives every part the name `number`, so that ggml's CUDA backend does not replay one that it knows: with f16 weights
    /// a replayed cuBLAS kernel hung on an H100 (docs/gpu.md).
    pub(super) fn forbid_replay(&self, number: u64) {
        let mut name = [0; 17];
        for (byte, digit) in name.iter_mut().zip(number.to_le_bytes().iter().flat_map(|b| [b >> 4, b & 15])) {
            *byte = (b'a' + digit) as std::ffi::c_char;
        }
        for first in self.parts.iter().filter_map(|&part| nodes(part).next()) {
            // SAFETY: the node is one of a complete graph, and the name ends with NUL.
            unsafe { ggml_sys::ggml_set_name(first, name.as_ptr()) };
        }
    }
}

/// The size of the largest tensor of an operation that `device` refuses, if it has the operation for one row of each tensor.
///
/// # Safety
/// `node` is a node of a complete graph.
unsafe fn too_large(device: Device, node: *const ggml_tensor) -> Option<usize> {
    let one_row = |mut tensor: ggml_tensor| {
        let [columns, ..] = tensor.ne;
        tensor.ne = [columns, 1, 1, 1];
        tensor
    };
    // SAFETY: the caller vouches for the node and so for its operands; the copies live until the device has read them.
    unsafe {
        let mut sources = (*node).src.map(|source| source.as_ref().map(|&source| one_row(source)));
        let mut small = one_row(*node);
        for (to, source) in small.src.iter_mut().zip(&mut sources) {
            *to = source.as_mut().map_or(std::ptr::null_mut(), std::ptr::from_mut);
        }
        let all = (*node).src.iter().copied().filter(|source| !source.is_null());
        let largest =
            all.map(|source| ggml_sys::ggml_nbytes(source)).fold(ggml_sys::ggml_nbytes(node), usize::max);
        ggml_sys::ggml_backend_dev_supports_op(device.as_ptr(), &small).then_some(largest)
    }
}

/// The operations of a part of a complete graph.
pub(super) fn nodes(part: NonNull<ggml_cgraph>) -> impl Iterator<Item = *mut ggml_tensor> {
    // SAFETY: a part of a complete graph is valid.
    let count = unsafe { ggml_sys::ggml_graph_n_nodes(part.as_ptr()) };
    // SAFETY: the graph has that many nodes.
    (0..count).map(move |i| unsafe { ggml_sys::ggml_graph_node(part.as_ptr(), i) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operation_that_a_device_lacks_is_named() {
        let size = GraphSize::whole(8);
        let mut table = TensorTable::allocate(size.tensors, (size.parts, size.part_tensors)).unwrap();
        let mut complete = CompleteGraph::with_room(size.parts).unwrap();
        let mut graph = Graph::new(&mut table, &mut complete, None, size).unwrap();
        let at = Region { offset: 0, len: 64 * 4 };
        let a = graph.tensor(TensorType::F32, [8, 8, 1], at).unwrap();
        // The CPU multiplies f32 by f32 alone.
        let b = graph.tensor(TensorType::F16, [8, 8, 1], at).unwrap();
        // SAFETY: both are tensors of this graph, of 8 columns.
        let product = unsafe { ggml_sys::ggml_mul_mat(graph.ctx(), a.as_ptr(), b.as_ptr()) };
        let product = graph.node(product, Some(at)).unwrap();
        graph.finish(Some(product));
        let error = complete.check_support(Device::find("cpu").unwrap()).unwrap_err();
        assert!(matches!(error, Error::Unsupported(_)), "{error}");
        let told = error.to_string();
        assert!(told.contains("device cpu has no MUL_MAT of f32, f16 that gives 256 bytes"), "{told}");
    }
}
