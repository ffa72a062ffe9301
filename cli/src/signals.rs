//! What happens when a signal ends the command.

use std::sync::{Mutex, PoisonError};

use esolm::CancelToken;

/// What a signal does, once, in place of ending the command.
struct Instead {
    act: Box<dyn FnOnce() + Send>,
    /// Whether TERM does it, too, and not only INT.
    #[cfg_attr(not(any(unix, feature = "serve")), expect(dead_code, reason = "there is no TERM"))]
    on_termination: bool,
}

static INSTEAD: Mutex<Option<Instead>> = Mutex::new(None);

/// While this lives, the first INT cancels the generation instead of ending the command.
pub struct CancelOnInterrupt;

impl CancelOnInterrupt {
    pub fn new(token: CancelToken) -> Self {
        set(Instead { act: Box::new(move || token.cancel()), on_termination: false });
        Self
    }
}

impl Drop for CancelOnInterrupt {
    fn drop(&mut self) {
        instead();
    }
}

/// Has the first INT or TERM call `act` instead of ending the command.
#[cfg(feature = "serve")]
pub fn on_end(act: impl FnOnce() + Send + 'static) {
    set(Instead { act: Box::new(act), on_termination: true });
}

/// Does what [`on_end`] was given, as at a signal.
#[cfg(feature = "serve")]
pub fn end() {
    is_taken(|what| what.on_termination);
}

fn set(what: Instead) {
    *INSTEAD.lock().unwrap_or_else(PoisonError::into_inner) = Some(what);
}

/// Takes what is to be done.
fn instead() -> Option<Instead> {
    INSTEAD.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Does what is wanted in place of ending the command, if it `fits` the signal, and says whether it did.
fn is_taken(fits: impl FnOnce(&mut Instead) -> bool) -> bool {
    let what = INSTEAD.lock().unwrap_or_else(PoisonError::into_inner).take_if(fits);
    what.map(|what| (what.act)()).is_some()
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
            if is_taken(|what| signal == SIGINT || signal == SIGTERM && what.on_termination) {
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

/// The same for Ctrl-C.
#[cfg(windows)]
pub fn remove_temporary_files_on_exit() {
    use tokio::runtime::Builder;
    use tokio::signal::windows::ctrl_c;

    /// With which the system ends a program at Ctrl-C.
    const CONTROL_C_EXIT: i32 = 0xC000_013A_u32.cast_signed();

    let wait = || {
        // Without these, Ctrl-C ends the command all the same.
        let Ok(runtime) = Builder::new_current_thread().build() else { return };
        let Ok(mut interrupts) = ctrl_c() else { return };
        while runtime.block_on(interrupts.recv()).is_some() {
            if !is_taken(|_| true) {
                esolm::remove_temporary_files();
                std::process::exit(CONTROL_C_EXIT);
            }
        }
    };
    let _ = std::thread::Builder::new().name("signals".into()).spawn(wait);
}

#[cfg(not(any(unix, windows)))]
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

#[cfg(all(test, feature = "serve"))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn end_is_done_once() {
        static DONE: AtomicUsize = AtomicUsize::new(0);
        on_end(|| {
            DONE.fetch_add(1, Ordering::Relaxed);
        });
        end();
        end();
        assert_eq!(DONE.load(Ordering::Relaxed), 1);
        // What cancels a generation is not the end.
        let token = CancelToken::default();
        let interrupt = CancelOnInterrupt::new(token.clone());
        end();
        assert!(!token.is_cancelled());
        drop(interrupt);
    }
}
