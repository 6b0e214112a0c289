//! What all requests of a router share, and the way every request takes in: counted, minted,
//! parsed and prepared on the threads for text.

use crate::ahead::Speculation;
use crate::api::{self, Call, Delivery, Mint};
use crate::audit;
use crate::bodies::Bodies;
use crate::cluster::{Cluster, Model};
use crate::config::{Config, ModelConfig};
use crate::decisions::Outcome;
use crate::error::{Invalid, TurnError};
use crate::intent::{Bounds, Said};
use crate::metrics::Metrics;
use crate::parse::{Format, Reasoning, Start, Style};
use crate::policy_client::PolicyClient;
use crate::prompts::Prompts;
use crate::readers::Readers;
use crate::record::Record;
use crate::retry::RetryBudget;
use crate::switches::{Board, Switches};
use crate::tenancy::{Tenancy, Visitor};
use crate::text_pool::TextPool;
use crate::turn::{Basis, Counted, Prepared, Thinking, Voice, count, length_keys, prepare};
use baton_node::Tasks;
use baton_node::clock::{Clock, Monotonic};
use baton_node::tenants::Seat;
use baton_proto::ids::{RequestId, TenantId, TokenId};
use baton_proto::ir::{Prompt, Request, ToolChoice};
use baton_text::TextModel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// A request's place among those in the house, and among its tenant's.
pub(crate) struct Permit {
    _place: OwnedSemaphorePermit,
    seat: Option<Seat>,
}

/// Normalisation may shorten a text before it is split, so even a vocabulary of short tokens is
/// granted that many bytes for each.
const TOKEN_BYTES_MIN: usize = 64;

/// What is said where reasoning shall be bounded and cannot be.
const UNBOUNDED: &str =
    "thinking budget not enforced: the model's marks of reasoning are no tokens of their own";

/// What all requests of a router share.
pub(crate) struct Service {
    config: Config,
    text: Arc<TextModel>,
    /// How the model writes reasoning and calls.
    style: Arc<Style>,
    /// How the model's reasoning can be bounded.
    thinking: Thinking,
    /// No token stands for more bytes of text.
    token_bytes_max: usize,
    cluster: Arc<Cluster>,
    metrics: Arc<Metrics>,
    tasks: Tasks,
    /// Places for requests; every one of them holds a permit from its arrival to its end.
    places: Arc<Semaphore>,
    /// Memory for what has arrived and is not token ids yet.
    bodies: Bodies,
    /// Threads that parse, render and tokenise.
    text_pool: TextPool,
    /// What earlier prompts have left.
    prompts: Prompts,
    /// Who watches the readers of streams.
    readers: Arc<Readers>,
    retries: Mutex<RetryBudget>,
    board: Arc<Board>,
    /// What was computed ahead.
    speculation: Speculation,
    /// Where decisions are recorded, if they are.
    decisions: Option<Record<Outcome>>,
    /// Where it is recorded what was granted, if it is.
    audit: Option<Record<audit::Entry>>,
    /// Who may ask for what.
    tenancy: Tenancy,
    /// A policy outside of this process, if one is configured.
    policy_client: Option<PolicyClient>,
}

impl Service {
    pub(crate) fn new(
        config: Config,
        tenancy: Tenancy,
        text: Arc<TextModel>,
        cluster: Arc<Cluster>,
        metrics: Metrics,
        tasks: Tasks,
    ) -> std::io::Result<Self> {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = match config.limits.text_threads {
            0 => cores(),
            threads => threads,
        };
        let text_pool = TextPool::start(&tasks, threads, config.limits.requests_max)?;
        let board = Arc::new(Board::new(config.switches));
        let readers = Arc::new(Readers::default());
        let (watch, patience) = (readers.clone(), config.timeouts.slow_reader.0);
        tasks.spawn_vital("readers", async move { watch.keep_watch(patience, api::status).await });
        let (file, dropped) = (("decisions", &config.decisions), &metrics.decisions_dropped);
        let decisions = Record::start(file, &tasks, dropped, api::decision_line)?;
        let (file, dropped) = (("audit", &config.audit), &metrics.audit_dropped);
        let audit = Record::start(file, &tasks, dropped, api::audit_line)?;
        let policy_client = PolicyClient::new(
            &config.placement.external,
            config.timeouts.connect.0,
            board.clone(),
        )?;
        let style = Arc::new(style(&text, &config.model));
        Ok(Self {
            prompts: Prompts::switched(
                config.limits.prompt_cache_bytes_max.bytes(),
                board.clone(),
                metrics.clone(),
            ),
            board,
            bodies: Bodies::new(config.limits.bodies_bytes_max.bytes()),
            places: Arc::new(Semaphore::new(config.limits.requests_max)),
            readers,
            retries: Mutex::new(RetryBudget::new(Monotonic::process().now())),
            speculation: Speculation::new(&config.speculation, metrics.clone()),
            thinking: Thinking::new(&style, &text),
            style,
            config,
            token_bytes_max: token_bytes_max(&text),
            text,
            cluster,
            metrics: Arc::new(metrics),
            tasks,
            text_pool,
            decisions,
            policy_client,
            audit,
            tenancy,
        })
    }

