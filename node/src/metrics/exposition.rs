//! Several processes' metrics as one text: a router answers for its workers.
//!
//! The format wants all samples of a metric in one place under one description, so texts cannot
//! be appended to each other. This takes them apart by metric and puts them together again.

use std::fmt;

/// The largest text that is taken from a worker.
const TEXT_BYTES_MAX: usize = 4 << 20;

/// A growing collection of metrics from several texts.
#[derive(Clone, Debug, Default)]
pub struct Exposition {
    families: Vec<Family>,
}

/// One metric: its `# HELP`, `# TYPE` and `# UNIT` lines, and its samples.
#[derive(Clone, Debug)]
struct Family {
    name: String,
    about: Vec<String>,
    samples: Vec<String>,
}

/// A text that is not in the format.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExpositionError {
    /// A line makes no sense.
    #[error("line {line} of the metrics is malformed")]
    Malformed {
        /// The line, from 1.
        line: usize,
    },
    /// No process has that many metrics.
    #[error("metrics of more than {TEXT_BYTES_MAX} bytes")]
    TooLarge,
}

impl Exposition {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds all samples of `text`, each with the `labels` before its own. A malformed text
    /// adds nothing.
    pub fn add(&mut self, text: &str, labels: &[(&str, &str)]) -> Result<(), ExpositionError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(ExpositionError::TooLarge);
        }
        let label = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", Escaped(value)));
        let label = label.collect::<Vec<_>>().join(",");
        let mut added = Self::default();
        for (index, line) in text.lines().enumerate() {
            added.add_line(line, &label).ok_or(ExpositionError::Malformed { line: index + 1 })?;
        }
        for family in added.families {
            match self.families.iter_mut().find(|known| known.name == family.name) {
                Some(known) => known.samples.extend(family.samples),
                None => self.families.push(family),
            }
        }
        Ok(())
    }

    fn add_line(&mut self, line: &str, label: &str) -> Option<()> {
        if line.is_empty() || line == "# EOF" {
            return Some(());
        }
        if let Some(about) = line.strip_prefix("# ") {
            let name = about.split(' ').nth(1)?;
            if self.families.last().is_none_or(|family| family.name != name) {
                let (name, about, samples) = (name.to_string(), Vec::new(), Vec::new());
                self.families.push(Family { name, about, samples });
            }
            self.families.last_mut()?.about.push(line.to_string());
            return Some(());
        }
        // A sample belongs to the metric described last; its name may have a suffix.
        let family = self.families.last_mut()?;
        if !line.starts_with(family.name.as_str()) {
            return None;
        }
        let at = line.find(['{', ' '])?;
        let (name, rest) = line.split_at(at);
        let sample = match rest.strip_prefix('{') {
            _ if label.is_empty() => line.to_string(),
            Some(own) if own.starts_with('}') => format!("{name}{{{label}{own}"),
            Some(own) => format!("{name}{{{label},{own}"),
            None => format!("{name}{{{label}}}{rest}"),
        };
        family.samples.push(sample);
        Some(())
    }
}

impl fmt::Display for Exposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for family in &self.families {
            let lines = family.about.iter().chain(&family.samples);
            lines.clone().try_for_each(|line| writeln!(f, "{line}"))?;
        }
        f.write_str("# EOF\n")
    }
}

/// A label's value inside its quotation marks.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            other => write!(f, "{other}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Kind, Metrics};

    #[test]
    fn the_same_metric_of_two_workers_has_one_description() {
        let text = |value: f64| {
            let metrics = Metrics::new();
            metrics.sample("blocks", "Blocks by state", Kind::Gauge, move |samples| {
                samples.push(&[("state", "free")], value);
            });
            metrics.histogram("itl_seconds", "Between tokens", &[0.1]).observe(0.01);
            metrics.render()
        };
        let mut all = Exposition::new();
        all.add(&text(1.0), &[]).expect("our own");
        all.add(&text(2.0), &[("worker", "decode-0")]).expect("a worker's");
        all.add(&text(3.0), &[("worker", "odd\"one")]).expect("a worker's");
        let merged = all.to_string();
        let count = |wanted: &str| merged.lines().filter(|line| *line == wanted).count();
        assert_eq!(count("# TYPE baton_blocks gauge"), 1, "{merged}");
        assert_eq!(count("# EOF"), 1, "{merged}");
        assert_eq!(count("baton_blocks{state=\"free\"} 1"), 1, "{merged}");
        assert_eq!(count("baton_blocks{worker=\"decode-0\",state=\"free\"} 2"), 1, "{merged}");
        assert_eq!(count("baton_blocks{worker=\"odd\\\"one\",state=\"free\"} 3"), 1, "{merged}");
        assert_eq!(count("baton_itl_seconds_count{worker=\"decode-0\"} 1"), 1, "{merged}");
        // Samples of one metric stand together.
        let lines: Vec<&str> = merged.lines().collect();
        let places: Vec<usize> =
            (0..lines.len()).filter(|at| lines[*at].starts_with("baton_blocks{")).collect();
        assert!(places.windows(2).all(|pair| pair[1] == pair[0] + 1), "{merged}");
    }

    #[test]
    fn a_malformed_text_adds_nothing() {
        let mut all = Exposition::new();
        let text = "# TYPE a gauge\na 1\nstray 3\n";
        assert_eq!(all.add(text, &[]), Err(ExpositionError::Malformed { line: 3 }));
        assert_eq!(all.add("nonsense", &[]), Err(ExpositionError::Malformed { line: 1 }));
        assert_eq!(all.add(&"#".repeat(TEXT_BYTES_MAX + 1), &[]), Err(ExpositionError::TooLarge));
        assert_eq!(all.to_string(), "# EOF\n");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}") {
            let _ = Exposition::new().add(&text, &[("worker", "w")]);
        }
    }
}
