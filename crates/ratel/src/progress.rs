//! Progress on standard error, with time left.

use indicatif::{ProgressBar, ProgressStyle};
use ratel_diffusion::pipeline::{Event, Seen, Watcher};
use ratel_tensor::HostTensor;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Shows what a run does, and keeps what it observes.
#[derive(Default)]
pub(crate) struct Progress {
    bar: Option<(&'static str, ProgressBar)>,
    /// What stands in front of every bar.
    prefix: String,
    /// The outputs of observed modules, in the order in which they came.
    pub tensors: BTreeMap<String, HostTensor>,
    /// Their names, in that order.
    pub order: Vec<String>,
    /// The steps that were seen from within.
    pub seen: Vec<Seen>,
    /// When the first step was done.
    pub first_step: Option<Instant>,
}

impl Progress {
    /// One whose bars all begin with `prefix`.
    pub(crate) fn of(prefix: &str) -> Progress {
        Progress { prefix: prefix.to_owned(), ..Progress::default() }
    }

    /// The bar of this name, begun if another one was shown before.
    fn bar(&mut self, name: &'static str, total: u64, template: &str) -> &ProgressBar {
        if self.bar.as_ref().is_none_or(|(shown, _)| *shown != name) {
            self.finish();
            let bar = ProgressBar::new(total).with_message(name).with_prefix(self.prefix.clone());
            bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
            self.bar = Some((name, bar));
        }
        &self.bar.get_or_insert_with(|| (name, ProgressBar::hidden())).1
    }

    /// Takes the bar away.
    pub(crate) fn finish(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Watcher for Progress {
    fn event(&mut self, event: Event) {
        const STEPS: &str = "{prefix}{msg:14} {bar:40} {pos}/{len} {elapsed_precise} left {eta_precise} ({per_sec})";
        match event {
            Event::Loading(name, done, total) => {
                let bar = self.bar(name, total, "{prefix}{msg:14} {bar:40} {bytes}/{total_bytes} left {eta_precise}");
                bar.set_position(done);
            }
            Event::Step(done, total) => {
                self.first_step.get_or_insert_with(Instant::now);
                self.bar("denoising", total as u64, STEPS).set_position(done as u64);
            }
            Event::Picture(done, total) => self.bar("decoding", total as u64, STEPS).set_position(done as u64),
        }
    }

    fn tensor(&mut self, name: &str, value: HostTensor) {
        if self.tensors.insert(name.to_owned(), value).is_none() {
            self.order.push(name.to_owned());
        }
    }

    fn seen(&mut self, seen: Seen) {
        self.seen.push(seen);
    }
}

/// A sign of life on standard error, with a message to be set, for work of which nobody knows how long it takes.
pub(crate) fn spinner() -> ProgressBar {
    let spinner = ProgressBar::new_spinner();
    spinner.enable_steady_tick(std::time::Duration::from_millis(100));
    spinner
}

/// A bar over the shapes that are tuned, gone when all are.
pub(crate) fn of_tuning() -> impl Fn(ratel_engine::Progress) + Send + Sync {
    let shown: Mutex<Option<ProgressBar>> = Mutex::new(None);
    move |progress| {
        let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = shown.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{msg:14} {bar:40} {pos}/{len} left {eta_precise}");
            let bar = ProgressBar::new(progress.total).with_message("tuning");
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        bar.set_position(progress.done);
        if progress.done == progress.total
            && let Some(bar) = shown.take()
        {
            bar.finish_and_clear();
        }
    }
}
