//! What the library and ggml say while they work, for --verbose.

use std::sync::Arc;

use esolm::{LogLevel, set_log_receiver};

use crate::output::tell;

/// Shows the messages on standard error: warnings and progress, or with a `verbosity` of 2 all of them.
pub fn show(verbosity: u8) {
    let most = if verbosity < 2 { LogLevel::Info } else { LogLevel::Debug };
    set_log_receiver(Some(Arc::new(move |level, message| {
        if level <= most {
            tell(&format!("{}: {message}", name(level)));
        }
    })));
}

fn name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warning",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
    }
}
