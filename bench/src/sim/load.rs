//! The requests of a run, and what became of each.

use super::chance::Chance;
use super::net::StreamId;
use super::scenario::Scenario;
use baton_engine::witness::expected;
use baton_proto::ids::{RequestId, TenantId, TokenId};
use baton_proto::ir::BACKGROUND_PRIORITY;
use baton_router::choose::Charge;
use baton_transfer::sim::NodeId;
use baton_worker::queue::Precedence;
use std::sync::Arc;
use std::time::Duration;

/// What a client asks.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) at: Duration,
    pub(super) router: NodeId,
    pub(super) tenant: TenantId,
    pub(super) prompt: Vec<TokenId>,
    pub(super) seed: u64,
    pub(super) choices: u16,
    pub(super) max_tokens: u32,
    pub(super) osl: u32,
    pub(super) precedence: Precedence,
    pub(super) deadline: Duration,
    /// When the client loses interest.
    pub(super) gone_at: Option<Duration>,
    /// The router ends this choice after so many tokens.
    pub(super) stop: Option<(u16, usize)>,
}

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// Every choice is complete.
    Answered,
    /// The client lost interest.
    Cancelled,
    /// The worker went away in the middle of the answer.
    Lost,
    /// The deadline passed.
    Deadline,
    /// No worker is left to ask, or none takes it.
    Refused,
}

/// A request, as its router sees it.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) ask: Ask,
    pub(super) answers: Vec<Answer>,
    /// Where it runs.
    pub(super) at: Option<(NodeId, StreamId)>,
    pub(super) tried: Vec<NodeId>,
    /// What it counts for on its workers, while it is there.
    pub(super) charge: Option<Charge>,
    pub(super) first_token_at: Option<Duration>,
    pub(super) outcome: Option<Outcome>,
}

/// One choice.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) tokens: Vec<TokenId>,
    pub(super) done: Option<Done>,
}

/// Why a choice is complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Done {
    /// The worker said so.
    Finished,
    /// The router ended it.
    Stopped,
}

impl Request {
    pub(super) fn new(ask: Ask) -> Self {
        let answers = vec![Answer::default(); usize::from(ask.choices)];
        Self {
            ask,
            answers,
            at: None,
            tried: Vec::new(),
            charge: None,
            first_token_at: None,
            outcome: None,
        }
    }

    pub(super) fn started(&self) -> bool {
        self.answers.iter().any(|answer| !answer.tokens.is_empty())
    }

    pub(super) fn is_complete(&self) -> bool {
        self.answers.iter().all(|answer| answer.done.is_some())
    }
}

/// Requests are numbered from 1.
pub(super) fn request_id(index: usize) -> RequestId {
    RequestId(index as u128 + 1)
}

/// All requests of a run, in order of time.
pub(super) fn draw(scenario: &Scenario, chance: &mut Chance) -> Vec<Ask> {
    let load = &scenario.load;
    let family = |chance: &mut Chance| {
        let length = chance.between(1, load.prefix_tokens);
        tokens(scenario, chance, length)
    };
    let families: Vec<Vec<TokenId>> = (0..load.families).map(|_| family(chance)).collect();
    let tenants = ["red", "blue"].map(|name| TenantId(Arc::from(name)));
    // Turns start when routers have met the workers.
    let mut at = Duration::from_millis(100);
    let mut asks: Vec<Ask> = Vec::new();
    for _ in 0..load.requests {
        at += chance.span(load.gap * 2);
        let prompt = draw_prompt(scenario, chance, &families, &asks);
        let max_tokens = chance.between(1, load.answer_tokens) as u32;
        let choices = chance.between(1, load.choices) as u16;
        let osl =
            if chance.hits(load.understated_ppm) { chance.below(3) as u32 } else { max_tokens };
        let gone_at =
            chance.hits(load.cancelled_ppm).then(|| at + chance.span(Duration::from_millis(200)));
        let stop = chance
            .hits(load.stopped_ppm)
            .then(|| (chance.below(u64::from(choices)) as u16, chance.between(1, 8) as usize));
        asks.push(Ask {
            at,
            router: chance.below(scenario.routers as u64) as NodeId,
            tenant: tenants[chance.below(10) as usize / 9].clone(),
            prompt,
            seed: chance.next(),
            choices,
            max_tokens,
            osl,
            precedence: draw_precedence(chance),
            deadline: at + load.deadline,
            gone_at,
            stop,
        });
    }
    asks
}

/// Mostly ordinary; some of a higher tier, some that can wait, and some that nobody waits for.
fn draw_precedence(chance: &mut Chance) -> Precedence {
    let (strict_priority, priority) = match chance.below(8) {
        0 => (0, BACKGROUND_PRIORITY),
        1 => (1, 0),
        drawn => (0, drawn as i32 - 4),
    };
    Precedence { strict_priority, priority, wanted: None }
}

/// A shared prefix or an earlier conversation, and mostly something new. Some prompts are equal,
/// some end on a block's boundary.
fn draw_prompt(
    scenario: &Scenario,
    chance: &mut Chance,
    families: &[Vec<TokenId>],
    asks: &[Ask],
) -> Vec<TokenId> {
    let load = &scenario.load;
    let longest = (load.prefix_tokens + load.suffix_tokens) as usize;
    let continued = (!asks.is_empty() && chance.hits(load.continued_ppm))
        .then(|| &asks[chance.below(asks.len() as u64) as usize])
        .map(|earlier| continuation(scenario, earlier))
        .filter(|prompt| prompt.len() < longest);
    let mut prompt =
        continued.unwrap_or_else(|| families[chance.below(load.families) as usize].clone());
    let room = longest.saturating_sub(prompt.len()) as u64;
    let suffix = chance.below(load.suffix_tokens.min(room) + 1);
    if !chance.hits(150_000) {
        prompt.extend(tokens(scenario, chance, suffix));
    }
    let block_tokens = scenario.model.block_tokens as usize;
    if chance.hits(150_000) && prompt.len() > block_tokens {
        prompt.truncate(prompt.len() / block_tokens * block_tokens);
    }
    prompt
}

fn tokens(scenario: &Scenario, chance: &mut Chance, count: u64) -> Vec<TokenId> {
    let vocab = u64::from(scenario.model.vocab);
    (0..count).map(|_| chance.between(1, vocab - 1) as TokenId).collect()
}

/// The next prompt of a client that got this answer.
fn continuation(scenario: &Scenario, earlier: &Ask) -> Vec<TokenId> {
    let mut prompt = earlier.prompt.clone();
    let count = earlier.max_tokens as usize;
    prompt.extend(expected(&scenario.model, &earlier.prompt, earlier.seed, 0, count));
    prompt
}
