//! Text to tokens and back.

use std::ffi::c_char;

use super::args;
use super::model::esolm_model;
use super::status::{esolm_status, wrap};
use crate::error::Error;
use crate::generate::Template;

/// Makes tokens of text_len bytes of UTF-8.
///
/// Writes at most capacity tokens and their number to *n_out. If they do not fit, the result is
/// ESOLM_ERR_BUFFER_TOO_SMALL, no token is written, and *n_out is the number needed (the one thing that is not
/// cleared on failure); with capacity 0, tokens may be NULL. Special tokens written out in the text are
/// recognised; none are added. Any thread; the first use of a model's tokenizer takes longer.
///
/// Errors: also ESOLM_ERR_INVALID_ARGUMENT if the text is not UTF-8; ESOLM_ERR_TOKENIZER.
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
        // SAFETY: the caller's pointers are NULL or valid, and the text has that many bytes.
        let (n_out, handle, text) = unsafe {
            (
                args::out(n_out, 0, "n_out")?,
                args::reference(model, "model")?,
                args::text(text, text_len, "text")?,
            )
        };
        let encoded = handle.model.tokenizer()?.encode(text)?;
        // SAFETY: the caller's buffer has that capacity.
        unsafe { args::copy_items(&encoded, tokens, capacity, n_out, "tokens") }
    })
}

/// Makes text of n tokens: UTF-8 with a NUL behind it.
///
/// *len_out is the text's length in bytes without the NUL, so capacity must be larger. If it does not fit, the
/// result is ESOLM_ERR_BUFFER_TOO_SMALL, the text is empty, and *len_out is the length needed, without the NUL.
/// With capacity 0, text may be NULL. A mask token becomes U+2591, bytes that are not UTF-8 become U+FFFD. Any
/// thread.
///
/// Errors: also ESOLM_ERR_TOKENIZER, for a token outside the vocabulary, too.
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
        // SAFETY: the caller's pointers are NULL or valid, and there are `n` tokens.
        let (len_out, handle, tokens) = unsafe {
            (
                args::out(len_out, 0, "len_out")?,
                args::reference(model, "model")?,
                args::slice(tokens, n, "tokens")?,
            )
        };
        let decoded = handle.model.tokenizer()?.decode(tokens)?;
        // SAFETY: the caller's buffer has that capacity.
        unsafe { args::copy_text(&decoded, text, capacity, len_out) }
    })
}

/// Makes a prompt of a text with holes: text_len bytes of UTF-8 such as "Once upon a time {{mask 12}} happily ever
/// after.", whose hole is 12 tokens for the model to write. "{{{{" stands for two braces.
///
/// Writes the known tokens and their positions, for esolm_prompt, and to *length_out the tokens of the whole text, for
/// esolm_generate_params.length. capacity (of both arrays) and *n_out are as in esolm_tokenize; each piece of text between
/// holes is made into tokens by itself. Any thread.
///
/// Errors: also ESOLM_ERR_INVALID_ARGUMENT if the template is not well-formed, with its place; ESOLM_ERR_TOKENIZER.
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
        // SAFETY: the caller's pointers are NULL or valid, and the text has that many bytes.
        let (n_out, length_out, handle, text) = unsafe {
            (
                args::out(n_out, 0, "n_out")?,
                args::out(length_out, 0, "length_out")?,
                args::reference(model, "model")?,
                args::text(text, text_len, "text")?,
            )
        };
        if tokens.is_null() && capacity > 0 {
            return Err(Error::invalid("tokens is NULL"));
        }
        let (prompt, length) = Template::parse(text)?.prompt(handle.model.tokenizer()?)?;
        let (found_positions, found_tokens): (Vec<u32>, Vec<u32>) = prompt.known.into_iter().unzip();
        // SAFETY: the caller's buffers have that capacity.
        unsafe {
            args::copy_items(&found_positions, positions, capacity, n_out, "positions")?;
            args::copy_items(&found_tokens, tokens, capacity, n_out, "tokens")?;
            length_out.write(length);
        }
        Ok(())
    })
}

/// Copies the bytes that one token stands for. They may be a part of a character, and are not followed by a NUL; a
/// special token's are those of its name. A program that shows tokens as they come joins them to whole characters.
///
/// At most capacity are written, and their number goes to *n_out; if they do not fit, the result is
/// ESOLM_ERR_BUFFER_TOO_SMALL, none is written, and *n_out is the number needed. With capacity 0, bytes may be NULL. Any
/// thread.
///
/// Errors: also ESOLM_ERR_TOKENIZER, for the mask and for a token outside the vocabulary, too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_token_bytes(
    model: *const esolm_model,
    token: u32,
    bytes: *mut u8,
    capacity: usize,
    n_out: *mut usize,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the caller's pointers are NULL or valid.
        let (n_out, handle) = unsafe { (args::out(n_out, 0, "n_out")?, args::reference(model, "model")?) };
        let found = handle.model.tokenizer()?.token_bytes(token)?;
        // SAFETY: the caller's buffer has that capacity.
        unsafe { args::copy_items(&found, bytes, capacity, n_out, "bytes") }
    })
}
