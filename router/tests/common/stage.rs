//! A router in this process with the model in the box, whose tokens the test says.

use super::House;
use super::client::steady;
use super::worker::{FakeWorker, admitted, finished, first_tokens, tokens};
use baton_proto::internal::finished::Reason;
use baton_router::config::Config;
use baton_text::TextModel;
use serde_json::Value;
use std::path::PathBuf;

pub const CHAT: &str = "/v1/chat/completions";
pub const MESSAGES: &str = "/v1/messages";
pub const RESPONSES: &str = "/v1/responses";

/// A body with these fields set.
pub fn with(mut body: Value, fields: &Value) -> Value {
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn demo() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models/demo")
}

/// The model in the box, whose tokens the test says.
pub struct Stage {
    pub house: House,
    pub worker: FakeWorker,
    pub text: TextModel,
}

impl Stage {
    pub async fn open() -> Self {
        Self::open_with(|_| {}).await
    }

    pub async fn open_with(change: impl FnOnce(&mut Config)) -> Self {
        let text = TextModel::load(&demo()).unwrap();
        let worker = FakeWorker::start_with("d1", |description| {
            let model = description.model.as_mut().unwrap();
            model.vocab_size = text.vocab_size();
            model.eos = vec![text.token_id("<|im_end|>").unwrap()];
        })
        .await;
        let house = House::open_with(&[&worker], |config| {
            config.model.synthetic_vocab = None;
            config.model.dir = Some(demo());
            change(config);
        })
        .await;
        Self { house, worker, text }
    }

    pub fn ids(&self, text: &str) -> Vec<u32> {
        self.text.encode(text, true).unwrap()
    }

    /// The whole answer to a body where the model says that.
    pub async fn whole(&self, path: &str, body: &Value, says: &str, reason: Reason) -> Value {
        let ids = self.ids(says);
        let (answer, _) = tokio::join!(self.house.post(path, body), self.worker.play(&ids, reason));
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    }

    /// The events where the model says these pieces, one after the other; each has some.
    pub async fn streamed(&self, path: &str, body: &Value, says: &[&str]) -> String {
        let play = async {
            let submit = self.worker.submitted().await;
            self.worker.say(&submit, 0, [admitted()]).await;
            submit
        };
        let (mut stream, submit) = tokio::join!(self.house.stream(path, body), play);
        let mut seen = Vec::new();
        if path != MESSAGES {
            seen.push(steady(&stream.raw().await.unwrap()));
        }
        for (i, piece) in says.iter().enumerate() {
            let ids = self.ids(piece);
            let update = if i == 0 { first_tokens(&ids) } else { tokens(&ids) };
            self.worker.say(&submit, 0, [update]).await;
            // What is said faster than it is read becomes one.
            seen.push(steady(&stream.raw().await.unwrap()));
        }
        self.worker.say(&submit, 0, [finished(Reason::Stop)]).await;
        seen.push(stream.rest().await);
        seen.join("\n")
    }

    /// The events where the model's tokens come one by one.
    pub async fn token_by_token(&self, path: &str, body: &Value, says: &str) -> String {
        let play = async {
            let submit = self.worker.submitted().await;
            self.worker.say(&submit, 0, [admitted()]).await;
            for (i, id) in self.ids(says).into_iter().enumerate() {
                let update = if i == 0 { first_tokens(&[id]) } else { tokens(&[id]) };
                self.worker.say(&submit, 0, [update]).await;
            }
            self.worker.say(&submit, 0, [finished(Reason::Stop)]).await;
        };
        let (stream, ()) = tokio::join!(self.house.stream(path, body), play);
        stream.rest().await
    }

    /// A whole answer that is not heard to its end.
    pub async fn cut(&self, path: &str, body: &Value, says: &str) -> Value {
        let answer = self.whole(path, body, says, Reason::Stop).await;
        self.worker.cancelled().await;
        answer
    }
}
