//! The operations of a graph. Each checks what ggml would abort on and then calls it.

use super::graph::Graph;
use super::table::Tensor;
use crate::error::Result;
use crate::memory::Region;

/// ggml.h: `#define GGML_ROPE_TYPE_NEOX 2`, pairs half a head apart.
const ROPE_NEOX: i32 = 2;

impl<'g> Graph<'g> {
    /// A view of `a` with its second and third dimension swapped.
    pub(crate) fn swap_rows_and_planes(&mut self, a: Tensor<'g>) -> Result<Tensor<'g>> {
        self.take(true, "permute")?;
        // SAFETY: 0, 2, 1, 3 is a permutation.
        let raw = unsafe { ggml_sys::ggml_permute(self.ctx(), a.as_ptr(), 0, 2, 1, 3) };
        self.leaf(raw, None)
    }

    /// A view of `a` with its first and second dimension swapped.
    pub(crate) fn transpose(&mut self, a: Tensor<'g>) -> Result<Tensor<'g>> {
        self.take(true, "transpose")?;
        // SAFETY: any tensor can be transposed.
        let raw = unsafe { ggml_sys::ggml_transpose(self.ctx(), a.as_ptr()) };
        self.leaf(raw, None)
    }

    /// Rows `index` of `a`, as f32. The caller has checked that every index is a row of `a`.
    pub(crate) fn get_rows(&mut self, a: Tensor<'g>, index: Tensor<'g>, at: Region) -> Result<Tensor<'g>> {
        let fits = index.is_i32() && a.dims()[2] == 1 && a.dims()[3] == 1;
        self.take(fits, "get_rows")?;
        // SAFETY: shapes and types fit.
        let raw = unsafe { ggml_sys::ggml_get_rows(self.ctx(), a.as_ptr(), index.as_ptr()) };
        self.node(raw, Some(at))
    }

    /// The matrix product: dot products of the rows of `a` [k, m, p] with the rows of `b` [k, n, p], giving [m, n, p] as
    /// f32.
    pub(crate) fn mul_mat(&mut self, a: Tensor<'g>, b: Tensor<'g>, at: Region) -> Result<Tensor<'g>> {
        let ([ak, _, ap, aq], [bk, _, bp, bq]) = (a.dims(), b.dims());
        let fits = ak == bk && ap > 0 && bp % ap == 0 && aq > 0 && bq % aq == 0 && b.is_f32();
        let in_rows = b.strides()[0] == size_of::<f32>() && a.strides()[0] <= a.strides()[1];
        self.take(fits && in_rows, "mul_mat")?;
        // SAFETY: shapes and types fit, and neither operand is transposed.
        let raw = unsafe { ggml_sys::ggml_mul_mat(self.ctx(), a.as_ptr(), b.as_ptr()) };
        if self.is_exact {
            // SAFETY: it is a product, whatever the operands.
            unsafe { ggml_sys::ggml_mul_mat_set_prec(raw, ggml_sys::GGML_PREC_F32) };
        }
        self.node(raw, Some(at))
    }

