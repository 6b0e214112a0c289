//! `baton run`: one request in this process, through the same schedule that decode workers run.

use crate::cli::RunArgs;
use crate::model::Model;
use baton_arena::{Arena, ArenaOptions};
use baton_decode::event::{Action, Event, News};
use baton_decode::schedule::{DecodeSchedule, Limits};
use baton_decode::turn::{RouterId, StopRule, TurnRequest};
use baton_engine::api::{Drawn, Engine, ModelSpec};
use baton_engine::checkpoint::Checkpoint;
use baton_engine::cpu::{CpuEngine, CpuOptions};
use baton_kv::hash::{ChainRoot, domain_digest};
use baton_kv::pool::PoolConfig;
use baton_node::clock::{Clock, Monotonic};
use baton_node::exit::{Exit, Failure};
use baton_node::scratch::Scratch;
use baton_proto::ids::{Incarnation, RequestId, TenantId, TokenId, WorkerId};
use baton_proto::ir::{Chat, FinishReason, Message, Part, Prompt, Role, Sampling};
use baton_text::TextModel;
use baton_worker::blocks::Blocks;
use baton_worker::plan::Schedule;
use baton_worker::queue::Precedence;
use baton_worker::sequence::ChainKey;
use serde_json::json;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Positions in one step.
const BATCH_TOKENS: u32 = 512;

/// Loads, answers, prints.
pub(crate) fn main(args: &RunArgs) -> Result<(), Failure> {
    let clock = Monotonic::process();
    let begun = clock.now();
    check(args)?;
    let named = args.model.as_deref().map(Model::find).transpose()?;
    let scratch = Scratch::new("run")?;
    let dir = named.map_or_else(|| Model::built_in(scratch.path()), Ok)?.dir;
    let text = load_text(&dir)?;
    let engine = load_engine(&dir, args)?;
    let prompt = prompt_ids(args, &text, engine.spec())?;
    let loaded = clock.now();
    let answer = Runner::new(engine, &prompt, args)?.run(
        &clock,
        |token| {
            if !args.json {
                let mut out = std::io::stdout().lock();
                // A closed pipe ends the printing, not the run.
                let _ = write!(out, "{token}").and_then(|()| out.flush());
            }
        },
        &text,
    )?;
    let loading = loaded.saturating_sub(begun);
    let last = if args.json { answer.to_json(&prompt, loading).to_string() } else { String::new() };
    // A closed pipe ends the printing, not the run.
    let _ = writeln!(std::io::stdout(), "{last}");
    Ok(())
}

/// Refuses numbers that mean nothing, before anything is loaded.
fn check(args: &RunArgs) -> Result<(), Failure> {
    let refuse = |text: String| Err(Failure::new(Exit::Usage, text));
    if args.max_tokens == 0 {
        return refuse("--max-tokens: expected at least 1, found 0".into());
    }
    if !args.temperature.is_finite() || args.temperature < 0.0 {
        let found = args.temperature;
        return refuse(format!("--temperature: expected a number from 0 on, found {found}"));
    }
    Ok(())
}

fn load_text(dir: &Path) -> Result<Arc<TextModel>, Failure> {
    let text =
        TextModel::load(dir).map_err(|error| Failure::new(Exit::Config, error.to_string()))?;
    Ok(Arc::new(text))
}

fn load_engine(dir: &Path, args: &RunArgs) -> Result<CpuEngine, Failure> {
    let config = |error: &dyn std::fmt::Display| Failure::new(Exit::Config, error.to_string());
    let checkpoint = Checkpoint::open(dir).map_err(|error| config(&error))?;
    let mut options = CpuOptions::new();
    options.block_tokens = args.block_tokens;
    options.batch_tokens_max = BATCH_TOKENS;
    if args.threads > 0 {
        options.threads = args.threads;
    }
    CpuEngine::load(&checkpoint, &options, &|_| {}).map_err(|error| config(&error))
}

