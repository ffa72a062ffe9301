//! Bars on standard error, while something is on its way, and notes when it is done.

use esolm::convert::Progress;
use indicatif::{ProgressBar, ProgressStyle};

fn bar(template: &str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

fn show(bar: &ProgressBar, done: u64, all: u64) {
    bar.set_length(all);
    bar.set_position(done);
}

/// Shows how many of the `items`, a plural, `work` has done.
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

/// Says what else a person should know.
pub fn notes(notes: &[String]) {
    notes.iter().for_each(|note| eprintln!("note: {note}"));
}
