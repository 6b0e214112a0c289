//! Answers in the shapes of this interface: whole, and as events.

use super::events::Events;
use super::logprobs::Spoken;
use super::output::{Item, Kind, Status};
use super::tools::Names;
use crate::api::common::Delivery;
use crate::api::error::class;
use crate::api::extra;
use crate::api::writer::AnswerWriter;
use crate::error::TurnError;
use crate::parse::Event;
use crate::turn::{Delta, Summary, Turn, call_id};
use baton_proto::ids::RequestId;
use baton_proto::ir::FinishReason;
use baton_text::TextModel;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;

/// What of a request its answer tells again, and in whose words.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Echo {
    /// Fields of the body.
    pub(super) told: Map<String, Value>,
    /// What tools are called.
    pub(super) names: Names,
    /// Thoughts come as a summary.
    pub(in crate::api) summary: bool,
}

/// Sizes alone: the fields hold prompts.
impl std::fmt::Debug for Echo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Echo({} fields)", self.told.len())
    }
}

/// Writes the answer of one request.
pub(in crate::api) struct Writer {
    id: RequestId,
    model: String,
    delivery: Delivery,
    echo: Arc<Echo>,
    /// When the request came, since 1970.
    created: Duration,
    finish: Option<FinishReason>,
    /// How many calls have begun.
    calls: usize,
    items: Vec<Item>,
    /// The last item is not complete.
    open: bool,
    /// The log-probabilities of messages, where they were asked for.
    spoken: Option<Spoken>,
    events: Events,
}

/// How the whole response is.
enum State<'a> {
    Begun,
    Ended(&'a Summary),
    Failed(&'a TurnError),
}

impl Writer {
    /// `created` is when the request came, since 1970.
    pub(in crate::api) fn new(
        turn: &Turn,
        mut delivery: Delivery,
        text: &Arc<TextModel>,
        created: Duration,
    ) -> Self {
        let request = &turn.prepared().request;
        Self {
            id: request.id,
            model: request.model.clone(),
            echo: delivery.echo.take().unwrap_or_default(),
            delivery,
            created,
            finish: None,
            calls: 0,
            items: Vec::new(),
            open: false,
            spoken: request.logprobs.map(|_| Spoken::new(text)),
            events: Events::new(request.id),
        }
    }

    /// The answer is not whole: it ended early, or a call in it did.
    fn is_cut_off(&self) -> bool {
        let is_cut = |item: &Item| item.status == Status::CutOff;
        self.finish == Some(FinishReason::Length) || self.items.iter().any(is_cut)
    }

    fn response(&self, state: &State<'_>) -> Value {
        let mut body = json!({
            "id": format!("resp_{}", self.id),
            "object": "response",
            "created_at": self.created.as_secs(),
            "status": "in_progress",
            "background": false,
            "error": null,
            "incomplete_details": null,
            "model": self.model,
            "output": [],
            "previous_response_id": null,
            "store": false,
            "usage": null,
        });
        if let Value::Object(body) = &mut body {
            body.extend(self.echo.told.clone());
        }
        match state {
            State::Begun => {}
            State::Ended(summary) => {
                body["status"] = json!(if self.is_cut_off() { "incomplete" } else { "completed" });
                if self.is_cut_off() {
                    body["incomplete_details"] = json!({"reason": "max_output_tokens"});
                }
                body["usage"] = usage(summary);
                body["output"] = self.output();
                extra::attach(&mut body, &self.delivery, self.created, summary);
            }
            State::Failed(error) => {
                body["status"] = json!("failed");
                body["error"] = json!({"code": class(error).2, "message": error.to_string()});
                body["output"] = self.output();
            }
        }
        body
    }

    fn output(&self) -> Value {
        self.items.iter().enumerate().map(|(index, item)| item.json(self.id, index)).collect()
    }

    /// Takes in a piece of the answer; events of the interface are written where there is a stream.
    fn take_all(&mut self, delta: &Delta, mut out: Option<&mut Vec<u8>>) {
        self.finish = delta.finish.or(self.finish);
        let mut logprobs = self.spoken.as_mut().map(|spoken| spoken.read(delta));
        for (i, event) in delta.events.iter().enumerate() {
            let logprobs = logprobs.as_mut().map(|all| std::mem::take(&mut all[i]));
            self.take(event, logprobs.unwrap_or_default(), out.as_deref_mut());
        }
    }

    /// Takes in an event of the model's, with the log-probabilities of the words that it is.
    fn take(&mut self, event: Event<'_>, logprobs: Vec<Value>, mut out: Option<&mut Vec<u8>>) {
        let summary = self.echo.summary;
        match event {
            Event::Text(text) => {
                let fits = |kind: &Kind| matches!(kind, Kind::Message);
                self.say((text, logprobs), fits, || Kind::Message, out);
            }
            Event::Reasoning(text) => {
                let fits = |kind: &Kind| matches!(kind, Kind::Reasoning { .. });
                self.say((text, logprobs), fits, || Kind::Reasoning { summary }, out);
            }
            Event::CallBegin { name } => {
                self.close(Status::Complete, out.as_deref_mut());
                let prefix = self.delivery.call_prefix.unwrap_or_default();
                let id = call_id(prefix, self.id, 0, self.calls);
                self.calls += 1;
                let name = self.echo.names.of(name);
                self.open(Kind::Call { id, name }, out);
            }
            Event::CallArguments(text) => {
                self.append((text, logprobs), out);
            }
            Event::CallEnd { missing } => {
                let whole = missing.is_empty();
                self.close(if whole { Status::Complete } else { Status::CutOff }, out);
            }
            Event::Warning(_) => {}
        }
    }

    fn say(
        &mut self,
        said: (&str, Vec<Value>),
        fits: impl Fn(&Kind) -> bool,
        kind: impl FnOnce() -> Kind,
        mut out: Option<&mut Vec<u8>>,
    ) {
        if !self.open || !self.items.last().is_some_and(|item| fits(&item.kind)) {
            self.close(Status::Complete, out.as_deref_mut());
            self.open(kind(), out.as_deref_mut());
        }
        self.append(said, out);
    }

    fn open(&mut self, kind: Kind, out: Option<&mut Vec<u8>>) {
        let item = Item::new(kind);
        if let Some(out) = out {
            self.events.begin(&item, self.items.len(), out);
        }
        self.items.push(item);
        self.open = true;
    }

    fn append(&mut self, (text, logprobs): (&str, Vec<Value>), out: Option<&mut Vec<u8>>) {
        let index = self.items.len().saturating_sub(1);
        let Some(item) = self.items.last_mut() else { return };
        item.text.push_str(text);
        if let Some(out) = out {
            self.events.more(item, index, (text, &logprobs), out);
        }
        item.logprobs.extend(logprobs);
    }

    fn close(&mut self, status: Status, out: Option<&mut Vec<u8>>) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let index = self.items.len().saturating_sub(1);
        let Some(item) = self.items.last_mut() else { return };
        item.status = status;
        if let Some(out) = out {
            self.events.end(item, index, out);
        }
    }
}

