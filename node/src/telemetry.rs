//! Logs: one line per event on stderr, as text or JSON, at the level of the configuration or of
//! `BATON_LOG`.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::{Exit, Hint};

/// The environment variable that speaks over the configured filter.
pub const FILTER_VARIABLE: &str = "BATON_LOG";

/// What is logged and how.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// A level (`info`), or levels per module (`info,baton_transfer=debug`).
    pub filter: String,
    /// Text for people or JSON for machines.
    pub format: LogFormat,
    /// When text has colours.
    pub colour: Colour,
}

/// The form of a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// When to write colours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Colour {
    /// If stderr is a terminal and `NO_COLOR` is not set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info".into(), format: LogFormat::default(), colour: Colour::default() }
    }
}

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("`{filter}` is no log filter: {reason}")]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It was set up before.
    #[error("logging has been set up already")]
    Twice,
}

impl Hint for TelemetryError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Filter { .. } => {
                Some("such as `info`, or `info,baton_transfer=debug` for one module".into())
            }
            Self::Twice => None,
        }
    }

    fn exit(&self) -> Exit {
        Exit::Config
    }
}

/// Sends the process's events to stderr from now on.
pub fn init(config: &LogConfig) -> Result<(), TelemetryError> {
    let from_environment = std::env::var(FILTER_VARIABLE).ok();
    let filter = filter(from_environment.as_deref().unwrap_or(&config.filter))?;
    let colours = match config.colour {
        Colour::Always => true,
        Colour::Never => false,
        Colour::Auto => io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
    };
    let made = subscriber(config.format, colours, filter, || OneLine(io::stderr()));
    tracing::dispatcher::set_global_default(made).map_err(|_| TelemetryError::Twice)
}

fn filter(text: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::try_new(text)
        .map_err(|error| TelemetryError::Filter { filter: text.into(), reason: error.to_string() })
}

fn subscriber<W>(
    format: LogFormat,
    colours: bool,
    filter: EnvFilter,
    writer: W,
) -> tracing::Dispatch
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let common = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match format {
        LogFormat::Text => common.with_ansi(colours).finish().into(),
        LogFormat::Json => common.json().flatten_event(true).finish().into(),
    }
}

/// Keeps an event on one line. The subscriber writes each event with one call, so every line
/// break but the last comes from a value: from a prompt, a peer's name, a file's content.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let body = event.strip_suffix(b"\n").unwrap_or(event);
        if body.contains(&b'\n') || body.contains(&b'\r') {
            let mut line = Vec::with_capacity(event.len() + 8);
            for byte in body {
                match byte {
                    b'\n' => line.extend_from_slice(b"\\n"),
                    b'\r' => line.extend_from_slice(b"\\r"),
                    other => line.push(*other),
                }
            }
            line.push(b'\n');
            self.0.write_all(&line)?;
        } else {
            self.0.write_all(event)?;
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Redacted;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What `events` write under a filter and a format.
    fn lines(filter_text: &str, format: LogFormat, events: impl FnOnce()) -> Vec<String> {
        let captured = Captured::default();
        let sink = captured.clone();
        let filter = filter(filter_text).expect("a filter");
        let made = subscriber(format, false, filter, move || OneLine(sink.clone()));
        tracing::dispatcher::with_default(&made, events);
        let bytes = captured.0.lock().expect("not poisoned").clone();
        String::from_utf8(bytes).expect("text").lines().map(String::from).collect()
    }

    #[test]
    fn an_event_is_one_line_whatever_it_says() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let lines = lines("info", format, || {
                tracing::info!(peer = %"evil\nINFO forged\r\nline", "greeted\nus");
                tracing::debug!("not at this level");
            });
            assert_eq!(lines.len(), 1, "{lines:?}");
        }
    }

    #[test]
    fn json_is_one_object_with_the_fields_on_top() {
        let lines = lines("info", LogFormat::Json, || tracing::info!(blocks = 3, "moved"));
        let event: serde_json::Value = serde_json::from_str(&lines[0]).expect("JSON");
        assert_eq!((&event["message"], &event["blocks"]), (&"moved".into(), &3.into()));
        assert_eq!(event["level"], "INFO");
    }

    #[test]
    fn redacted_values_stay_out_of_both_formats() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let key = Redacted::new("canary");
            let lines = lines("info", format, || tracing::info!(?key, other = %key, "joined"));
            assert!(!lines[0].contains("canary") && lines[0].contains("redacted"), "{lines:?}");
        }
    }

    #[test]
    fn a_wrong_filter_is_a_configuration_error() {
        let error = filter("baton=loud").expect_err("no such level");
        assert_eq!(error.exit(), Exit::Config);
        assert!(error.to_string().starts_with("`baton=loud` is no log filter"), "{error}");
    }
}
