//! What loading looks like: a bar on a terminal, a few lines elsewhere.

use baton_node::exit::tell;
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::io::IsTerminal;

/// The workers' progress, added up.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    workers: usize,
    /// Bytes done and wanted, by worker.
    parts: BTreeMap<String, (u64, u64)>,
    /// The last quarter that was written where there is no bar.
    quarter: u64,
}

impl Progress {
    pub(super) fn new(workers: usize) -> Self {
        let bar = (workers > 0 && std::io::stderr().is_terminal()).then(|| {
            let style = "loading weights [{bar:40}] {bytes}/{total_bytes} ({eta})";
            let bar = ProgressBar::new(0);
            bar.set_style(
                ProgressStyle::with_template(style)
                    .unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar
        });
        Self { bar, workers, parts: BTreeMap::new(), quarter: 0 }
    }

    pub(super) fn advance(&mut self, worker: &str, done: u64, total: u64) {
        self.parts.insert(worker.to_owned(), (done, total));
        let done: u64 = self.parts.values().map(|(done, _)| done).sum();
        let total: u64 = self.parts.values().map(|(_, total)| total).sum();
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
            return;
        }
        let quarter = done * 4 / total.max(1);
        if self.parts.len() == self.workers && quarter > self.quarter {
            self.quarter = quarter;
            tell(&format_args!("loading weights: {} %", quarter * 25));
        }
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
