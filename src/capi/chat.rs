//! Conversations: the template that makes one text of their messages.

use std::ffi::c_char;
use std::mem::offset_of;
use std::ptr::null;

use super::model::esolm_model;
use super::params::SizedStruct;
use super::status::{esolm_status, wrap};
use super::{args, params};
use crate::chat::{ChatTemplate, Message};
use crate::error::Result;
use crate::memory::try_collected;
use crate::model::Model;

/// A message of a conversation. This struct will not change.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_message {
    /// Whose it is: "system", "user", "assistant", or another name that the template knows. NUL-terminated UTF-8.
    pub role: *const c_char,
    /// What it says. NUL-terminated UTF-8.
    pub content: *const c_char,
}

/// How the messages of a conversation become one text. Set by esolm_chat_params_init.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_chat_params {
    /// sizeof(esolm_chat_params)
    pub struct_size: usize,
    /// NULL: the template of the model's file. "chatml": the format of Qwen and others. Otherwise a template in Jinja.
    /// NUL-terminated UTF-8.
    pub chat_template: *const c_char,
    /// How many of the messages a sequence has already, the last of them being the answer that the model wrote there:
    /// esolm_chat_tokenize makes tokens of what follows. 0 (default): of all.
    pub behind: usize,
    /// 1 (default): the text goes on to where the model's next answer begins. 0: it ends with the last message.
    pub add_generation_prompt: i32,
    /// Reserved, must be 0.
    pub reserved: u32,
    /// More that the template is to know, an object in JSON: variables by their names, such as {"enable_thinking": false} for Qwen3's, or
    /// tools. NULL (default): nothing. NUL-terminated UTF-8.
    pub chat_template_kwargs: *const c_char,
}

// SAFETY: repr(C), a size first, no padding, numbers and a pointer only.
unsafe impl SizedStruct for esolm_chat_params {
    const NAME: &'static str = "esolm_chat_params";
    const VERSION_1: usize = offset_of!(Self, chat_template_kwargs);
    const DEFAULT: Self = Self {
        struct_size: size_of::<Self>(),
        chat_template: null(),
        behind: 0,
        add_generation_prompt: 1,
        reserved: 0,
        chat_template_kwargs: null(),
    };

    fn reserved(&self) -> u32 {
        self.reserved
    }
}

/// What the caller's parameters say.
struct Wanted {
    template: ChatTemplate,
    behind: usize,
    add_generation_prompt: bool,
}

/// The caller's parameters in the library's form.
///
/// # Safety
/// `pointer` must be as [`params::read`] wants it, and its texts NULL or NUL-terminated.
unsafe fn wanted(pointer: *const esolm_chat_params, model: &Model) -> Result<Wanted> {
    // SAFETY: the contract asks of `pointer` what `params::read` asks.
    let given: esolm_chat_params = unsafe { params::read(pointer)? };
    let esolm_chat_params { chat_template, behind, add_generation_prompt, .. } = given;
    // SAFETY: the contract says that both texts are NULL or end with a NUL.
    let (text, kwargs) = unsafe {
        let text = args::optional_string(chat_template, "chat_template")?;
        (text, args::optional_string(given.chat_template_kwargs, "chat_template_kwargs")?)
    };
    let template = match (chat_template.is_null(), text) {
        (true, _) => ChatTemplate::of_model(model)?,
        (false, "chatml") => ChatTemplate::chatml(),
        (false, text) => ChatTemplate::from_text(text)?.with_tokens_of(model)?,
    };
    let template = match given.chat_template_kwargs.is_null() {
        true => template,
        false => template.with_kwargs(kwargs)?,
    };
    let add_generation_prompt =
        params::flag::<esolm_chat_params>("add_generation_prompt", add_generation_prompt)?;
    Ok(Wanted { template, behind, add_generation_prompt })
}

/// The caller's messages.
///
/// # Safety
/// There must be `count` messages, whose strings end with a NUL and live during `'a`.
unsafe fn copied<'a>(messages: *const esolm_message, count: usize) -> Result<Vec<Message<'a>>> {
    // SAFETY: the contract says that there are so many.
    let messages = unsafe { args::slice(messages, count, "messages")? };
    try_collected(messages.iter().map(|message| {
        // SAFETY: the contract says that both strings end with a NUL and live long enough.
        let (role, content) =
            unsafe { (args::string(message.role, "role")?, args::string(message.content, "content")?) };
        Ok(Message { role, content })
    }))
}

/// Sets the defaults; size is sizeof(esolm_chat_params).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_chat_params_init(params: *mut esolm_chat_params, size: usize) -> esolm_status {
    // SAFETY: the header requires NULL or a struct of `size` bytes.
    wrap(|| unsafe { params::init(params, size) })
}

