//! What the library and ggml say while they work, for --verbose.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use esolm::{LogLevel, set_log_level, set_log_receiver};

use crate::output::tell;

/// Shows the messages on standard error: warnings and progress, or with a `verbosity` of 2 all of them.
pub fn show(verbosity: u8) {
    receive(if verbosity < 2 { LogLevel::Info } else { LogLevel::Debug });
}

/// Shows at least warnings.
pub fn show_warnings() {
    if !SHOWN.load(Ordering::Relaxed) {
        receive(LogLevel::Warn);
    }
}

/// Whether messages are shown already.
static SHOWN: AtomicBool = AtomicBool::new(false);

fn receive(most: LogLevel) {
    SHOWN.store(true, Ordering::Relaxed);
    set_log_level(most);
    set_log_receiver(Some(Arc::new(|level, message| tell(&format!("{}: {message}", name(level))))));
}

fn name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warning",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
    }
}
