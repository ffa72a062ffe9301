//! How a generation's time is spent.

use super::context::esolm_context;
use super::params::SizedStruct;
use super::status::{esolm_status, wrap};
use super::{args, params};
use crate::error::Error;
use crate::forward::Profile;

/// How the time of a generation's steps so far was spent, in seconds; waiting for other threads counts as what they do.
/// Set struct_size before esolm_context_profile.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_profile {
    /// sizeof(esolm_profile)
    pub struct_size: usize,
    /// Matrix products of the transformer blocks.
    pub blocks: f64,
    /// Attention over the keys and values in the cache.
    pub attention: f64,
    /// The output layer: products with the vocabulary matrix.
    pub vocabulary: f64,
    /// From logits to tokens: constraints, filters, drawing, the logits callback.
    pub sampling: f64,
    /// Everything else in the steps.
    pub rest: f64,
}

// SAFETY: repr(C), a size first, no padding, numbers only.
unsafe impl SizedStruct for esolm_profile {
    const NAME: &'static str = "esolm_profile";
    const VERSION_1: usize = size_of::<Self>();
    const DEFAULT: Self = Self {
        struct_size: size_of::<Self>(),
        blocks: 0.0,
        attention: 0.0,
        vocabulary: 0.0,
        sampling: 0.0,
        rest: 0.0,
    };
}

impl From<Profile> for esolm_profile {
    fn from(Profile { blocks, attention, vocabulary, sampling, rest }: Profile) -> Self {
        let [blocks, attention, vocabulary, sampling, rest] =
            [blocks, attention, vocabulary, sampling, rest].map(|time| time.as_secs_f64());
        Self { struct_size: 0, blocks, attention, vocabulary, sampling, rest }
    }
}

/// Writes to *profile how the time of the steps since esolm_begin or esolm_extend was spent. profile->struct_size must
/// be set; on failure the other fields are 0.
///
/// Errors: ESOLM_ERR_UNSUPPORTED if ggml computes (ESOLM_KERNELS_GGML, another device, or widths that are not multiples
/// of 8).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_context_profile(
    context: *mut esolm_context,
    profile: *mut esolm_profile,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires each pointer to be NULL or valid, structs for as many bytes as struct_size says.
        let (place, handle) = unsafe { (params::result(profile)?, args::reference(context, "context")?) };
        let unknown = || Error::Unsupported("only the library's own CPU kernels measure their time".into());
        let found = handle.read(|texts| texts.profile().ok_or_else(unknown))?;
        place.set(found.into());
        Ok(())
    })
}
