//! Messages of the library and of ggml. Silent unless a receiver is set.

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// The severity of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
pub enum LogLevel {
    /// Something failed.
    Error = 1,
    /// Something is unexpected but was handled.
    Warn = 2,
    /// What was done, once for each model and context: how a file was opened, which kernels run, how much memory is taken.
    Info = 3,
    /// Details for debugging.
    Debug = 4,
}

/// A receiver of messages; it may be called from any thread.
pub type LogReceiver = Arc<dyn Fn(LogLevel, &str) + Send + Sync>;

static RECEIVER: RwLock<Option<LogReceiver>> = RwLock::new(None);

/// The least severe level that is sent.
static LEVEL: AtomicI32 = AtomicI32::new(LogLevel::Info as i32);

/// Sends messages of this level and more severe ones; [`LogLevel::Info`] at first.
pub fn set_log_level(level: LogLevel) {
    LEVEL.store(level as i32, Ordering::Relaxed);
}

/// Sends every later message of esolm and ggml in this process to `receiver`; `None` discards them.
pub fn set_log_receiver(receiver: Option<LogReceiver>) {
    let old = std::mem::replace(&mut *RECEIVER.write().unwrap_or_else(PoisonError::into_inner), receiver);
    // Dropped outside the lock: a destructor may call back into the library.
    drop(old);
}

/// Passes a message to the receiver, if one is set and wants this level.
pub(crate) fn log(level: LogLevel, message: &str) {
    log_with(level, || message);
}

/// The same with a message that is made only if somebody receives it.
pub(crate) fn log_with<M: AsRef<str>>(level: LogLevel, message: impl FnOnce() -> M) {
    if level as i32 > LEVEL.load(Ordering::Relaxed) {
        return;
    }
    // The lock is not held while the receiver runs, so it may call back into the library.
    let receiver = RECEIVER.read().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(receiver) = receiver {
        receiver(level, message().as_ref());
    }
}

/// A number of bytes as people read it.
pub(crate) fn mib(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value of a receiver's closure that logs when dropped.
    struct LogOnDrop;

    impl Drop for LogOnDrop {
        fn drop(&mut self) {
            log(LogLevel::Warn, "gone");
        }
    }

    #[test]
    fn dropped_receiver_may_still_log() {
        let word = LogOnDrop;
        set_log_receiver(Some(Arc::new(move |_, _| {
            let _ = &word;
        })));
        let (sender, heard) = std::sync::mpsc::channel();
        set_log_receiver(Some(Arc::new(move |_, message: &str| drop(sender.send(message.to_owned())))));
        set_log_receiver(None);
        assert_eq!(heard.iter().filter(|message| message == "gone").count(), 1);

        // Here, since there is one receiver for all tests: levels.
        let (sender, heard) = std::sync::mpsc::channel();
        set_log_receiver(Some(Arc::new(move |_, message: &str| drop(sender.send(message.to_owned())))));
        for (level, count) in [(LogLevel::Error, 1), (LogLevel::Debug, 4), (LogLevel::Info, 3)] {
            set_log_level(level);
            for sent in [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug] {
                log(sent, "a level");
            }
            assert_eq!(heard.try_iter().filter(|message| message == "a level").count(), count, "{level:?}");
        }
        set_log_receiver(None);
        log_with(LogLevel::Error, || -> &str { panic!("made for nobody") });
    }
}
