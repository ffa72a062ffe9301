//! Drawing tokens where the logits are. Needs CUDA; elsewhere logits come to the host and the sampler draws.

use std::ptr::NonNull;

use super::device::Device;
use super::workspace::Workspace;
use crate::error::{Error, Result};
use crate::memory::Region;

/// Where things are in a workspace's computing memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DrawRegions {
    /// Logits without the output's bias, one row after the other. They may be overwritten.
    pub(crate) logits: Region,
    /// A [`DrawRow`] for each row, and room for a token for each.
    pub(crate) rows: Region,
    pub(crate) tokens: Region,
    /// For each sequence a bit for each token that must not be drawn.
    pub(crate) banned: Region,
}

/// How the token of a row is chosen, as the sampler has it. `DrawRow` in cuda/sample.cu.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct DrawRow {
    /// The random number that decides, 0 to 1.
    pub(crate) uniform: f64,
    pub(crate) temperature: f32,
    /// 0 is off.
    pub(crate) top_k: u32,
    pub(crate) top_p: f32,
    pub(crate) min_p: f32,
    /// The sequence whose banned tokens count, or [`DrawRow::NOTHING_BANNED`].
    pub(crate) banned: i32,
    pub(crate) unused: i32,
}

impl DrawRow {
    pub(crate) const NOTHING_BANNED: i32 = -1;

    /// The row as numbers of 32 bits, as it is copied to the device.
    pub(crate) fn numbers(&self) -> [i32; size_of::<Self>() / size_of::<i32>()] {
        let uniform = self.uniform.to_bits();
        [
            uniform as i32,
            (uniform >> 32) as i32,
            self.temperature.to_bits() as i32,
            self.top_k as i32,
            self.top_p.to_bits() as i32,
            self.min_p.to_bits() as i32,
            self.banned,
            self.unused,
        ]
    }
}

/// Whether tokens can be drawn on `device`.
pub(crate) fn draws(device: Device) -> bool {
    cfg!(feature = "cuda") && device.name().starts_with("cuda")
}

impl Workspace {
    /// Draws a token from each row of the logits that the last graph left, which are as many as `tokens`, as the rows at
    /// `at.rows` say. `vocab` is a row's length, and `mask` is never drawn.
    ///
    /// # Errors
    /// [`Error::NotFinite`]; [`Error::Device`]; [`Error::Internal`] where [`draws`] says no.
    pub(crate) fn draw(
        &mut self,
        (vocab, mask): (usize, u32),
        at: DrawRegions,
        tokens: &mut [i32],
    ) -> Result<()> {
        let rows = tokens.len();
        let fits = rows * size_of::<DrawRow>() <= at.rows.len
            && size_of_val(tokens) <= at.tokens.len
            && rows.checked_mul(vocab * size_of::<f32>()).is_some_and(|len| len <= at.logits.len);
        if !fits {
            return Err(Error::internal("more tokens to draw than there is memory for"));
        }
        let there = Addresses {
            bias: self.output_bias(vocab)?,
            logits: self.device_address(at.logits)?.cast(),
            rows: self.device_address(at.rows)?.cast(),
            banned: self.device_address(at.banned)?.cast(),
            tokens: self.device_address(at.tokens)?.cast(),
        };
        let status = call(there, (vocab, mask), tokens)?;
        self.counts.downloads += 1;
        match status {
            0 if tokens.iter().any(|&token| token < 0) => Err(Error::logits_not_finite()),
            0 => Ok(()),
            code => Err(Error::Device(format!("tokens could not be drawn (CUDA error {code})"))),
        }
    }

    /// Writes the tokens that sequence `sequence` must not have, a bit each, to its place at `at`.
    ///
    /// # Errors
    /// [`Error::Internal`] if there is none.
    pub(crate) fn set_banned(&mut self, at: Region, sequence: usize, bits: &[u32]) -> Result<()> {
        let offset = sequence * size_of_val(bits);
        if offset + size_of_val(bits) > at.len {
            return Err(Error::internal("a sequence without a place for its banned tokens"));
        }
        // SAFETY: any numbers are bytes, and u8 has no alignment.
        let bytes = unsafe { std::slice::from_raw_parts(bits.as_ptr().cast::<u8>(), size_of_val(bits)) };
        self.write_bytes(at.offset + offset, bytes)
    }
}

/// Where things are on the device.
#[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "only CUDA draws"))]
struct Addresses {
    logits: NonNull<f32>,
    bias: NonNull<f32>,
    rows: NonNull<DrawRow>,
    banned: NonNull<u32>,
    tokens: NonNull<i32>,
}

#[cfg(feature = "cuda")]
fn call(there: Addresses, (vocab, mask): (usize, u32), tokens: &mut [i32]) -> Result<i32> {
    // SAFETY: this is the function of cuda/sample.cu.
    unsafe extern "C" {
        fn esolm_cuda_draw(
            logits: *mut f32,
            bias: *const f32,
            count: usize,
            vocab: usize,
            mask: u32,
            rows: *const DrawRow,
            banned: *const u32,
            tokens_there: *mut i32,
            tokens: *mut i32,
        ) -> i32;
    }
    // SAFETY: the caller has checked that all of it is large enough, and the device computes nothing meanwhile: a graph is
    // finished when it returns. The calling thread is the one that ran it, so the device is the current one.
    Ok(unsafe {
        esolm_cuda_draw(
            there.logits.as_ptr(),
            there.bias.as_ptr(),
            tokens.len(),
            vocab,
            mask,
            there.rows.as_ptr(),
            there.banned.as_ptr(),
            there.tokens.as_ptr(),
            tokens.as_mut_ptr(),
        )
    })
}

#[cfg(not(feature = "cuda"))]
fn call(_: Addresses, _: (usize, u32), _: &mut [i32]) -> Result<i32> {
    Err(Error::internal("this build draws on no device"))
}
