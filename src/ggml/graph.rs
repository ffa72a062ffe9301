//! Building a computation. Each operation checks what ggml would abort on and then calls it.

use std::marker::PhantomData;
use std::ptr::NonNull;

use ggml_sys::{ggml_context, ggml_tensor};

use super::buffer::Buffer;
use crate::error::{Error, Result};
use crate::gguf::{TensorInfo, TensorType};

/// ggml.h: `#define GGML_ROPE_TYPE_NEOX 2`, pairs half a head apart.
const ROPE_NEOX: i32 = 2;

/// A part of a workspace's computing memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Region {
    /// Bytes from the start.
    pub(crate) offset: usize,
    /// Bytes that the part is long.
    pub(crate) len: usize,
}

/// A tensor of a graph: a weight, an input, or an operation's result.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tensor<'g>(NonNull<ggml_tensor>, PhantomData<&'g ggml_context>);

impl Tensor<'_> {
    pub(super) fn as_ptr(self) -> *mut ggml_tensor {
        self.0.as_ptr()
    }

    fn get(&self) -> &ggml_tensor {
        // SAFETY: a tensor lives as long as its context, which the lifetime stands for.
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

    fn code(&self) -> u32 {
        self.get().type_
    }

    fn is_f32(&self) -> bool {
        self.code() == TensorType::F32.code()
    }
}

/// A ggml context: memory for tensors' descriptions, not for their data.
#[derive(Debug)]
pub(super) struct TensorTable {
    ctx: NonNull<ggml_context>,
    /// Descriptions that still fit.
    left: usize,
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
        // SAFETY: the memory is null (ggml allocates) or vouched for by the caller of `within`.
        let ctx = NonNull::new(unsafe { ggml_sys::ggml_init(params) });
        Ok(Self { ctx: ctx.ok_or_else(|| Error::OutOfMemory("tensor descriptions".into()))?, left: count })
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

    /// Forgets every tensor and begins a graph of at most `count` tensors, computing in `buffer`. Without a
    /// buffer the graph can be measured but not computed.
    pub(super) fn graph<'g>(&'g mut self, buffer: Option<&'g Buffer>, count: usize) -> Result<Graph<'g>> {
        // SAFETY: no tensor of the last graph is alive: they borrow the table.
        let raw = unsafe {
            ggml_sys::ggml_reset(self.ctx.as_ptr());
            ggml_sys::ggml_new_graph_custom(self.ctx.as_ptr(), count, false)
        };
        self.left = count;
        Ok(Graph { graph: non_null(raw)?, table: self, buffer })
    }
}

impl Drop for TensorTable {
    fn drop(&mut self) {
        // SAFETY: the context is valid and no tensor of it is alive.
        unsafe { ggml_sys::ggml_free(self.ctx.as_ptr()) }
    }
}

/// A computation being built, in the order in which it will run.
#[derive(Debug)]
pub(crate) struct Graph<'g> {
    table: &'g mut TensorTable,
    graph: NonNull<ggml_sys::ggml_cgraph>,
    buffer: Option<&'g Buffer>,
}

impl<'g> Graph<'g> {
    pub(super) fn as_ptr(&self) -> *mut ggml_sys::ggml_cgraph {
        self.graph.as_ptr()
    }

    fn ctx(&self) -> *mut ggml_context {
        self.table.ctx.as_ptr()
    }

