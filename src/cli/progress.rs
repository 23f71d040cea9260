//! A progress bar with a rate, on a terminal; nothing where nobody looks.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How often a bar moves by itself.
const TICK: Duration = Duration::from_millis(120);

/// How far a long command is.
pub(in crate::cli) struct Progress {
    bar: ProgressBar,
    /// What is counted: `pairs`, `keys`.
    what: &'static str,
    count: u64,
}

impl Progress {
    /// Over the bytes of a file, or without an end in sight. Goes to standard error.
    pub(in crate::cli) fn new(len: Option<u64>, what: &'static str) -> Self {
        let bar = match len {
            Some(len) => ProgressBar::new(len),
            None => ProgressBar::new_spinner(),
        };
        let template = match len {
            Some(_) => "{bar:32} {percent:>3} %  {msg}  {eta} left",
            None => "{spinner} {msg}  {elapsed}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TICK);
        let progress = Self { bar, what, count: 0 };
        progress.show();
        progress
    }

    /// `items` more are done; of the file, `position` bytes were read.
    pub(in crate::cli) fn done(&mut self, items: u64, position: u64) {
        self.count += items;
        if self.bar.length().is_some() {
            self.bar.set_position(position);
        }
        self.show();
    }

    /// Takes the bar away; says how many were done, and how fast.
    pub(in crate::cli) fn finish(self) -> (u64, Duration) {
        let elapsed = self.bar.elapsed();
        self.bar.finish_and_clear();
        (self.count, elapsed)
    }

    fn show(&self) {
        if !self.bar.is_hidden() {
            let rate = per_second(self.count, self.bar.elapsed());
            self.bar.set_message(format!("{} {}, {rate}/s", self.count, self.what));
        }
    }
}

/// A rate, rounded.
pub(in crate::cli) fn per_second(count: u64, elapsed: Duration) -> u64 {
    // Saturates, which nobody will see.
    (count as f64 / elapsed.as_secs_f64().max(0.001)) as u64
}
