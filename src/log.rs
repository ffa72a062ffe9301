//! Messages of the library and of ggml. Silent unless a receiver is set.

use std::sync::{Arc, PoisonError, RwLock};

/// The severity of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
pub enum LogLevel {
    /// Something failed.
    Error = 1,
    /// Something is unexpected but was handled.
    Warn = 2,
    /// Progress of slow operations.
    Info = 3,
    /// Details for debugging.
    Debug = 4,
}

/// A receiver of messages; it may be called from any thread.
pub type LogReceiver = Arc<dyn Fn(LogLevel, &str) + Send + Sync>;

static RECEIVER: RwLock<Option<LogReceiver>> = RwLock::new(None);

/// Sends every later message of esolm and ggml in this process to `receiver`; `None` discards them.
pub fn set_log_receiver(receiver: Option<LogReceiver>) {
    let old = std::mem::replace(&mut *RECEIVER.write().unwrap_or_else(PoisonError::into_inner), receiver);
    // Dropped outside the lock: a destructor may call back into the library.
    drop(old);
}

/// Passes a message to the receiver, if one is set.
pub(crate) fn log(level: LogLevel, message: &str) {
    // The lock is not held while the receiver runs, so it may call back into the library.
    let receiver = RECEIVER.read().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(receiver) = receiver {
        receiver(level, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value of a receiver's closure that logs when dropped.
    struct LogOnDrop;

    impl Drop for LogOnDrop {
        fn drop(&mut self) {
            log(LogLevel::Debug, "gone");
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
    }
}