    /// LayerNorm of each row, without weight and bias.
    pub(crate) fn norm(&mut self, a: Tensor<'g>, eps: f32, at: Region) -> Result<Tensor<'g>> {
        self.take(a.is_f32() && eps >= 0.0, "norm")?;
        // SAFETY: the type fits.
        let raw = unsafe { ggml_sys::ggml_norm(self.ctx(), a.as_ptr(), eps) };
        self.node(raw, Some(at))
    }

    /// RMSNorm of each row, without weight.
    pub(crate) fn rms_norm(&mut self, a: Tensor<'g>, eps: f32, at: Region) -> Result<Tensor<'g>> {
        self.take(a.is_f32() && eps >= 0.0, "rms_norm")?;
        // SAFETY: the type fits.
        let raw = unsafe { ggml_sys::ggml_rms_norm(self.ctx(), a.as_ptr(), eps) };
        self.node(raw, Some(at))
    }

    /// x / (1 + e^-x), in place.
    pub(crate) fn silu_inplace(&mut self, a: Tensor<'g>) -> Result<Tensor<'g>> {
        self.take(a.is_f32(), "silu")?;
        // SAFETY: the type fits.
        let raw = unsafe { ggml_sys::ggml_silu_inplace(self.ctx(), a.as_ptr()) };
        self.node(raw, None)
    }

    /// a * b; `b` may be one row, which is broadcast. `at` may be where `a` is.
    pub(crate) fn mul(&mut self, a: Tensor<'g>, b: Tensor<'g>, at: Region) -> Result<Tensor<'g>> {
        self.take(repeats(b, a), "mul")?;
        // SAFETY: shapes and types fit.
        let raw = unsafe { ggml_sys::ggml_mul(self.ctx(), a.as_ptr(), b.as_ptr()) };
        self.node(raw, Some(at))
    }

    /// a + b; `b` may be one row, which is broadcast. `at` may be where `a` or `b` is. Not in place in ggml's sense, which
    /// would keep a device from making one operation of a product and this.
    pub(crate) fn add(&mut self, a: Tensor<'g>, b: Tensor<'g>, at: Region) -> Result<Tensor<'g>> {
        self.take(repeats(b, a), "add")?;
        // SAFETY: shapes and types fit.
        let raw = unsafe { ggml_sys::ggml_add(self.ctx(), a.as_ptr(), b.as_ptr()) };
        self.node(raw, Some(at))
    }

    /// The tanh form of GELU, in place; `temp` is memory for one tensor like `a`.
    ///
    /// On the CPU ggml's own operator uses a table of f16 values, with an error of 1e-3. This one computes in f32:
    /// gelu(x) = x * sigmoid(2u) with u = sqrt(2/pi) * (x + 0.044715 x^3), so with d = 2u/x it is silu(x*d) / d, and d
    /// is never zero.
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

    /// Rotary embedding of `a` [head_dim, heads, rows] at `positions` [rows]: the pairs are half a head apart (NeoX), and
    /// all of the head is rotated.
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

    /// softmax(a * scale + mask) over rows, in place. `mask` is half precision.
    pub(crate) fn masked_soft_max_inplace(
        &mut self,
        a: Tensor<'g>,
        mask: Tensor<'g>,
        scale: f32,
    ) -> Result<Tensor<'g>> {
        let ([a0, a1, a2, a3], [m0, m1, m2, m3]) = (a.dims(), mask.dims());
        let fits = a0 == m0 && a1 <= m1 && a2.is_multiple_of(m2) && a3.is_multiple_of(m3);
        self.take(fits && a.is_f32() && mask.is_f16(), "soft_max")?;
        // SAFETY: shapes and types fit; no bias.
        let raw =
            unsafe { ggml_sys::ggml_soft_max_ext_inplace(self.ctx(), a.as_ptr(), mask.as_ptr(), scale, 0.0) };
        self.node(raw, None)
    }

    /// softmax(k q^T * scale + mask) v without the scores in memory: `q` [Dh, n, H, B] in single, `k` and `v`
    /// [Dh, slots, heads that divide H, B] in single or half, and `mask` [slots, n, 1, B] in half precision; the result is [Dh, H, n, B].
    pub(crate) fn flash_attention(
        &mut self,
        [q, k, v, mask]: [Tensor<'g>; 4],
        scale: f32,
        at: Region,
    ) -> Result<Tensor<'g>> {
        let ([dh, n, heads, b], kd, [m0, m1, m2, m3]) = (q.dims(), k.dims(), mask.dims());
        let fits = kd == v.dims()
            && kd[0] == dh
            && kd[2] > 0
            && heads.is_multiple_of(kd[2])
            && kd[3] == b
            && [m0, m1, m2, m3] == [kd[1], n, 1, b];
        let types = q.is_f32() && k.code() == v.code() && (k.is_f16() || k.is_f32()) && mask.is_f16();
        self.take(fits && types, "flash_attn")?;
        // SAFETY: shapes and types fit; no bias and no cap.
        let raw = unsafe {
            let raw = ggml_sys::ggml_flash_attn_ext(
                self.ctx(),
                q.as_ptr(),
                k.as_ptr(),
                v.as_ptr(),
                mask.as_ptr(),
                scale,
                0.0,
                0.0,
            );
            ggml_sys::ggml_flash_attn_ext_set_prec(raw, ggml_sys::GGML_PREC_F32);
            raw
        };
        self.node(raw, Some(at))
    }

    /// Writes row i of `rows` [D, R] to row `index[i]` of `a` [D, ..]. The caller has checked that every index is a row.
    pub(crate) fn set_rows(&mut self, a: Tensor<'g>, rows: Tensor<'g>, index: Tensor<'g>) -> Result<()> {
        let ([ad, _, a2, a3], [rd, r, r2, r3]) = (a.dims(), rows.dims());
        let fits = ad == rd && [a2, a3, r2, r3] == [1; 4] && index.dims() == [r, 1, 1, 1];
        let types = rows.is_f32() && (a.is_f32() || a.is_f16()) && index.is_i64();
        self.take(fits && types, "set_rows")?;
        // SAFETY: shapes and types fit.
        let raw = unsafe { ggml_sys::ggml_set_rows(self.ctx(), a.as_ptr(), rows.as_ptr(), index.as_ptr()) };
        self.node(raw, None).map(drop)
    }

    /// `a`, whatever its strides, in one piece.
    pub(crate) fn contiguous(&mut self, a: Tensor<'g>, at: Region) -> Result<Tensor<'g>> {
        self.take(a.is_f32() || a.is_f16(), "cont")?;
        // SAFETY: any tensor can be copied.
        let raw = unsafe { ggml_sys::ggml_cont(self.ctx(), a.as_ptr()) };
        self.node(raw, Some(at))
    }

    /// The numbers 0 to `count`.
    pub(crate) fn count_up(&mut self, count: usize, at: Region) -> Result<Tensor<'g>> {
        self.take(count > 0 && count < 1 << 24, "arange")?;
        // SAFETY: there is at least one number, and f32 holds all of them.
        let raw = unsafe { ggml_sys::ggml_arange(self.ctx(), 0.0, count as f32, 1.0) };
        self.node(raw, Some(at))
    }

