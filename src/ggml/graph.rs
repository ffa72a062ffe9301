//! A ggml graph being built: its tensors, the memory of their descriptions, and where their data is.

use std::marker::PhantomData;
use std::ptr::NonNull;

use ggml_sys::{ggml_context, ggml_tensor};

use super::buffer::Buffer;
use super::device::{Device, text};
use crate::error::{Error, Result};
use crate::gguf::{TensorInfo, TensorType};
use crate::memory::Region;

/// A tensor of a graph: a weight, an input, or an operation's result.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tensor<'g>(NonNull<ggml_tensor>, PhantomData<&'g ggml_context>);

impl Tensor<'_> {
    pub(super) fn as_ptr(self) -> *mut ggml_tensor {
        self.0.as_ptr()
    }

    fn get(&self) -> &ggml_tensor {
        // SAFETY: a tensor lives as long as its ggml context, which the lifetime represents.
        unsafe { self.0.as_ref() }
    }

    /// The shape, fastest dimension first.
    pub(crate) fn dims(&self) -> [usize; 4] {
        self.get().ne.map(|n| n as usize)
    }

    /// Bytes from one element to the next, in each dimension.
    pub(crate) fn strides(&self) -> [usize; 4] {
        self.get().nb
    }

    pub(super) fn code(&self) -> u32 {
        self.get().type_
    }

    pub(super) fn is_f32(&self) -> bool {
        self.code() == TensorType::F32.code()
    }
}

/// A ggml context: memory for tensors' descriptions, not for their data.
#[derive(Debug)]
pub(super) struct TensorTable {
    ctx: NonNull<ggml_context>,
    /// How many more descriptions fit.
    left: usize,
    /// Graphs begun.
    graphs: u32,
}

// SAFETY: a context is bound to no thread, and `&mut self` guards every change.
unsafe impl Send for TensorTable {}

impl TensorTable {
    /// Bytes for `count` descriptions and, if `graph`, a graph over them.
    pub(super) fn size(count: usize, graph: bool) -> usize {
        // SAFETY: both only compute sizes.
        unsafe {
            let graph = if graph { ggml_sys::ggml_graph_overhead_custom(count, false) } else { 0 };
            (count + 1) * ggml_sys::ggml_tensor_overhead() + graph
        }
    }

    /// A table for `count` descriptions in memory of its own.
    pub(super) fn allocate(count: usize) -> Result<Self> {
        Self::make(std::ptr::null_mut(), Self::size(count, true), count)
    }

    /// A table in `len` bytes at `start`, for `count` descriptions.
    ///
    /// # Safety
    /// The bytes must outlive the table and be used by nobody else.
    pub(super) unsafe fn within(start: NonNull<u8>, len: usize, count: usize) -> Result<Self> {
        Self::make(start.as_ptr(), len, count)
    }

    fn make(mem_buffer: *mut u8, mem_size: usize, count: usize) -> Result<Self> {
        let params = ggml_sys::ggml_init_params { mem_size, mem_buffer: mem_buffer.cast(), no_alloc: true };
        // SAFETY: the memory is null (ggml allocates) or guaranteed by the caller of `within`.
        let ctx = NonNull::new(unsafe { ggml_sys::ggml_init(params) });
        Ok(Self {
            ctx: ctx.ok_or_else(|| Error::OutOfMemory("tensor descriptions".into()))?,
            left: count,
            graphs: 0,
        })
    }

