//! The exit codes of the command.

/// Exit code of `esolm verify` if it finds a difference.
pub const DIFFERENT: u8 = 1;
/// Exit code for arguments that are wrong, do not go together or do not fit the model.
pub const USAGE: u8 = 2;
/// Exit code for files that are invalid, or cannot be read or written.
const BAD_FILE: u8 = 3;
/// Exit code of `esolm generate` after Ctrl-C: 128 and the number of the signal, as shells have it.
pub const INTERRUPTED: u8 = 130;
/// Exit code for everything else.
pub const RUNTIME: u8 = 4;

/// The exit code of an error.
pub fn of(error: &esolm::Error) -> u8 {
    use esolm::Error::{BadFile, InvalidArgument, Io, Tokenizer, Unsupported};
    match error {
        InvalidArgument(_) | Unsupported(_) => USAGE,
        BadFile { .. } | Io { .. } | Tokenizer { .. } => BAD_FILE,
        _ => RUNTIME,
    }
}
