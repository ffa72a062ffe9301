//! Host memory: one arena per context, vectors that may fail, and the bytes of files.
#![allow(unsafe_code)]

mod arena;
mod file;
mod free;
mod pages;
mod reader;
mod room;
mod text;
mod vector;

pub use arena::ALIGNMENT;
pub(crate) use arena::{Arena, Region};
pub(crate) use file::{FileBytes, open_regular};
#[cfg(feature = "convert")]
pub(crate) use file::{read_at_most, read_regular};
pub(crate) use free::HostMemory;
pub(crate) use pages::LockedPages;
pub(crate) use reader::FilePart;
pub use reader::ModelReader;
#[cfg(feature = "convert")]
pub(crate) use reader::OPEN_FILE;
pub(crate) use room::{room_for_library, room_for_thread, start_scoped};
pub use text::plain_text;
#[cfg(feature = "convert")]
pub(crate) use vector::{add, insert};
pub(crate) use vector::{
    append, collected, copied, extend, filled, formatted, no_room, push, reserve, text_with_room,
    try_collected, with_room,
};
