//! Progress on standard error, with time left.

use indicatif::{ProgressBar, ProgressStyle};
use ratel_diffusion::pipeline::{Event, Seen, Watcher};
use ratel_tensor::HostTensor;
use std::collections::BTreeMap;

/// Shows what a run does, and keeps what it observes.
#[derive(Default)]
pub(crate) struct Progress {
    bar: Option<(&'static str, ProgressBar)>,
    /// The outputs of observed modules, in the order in which they came.
    pub tensors: BTreeMap<String, HostTensor>,
    /// Their names, in that order.
    pub order: Vec<String>,
    /// The steps that were seen from within.
    pub seen: Vec<Seen>,
}

impl Progress {
    /// The bar of this name, begun if another one was shown before.
    fn bar(&mut self, name: &'static str, total: u64, template: &str) -> &ProgressBar {
        if self.bar.as_ref().is_none_or(|(shown, _)| *shown != name) {
            self.finish();
            let bar = ProgressBar::new(total).with_message(name);
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
        const STEPS: &str = "{msg:14} {bar:40} {pos}/{len} {elapsed_precise} left {eta_precise} ({per_sec})";
        match event {
            Event::Loading(name, done, total) => {
                let bar = self.bar(name, total, "{msg:14} {bar:40} {bytes}/{total_bytes} left {eta_precise}");
                bar.set_position(done);
            }
            Event::Step(done, total) => self.bar("denoising", total as u64, STEPS).set_position(done as u64),
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
