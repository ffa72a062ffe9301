//! Memory for tensors' descriptions, not for their data.

use std::marker::PhantomData;
use std::ptr::NonNull;

use ggml_sys::{ggml_cgraph, ggml_context, ggml_tensor};

use super::buffer::Buffer;
use super::device::Device;
use crate::error::{Error, Result};
use crate::gguf::{MAX_DIMS, TensorInfo, TensorType};
use crate::memory::Arena;

/// A tensor of a graph: a weight, an input, or an operation's result.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tensor<'g>(NonNull<ggml_tensor>, PhantomData<&'g ggml_context>);

impl Tensor<'_> {
    /// # Errors
    /// [`Error::Internal`] if ggml made none.
    pub(super) fn new(raw: *mut ggml_tensor) -> Result<Self> {
        Ok(Self(non_null(raw)?, PhantomData))
    }

    pub(super) fn as_ptr(self) -> *mut ggml_tensor {
        self.0.as_ptr()
    }

    pub(super) fn get(&self) -> &ggml_tensor {
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

    /// The number of its type. (C's enums are signed with MSVC.)
    #[allow(clippy::unnecessary_cast, reason = "not everywhere")]
    pub(super) fn code(&self) -> u32 {
        self.get().type_ as u32
    }

    pub(super) fn is_i32(&self) -> bool {
        self.get().type_ == ggml_sys::GGML_TYPE_I32
    }

    pub(super) fn is_i64(&self) -> bool {
        self.get().type_ == ggml_sys::GGML_TYPE_I64
    }

    pub(super) fn is_f32(&self) -> bool {
        self.code() == TensorType::F32.code()
    }

    pub(super) fn is_f16(&self) -> bool {
        self.code() == TensorType::F16.code()
    }
}

/// A ggml context.
#[derive(Debug)]
pub(super) struct TensorTable {
    ctx: NonNull<ggml_context>,
    /// How many more descriptions fit.
    left: usize,
    /// What it lies in, unless that is somebody else's.
    _memory: Option<Arena>,
}

// SAFETY: a context is bound to no thread, and `&mut self` guards every change.
unsafe impl Send for TensorTable {}

impl TensorTable {
    /// Bytes for `count` descriptions, and `graphs` graphs of so many tensors each.
    pub(super) fn size(count: usize, (graphs, tensors): (usize, usize)) -> usize {
        // SAFETY: both only compute sizes.
        unsafe {
            (count + 1) * ggml_sys::ggml_tensor_overhead()
                + graphs * ggml_sys::ggml_graph_overhead_custom(tensors, false)
        }
    }

    /// A table for `count` descriptions and `graphs` graphs in memory of its own. (ggml's own allocation ends the process
    /// where there is none.)
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(super) fn allocate(count: usize, graphs: (usize, usize)) -> Result<Self> {
        let len = Self::size(count, graphs);
        let memory = Arena::allocate(len)?;
        // SAFETY: the table owns the memory, and nobody else has its address.
        let mut table = unsafe { Self::within(memory.part(0, len)?, len, count)? };
        table._memory = Some(memory);
        Ok(table)
    }

    /// A table in `len` bytes at `start`, for `count` descriptions.
    ///
    /// # Safety
    /// The bytes must outlive the table and be used by nobody else.
    pub(super) unsafe fn within(start: NonNull<u8>, len: usize, count: usize) -> Result<Self> {
        let mem_buffer = start.as_ptr().cast();
        let params = ggml_sys::ggml_init_params { mem_size: len, mem_buffer, no_alloc: true };
        // SAFETY: the caller vouches for the memory.
        let ctx = NonNull::new(unsafe { ggml_sys::ggml_init(params) });
        let ctx = ctx.ok_or_else(|| Error::OutOfMemory("tensor descriptions".into()))?;
        Ok(Self { ctx, left: count, _memory: None })
    }

    pub(super) fn ctx(&self) -> *mut ggml_context {
        self.ctx.as_ptr()
    }

    /// Removes all descriptions and graphs. There is room for `count` from now on.
    ///
    /// # Safety
    /// None of them may be used any more, and the table was made for `count` or more.
    pub(super) unsafe fn empty(&mut self, count: usize) {
        // SAFETY: the caller vouches for it.
        unsafe { ggml_sys::ggml_reset(self.ctx()) };
        self.left = count;
    }

    /// Adds a graph of at most `tensors` tensors; the table was made for it.
    pub(super) fn new_graph(&mut self, tensors: usize) -> Result<NonNull<ggml_cgraph>> {
        // SAFETY: the context is valid and has room.
        non_null(unsafe { ggml_sys::ggml_new_graph_custom(self.ctx(), tensors, false) })
    }

    /// Reserves one more description.
    pub(super) fn take(&mut self) -> Result<()> {
        self.left = self.left.checked_sub(1).ok_or_else(|| Error::internal("too many tensors"))?;
        Ok(())
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
        let mut dims = [1; MAX_DIMS];
        dims.iter_mut().zip(&info.dims).for_each(|(to, &from)| *to = from as i64);
        let n_dims = info.dims.len().clamp(1, dims.len());
        // SAFETY: the table has room, and there are one to four dimensions (the reader checks).
        let raw = unsafe {
            ggml_sys::ggml_new_tensor(
                self.ctx.as_ptr(),
                info.ty.code() as ggml_sys::ggml_type,
                n_dims as i32,
                dims.as_ptr(),
            )
        };
        let tensor = Tensor::new(raw)?;
        if let Some((buffer, place)) = at {
            put(tensor, buffer, place, buffer.len().saturating_sub(place))?;
        }
        Ok(tensor)
    }
}

impl Drop for TensorTable {
    fn drop(&mut self) {
        // SAFETY: the context is valid and no tensor of it is alive.
        unsafe { ggml_sys::ggml_free(self.ctx.as_ptr()) }
    }
}

/// Gives `tensor` the memory at `offset` of `buffer`, of which `len` bytes may be used.
pub(super) fn put(tensor: Tensor<'_>, buffer: &Buffer, offset: usize, len: usize) -> Result<()> {
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