    /// Adds a tensor whose bytes are where `owner`'s are. Nothing is written: what a backend does to the bytes of a new
    /// tensor (CUDA clears its padding) was done when `owner` was placed.
    pub(super) fn add_alias(&mut self, info: &TensorInfo, owner: Tensor<'_>) -> Result<Tensor<'static>> {
        let tensor = self.add(info, None)?;
        let same = tensor.dims() == owner.dims() && tensor.code() == owner.code();
        if !same {
            return Err(Error::internal(format!("tensor '{}' is not the one that was placed", info.name)));
        }
        // SAFETY: both are valid tensors of one shape and type, and nobody else has seen the new one.
        unsafe {
            let (to, from) = (tensor.as_ptr(), owner.as_ptr());
            (*to).buffer = (*from).buffer;
            (*to).data = (*from).data;
            (*to).extra = (*from).extra;
        }
        Ok(tensor)
    }

    /// Adds a tensor, at `place` in a buffer if one is given.
    pub(super) fn add(&mut self, info: &TensorInfo, at: Option<(&Buffer, usize)>) -> Result<Tensor<'static>> {
        self.take()?;
        let dims: Vec<i64> = info.dims.iter().map(|&d| d as i64).collect();
        // SAFETY: the table has room, and there are one to four dimensions (the reader checks).
        let raw = unsafe {
            ggml_sys::ggml_new_tensor(
                self.ctx.as_ptr(),
                info.ty.code() as ggml_sys::ggml_type,
                dims.len() as i32,
                dims.as_ptr(),
            )
        };
        let tensor = Tensor(non_null(raw)?, PhantomData);
        if let Some((buffer, place)) = at {
            put(tensor, buffer, place, buffer.len().saturating_sub(place))?;
        }
        Ok(tensor)
    }

    fn take(&mut self) -> Result<()> {
        self.left = self.left.checked_sub(1).ok_or_else(|| Error::internal("too many tensors"))?;
        Ok(())
    }

    /// Removes all tensors and begins a graph of at most `count` tensors, whose data is in `buffer`. Without a buffer
    /// the graph can be measured but not computed.
    pub(super) fn graph<'g>(&'g mut self, buffer: Option<&'g Buffer>, count: usize) -> Result<Graph<'g>> {
        // SAFETY: no tensor of the last graph is alive: they borrow the table.
        let raw = unsafe {
            ggml_sys::ggml_reset(self.ctx.as_ptr());
            ggml_sys::ggml_new_graph_custom(self.ctx.as_ptr(), count, false)
        };
        self.left = count;
        self.graphs = self.graphs.wrapping_add(1);
        Ok(Graph { graph: non_null(raw)?, table: self, buffer, is_exact: false })
    }
}

impl Drop for TensorTable {
    fn drop(&mut self) {
        // SAFETY: the context is valid and no tensor of it is alive.
        unsafe { ggml_sys::ggml_free(self.ctx.as_ptr()) }
    }
}

/// A graph being built; operations run in the order in which they are added.
#[derive(Debug)]
pub(crate) struct Graph<'g> {
    table: &'g mut TensorTable,
    graph: NonNull<ggml_sys::ggml_cgraph>,
    buffer: Option<&'g Buffer>,
    /// Whether products are asked for in single precision, where a device would take half.
    pub(super) is_exact: bool,
}

impl<'g> Graph<'g> {
    /// Asks for products in single precision from here on, where a device would take half.
    pub(crate) fn set_exact(&mut self, is_exact: bool) {
        self.is_exact = is_exact;
    }

    /// Asks `device` about every operation.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with the first one that the device does not have. ggml would end the process.
    pub(super) fn check_support(&self, device: Device) -> Result<()> {
        // SAFETY: the graph is complete.
        let count = unsafe { ggml_sys::ggml_graph_n_nodes(self.as_ptr()) };
        for i in 0..count {
            // SAFETY: the graph has that many nodes; the device is valid and reads descriptions only.
            let (node, supported) = unsafe {
                let node = ggml_sys::ggml_graph_node(self.as_ptr(), i);
                (node, ggml_sys::ggml_backend_dev_supports_op(device.as_ptr(), node))
            };
            if !supported {
                // SAFETY: the node is valid, and names of operations and types are static strings.
                let (operation, types) = unsafe {
                    let name = |ty| text(ggml_sys::ggml_type_name(ty));
                    let sources = (*node).src.iter().take_while(|s| !s.is_null()).map(|&s| name((*s).type_));
                    (text(ggml_sys::ggml_op_desc(node)), sources.collect::<Vec<_>>().join(", "))
                };
                let device = device.name();
                return Err(Error::Unsupported(format!("device {device} has no {operation} of {types}")));
            }
        }
        Ok(())
    }