fn prompt_ids(args: &RunArgs, text: &TextModel, spec: &ModelSpec) -> Result<Vec<TokenId>, Failure> {
    let (flag, prompt) = match (&args.prompt, &args.chat, &args.prompt_ids) {
        (Some(prompt), _, _) => ("--prompt", Prompt::Text(prompt.clone())),
        (_, Some(message), _) => ("--chat", Prompt::Chat(conversation(message))),
        (_, _, ids) => ("--prompt-ids", Prompt::Tokens(ids.clone().unwrap_or_default())),
    };
    let ids = text
        .prompt_ids(&prompt)
        .map_err(|error| Failure::new(Exit::Usage, format!("{flag}: {error}")))?;
    if ids.is_empty() {
        return Err(Failure::new(Exit::Usage, format!("{flag}: the prompt has no tokens")));
    }
    if ids.len() as u32 >= spec.context_tokens {
        let message = format!(
            "{flag}: the prompt has {} tokens and leaves no room in the context of {}",
            ids.len(),
            spec.context_tokens
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    Ok(ids)
}

fn conversation(message: &str) -> Chat {
    let parts = vec![Part::text(message)];
    let messages = vec![Message { role: Role::User, parts, name: None }];
    Chat { messages, add_generation_prompt: true, ..Chat::default() }
}

/// A decode schedule with one turn.
struct Runner {
    engine: CpuEngine,
    blocks: Blocks,
    schedule: DecodeSchedule,
    request: TurnRequest,
}

/// What came out.
struct Answer {
    drawn: Vec<Drawn>,
    text: String,
    finish: FinishReason,
    first_token: Duration,
    total: Duration,
}

impl Runner {
    fn new(engine: CpuEngine, prompt: &[TokenId], args: &RunArgs) -> Result<Self, Failure> {
        let spec = engine.spec().clone();
        let room = spec.context_tokens - prompt.len() as u32;
        let max_tokens = args.max_tokens.clamp(1, room);
        let tokens = prompt.len() as u32 + max_tokens;
        let slots = tokens.div_ceil(spec.block_tokens) + 2;
        let options = ArenaOptions { slots, slot_bytes: spec.block_bytes, name: "baton-run" };
        let arena = Arena::create(options)
            .map_err(|error| Failure::new(Exit::Unavailable, error.to_string()))?;
        let pool = PoolConfig { slots, events_kept: 16, leases_max: 1 };
        let blocks = Blocks::new(arena, pool, WorkerId(0), Incarnation(1));
        let schedule = DecodeSchedule::new(blocks.clone(), limits());
        let domain = domain_digest(
            &spec.weights_digest,
            &spec.kv_format,
            spec.block_tokens,
            &spec.numerics_class,
        );
        let request = TurnRequest {
            router: RouterId(0),
            request: RequestId(1),
            tokens: prompt.to_vec(),
            chain_key: ChainKey {
                root: Arc::new(ChainRoot::new(&[0; 32], &domain)),
                block_tokens: spec.block_tokens,
                tenant: TenantId::anonymous().into(),
                public_blocks: 0,
            },
            choices: 1,
            sampling: Sampling {
                temperature: args.temperature,
                seed: args.seed,
                ..Sampling::greedy()
            },
            stop: StopRule {
                max_tokens,
                min_tokens: 0,
                end_ids: if args.ignore_eos { Vec::new() } else { spec.eos },
            },
            thinking: None,
            logprobs: Some(0),
            raw_top: args.top_logits,
            precedence: Precedence::default(),
            weight: 1,
            osl: max_tokens,
            deadline: Duration::MAX,
            candidates: Vec::new(),
        };
        Ok(Self { engine, blocks, schedule, request })
    }

    fn run(
        mut self,
        clock: &Monotonic,
        mut print: impl FnMut(&str),
        text: &Arc<TextModel>,
    ) -> Result<Answer, Failure> {
        let begun = clock.now();
        let mut actions = Vec::new();
        let event = Event::Submit(Box::new(self.request.clone()));
        self.schedule.step(event, begun, &mut actions);
        let mut detokenizer = text.detokenizer();
        let mut answer = Answer {
            drawn: Vec::new(),
            text: String::new(),
            finish: FinishReason::Length,
            first_token: Duration::ZERO,
            total: Duration::ZERO,
        };
        while let Some(plan) = self.schedule.plan(clock.now(), &mut actions) {
            let output = self.engine.step(self.blocks.arena(), self.schedule.batch(plan));
            self.schedule.stepped(output, clock.now(), &mut actions);
            for action in actions.drain(..) {
                let Action::Update(_, update) = action else { continue };
                match update.news {
                    News::Drawn { drawn, .. } => {
                        if answer.drawn.is_empty() {
                            answer.first_token = clock.now().saturating_sub(begun);
                        }
                        let piece = detokenizer.push(drawn.token);
                        print(&piece);
                        answer.text.push_str(&piece);
                        answer.drawn.push(drawn);
                    }
                    News::Finished(reason, _) => answer.finish = reason,
                    News::Failed(failure) => {
                        return Err(Failure::new(Exit::Runtime, failure.to_string()));
                    }
                    News::Admitted { .. } => {}
                }
            }
        }
        let rest = detokenizer.finish();
        print(&rest);
        answer.text.push_str(&rest);
        answer.total = clock.now().saturating_sub(begun);
        Ok(answer)
    }
}

/// Nothing here is bounded by others: there are none.
fn limits() -> Limits {
    Limits {
        turns_max: 1,
        batch_tokens: BATCH_TOKENS,
        local_fill_tokens: BATCH_TOKENS,
        pull_window_blocks: 1,
        pull_timeout: Duration::ZERO,
        lease_ttl: Duration::ZERO,
        prefill_attempts: 0,
        prefill_patience: Duration::MAX,
        ageing: Duration::from_secs(1),
    }
}

impl Answer {
    fn to_json(&self, prompt: &[TokenId], load: Duration) -> serde_json::Value {
        let ids: Vec<TokenId> = self.drawn.iter().map(|drawn| drawn.token).collect();
        let logprobs: Vec<f32> = self.drawn.iter().map(|drawn| drawn.logprob).collect();
        let top_logits = self.drawn.first().map(|drawn| drawn.raw_top.clone()).unwrap_or_default();
        let finish_reason = match self.finish {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
        };
        let ms = |span: Duration| (span.as_secs_f64() * 1e6).round() / 1e3;
        let decode = self.total.saturating_sub(self.first_token).as_secs_f64();
        let later = ids.len().saturating_sub(1) as f64;
        json!({
            "prompt_ids": prompt,
            "ids": ids,
            "text": self.text,
            "logprobs": logprobs,
            "top_logits": top_logits,
            "finish_reason": finish_reason,
            "timing": {
                "load_ms": ms(load),
                "ttft_ms": ms(self.first_token),
                "total_ms": ms(self.total),
                "decode_tokens_per_s": if decode > 0.0 { later / decode } else { 0.0 },
            },
        })
    }
}
