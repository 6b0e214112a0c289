//! One turn on a decode worker: what was asked, and its choices from the first block to the last
//! token.

use crate::thinking::{Thinking, ThinkingRule};
use baton_proto::ids::{LeaseId, RequestId, SeqKey, SequenceHash, TokenId};
use baton_proto::ir::Sampling;
use baton_transfer::Peer;
use baton_worker::fill::Fill;
use baton_worker::queue::{Entry, Precedence, Urgency};
use baton_worker::sequence::{ChainKey, Sequence};
use std::fmt;
use std::time::Duration;

/// A turn, numbered by the schedule.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TurnId(pub u64);

/// An attached router, numbered by the daemon.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RouterId(pub u64);

/// A prefill worker that may be asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// URI of its gRPC service.
    pub uri: String,
    /// Where its blocks can be pulled from.
    pub peer: Peer,
}

/// When a choice ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StopRule {
    /// Answer tokens at most, within the context.
    pub max_tokens: u32,
    /// No end before that many.
    pub min_tokens: u32,
    /// Tokens that end the answer: the model's own, unless ignored, and the request's.
    pub end_ids: Vec<TokenId>,
}

/// What a router submits.
#[derive(Clone)]
pub struct TurnRequest {
    /// Who asks.
    pub router: RouterId,
    /// The router's name for it.
    pub request: RequestId,
    /// The prompt; not empty.
    pub tokens: Vec<TokenId>,
    /// What decides its hash chain.
    pub chain_key: ChainKey,
    /// Number of choices, at least 1.
    pub choices: u16,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// When a choice ends.
    pub stop: StopRule,
    /// What bounds the reasoning of each choice, if anything does.
    pub thinking: Option<ThinkingRule>,
    /// Log-probabilities wanted, with that many alternatives.
    pub logprobs: Option<u8>,
    /// That many of the largest raw logits at the last prompt position.
    pub raw_top: u16,
    /// Who comes first.
    pub precedence: Precedence,
    /// The tenant's share where others have work too, from 1.
    pub weight: u32,
    /// Expected answer length in tokens.
    pub osl: u32,
    /// On this process's clock.
    pub deadline: Duration,
    /// Prefill workers to ask, the best first; none: compute here.
    pub candidates: Vec<Candidate>,
}

impl fmt::Debug for TurnRequest {
    /// Sizes instead of tokens: prompts do not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TurnRequest")
            .field("request", &self.request)
            .field("tokens", &self.tokens.len())
            .field("choices", &self.choices)
            .field("osl", &self.osl)
            .field("candidates", &self.candidates)
            .finish_non_exhaustive()
    }
}

impl TurnRequest {
    /// Blocks that each choice takes with the expected answer, at most: the first one with the
    /// prompt, the others beside it. Together no more than there are slots.
    fn credits(&self, slots: usize) -> Vec<usize> {
        let block_tokens = self.chain_key.block_tokens as usize;
        let osl = self.osl.min(self.stop.max_tokens) as usize;
        let mut left = slots;
        let grant = |choice| {
            let wanted = match choice {
                0 => (self.tokens.len() + osl).div_ceil(block_tokens),
                _ => osl.div_ceil(block_tokens) + 1,
            };
            let granted = wanted.min(left);
            left -= granted;
            granted
        };
        (0..self.choices).map(grant).collect()
    }
}

/// How far a choice is.
#[derive(Debug)]
pub enum Phase {
    /// The first choice brings the prompt's whole blocks; this one takes them from it.
    Waiting,
    /// Whole blocks come together.
    Filling(Fill),
    /// Every step draws a token.
    Decoding(Sequence),
    /// Its memory was needed for others: the tokens so far, to be continued.
    Preempted(Vec<TokenId>),
    /// Nothing more will come.
    Ended,
}

/// One of a turn's answers.
#[derive(Debug)]
pub struct Choice {
    /// How far it is.
    pub phase: Phase,
    /// Tokens drawn.
    pub drawn: u32,
    /// How far its reasoning is, where that is bounded.
    pub thinking: Option<Thinking>,
    /// Blocks promised to it, once the turn is admitted. None while it is preempted, so that it
    /// continues only where there is room for all it has become, and none when it has ended.
    pub credit: usize,
}

impl Choice {
    /// The engine's name for it, where the engine knows it.
    pub fn seq(&self) -> Option<SeqKey> {
        match &self.phase {
            Phase::Filling(fill) => Some(fill.sequence().key()),
            Phase::Decoding(sequence) => Some(sequence.key()),
            Phase::Waiting | Phase::Preempted(_) | Phase::Ended => None,
        }
    }
}

/// A call of `Prefill.Compute` under way.
#[derive(Clone, Debug)]
pub struct Remote {
    /// Who computes.
    pub candidate: Candidate,
    /// Since when.
    pub asked: Duration,
    /// Everything is announced.
    pub done: bool,
    /// The lease on this worker's own blocks that the other side may pull.
    pub lease: Option<LeaseId>,
}

/// A call of another turn that brings blocks of this one, too.
#[derive(Clone, Debug)]
pub struct Joined {
    /// Whose call it is.
    pub turn: TurnId,
    /// Who computes.
    pub candidate: Candidate,
    /// So many leading blocks are the same.
    pub blocks: usize,
    /// Since when it is waited for anybody's.
    pub since: Duration,
}

