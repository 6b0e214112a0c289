//! A call whose arguments come one by one, each value without quotes: Qwen3-Coder and GLM share it.

use super::event::{Events, Warning};
use super::frame::Flow;
use super::tools::Tools;
use super::value::Value;
use std::sync::Arc;

/// The open call.
pub(super) struct Members {
    tools: Arc<Tools>,
    /// The tool's, as it was written.
    pub(super) name: String,
    /// The present argument's, as it was written.
    pub(super) key: String,
    pub(super) value: Value,
    /// No argument has come yet.
    is_first: bool,
}

impl Members {
    pub(super) fn new(tools: &Arc<Tools>) -> Self {
        let (name, key) = (String::new(), String::new());
        Self { tools: tools.clone(), name, key, value: Value::new(), is_first: true }
    }

    /// For the next call.
    pub(super) fn reset(&mut self) {
        self.name.clear();
        self.value.take_mended();
    }

    /// The name is whole: the call is announced.
    pub(super) fn begin(&mut self, out: &mut Events) {
        out.call_begin(trimmed(&self.name));
        out.arguments("{");
        self.is_first = true;
    }

    /// The key is whole, and its value follows.
    pub(super) fn begin_value(&mut self) {
        let key = trimmed(&self.key);
        let types = self.tools.types(trimmed(&self.name), key);
        self.value.begin(types, key, std::mem::take(&mut self.is_first));
    }

    /// The call is whole.
    pub(super) fn end(&mut self, out: &mut Events) {
        out.arguments("}");
        if self.value.take_mended() {
            out.warning(Warning::Mended);
        }
        out.call_end("");
    }

    /// The call is over before its time, within a value or between two.
    pub(super) fn cut(&self, in_value: bool, warning: Warning, out: &mut Events) -> Flow {
        let mut missing = String::new();
        if in_value {
            self.value.missing(&mut missing);
        }
        missing.push('}');
        out.warning(warning);
        out.call_end(&missing);
        Flow::Cut
    }
}

fn trimmed(text: &str) -> &str {
    text.trim_matches(|char: char| char.is_ascii_whitespace())
}
