//! The way of a request from its body to the message for a decode worker, without a network, a
//! cluster or another thread: for measurements.

use crate::api::{self, Call, Dialect, Mint};
use crate::cluster::Model;
use crate::config::{Config, ModelConfig};
use crate::intent::{Bounds, Said};
use crate::parse::Style;
use crate::prompts::Prompts;
use crate::service;
use crate::turn::{Basis, PUBLIC_BLOCKS, Thinking, prepare};
use baton_kv::hash::{ChainRoot, Salt};
use baton_proto::ids::{RequestId, SequenceHash, TenantId, TokenId};
use baton_proto::internal::ModelDescription;
use baton_proto::ir::Prompt;
use baton_text::TextModel;
use prost::Message as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Takes chat completions in as a router does.
pub struct Intake {
    config: Config,
    text: TextModel,
    style: Style,
    thinking: Thinking,
    token_bytes_max: usize,
    model: Arc<Model>,
    prompts: Prompts,
}

/// A request that was taken in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Taken {
    /// The prompt.
    pub ids: Vec<TokenId>,
    /// The names of its whole blocks.
    pub chain: Vec<SequenceHash>,
    /// Ids that were known from earlier requests.
    pub reused_tokens: usize,
    /// The message to the decode worker, in bytes; empty where it was not made.
    pub message: Vec<u8>,
}

/// What each step of a request took, by the clock that was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stages {
    /// From JSON to the internal request.
    pub parse: Duration,
    /// The chat template.
    pub render: Duration,
    /// Known segments found, new ones tokenised.
    pub encode: Duration,
    /// The hash chain.
    pub hash: Duration,
    /// What is remembered for the next one.
    pub keep: Duration,
}

impl Intake {
    /// For a model with this text side, in blocks of 64 tokens; of earlier prompts `cache_bytes_max`
    /// are kept.
    pub fn new(text: TextModel, cache_bytes_max: usize) -> Self {
        let description = ModelDescription {
            vocab_size: text.vocab_size(),
            context_tokens: 1 << 20,
            block_tokens: 64,
            domain: vec![0; 32],
            ..ModelDescription::default()
        };
        let root = ChainRoot::new(&[0; 32], &[0; 32]);
        let style = service::style(&text, &ModelConfig::default());
        Self {
            config: Config::default(),
            token_bytes_max: service::token_bytes_max(&text),
            thinking: Thinking::new(&style, &text),
            style,
            text,
            model: Arc::new(Model { description, root }),
            prompts: Prompts::new(cache_bytes_max),
        }
    }

    /// The model's text side.
    pub fn text(&self) -> &TextModel {
        &self.text
    }

    /// The body of a chat completion to the message for a worker.
    pub fn take(&self, body: &[u8]) -> Result<Taken, String> {
        let request = self.parse(body)?.request;
        let basis = Basis {
            text: &self.text,
            token_bytes_max: self.token_bytes_max,
            style: &self.style,
            thinking: &self.thinking,
            prompts: &self.prompts,
            answer_tokens_assumed: self.config.placement.answer_tokens_assumed,
        };
        let now = Instant::now();
        let prepared = prepare(request, self.model.clone(), basis, None, now);
        let prepared = prepared.map_err(|error| error.to_string())?;
        let message = prepared.submit(Vec::new(), now).encode_to_vec();
        Ok(Taken {
            ids: prepared.ids,
            chain: prepared.chain,
            reused_tokens: prepared.reused_tokens,
            message,
        })
    }

    /// The same in steps, without the message, by a clock of the caller's.
    pub fn stages(
        &self,
        body: &[u8],
        now: impl Fn() -> Duration,
    ) -> Result<(Taken, Stages), String> {
        let mut last = now();
        let mut lap = || {
            let (before, at) = (last, now());
            last = at;
            at.saturating_sub(before)
        };
        let mut stages = Stages::default();
        let request = self.parse(body)?.request;
        stages.parse = lap();
        let rendered = self.render(&request.prompt)?;
        stages.render = lap();
        let encoded = self.prompts.encode(&self.text, &self.model, &request.scope, &rendered);
        let mut encoded = encoded.map_err(|error| error.to_string())?;
        stages.encode = lap();
        let salt = Salt { tenant: &request.scope, public_blocks: PUBLIC_BLOCKS };
        let chain = encoded.chain(&self.model, &salt);
        stages.hash = lap();
        self.prompts.keep(&self.model, &request.scope, rendered, &encoded, &chain);
        stages.keep = lap();
        let (ids, reused_tokens) = (encoded.ids, encoded.reused);
        Ok((Taken { ids, chain, reused_tokens, message: Vec::new() }, stages))
    }

    /// What the template makes of the conversation in a body.
    pub fn rendered(&self, body: &[u8]) -> Result<String, String> {
        self.render(&self.parse(body)?.request.prompt)
    }

    fn render(&self, prompt: &Prompt) -> Result<String, String> {
        let Prompt::Chat(chat) = prompt else {
            return Err("a conversation was expected".to_owned());
        };
        self.text.render(chat).map_err(|error| error.to_string())
    }

    fn parse(&self, body: &[u8]) -> Result<Call, String> {
        let mint = Mint {
            id: RequestId(1),
            tenant: TenantId::anonymous(),
            scope: TenantId::anonymous(),
            deadline: Duration::from_mins(1),
            seed: 1,
            sampling: self.text.sampling_defaults(),
            said: Said::default(),
            bounds: Bounds::new(&self.config, self.config.switches),
        };
        api::parse(Dialect::Chat, body, &mint, &self.config).map_err(|error| error.to_string())
    }
}
