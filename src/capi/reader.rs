//! Models from where the caller's code reads them, and from open files.

use std::ffi::{c_char, c_void};
use std::io;
use std::mem::offset_of;
use std::ptr::{null, null_mut};

use super::model::{esolm_model, esolm_model_params, give, with_options};
use super::params::SizedStruct;
use super::status::{esolm_status, wrap};
use super::{args, params};
use crate::error::{Error, Result};
use crate::memory::ModelReader;
use crate::model::Model;

/// Reads size bytes from offset on into buffer, and returns how many there are: size, or fewer but at least 1. 0: the file
/// ends here. Negative: it cannot be read, and the call fails with ESOLM_ERR_IO. Called from the beginning of the file to its
/// end, on the thread of the call; must not throw or longjmp.
pub type esolm_read_callback = Option<
    unsafe extern "C" fn(offset: u64, buffer: *mut c_void, size: usize, user_data: *mut c_void) -> i64,
>;

/// Called once, when nothing is read any more.
pub type esolm_close_callback = Option<unsafe extern "C" fn(user_data: *mut c_void)>;

/// A model's file that the caller's code reads: an asset, an entry of an archive, an encrypted file. Set struct_size, and
/// fields that are not used to 0. (whisper.h's whisper_model_loader.)
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_model_reader {
    /// sizeof(esolm_model_reader)
    pub struct_size: usize,
    /// Size of the file in bytes.
    pub size: u64,
    /// Reads it.
    pub read: esolm_read_callback,
    /// Called before esolm_model_open_reader returns, whatever it returns, unless this struct is refused. NULL: not called.
    pub close: esolm_close_callback,
    /// Passed to read and close.
    pub user_data: *mut c_void,
    /// What messages call the file, NUL-terminated. NULL: "(reader)".
    pub name: *const c_char,
}

// SAFETY: repr(C), a size first, no padding, numbers and pointers only.
unsafe impl SizedStruct for esolm_model_reader {
    const NAME: &'static str = "esolm_model_reader";
    const VERSION_1: usize = offset_of!(Self, name) + size_of::<*const c_char>();
    const DEFAULT: Self = Self {
        struct_size: size_of::<Self>(),
        size: 0,
        read: None,
        close: None,
        user_data: null_mut(),
        name: null(),
    };
}

/// Reads by the caller's functions; closes when it is dropped.
struct Reader<'a> {
    functions: esolm_model_reader,
    name: &'a str,
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let esolm_model_reader { close, user_data, .. } = self.functions;
        if let Some(close) = close {
            // SAFETY: the header requires a function that may be called with the user data.
            unsafe { close(user_data) };
        }
    }
}

impl ModelReader for Reader<'_> {
    fn size(&self) -> u64 {
        self.functions.size
    }

    fn name(&self) -> String {
        if self.name.is_empty() { "(reader)".into() } else { self.name.into() }
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let esolm_model_reader { read, user_data, .. } = self.functions;
        let read = read.ok_or(io::ErrorKind::Unsupported)?;
        // SAFETY: the header requires a function that writes at most as many bytes as it is told, and the buffer has them.
        let count = unsafe { read(offset, buffer.as_mut_ptr().cast(), buffer.len(), user_data) };
        usize::try_from(count).map_err(|_| io::Error::other(format!("the reader returned {count}")))
    }
}

/// Opens a model whose file is read by the caller's functions, into memory of the library (params->mode does not matter).
/// Otherwise as esolm_model_open.
///
/// Errors: as esolm_model_open; ESOLM_ERR_IO also for a file that ends before reader->size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_model_open_reader(
    reader: *const esolm_model_reader,
    params: *const esolm_model_params,
    out: *mut *mut esolm_model,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires each pointer to be NULL or valid for the call.
        let out = unsafe { args::out(out, null_mut(), "out") };
        if reader.is_null() {
            return Err(args::null("reader"));
        }
        // SAFETY: the header requires a struct as large as it says.
        let reader = unsafe { params::read(reader)? };
        if reader.read.is_none() {
            return Err(args::null("reader->read"));
        }
        // From here on the file is closed, whatever is wrong.
        let mut reader = Reader { functions: reader, name: "" };
        let out = out?;
        // SAFETY: as above.
        reader.name = unsafe { args::optional_string(reader.functions.name, "reader->name")? };
        // SAFETY: the header requires NULL or valid parameters, with a valid device name and callback.
        let model = unsafe { with_options(params, |options| Model::from_reader(&mut reader, options))? };
        // SAFETY: `out` is not NULL (`args::out`), and the header requires it to be valid then.
        unsafe { out.write(give(model)) };
        Ok(())
    })
}

/// Opens a model that is in an open file: length bytes from offset on, 0 being all up to its end. (So a file descriptor, offset and
/// length of an Android asset can be given.) fd stays the caller's and may be closed after the call. With ESOLM_MODE_MAP the
/// file is mapped, and copied where its tensors are not aligned to 32 bytes. Otherwise as esolm_model_open.
///
/// Errors: as esolm_model_open; ESOLM_ERR_INVALID_ARGUMENT if the part is not inside the file; ESOLM_ERR_UNSUPPORTED on
/// systems without file descriptors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_model_open_fd(
    fd: i32,
    offset: u64,
    length: u64,
    params: *const esolm_model_params,
    out: *mut *mut esolm_model,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires NULL or a pointer valid for writing.
        let out = unsafe { args::out(out, null_mut(), "out")? };
        let file = file_of(fd)?;
        let length = if length == 0 { None } else { Some(length) };
        // SAFETY: the header requires NULL or valid parameters, with a valid device name and callback.
        let model =
            unsafe { with_options(params, |options| Model::from_file(&file, offset, length, options))? };
        // SAFETY: `out` is not NULL (`args::out`), and the header requires it to be valid then.
        unsafe { out.write(give(model)) };
        Ok(())
    })
}

/// A file of its own for a descriptor of the caller's.
#[cfg(unix)]
fn file_of(fd: i32) -> Result<std::fs::File> {
    if fd < 0 {
        return Err(Error::invalid(format!("fd is {fd}")));
    }
    // SAFETY: the descriptor is used for this call only, which fails if it is not open.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    let own =
        fd.try_clone_to_owned().map_err(|source| Error::Io { file: "(file descriptor)".into(), source })?;
    Ok(own.into())
}

#[cfg(not(unix))]
fn file_of(_: i32) -> Result<std::fs::File> {
    Err(Error::Unsupported("there are no file descriptors on this system".into()))
}
