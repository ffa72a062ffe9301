//! What happens when a signal ends the command.

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
