//! From text to tokens and back.
#![allow(rustdoc::broken_intra_doc_links, reason = "the header has \"[MASK]\" as it is")]

use std::ffi::c_char;

use super::model::esolm_model;
use super::params::SizedStruct;
use super::status::{esolm_status, wrap};
use super::{args, params};
use crate::error::Result;
use crate::generate::Template;
use crate::model::TokenizeOptions;

/// How a text becomes tokens. Set by esolm_tokenize_params_init.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_tokenize_params {
    /// sizeof(esolm_tokenize_params)
    pub struct_size: usize,
    /// 1: special tokens that are written out in the text, such as "<|endoftext|>", are these tokens, and "[MASK]" is the
    /// mask token. 0 (default): they are characters as all others, as text of users should be. (llama.cpp's parse_special.)
    pub parse_special: i32,
    /// 1: the text goes on from another: tokenizers that put a space before a text put none. 0 (default): it is a text's
    /// beginning.
    pub continues: i32,
}

// SAFETY: repr(C), a size first, no padding, numbers only.
unsafe impl SizedStruct for esolm_tokenize_params {
    const NAME: &'static str = "esolm_tokenize_params";
    const VERSION_1: usize = size_of::<Self>();
    const DEFAULT: Self = Self { struct_size: size_of::<Self>(), parse_special: 0, continues: 0 };
}

/// The caller's parameters in the library's form.
///
/// # Safety
/// `pointer` must be as [`params::read`] wants it.
unsafe fn options(pointer: *const esolm_tokenize_params) -> Result<TokenizeOptions> {
    // SAFETY: the contract asks of `pointer` what `params::read` asks.
    let esolm_tokenize_params { parse_special, continues, .. } = unsafe { params::read(pointer)? };
    Ok(TokenizeOptions {
        parse_special: params::flag::<esolm_tokenize_params>("parse_special", parse_special)?,
        continues: params::flag::<esolm_tokenize_params>("continues", continues)?,
    })
}

/// Sets the defaults; size is sizeof(esolm_tokenize_params).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_tokenize_params_init(
    params: *mut esolm_tokenize_params,
    size: usize,
) -> esolm_status {
    // SAFETY: the header requires NULL or a struct of `size` bytes.
    wrap(|| unsafe { params::init(params, size) })
}

/// Converts text_len bytes of UTF-8 to tokens: at most capacity, their number in *n_out. If they do not fit, none is
/// written and *n_out is the number needed (ESOLM_ERR_BUFFER_TOO_SMALL); with capacity 0, tokens may be NULL. Special
/// tokens that are written out in the text are characters as all others (esolm_tokenize_with_params); none is added. Any
/// thread; the first use of a model's tokenizer takes longer.
///
/// Errors: ESOLM_ERR_INVALID_ARGUMENT, also if the text is not UTF-8; ESOLM_ERR_BUFFER_TOO_SMALL; ESOLM_ERR_TOKENIZER, also
/// if the tokenizer knows a word of the text as a special token only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_tokenize(
    model: *const esolm_model,
    text: *const c_char,
    text_len: usize,
    tokens: *mut u32,
    capacity: usize,
    n_out: *mut usize,
) -> esolm_status {
    // SAFETY: the header requires the same of both functions' arguments; NULL are the default parameters.
    unsafe { esolm_tokenize_with_params(model, text, text_len, std::ptr::null(), tokens, capacity, n_out) }
}

/// As esolm_tokenize, with parameters; NULL are the defaults.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_tokenize_with_params(
    model: *const esolm_model,
    text: *const c_char,
    text_len: usize,
    params: *const esolm_tokenize_params,
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
        // SAFETY: the header requires NULL or a struct as large as it says.
        let options = unsafe { options(params)? };
        let encoded = handle.model.tokenizer()?.encode_with(text, &options)?;
        // SAFETY: the header requires room for `capacity` items; `n_out` is not NULL (`args::out`) and so valid.
        unsafe { args::copy_items(&encoded, tokens, capacity, n_out, "tokens") }
    })
}

/// Converts n tokens to text: UTF-8 with a NUL. *len_out is its length in bytes without the NUL, so capacity must be
/// larger. If it does not fit, text is empty and *len_out is the length needed, without the NUL
/// (ESOLM_ERR_BUFFER_TOO_SMALL); with capacity 0, text may be NULL. A mask token becomes "[MASK]", bytes that are
/// not UTF-8 become U+FFFD. Tokens that the model can write and the tokenizer does not have add nothing. Any thread.
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
/// of text between holes is tokenized by itself, those behind a hole as esolm_tokenize_params.continues says. A space before
/// a hole belongs to what is written there: tokens begin with the space before their word. Any thread.
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
    let params = std::ptr::null();
    // SAFETY: the header requires the same of both functions' arguments; NULL are the default parameters.
    unsafe {
        esolm_tokenize_template_with_params(
            model, text, text_len, params, tokens, positions, capacity, n_out, length_out,
        )
    }
}

/// As esolm_tokenize_template, with parameters; NULL are the defaults. parse_special is for all of the text, where a mask is then a
/// hole of one token; continues for its beginning.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_tokenize_template_with_params(
    model: *const esolm_model,
    text: *const c_char,
    text_len: usize,
    params: *const esolm_tokenize_params,
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
        // SAFETY: the header requires NULL or a struct as large as it says.
        let options = unsafe { options(params)? };
        let (prompt, length) = Template::parse(text)?.prompt_with(handle.model.tokenizer()?, &options)?;
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
/// are written joins them to whole characters. The bytes of a special token are its name, those of the mask "[MASK]".
/// capacity and *n_out are as in esolm_tokenize. Any thread.
///
/// Errors: ESOLM_ERR_BUFFER_TOO_SMALL; ESOLM_ERR_TOKENIZER, also for a token that the tokenizer does not have: some models can
/// write more tokens than it has, which add nothing to a text.
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

/// 1 if the token ends a text: esolm_model_info.eos_token, or another, as a chat model has one for the end of an answer. Otherwise 0,
/// as for NULL. (llama.cpp: llama_vocab_is_eog.) Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_token_is_end(model: *const esolm_model, token: u32) -> i32 {
    let mut ends = false;
    wrap(|| {
        // SAFETY: the header requires NULL or a model.
        let model = unsafe { model.as_ref() };
        ends = model.is_some_and(|handle| handle.model.config().ends_text(token));
        Ok(())
    });
    ends.into()
}

/// 1 if the token stands for no text: special ones, such as those that begin and end a text, the mask, and numbers outside the
/// vocabulary. Otherwise 0, as for NULL and for a model without a tokenizer. (llama.cpp: llama_vocab_is_control.) Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_token_is_special(model: *const esolm_model, token: u32) -> i32 {
    let mut special = false;
    wrap(|| {
        // SAFETY: the header requires NULL or a model.
        if let Some(handle) = unsafe { model.as_ref() } {
            special = handle.model.tokenizer()?.is_special(token);
        }
        Ok(())
    });
    special.into()
}