/// What a turn cost so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Prompt tokens found in a cache, on either side.
    pub cached_tokens: u32,
    /// Prompt tokens whose blocks were pulled.
    pub pulled_tokens: u32,
    /// Prompt tokens computed here.
    pub computed_tokens: u32,
    /// Blocks pulled.
    pub pulled_blocks: u32,
    /// Bytes pulled.
    pub pulled_bytes: u64,
    /// From arrival to admission.
    pub queue: Duration,
    /// From the last announcement to the first step that drew.
    pub handover: Duration,
    /// From admission to the first token.
    pub prefill: Duration,
    /// The prefill worker that delivered; 0: none.
    pub prefill_worker: u32,
}

/// A turn.
#[derive(Debug)]
pub struct Turn {
    /// What was asked.
    pub request: TurnRequest,
    /// When it came.
    pub arrived: Duration,
    /// When it got its credit.
    pub admitted: Option<Duration>,
    /// Its answers.
    pub choices: Vec<Choice>,
    /// The prefill call under way.
    pub remote: Option<Remote>,
    /// Candidates asked so far.
    pub asked: usize,
    /// Another turn's call, whose blocks it waits for.
    pub joined: Option<Joined>,
    /// When the latest block was announced.
    pub last_announced: Option<Duration>,
    /// Prompt tokens that the prefill worker says it found.
    pub remote_cached_tokens: u32,
    /// Whether the prompt's whole blocks were at hand once.
    pub filled: bool,
    /// Whether the router has been told that it is admitted.
    pub told: bool,
    /// What it cost.
    pub report: Report,
}

impl Turn {
    /// A turn that has just come to a worker with so many slots.
    pub fn new(request: TurnRequest, slots: usize, now: Duration) -> Self {
        let thinking = request.thinking.as_ref().map(Thinking::new);
        let choice = |credit| Choice { phase: Phase::Waiting, drawn: 0, thinking, credit };
        Self {
            arrived: now,
            admitted: None,
            choices: request.credits(slots).into_iter().map(choice).collect(),
            remote: None,
            asked: 0,
            joined: None,
            last_announced: None,
            remote_cached_tokens: 0,
            filled: false,
            told: false,
            report: Report::default(),
            request,
        }
    }

    /// Blocks promised to its choices.
    pub fn credit(&self) -> usize {
        self.choices.iter().map(|choice| choice.credit).sum()
    }

    /// Whether a choice waits for room to continue.
    pub fn is_preempted(&self) -> bool {
        self.choices.iter().any(|choice| matches!(choice.phase, Phase::Preempted(_)))
    }

    /// What decides when it is served.
    pub fn urgency(&self) -> Urgency {
        let (precedence, deadline) = (self.request.precedence, self.request.deadline);
        Urgency { precedence, arrived: self.arrived, deadline }
    }

    /// The prefill worker that it has asked for the block at that place of a chain, if it has.
    pub fn asked_for(&self, chain: &[SequenceHash], at: usize) -> Option<&Candidate> {
        let remote = self.remote.as_ref()?;
        let Phase::Filling(fill) = &self.choices[0].phase else { return None };
        (fill.wanted().get(at)? == chain.get(at)?).then_some(&remote.candidate)
    }

    /// How far its chain goes together with another.
    pub fn blocks_in_common(&self, chain: &[SequenceHash]) -> usize {
        let Phase::Filling(fill) = &self.choices[0].phase else { return 0 };
        fill.wanted().iter().zip(chain).take_while(|(own, other)| own == other).count()
    }

    /// Whether it can stop where it is, to begin again later: nothing was drawn, and no transport
    /// writes for it.
    pub fn can_give_way(&self) -> bool {
        !self.filled && matches!(&self.choices[0].phase, Phase::Filling(f) if !f.is_pulling())
    }

    /// What the queue orders it by: it is as long as the memory that it will take.
    pub fn entry(&self, id: TurnId) -> Entry<'_, TurnId> {
        let (tenant, weight) = (&self.request.chain_key.tenant, self.request.weight);
        Entry { id, tenant, weight, urgency: self.urgency(), cost_tokens: self.credit_tokens() }
    }

    /// Tokens that there is room for in what it was promised.
    pub fn credit_tokens(&self) -> u64 {
        self.credit() as u64 * u64::from(self.request.chain_key.block_tokens)
    }

    /// Prompt length in tokens.
    pub fn prompt_len(&self) -> u32 {
        self.request.tokens.len() as u32
    }

    /// The first choice, while it brings the prompt's blocks.
    pub fn lead(&mut self) -> Option<&mut Fill> {
        match &mut self.choices[0].phase {
            Phase::Filling(fill) => Some(fill),
            _ => None,
        }
    }

    /// Whether a prefill worker has been asked and has let nothing be heard for `patience`, though
    /// blocks are missing and none is on the way.
    pub fn is_silent(&self, now: Duration, patience: Duration) -> bool {
        let Some(remote) = self.remote.as_ref().filter(|remote| !remote.done) else { return false };
        let Phase::Filling(fill) = &self.choices[0].phase else { return false };
        let heard = self.last_announced.unwrap_or(remote.asked);
        !fill.is_pulling() && patience <= now.saturating_sub(heard)
    }

    /// Whether every choice has ended.
    pub fn is_over(&self) -> bool {
        self.choices.iter().all(|choice| matches!(choice.phase, Phase::Ended))
    }
}