    /// Gives the graph a name of its own, so that ggml's CUDA backend does not replay one that looks the same: with f16
    /// weights a replayed cuBLAS kernel hung on an H100 (docs/gpu.md).
    pub(super) fn forbid_replay(&mut self) {
        let mut name = [0; 16];
        for (byte, digit) in
            name.iter_mut().zip(self.table.graphs.to_le_bytes().iter().flat_map(|b| [b >> 4, b & 15]))
        {
            *byte = (b'a' + digit) as std::ffi::c_char;
        }
        // SAFETY: the graph has a node if it has any, and the name ends with NUL.
        unsafe {
            if ggml_sys::ggml_graph_n_nodes(self.as_ptr()) > 0 {
                ggml_sys::ggml_set_name(ggml_sys::ggml_graph_node(self.as_ptr(), 0), name.as_ptr());
            }
        }
    }

    pub(super) fn as_ptr(&self) -> *mut ggml_sys::ggml_cgraph {
        self.graph.as_ptr()
    }

    pub(super) fn ctx(&self) -> *mut ggml_context {
        self.table.ctx.as_ptr()
    }

    /// Adds an operation's result to the graph, with memory at `at` (None: a view, in its parent's memory).
    pub(super) fn node(&mut self, raw: *mut ggml_tensor, at: Option<Region>) -> Result<Tensor<'g>> {
        let tensor = self.leaf(raw, at)?;
        // SAFETY: the graph has room for every tensor of the table.
        unsafe { ggml_sys::ggml_build_forward_expand(self.as_ptr(), raw) };
        Ok(tensor)
    }

    pub(super) fn leaf(&mut self, raw: *mut ggml_tensor, at: Option<Region>) -> Result<Tensor<'g>> {
        let tensor = Tensor(non_null(raw)?, PhantomData);
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
        self.table.take()
    }

    /// A tensor at `at` that the caller fills or that other graphs filled.
    pub(crate) fn tensor(&mut self, ty: TensorType, dims: [usize; 3], at: Region) -> Result<Tensor<'g>> {
        self.take(ty.tensor_bytes(&dims).is_some() && dims.iter().all(|&d| d > 0), "tensor")?;
        let [a, b, c] = dims.map(|d| d as i64);
        // SAFETY: the table has room and the dimensions are positive.
        let raw = unsafe { ggml_sys::ggml_new_tensor_3d(self.ctx(), ty.code() as _, a, b, c) };
        self.leaf(raw, Some(at))
    }

    /// An i32 vector at `at`: token ids, positions, row indices.
    pub(crate) fn input_i32(&mut self, values: &[i32], at: Region) -> Result<Tensor<'g>> {
        self.take(!values.is_empty(), "input")?;
        // SAFETY: the table has room and the length is positive.
        let raw =
            unsafe { ggml_sys::ggml_new_tensor_1d(self.ctx(), ggml_sys::GGML_TYPE_I32, values.len() as i64) };
        let tensor = self.leaf(raw, Some(at))?;
        if self.buffer.is_some() {
            // SAFETY: the tensor has memory for exactly these values.
            unsafe {
                ggml_sys::ggml_backend_tensor_set(raw, values.as_ptr().cast(), 0, size_of_val(values));
            }
        }
        Ok(tensor)
    }

    /// A list of `len` indices at `at` that [`Graph::input_i32`] has filled.
    pub(crate) fn indices(&mut self, len: usize, at: Region) -> Result<Tensor<'g>> {
        self.take(len > 0, "indices")?;
        // SAFETY: the table has room and the length is positive.
        let raw = unsafe { ggml_sys::ggml_new_tensor_1d(self.ctx(), ggml_sys::GGML_TYPE_I32, len as i64) };
        self.leaf(raw, Some(at))
    }

    /// As [`Graph::view`], with cubes of planes.
    pub(crate) fn view_4d(
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

    /// A view of `a`: `dims` elements from byte `offset`, `strides` bytes between rows and between planes.
    pub(crate) fn view(
        &mut self,
        a: Tensor<'g>,
        dims: [usize; 3],
        strides: [usize; 2],
        offset: usize,
    ) -> Result<Tensor<'g>> {
        let ty = TensorType::from_code(a.code()).ok_or_else(|| Error::internal("view of an index"))?;
        let last = ty.row_bytes(dims[0]).and_then(|row| {
            let rows = (dims[1].checked_sub(1)?).checked_mul(strides[0])?;
            let planes = (dims[2].checked_sub(1)?).checked_mul(strides[1])?;
            offset.checked_add(row)?.checked_add(rows)?.checked_add(planes)
        });
        // SAFETY: `a` is valid.
        let len = unsafe { ggml_sys::ggml_nbytes(a.as_ptr()) };
        self.take(dims[0] > 0 && last.is_some_and(|last| last <= len), "view")?;
        let [x, y, z] = dims.map(|d| d as i64);
        // SAFETY: the view is inside `a`.
        let raw = unsafe {
            ggml_sys::ggml_view_3d(self.ctx(), a.as_ptr(), x, y, z, strides[0], strides[1], offset)
        };
        self.leaf(raw, None)
    }

    /// The values of `a`, a contiguous f32 result of the computed graph: in place if they are in host memory, otherwise
    /// copied into `staging`.
    pub(super) fn read<'s>(&self, a: Tensor<'g>, staging: &'s mut [f32]) -> Result<&'s [f32]> {
        let buffer = self.buffer.ok_or_else(|| Error::internal("a measured graph has no results"))?;
        let len: usize = a.dims().iter().product();
        if !a.is_f32() {
            return Err(Error::internal("only f32 results are read"));
        }
        if buffer.is_host() {
            // SAFETY: the tensor has len floats in the workspace's memory, which outlives 's (the workspace is
            // borrowed for it) and is written by no one until the next graph.
            return Ok(unsafe { std::slice::from_raw_parts(a.get().data.cast::<f32>(), len) });
        }
        let out = staging.get_mut(..len).ok_or_else(|| Error::internal("the staging memory is too small"))?;
        // SAFETY: `out` has the tensor's size.
        unsafe {
            ggml_sys::ggml_backend_tensor_get(a.as_ptr(), out.as_mut_ptr().cast(), 0, size_of_val(out));
        }
        Ok(out)
    }
}