/// Copies the text of a conversation as UTF-8 with a NUL; params may be NULL for the defaults. capacity and *len_out are as in
/// esolm_detokenize. Applying a template takes time and memory in proportion to the messages at most, and reads no files. Any
/// thread.
///
/// Errors: ESOLM_ERR_UNSUPPORTED if the model has no template and none is given, or in a build without the feature "chat";
/// ESOLM_ERR_BAD_FILE if the model's is none; ESOLM_ERR_INVALID_ARGUMENT if the template refuses the messages, is wrong somewhere (the message names the line), or takes
/// too much; ESOLM_ERR_BUFFER_TOO_SMALL; ESOLM_ERR_TOKENIZER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_chat_apply(
    model: *const esolm_model,
    messages: *const esolm_message,
    n_messages: usize,
    params: *const esolm_chat_params,
    text: *mut c_char,
    capacity: usize,
    len_out: *mut usize,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires each pointer to be NULL or valid for the call, and so many messages.
        let (len_out, handle, messages) = unsafe {
            (
                args::out(len_out, 0, "len_out")?,
                args::reference(model, "model")?,
                copied(messages, n_messages)?,
            )
        };
        // SAFETY: the header requires NULL or a struct as large as it says, with texts that are NULL or end with a NUL.
        let Wanted { template, add_generation_prompt, .. } = unsafe { wanted(params, &handle.model)? };
        let found = template.apply(&messages, add_generation_prompt)?;
        // SAFETY: the header requires room for `capacity` bytes; `len_out` is not NULL (`args::out`) and so valid.
        unsafe { args::copy_text(&found, text, capacity, len_out) }
    })
}

/// Copies the tokens of a conversation up to the model's next answer, without a token that stands before each text of the
/// model anyway (which the text of esolm_chat_apply has), for esolm_prompt; with params->behind those of what
/// follows the answer that a sequence has, for esolm_sequence_append. (If they begin with the token that ended the answer, which
/// the sequence has, leave that out.) Names of special tokens are these tokens where the template writes them, and characters
/// where a message does. capacity and *n_out are as in esolm_tokenize. Any thread.
///
/// Errors: as esolm_chat_apply, and ESOLM_ERR_INVALID_ARGUMENT if there are fewer messages than params->behind;
/// ESOLM_ERR_UNSUPPORTED if the template does not write that answer once, as it is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_chat_tokenize(
    model: *const esolm_model,
    messages: *const esolm_message,
    n_messages: usize,
    params: *const esolm_chat_params,
    tokens: *mut u32,
    capacity: usize,
    n_out: *mut usize,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires each pointer to be NULL or valid for the call, and so many messages.
        let (n_out, handle, messages) = unsafe {
            (args::out(n_out, 0, "n_out")?, args::reference(model, "model")?, copied(messages, n_messages)?)
        };
        // SAFETY: the header requires NULL or a struct as large as it says, with texts that are NULL or end with a NUL.
        let Wanted { template, behind, .. } = unsafe { wanted(params, &handle.model)? };
        let tokenizer = handle.model.tokenizer()?;
        let found = match behind {
            0 => template.encode(tokenizer, &messages)?,
            behind => template.encode_behind(tokenizer, &messages, behind)?,
        };
        // SAFETY: the header requires room for `capacity` items; `n_out` is not NULL (`args::out`) and so valid.
        unsafe { args::copy_items(&found, tokens, capacity, n_out, "tokens") }
    })
}

/// Copies what the template writes behind an answer, without blanks around it, such as "<|im_end|>", as UTF-8 with a NUL: the
/// model writes it when its answer is complete. It is a stop string, and where it is the name of a special token, that is a stop
/// token. May be empty. params may be NULL for the defaults. capacity and *len_out are as in esolm_detokenize. Any thread.
///
/// Errors: as esolm_chat_tokenize.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_chat_answer_end(
    model: *const esolm_model,
    params: *const esolm_chat_params,
    text: *mut c_char,
    capacity: usize,
    len_out: *mut usize,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires each pointer to be NULL or valid for the call.
        let (len_out, handle) =
            unsafe { (args::out(len_out, 0, "len_out")?, args::reference(model, "model")?) };
        // SAFETY: the header requires NULL or a struct as large as it says, with texts that are NULL or end with a NUL.
        let found = unsafe { wanted(params, &handle.model)? }.template.answer_end()?;
        // SAFETY: the header requires room for `capacity` bytes; `len_out` is not NULL (`args::out`) and so valid.
        unsafe { args::copy_text(&found, text, capacity, len_out) }
    })
}