    /// The row `a` [n], `rows` times.
    pub(crate) fn repeat_rows(&mut self, a: Tensor<'g>, rows: usize, at: Region) -> Result<Tensor<'g>> {
        let [n, a1, a2, a3] = a.dims();
        self.take(a.is_f32() && [a1, a2, a3] == [1; 3] && rows > 0, "repeat")?;
        // SAFETY: the new shape is a multiple of the old one.
        let raw = unsafe { ggml_sys::ggml_repeat_4d(self.ctx(), a.as_ptr(), n as i64, rows as i64, 1, 1) };
        self.node(raw, Some(at))
    }

    /// a[i, r] = 1 where it is above `limits`[0, r], else 0. In place.
    pub(crate) fn above_inplace(&mut self, a: Tensor<'g>, limits: Tensor<'g>) -> Result<Tensor<'g>> {
        let ([_, rows, a2, a3], one) = (a.dims(), limits.dims());
        for _ in 0..2 {
            self.take(a.is_f32() && limits.is_f32() && one == [1, rows, 1, 1] && a2 * a3 == 1, "above")?;
        }
        // SAFETY: one number for each row; all else is element by element.
        let raw = unsafe { ggml_sys::ggml_sub_inplace(self.ctx(), a.as_ptr(), limits.as_ptr()) };
        let difference = self.node(raw, None)?;
        // SAFETY: as above.
        let raw = unsafe { ggml_sys::ggml_step_inplace(self.ctx(), difference.as_ptr()) };
        self.node(raw, None)
    }

    /// a[i, r] = 0 where it is `numbers`[0, r], a whole number as they all are, else 1. In place.
    pub(crate) fn differs_inplace(&mut self, a: Tensor<'g>, numbers: Tensor<'g>) -> Result<Tensor<'g>> {
        let ([_, rows, a2, a3], one) = (a.dims(), numbers.dims());
        for _ in 0..4 {
            self.take(a.is_f32() && numbers.is_f32() && one == [1, rows, 1, 1] && a2 * a3 == 1, "differs")?;
        }
        let ctx = self.ctx();
        // SAFETY: one number for each row; all else is element by element.
        unsafe {
            let difference = ggml_sys::ggml_sub_inplace(ctx, a.as_ptr(), numbers.as_ptr());
            let difference = self.node(difference, None)?;
            let distance = ggml_sys::ggml_abs_inplace(ctx, difference.as_ptr());
            let distance = self.node(distance, None)?;
            let beyond = ggml_sys::ggml_scale_bias_inplace(ctx, distance.as_ptr(), 1.0, -0.5);
            let beyond = self.node(beyond, None)?;
            let raw = ggml_sys::ggml_step_inplace(ctx, beyond.as_ptr());
            self.node(raw, None)
        }
    }

    /// a * factor, in place.
    pub(crate) fn scale_inplace(&mut self, a: Tensor<'g>, factor: f32) -> Result<Tensor<'g>> {
        self.take(a.is_f32(), "scale")?;
        // SAFETY: the type fits.
        let raw = unsafe { ggml_sys::ggml_scale_inplace(self.ctx(), a.as_ptr(), factor) };
        self.node(raw, None)
    }

    /// The tanh form of GELU in one operation, in place; on the CPU it has an error of 1e-3, on CUDA of 5e-4 at most.
    pub(crate) fn fused_gelu_inplace(&mut self, a: Tensor<'g>) -> Result<Tensor<'g>> {
        self.take(a.is_f32(), "gelu")?;
        // SAFETY: the type fits.
        let raw = unsafe { ggml_sys::ggml_gelu_inplace(self.ctx(), a.as_ptr()) };
        self.node(raw, None)
    }

    /// Copies `a`, f32, into `b`, converting to its type (f32 or f16).
    pub(crate) fn copy(&mut self, a: Tensor<'g>, b: Tensor<'g>) -> Result<()> {
        self.take(a.dims() == b.dims() && a.is_f32() && (b.is_f32() || b.is_f16()), "copy")?;
        // SAFETY: shapes and types fit.
        let raw = unsafe { ggml_sys::ggml_cpy(self.ctx(), a.as_ptr(), b.as_ptr()) };
        self.node(raw, None).map(drop)
    }
}

/// Whether `b` can be added to every row of `a`.
fn repeats(b: Tensor<'_>, a: Tensor<'_>) -> bool {
    a.is_f32()
        && b.is_f32()
        && a.dims().iter().zip(b.dims()).all(|(&x, y)| y > 0 && x % y == 0)
        && a.dims()[0] == b.dims()[0]
}
