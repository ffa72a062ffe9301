//! The least speed at which a hub has to send: one that sends a byte a minute would never end.

use std::fmt;
use std::io::{Error, ErrorKind, Read, Result};
use std::time::{Duration, Instant};

/// Least bytes a second, on the average over the patience that one has.
const LEAST: u64 = 1000;

/// How long a hub may do nothing, or send too little.
#[derive(Clone, Copy)]
pub struct Patience(pub Duration);

impl Patience {
    /// Of `HF_HUB_DOWNLOAD_TIMEOUT`, in seconds; else a minute.
    pub fn from_environment() -> esolm::Result<Self> {
        let name = "HF_HUB_DOWNLOAD_TIMEOUT";
        let Some(text) = std::env::var(name).ok().filter(|text| !text.trim().is_empty()) else {
            return Ok(Self(Duration::from_secs(60)));
        };
        match text.trim().parse() {
            Ok(seconds @ 1..=86_400) => Ok(Self(Duration::from_secs(seconds))),
            _ => Err(esolm::Error::InvalidArgument(format!(
                "{name}: {text:?} is no number of seconds from 1 to 86400"
            ))),
        }
    }

    /// The bytes that have to come in that time.
    pub fn least(self) -> u64 {
        self.0.as_secs().saturating_mul(LEAST)
    }
}

/// That too little came.
#[derive(Debug)]
pub struct TooSlow {
    bytes: u64,
    time: Duration,
}

impl fmt::Display for TooSlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "it sent {} bytes in {:.0} s, less than {LEAST} a second",
            self.bytes,
            self.time.as_secs_f64()
        )
    }
}

impl std::error::Error for TooSlow {}

impl TooSlow {
    /// Whether it is why reading failed.
    pub fn is(error: &Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Self>())
    }
}

/// Reads what comes, until too little does.
pub struct Paced<R> {
    inner: R,
    patience: Patience,
    /// When the bytes were first counted that `count` has.
    since: Instant,
    count: u64,
}

impl<R: Read> Paced<R> {
    pub fn new(inner: R, patience: Patience) -> Self {
        Self { inner, patience, since: Instant::now(), count: 0 }
    }
}

impl<R: Read> Read for Paced<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count += read as u64;
        let time = self.since.elapsed();
        if time < self.patience.0 {
            return Ok(read);
        }
        // The end of what is sent is welcome at any speed.
        if read > 0 && self.count < self.patience.least() {
            return Err(Error::new(ErrorKind::TimedOut, TooSlow { bytes: self.count, time }));
        }
        (self.since, self.count) = (Instant::now(), 0);
        Ok(read)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Sends so many bytes at a time, one time each 20 ms.
    struct Slow(usize);

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
            std::thread::sleep(Duration::from_millis(20));
            Ok(self.0.min(buffer.len()))
        }
    }

    #[test]
    fn too_slow_a_source_is_given_up_and_a_faster_one_is_not() {
        let patience = Patience(Duration::from_secs(1));
        let mut buffer = [0; 512];
        let mut slow = Paced::new(Slow(1), patience);
        let error = (0..1000).find_map(|_| slow.read(&mut buffer).err()).unwrap();
        assert!(TooSlow::is(&error), "{error}");
        assert!(slow.since.elapsed() < Duration::from_secs(30));
        let mut fast = Paced::new(Slow(512), patience);
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(1500) {
            assert!(fast.read(&mut buffer).unwrap() > 0);
        }
    }
}
