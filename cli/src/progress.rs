//! Progress bars on standard error.

use std::ops::ControlFlow;

use esolm::quantize::Progress;
use indicatif::{ProgressBar, ProgressStyle};

/// Shows how many windows of a text `work` has done.
pub fn of_windows<T>(work: impl FnOnce(&mut dyn FnMut(usize, usize) -> ControlFlow<()>) -> T) -> T {
    of_items("windows", |show| {
        work(&mut |done, all| {
            show(done, all);
            ControlFlow::Continue(())
        })
    })
}

/// Shows how many of the `items` (a plural) `work` has done.
pub fn of_items<T>(items: &str, work: impl FnOnce(&mut dyn FnMut(usize, usize)) -> T) -> T {
    let bar = bar(&format!("{{bar:40}} {{pos}}/{{len}} {items} {{eta}}"));
    let result = work(&mut |done, all| show(&bar, done as u64, all as u64));
    bar.finish_and_clear();
    result
}

/// Shows how much of a model file `work` has written.
pub fn of_file<T>(work: impl FnOnce(&mut dyn FnMut(Progress)) -> T) -> T {
    let bar = bar("{bar:40} {bytes}/{total_bytes} {msg}");
    let result = work(&mut |progress| show(&bar, progress.bytes, progress.total_bytes));
    bar.finish_and_clear();
    result
}

/// Shows how much of `bytes` bytes `work` has downloaded, and which file it is at.
#[cfg(feature = "hub")]
pub fn of_download<T>(bytes: u64, work: impl FnOnce(&mut dyn FnMut(&str, u64)) -> T) -> T {
    let bar = bar("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}");
    let result = work(&mut |file, done| {
        // A message is an allocation, for every 64 KiB.
        if bar.message() != file {
            bar.set_message(file.to_owned());
        }
        show(&bar, done, bytes);
    });
    bar.finish_and_clear();
    result
}

/// How much of a conversation is read, until this is dropped.
#[cfg(feature = "chat")]
pub struct ReadingBar(ProgressBar);

#[cfg(feature = "chat")]
impl ReadingBar {
    pub fn new() -> Self {
        Self(bar("{bar:40} {pos}/{len} tokens read {eta}"))
    }

    pub fn show(&self, read: usize, all: usize) {
        show(&self.0, read as u64, all as u64);
    }
}

#[cfg(feature = "chat")]
impl Drop for ReadingBar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn bar(template: &str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    // With a template that is wrong the bar looks plain.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

fn show(bar: &ProgressBar, done: u64, all: u64) {
    bar.set_length(all);
    bar.set_position(done);
}
