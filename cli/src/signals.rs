//! What happens when a signal ends the command.

use std::sync::{Mutex, PoisonError};

use esolm::CancelToken;

/// What INT cancels, once, in place of ending the command.
static INTERRUPTED: Mutex<Option<CancelToken>> = Mutex::new(None);

/// While this lives, the first INT cancels the generation instead of ending the command.
pub struct CancelOnInterrupt;

impl CancelOnInterrupt {
    pub fn new(token: CancelToken) -> Self {
        *INTERRUPTED.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
        Self
    }
}

impl Drop for CancelOnInterrupt {
    fn drop(&mut self) {
        cancel_token();
    }
}

/// Takes the token that is to be cancelled.
fn cancel_token() -> Option<CancelToken> {
    INTERRUPTED.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Has INT, TERM and HUP remove the command's temporary files before they end it, as they would without this. (Most file
/// systems of Linux need no temporary names.) A signal that the command is to ignore, as HUP under nohup, stays ignored.
#[cfg(unix)]
pub fn remove_temporary_files_on_exit() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;
    use signal_hook::low_level::emulate_default_handler;

    let ignored = ignored_signals();
    let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0);
    // Without handlers or a thread, the signals end the command all the same.
    let Ok(mut signals) = Signals::new(wanted) else { return };
    let wait = move || {
        for signal in signals.forever() {
            if signal == SIGINT
                && let Some(token) = cancel_token()
            {
                token.cancel();
                continue;
            }
            esolm::remove_temporary_files();
            let _ = emulate_default_handler(signal);
        }
    };
    let _ = std::thread::Builder::new().name("signals".into()).spawn(wait);
}

/// The signals that are ignored, a bit each from 1 on; none where the system does not say.
#[cfg(unix)]
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(not(unix))]
pub fn remove_temporary_files_on_exit() {}

/// Has a write beyond the largest size that files may have (`ulimit -f`) fail, with an error that names the file, instead
/// of ending the command.
#[cfg(unix)]
pub fn fail_at_the_file_size_limit() {
    // Without a handler, the signal ends the command.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, std::sync::Arc::default());
}

#[cfg(not(unix))]
pub fn fail_at_the_file_size_limit() {}