    /// A place for one more request, if the router takes any and has one.
    pub(crate) fn enter(&self) -> Result<Permit, TurnError> {
        if self.tasks.drain().is_draining() {
            return Err(TurnError::Draining);
        }
        let full = |_| TurnError::Overloaded("too many requests are in progress".to_owned());
        let place = self.places.clone().try_acquire_owned().map_err(full)?;
        self.lock_retries().deposit();
        Ok(Permit { _place: place, seat: None })
    }

    /// Counts a request among its tenant's, if the quota has room.
    pub(crate) fn admit(&self, permit: &mut Permit, visitor: &Visitor) -> Result<(), TurnError> {
        permit.seat = self.tenancy.seat(visitor)?;
        Ok(())
    }

    /// Parses and prepares a request on a thread for text, if one is free before the deadline.
    /// `parse` must not block on anything but the processor.
    pub(crate) async fn prepare(
        self: &Arc<Self>,
        deadline: Duration,
        parse: impl FnOnce(&Config) -> Result<Call, TurnError> + Send + 'static,
    ) -> Result<(Prepared, Delivery), TurnError> {
        let arrived = Instant::now();
        let service = self.clone();
        let work = move || {
            let Call { request, mut delivery } = parse(&service.config)?;
            if request.thinking_budget.is_some() && service.thinking == Thinking::Unseen {
                delivery.warn(UNBOUNDED);
            }
            let voice = voice(&request, &delivery);
            let model = service.model(&request.model)?;
            let length_keys = length_keys(&request);
            let learned = service.cluster.expected_answer(&length_keys);
            let basis = Basis {
                style: &service.style,
                thinking: &service.thinking,
                text: &service.text,
                token_bytes_max: service.token_bytes_max,
                prompts: &service.prompts,
                answer_tokens_assumed: learned
                    .unwrap_or(service.config.placement.answer_tokens_assumed),
            };
            let prepared = prepare(request, model, basis, voice, arrived)?;
            let prepared = Prepared { length_keys, ..prepared };
            service.metrics.prepared(prepared.ids.len(), prepared.reused_tokens);
            Ok((prepared, delivery))
        };
        self.text_pool.run(arrived + deadline, work).await
    }

    /// What a new request of that tenant gets from the router. `said` comes from its headers.
    pub(crate) fn mint(
        &self,
        id: RequestId,
        visitor: &Visitor,
        said: Said,
    ) -> Result<Mint, TurnError> {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(|error| TurnError::Internal(error.to_string()))?;
        let seed = u64::from_le_bytes(seed);
        Ok(Mint {
            id,
            tenant: visitor.name.clone(),
            scope: visitor.scope(),
            deadline: self.config.timeouts.request.0,
            seed,
            sampling: self.text.sampling_defaults(),
            said,
            bounds: self.bounds(visitor),
        })
    }

    /// The model of that name, if it is served and somebody computes it.
    fn model(&self, name: &str) -> Result<Arc<Model>, TurnError> {
        if !self.config.model.answers_to(name) {
            return Err(TurnError::unknown_model(name));
        }
        self.cluster.model().ok_or(TurnError::NoWorker)
    }

    /// The tokens that a prompt has, as it would be computed, on a thread for text; nothing is started
    /// for it.
    pub(crate) async fn count_tokens(
        self: &Arc<Self>,
        scope: TenantId,
        parse: impl FnOnce(&Config) -> Result<(String, Prompt), TurnError> + Send + 'static,
    ) -> Result<Counted, TurnError> {
        let service = self.clone();
        let work = move || {
            let (name, prompt) = parse(&service.config)?;
            let model = service.model(&name)?;
            let (text, prompts) = (&service.text, &service.prompts);
            let basis = Basis {
                style: &service.style,
                thinking: &service.thinking,
                text,
                token_bytes_max: service.token_bytes_max,
                prompts,
                answer_tokens_assumed: 0,
            };
            count(prompt, &scope, &model, basis)
        };
        self.text_pool.run(Instant::now() + self.config.timeouts.request.0, work).await
    }

    /// What ids read, markers included; on a thread for text.
    pub(crate) async fn words(
        self: &Arc<Self>,
        parse: impl FnOnce(&Config) -> Result<(String, Vec<TokenId>), TurnError> + Send + 'static,
    ) -> Result<String, TurnError> {
        let service = self.clone();
        let work = move || {
            let (name, ids) = parse(&service.config)?;
            service.model(&name)?;
            let known = service.text.check_ids(&ids);
            known
                .map_err(|error| Invalid::value("tokens", format!("Invalid 'tokens': {error}.")))?;
            let mut detokenizer = service.text.detokenizer_with_special();
            let mut words: String = ids.into_iter().map(|id| detokenizer.push(id)).collect();
            words.push_str(&detokenizer.finish());
            Ok(words)
        };
        self.text_pool.run(Instant::now() + self.config.timeouts.request.0, work).await
    }