/// Gives `tensor` the memory at `offset` of `buffer`, of which `len` bytes may be used.
fn put(tensor: Tensor<'_>, buffer: &Buffer, offset: usize, len: usize) -> Result<()> {
    // SAFETY: buffer and tensor are valid.
    let size = unsafe { ggml_sys::ggml_backend_buffer_get_alloc_size(buffer.as_ptr(), tensor.as_ptr()) };
    if size > len || offset.checked_add(size).is_none_or(|end| end > buffer.len()) {
        return Err(Error::internal(format!(
            "a tensor of {size} bytes does not fit {len} bytes at {offset}"
        )));
    }
    // SAFETY: the bytes are inside the buffer.
    let status = unsafe {
        ggml_sys::ggml_backend_tensor_alloc(
            buffer.as_ptr(),
            tensor.as_ptr(),
            buffer.base().add(offset).cast(),
        )
    };
    if status != ggml_sys::GGML_STATUS_SUCCESS {
        return Err(Error::internal(format!("a tensor could not be placed (status {status})")));
    }
    Ok(())
}

fn non_null<T>(raw: *mut T) -> Result<NonNull<T>> {
    NonNull::new(raw).ok_or_else(|| Error::internal("ggml made no tensor"))
}

/// Bytes that `tensor` takes on `device`, padding included.
pub(super) fn alloc_size(device: Device, tensor: Tensor<'_>) -> usize {
    // SAFETY: device and tensor are valid; the default buffer type lives as long as the device.
    unsafe {
        ggml_sys::ggml_backend_buft_get_alloc_size(
            ggml_sys::ggml_backend_dev_buffer_type(device.as_ptr()),
            tensor.as_ptr(),
        )
    }
}
