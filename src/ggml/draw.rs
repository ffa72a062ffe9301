//! Drawing tokens where the logits are. Needs CUDA; elsewhere logits come to the host and the sampler draws.

use std::ptr::NonNull;

use super::device::Device;
use super::workspace::Workspace;
use crate::error::{Error, Result};
use crate::memory::Region;

/// Where things are in a workspace's computing memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DrawRegions {
    /// Logits, one row after the other. They may be overwritten.
    pub(crate) logits: Region,
    /// Room for an f64 for each row, and for an i32.
    pub(crate) uniforms: Region,
    pub(crate) tokens: Region,
}

/// How a token is chosen, as the sampler has it.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "only CUDA draws"))]
pub(crate) struct DrawParams {
    pub(crate) temperature: f32,
    pub(crate) top_k: u32,
    pub(crate) top_p: f32,
}

/// Whether tokens can be drawn on `device`.
pub(crate) fn draws(device: Device) -> bool {
    cfg!(feature = "cuda") && device.name().starts_with("cuda")
}

impl Workspace {
    /// Draws a token from each row of the logits that the last graph left, which are as many as `uniforms`. `vocab` is
    /// a row's length.
    ///
    /// # Errors
    /// [`Error::NotFinite`]; [`Error::Device`]; [`Error::Internal`] where [`draws`] says no.
    pub(crate) fn draw(
        &mut self,
        (vocab, mask): (usize, u32),
        at: DrawRegions,
        params: DrawParams,
        uniforms: &[f64],
        tokens: &mut [i32],
    ) -> Result<()> {
        let rows = uniforms.len();
        let fits = tokens.len() == rows
            && size_of_val(uniforms) <= at.uniforms.len
            && rows * size_of::<i32>() <= at.tokens.len
            && rows.checked_mul(vocab * size_of::<f32>()).is_some_and(|len| len <= at.logits.len);
        if !fits {
            return Err(Error::internal("more tokens to draw than there is memory for"));
        }
        let [logits, there, drawn] =
            [at.logits, at.uniforms, at.tokens].map(|region| self.device_address(region));
        let (logits, there, drawn) = (logits?.cast(), there?.cast(), drawn?.cast());
        let status = call(logits, (vocab, mask), params, (uniforms, there), (tokens, drawn))?;
        match status {
            0 if tokens.iter().any(|&token| token < 0) => Err(Error::logits_not_finite()),
            0 => Ok(()),
            code => Err(Error::Device(format!("tokens could not be drawn (CUDA error {code})"))),
        }
    }
}

#[cfg(feature = "cuda")]
fn call(
    logits: NonNull<f32>,
    (vocab, mask): (usize, u32),
    params: DrawParams,
    (uniforms, uniforms_there): (&[f64], NonNull<f64>),
    (tokens, tokens_there): (&mut [i32], NonNull<i32>),
) -> Result<i32> {
    // SAFETY: this is the function of cuda/sample.cu.
    unsafe extern "C" {
        fn esolm_cuda_draw(
            logits: *mut f32,
            rows: usize,
            vocab: usize,
            mask: u32,
            temperature: f32,
            top_k: u32,
            top_p: f32,
            uniforms: *const f64,
            tokens: *mut i32,
            uniforms_there: *mut f64,
            tokens_there: *mut i32,
        ) -> i32;
    }
    // SAFETY: the caller has checked that all of it is large enough, and the device computes nothing meanwhile: a graph is
    // finished when it returns. The calling thread is the one that ran it, so the device is the current one.
    Ok(unsafe {
        esolm_cuda_draw(
            logits.as_ptr(),
            uniforms.len(),
            vocab,
            mask,
            params.temperature,
            params.top_k,
            params.top_p,
            uniforms.as_ptr(),
            tokens.as_mut_ptr(),
            uniforms_there.as_ptr(),
            tokens_there.as_ptr(),
        )
    })
}

#[cfg(not(feature = "cuda"))]
fn call(
    _: NonNull<f32>,
    _: (usize, u32),
    _: DrawParams,
    _: (&[f64], NonNull<f64>),
    _: (&mut [i32], NonNull<i32>),
) -> Result<i32> {
    Err(Error::internal("this build draws on no device"))
}