    /// What hints are clamped to.
    pub(crate) fn bounds(&self, visitor: &Visitor) -> Bounds {
        let bounds = Bounds::new(&self.config, self.switches());
        Bounds { tenant: visitor.tenant.clone(), ..bounds }
    }

    /// Which features act now.
    pub(crate) fn switches(&self) -> Switches {
        self.board.get()
    }

    /// Sets which features act, for the requests to come; what changed.
    pub(crate) fn set_switches(&self, switches: Switches) -> Vec<String> {
        self.board.set(switches)
    }

    /// Whether one more attempt may be made.
    pub(crate) fn withdraw_retry(&self) -> bool {
        self.lock_retries().withdraw(Monotonic::process().now())
    }

    /// Waits until no request is in the house.
    pub(crate) async fn empty(&self) {
        let all = u32::try_from(self.config.limits.requests_max).unwrap_or(u32::MAX);
        drop(self.places.acquire_many(all).await);
    }

    /// Ends the threads for text and for records; nothing is taken in any more.
    pub(crate) fn close(&self) {
        self.readers.close();
        self.text_pool.close();
        if let Some(decisions) = &self.decisions {
            decisions.close();
        }
        if let Some(audit) = &self.audit {
            audit.close();
        }
    }

    pub(crate) fn decisions(&self) -> Option<&Record<Outcome>> {
        self.decisions.as_ref()
    }

    pub(crate) fn policy_client(&self) -> Option<&PolicyClient> {
        self.policy_client.as_ref()
    }

    pub(crate) fn audit(&self) -> Option<&Record<audit::Entry>> {
        self.audit.as_ref()
    }

    pub(crate) fn tenancy(&self) -> &Tenancy {
        &self.tenancy
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn bodies(&self) -> &Bodies {
        &self.bodies
    }

    pub(crate) fn text(&self) -> &Arc<TextModel> {
        &self.text
    }

    pub(crate) fn style(&self) -> &Arc<Style> {
        &self.style
    }

    pub(crate) fn readers(&self) -> &Arc<Readers> {
        &self.readers
    }

    pub(crate) fn text_pool(&self) -> &TextPool {
        &self.text_pool
    }

    pub(crate) fn prompts(&self) -> &Prompts {
        &self.prompts
    }

    pub(crate) fn speculation(&self) -> &Speculation {
        &self.speculation
    }

    pub(crate) fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    fn lock_retries(&self) -> std::sync::MutexGuard<'_, RetryBudget> {
        self.retries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name that no other request has.
pub(crate) fn request_id() -> Result<RequestId, TurnError> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| TurnError::Internal(error.to_string()))?;
    Ok(RequestId::from_slice(&id).unwrap_or_default())
}

/// A number for the session of a request: the same on every router, and another one for another
/// tenant's session of the same name.
pub(crate) fn session_key(request: &Request) -> Option<u64> {
    let session = request.hints.session.as_ref()?;
    Some(conversation_key(request, session))
}

/// The same for the session that this one works for.
pub(crate) fn parent_key(request: &Request) -> Option<u64> {
    let parent = request.hints.parent.as_ref()?;
    Some(conversation_key(request, parent))
}

fn conversation_key(request: &Request, name: &str) -> u64 {
    keyed(request, &[name.as_bytes()])
}

/// A number for something of the request's tenant that is named by these parts.
pub(crate) fn keyed(request: &Request, parts: &[&[u8]]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for part in [request.tenant.0.as_bytes()].iter().chain(parts) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let digest = *hasher.finalize().as_bytes();
    digest[..8].iter().fold(0, |key, byte| key << 8 | u64::from(*byte))
}

/// How a model writes reasoning and calls.
pub(crate) fn style(text: &TextModel, config: &ModelConfig) -> Style {
    let format = config.call_format.as_deref().and_then(Format::named);
    let reasoning = config.reasoning_format.as_deref().and_then(Reasoning::named);
    Style::detect(&text.template_source(), |marker| text.marker_id(marker), format, reasoning)
}

/// How the answers to a request are told apart, where its dialect wants that.
fn voice(request: &Request, delivery: &Delivery) -> Option<Voice> {
    let call_prefix = delivery.call_prefix?;
    let Prompt::Chat(chat) = &request.prompt else { return None };
    let called = !chat.tools.is_empty() && chat.tool_choice != ToolChoice::None;
    let tools = called.then(|| Arc::new(api::known_tools(&chat.tools)));
    let start = Start { in_reasoning: false, tools };
    Some(Voice { start, serial: chat.serial_tool_calls, call_prefix })
}

/// The most bytes of text that one token may stand for.
pub(crate) fn token_bytes_max(text: &TextModel) -> usize {
    let bytes = (0..text.vocab_size()).filter_map(|id| text.token_bytes(id)).map(|b| b.len());
    bytes.max().unwrap_or(0).max(TOKEN_BYTES_MIN)
}
