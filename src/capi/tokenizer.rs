//! From text to tokens and back.

use std::ffi::c_char;

use super::args;
use super::model::esolm_model;
use super::status::{esolm_status, wrap};
use crate::generate::Template;

/// Converts text_len bytes of UTF-8 to tokens: at most capacity, their number in *n_out. If they do not fit, none is
/// written and *n_out is the number needed (ESOLM_ERR_BUFFER_TOO_SMALL); with capacity 0, tokens may be NULL. Special
/// tokens are recognised in the text; none is added. Any thread; the first use of a model's tokenizer takes longer.
///
/// Errors: ESOLM_ERR_INVALID_ARGUMENT, also if the text is not UTF-8; ESOLM_ERR_BUFFER_TOO_SMALL; ESOLM_ERR_TOKENIZER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_tokenize(
    model: *const esolm_model,
    text: *const c_char,
    text_len: usize,
    tokens: *mut u32,
    capacity: usize,
    n_out: *mut usize,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires each pointer to be NULL or valid for the call, and `text_len` bytes of text.
        let (n_out, handle, text) = unsafe {
            (
                args::out(n_out, 0, "n_out")?,
                args::reference(model, "model")?,
                args::text(text, text_len, "text")?,
            )
        };
        let encoded = handle.model.tokenizer()?.encode(text)?;
        // SAFETY: the header requires room for `capacity` items; `n_out` is not NULL (`args::out`) and so valid.
        unsafe { args::copy_items(&encoded, tokens, capacity, n_out, "tokens") }
    })
}

/// Converts n tokens to text: UTF-8 with a NUL. *len_out is its length in bytes without the NUL, so capacity must be
/// larger. If it does not fit, text is empty and *len_out is the length needed, without the NUL
/// (ESOLM_ERR_BUFFER_TOO_SMALL); with capacity 0, text may be NULL. A mask token becomes U+2591, bytes that are not
/// UTF-8 become U+FFFD. Any thread.
///
/// Errors: ESOLM_ERR_BUFFER_TOO_SMALL; ESOLM_ERR_TOKENIZER, also for a token outside the vocabulary.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_detokenize(
    model: *const esolm_model,
    tokens: *const u32,
    n: usize,
    text: *mut c_char,
    capacity: usize,
    len_out: *mut usize,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires each pointer to be NULL or valid for the call, and `n` tokens.
        let (len_out, handle, tokens) = unsafe {
            (
                args::out(len_out, 0, "len_out")?,
                args::reference(model, "model")?,
                args::slice(tokens, n, "tokens")?,
            )
        };
        let decoded = handle.model.tokenizer()?.decode(tokens)?;
        // SAFETY: the header requires room for `capacity` bytes; `len_out` is not NULL (`args::out`) and so valid.
        unsafe { args::copy_text(&decoded, text, capacity, len_out) }
    })
}

/// Converts a text with holes to a prompt: text_len bytes of UTF-8 such as "Once upon a time {{mask 12}} happily ever
/// after.", in which the model writes 12 tokens. "{{{{" stands for two braces.
///
/// Writes the known tokens and their positions, for esolm_prompt, and to *length_out the length of the whole text in
/// tokens, for esolm_generate_params.length. capacity (of both arrays) and *n_out are as in esolm_tokenize. Each piece
/// of text between holes is tokenized by itself. Any thread.
///
/// Errors: as esolm_tokenize, and ESOLM_ERR_INVALID_ARGUMENT if the template is malformed; the message says where.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_tokenize_template(
    model: *const esolm_model,
    text: *const c_char,
    text_len: usize,
    tokens: *mut u32,
    positions: *mut u32,
    capacity: usize,
    n_out: *mut usize,
    length_out: *mut usize,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires each pointer to be NULL or valid for the call, and `text_len` bytes of text.
        let (n_out, length_out, handle, text) = unsafe {
            (
                args::out(n_out, 0, "n_out")?,
                args::out(length_out, 0, "length_out")?,
                args::reference(model, "model")?,
                args::text(text, text_len, "text")?,
            )
        };
        if tokens.is_null() && capacity > 0 {
            return Err(args::null("tokens"));
        }
        let (prompt, length) = Template::parse(text)?.prompt(handle.model.tokenizer()?)?;
        let (found_positions, found_tokens): (Vec<u32>, Vec<u32>) = prompt.known.into_iter().unzip();
        // SAFETY: the header requires room for `capacity` items in both; `args::out` found the other two not NULL.
        unsafe {
            args::copy_items(&found_positions, positions, capacity, n_out, "positions")?;
            args::copy_items(&found_tokens, tokens, capacity, n_out, "tokens")?;
            length_out.write(length);
        }
        Ok(())
    })
}

/// Copies the bytes of one token, without a NUL. They may be part of a character: a program that shows tokens as they
/// are written joins them to whole characters. The bytes of a special token are its name. capacity and *n_out are as in
/// esolm_tokenize. Any thread.
///
/// Errors: ESOLM_ERR_BUFFER_TOO_SMALL; ESOLM_ERR_TOKENIZER, also for the mask and for a token outside the vocabulary.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_token_bytes(
    model: *const esolm_model,
    token: u32,
    bytes: *mut u8,
    capacity: usize,
    n_out: *mut usize,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires each pointer to be NULL or valid for the call.
        let (n_out, handle) = unsafe { (args::out(n_out, 0, "n_out")?, args::reference(model, "model")?) };
        let found = handle.model.tokenizer()?.token_bytes(token)?;
        // SAFETY: the header requires room for `capacity` items; `n_out` is not NULL (`args::out`) and so valid.
        unsafe { args::copy_items(&found, bytes, capacity, n_out, "bytes") }
    })
}