impl Writer {
    /// The answer ends, maybe within an item.
    fn close_last(&mut self, out: Option<&mut Vec<u8>>) {
        let cut = self.finish == Some(FinishReason::Length);
        self.close(if cut { Status::CutOff } else { Status::Complete }, out);
    }
}

impl AnswerWriter for Writer {
    fn keep(&mut self, delta: Delta) {
        self.take_all(&delta, None);
    }

    fn whole(&mut self, summary: &Summary) -> Value {
        self.close_last(None);
        self.response(&State::Ended(summary))
    }

    fn head(&mut self, out: &mut Vec<u8>) {
        let response = self.response(&State::Begun);
        self.events.response("response.created", &response, out);
        self.events.response("response.in_progress", &response, out);
    }

    fn piece(&mut self, delta: &Delta, _: &dyn Fn() -> Summary, _last: bool, out: &mut Vec<u8>) {
        self.take_all(delta, Some(out));
    }

    fn end(&mut self, summary: &Summary, out: &mut Vec<u8>) {
        self.close_last(Some(&mut *out));
        let name = if self.is_cut_off() { "response.incomplete" } else { "response.completed" };
        let response = self.response(&State::Ended(summary));
        self.events.response(name, &response, out);
    }

    fn fail(&mut self, error: &TurnError, out: &mut Vec<u8>) {
        self.close(Status::CutOff, Some(&mut *out));
        let response = self.response(&State::Failed(error));
        self.events.response("response.failed", &response, out);
    }
}

fn usage(summary: &Summary) -> Value {
    let (input, output) = (summary.prompt_tokens as u64, summary.completion_tokens);
    json!({
        "input_tokens": input,
        "input_tokens_details": {"cached_tokens": summary.cached_tokens},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": summary.reasoning_tokens},
        "total_tokens": input + output,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::steady;

    #[test]
    fn a_piece_of_a_response_costs_no_allocation() {
        let mut writer = Writer {
            id: RequestId(1),
            model: "m".to_owned(),
            delivery: Delivery::default(),
            echo: Arc::default(),
            created: Duration::ZERO,
            finish: None,
            calls: 0,
            items: Vec::new(),
            open: false,
            spoken: None,
            events: Events::new(RequestId(1)),
        };
        steady::assert_none_per_piece(&mut writer);
    }
}