    /// Takes in an operation's result: gives it memory (or, for a view, its parent's) and its place in the
    /// order of computation.
    fn node(&mut self, raw: *mut ggml_tensor, at: Option<Region>) -> Result<Tensor<'g>> {
        let tensor = self.leaf(raw, at)?;
        // SAFETY: the graph has room for every tensor of the table.
        unsafe { ggml_sys::ggml_build_forward_expand(self.as_ptr(), raw) };
        Ok(tensor)
    }

    fn leaf(&mut self, raw: *mut ggml_tensor, at: Option<Region>) -> Result<Tensor<'g>> {
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

    fn take(&mut self, fits: bool, what: &str) -> Result<()> {
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

    /// A list of numbers at `at`: token ids, positions, row indices.
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

    /// A window on `a`: `dims` elements, `strides` bytes between rows and between planes, from byte `offset`.
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
        // SAFETY: the window lies within `a`.
        let raw = unsafe {
            ggml_sys::ggml_view_3d(self.ctx(), a.as_ptr(), x, y, z, strides[0], strides[1], offset)
        };
        self.leaf(raw, None)
    }

    /// `a` with its second and third dimension swapped; nothing is copied.
    pub(crate) fn swap_rows_and_planes(&mut self, a: Tensor<'g>) -> Result<Tensor<'g>> {
        self.take(true, "permute")?;
        // SAFETY: 0, 2, 1, 3 is a permutation.
        let raw = unsafe { ggml_sys::ggml_permute(self.ctx(), a.as_ptr(), 0, 2, 1, 3) };
        self.leaf(raw, None)
    }

    /// `a` with its first and second dimension swapped; nothing is copied.
    pub(crate) fn transpose(&mut self, a: Tensor<'g>) -> Result<Tensor<'g>> {
        self.take(true, "transpose")?;
        // SAFETY: any tensor can be transposed.
        let raw = unsafe { ggml_sys::ggml_transpose(self.ctx(), a.as_ptr()) };
        self.leaf(raw, None)
    }

    /// Rows `index` of `a`, as f32. The caller has checked that every index is a row of `a`.
    pub(crate) fn get_rows(&mut self, a: Tensor<'g>, index: Tensor<'g>, at: Region) -> Result<Tensor<'g>> {
        let fits = index.code() == ggml_sys::GGML_TYPE_I32 && a.dims()[2] == 1 && a.dims()[3] == 1;
        self.take(fits, "get_rows")?;
        // SAFETY: shapes and types fit.
        let raw = unsafe { ggml_sys::ggml_get_rows(self.ctx(), a.as_ptr(), index.as_ptr()) };
        self.node(raw, Some(at))
    }

    /// The matrix product: rows of `a` [k, m, p] with rows of `b` [k, n, p], giving [m, n, p] as f32.
    pub(crate) fn mul_mat(&mut self, a: Tensor<'g>, b: Tensor<'g>, at: Region) -> Result<Tensor<'g>> {
        let ([ak, _, ap, aq], [bk, _, bp, bq]) = (a.dims(), b.dims());
        let fits = ak == bk && ap > 0 && bp % ap == 0 && aq > 0 && bq % aq == 0 && b.is_f32();
        let in_rows = b.strides()[0] == size_of::<f32>() && a.strides()[0] <= a.strides()[1];
        self.take(fits && in_rows, "mul_mat")?;
        // SAFETY: shapes and types fit, and neither operand is transposed.
        let raw = unsafe { ggml_sys::ggml_mul_mat(self.ctx(), a.as_ptr(), b.as_ptr()) };
        self.node(raw, Some(at))
    }

    /// LayerNorm without weight and bias, over rows.
    pub(crate) fn norm(&mut self, a: Tensor<'g>, eps: f32, at: Region) -> Result<Tensor<'g>> {
        self.take(a.is_f32() && eps >= 0.0, "norm")?;
        // SAFETY: the type fits.
        let raw = unsafe { ggml_sys::ggml_norm(self.ctx(), a.as_ptr(), eps) };
        self.node(raw, Some(at))
    }

    /// a *= b, where `b` may be one row for all.
    pub(crate) fn mul_inplace(&mut self, a: Tensor<'g>, b: Tensor<'g>) -> Result<Tensor<'g>> {
        self.take(repeats(b, a), "mul")?;
        // SAFETY: shapes and types fit.
        let raw = unsafe { ggml_sys::ggml_mul_inplace(self.ctx(), a.as_ptr(), b.as_ptr()) };
        self.node(raw, None)
    }

    /// a += b, where `b` may be one row for all.
    pub(crate) fn add_inplace(&mut self, a: Tensor<'g>, b: Tensor<'g>) -> Result<Tensor<'g>> {
        self.take(repeats(b, a), "add")?;
        // SAFETY: shapes and types fit.
        let raw = unsafe { ggml_sys::ggml_add_inplace(self.ctx(), a.as_ptr(), b.as_ptr()) };
        self.node(raw, None)
    }

    /// The tanh form of GELU, in place; `temp` is memory for one tensor like `a`.
    ///
    /// ggml's own operator looks the CPU's values up in a table of half floats, an error of 1e-3. This is
    /// exact: gelu(x) = x * sigmoid(2u) with u = sqrt(2/pi) * (x + 0.044715 x^3), so with d = 2u/x it is
    /// silu(x*d) / d, and d never vanishes.
    pub(crate) fn gelu_inplace(&mut self, a: Tensor<'g>, temp: Region) -> Result<Tensor<'g>> {
        const SCALE: f32 = 1.595_769; // 2 * sqrt(2 / pi)
        for _ in 0..5 {
            self.take(a.is_f32(), "gelu")?;
        }
        let ctx = self.ctx();
        // SAFETY: all five operate element by element on tensors like `a`.
        unsafe {
            let square = ggml_sys::ggml_sqr(ctx, a.as_ptr());
            let square = self.node(square, Some(temp))?;
            let d = ggml_sys::ggml_scale_bias_inplace(ctx, square.as_ptr(), SCALE * 0.044_715, SCALE);
            let d = self.node(d, None)?;
            let scaled = ggml_sys::ggml_mul_inplace(ctx, a.as_ptr(), d.as_ptr());
            let scaled = self.node(scaled, None)?;
            let silu = ggml_sys::ggml_silu_inplace(ctx, scaled.as_ptr());
            let silu = self.node(silu, None)?;
            let raw = ggml_sys::ggml_div_inplace(ctx, silu.as_ptr(), d.as_ptr());
            self.node(raw, None)
        }
    }

    /// Rotates `a` [head_dim, heads, rows] by `positions` [rows], half-split pairs, over the whole head.
    pub(crate) fn rope(
        &mut self,
        a: Tensor<'g>,
        positions: Tensor<'g>,
        base: f32,
        at: Region,
    ) -> Result<Tensor<'g>> {
        let dims = a.dims();
        let fits = a.is_f32() && dims[0].is_multiple_of(2) && positions.dims() == [dims[2], 1, 1, 1];
        self.take(fits, "rope")?;
        // SAFETY: shapes and types fit; no frequency factors; no context extension.
        let raw = unsafe {
            ggml_sys::ggml_rope_ext(
                self.ctx(),
                a.as_ptr(),
                positions.as_ptr(),
                std::ptr::null_mut(),
                dims[0] as i32,
                ROPE_NEOX,
                0,
                base,
                1.0,
                0.0,
                1.0,
                32.0,
                1.0,
            )
        };
        self.node(raw, Some(at))
    }

    /// Sets every element of `a` [columns, rows, ..] right of the diagonal to minus infinity: row r keeps
    /// columns 0..=past+r. In place.
    pub(crate) fn causal_mask_inplace(&mut self, a: Tensor<'g>, past: usize) -> Result<Tensor<'g>> {
        self.take(a.is_f32() && past < i32::MAX as usize, "diag_mask_inf")?;
        // SAFETY: the type fits.
        let raw = unsafe { ggml_sys::ggml_diag_mask_inf_inplace(self.ctx(), a.as_ptr(), past as i32) };
        self.node(raw, None)
    }

    /// softmax(a * scale) over rows, in place.
    pub(crate) fn soft_max_inplace(&mut self, a: Tensor<'g>, scale: f32) -> Result<Tensor<'g>> {
        self.take(a.is_f32(), "soft_max")?;
        // SAFETY: the type fits; no mask and no bias.
        let raw = unsafe {
            ggml_sys::ggml_soft_max_ext_inplace(self.ctx(), a.as_ptr(), std::ptr::null_mut(), scale, 0.0)
        };
        self.node(raw, None)
    }

    /// Copies `a` into `b`, converting the type.
    pub(crate) fn copy(&mut self, a: Tensor<'g>, b: Tensor<'g>) -> Result<()> {
        let float = |t: Tensor<'g>| t.is_f32() || t.code() == TensorType::F16.code();
        self.take(a.dims() == b.dims() && a.is_f32() && float(b), "copy")?;
        // SAFETY: shapes and types fit.
        let raw = unsafe { ggml_sys::ggml_cpy(self.ctx(), a.as_ptr(), b.as_ptr()) };
        self.node(raw, None).map(drop)
    }

    /// Where the CPU can read the numbers of `a`, a contiguous f32 result of the computed graph: in place if
    /// the memory is the CPU's, otherwise after a copy into `staging`.
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

/// Whether `b` can be added to every row of `a`.
fn repeats(b: Tensor<'_>, a: Tensor<'_>) -> bool {
    a.is_f32()
        && b.is_f32()
        && a.dims().iter().zip(b.dims()).all(|(&x, y)| y > 0 && x % y == 0)
        && a.dims()[0] == b.dims()[0]
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
