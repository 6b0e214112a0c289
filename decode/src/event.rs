//! What happens to the decode schedule, and what it wants done.

use crate::turn::{Candidate, Report, RouterId, TurnId, TurnRequest};
use baton_engine::api::Drawn;
use baton_node::switch::Switch;
use baton_proto::block::BlockDescriptor;
use baton_proto::ids::{RequestId, TokenId, WorkerId};
use baton_proto::ir::FinishReason;
use baton_transfer::{Peer, Pull, Settled};
use baton_worker::queue::Precedence;
use baton_worker::sequence::ChainKey;
use std::fmt;
use std::time::Duration;

/// What happens to the schedule.
#[derive(Debug)]
pub enum Event {
    /// A router submits a turn.
    Submit(Box<TurnRequest>),
    /// A router has lost interest: in one choice, or in the whole turn.
    Cancel(RouterId, RequestId, Option<u16>),
    /// A router takes frames more slowly than they come, or does so no longer: while it lags,
    /// nothing is drawn for it, and others lose nothing.
    Lag(RouterId, bool),
    /// A router is gone; so is its interest.
    RouterGone(RouterId),
    /// Whether turns are ordered by more than their arrival.
    Order(Switch),
    /// A prefill worker announces blocks.
    Announced(TurnId, Vec<BlockDescriptor>),
    /// This prefill worker has announced everything; prompt tokens that it found in its cache.
    PrefillDone(TurnId, WorkerId, u32),
    /// The call of this prefill worker has failed or broken off.
    PrefillFailed(TurnId, WorkerId),
    /// Pulls have ended.
    Settled(TurnId, Vec<Settled>),
    /// Pulls have ended, and their slots are quarantined.
    Lost(TurnId, Vec<BlockDescriptor>),
}

/// What the schedule wants done.
#[derive(Debug)]
pub enum Action {
    /// Tell a router.
    Update(RouterId, Update),
    /// Call `Prefill.Compute`, and send what comes back as events.
    StartPrefill(TurnId, Box<PrefillCall>),
    /// End that call: its lease is not needed any more.
    StopPrefill(TurnId),
    /// Start these pulls, and send [`Event::Settled`], and [`Event::Lost`] for those without result.
    Pull(TurnId, Peer, Vec<Pull>, Duration),
}

/// A call of `Prefill.Compute`.
pub struct PrefillCall {
    /// Who is asked.
    pub candidate: Candidate,
    /// The router's name for the request.
    pub request: RequestId,
    /// The prompt.
    pub tokens: Vec<TokenId>,
    /// What decides its hash chain.
    pub chain_key: ChainKey,
    /// This worker holds the blocks before this one, ...
    pub from_block: usize,
    /// ... here.
    pub held: Vec<BlockDescriptor>,
    /// Who comes first.
    pub precedence: Precedence,
    /// On this process's clock.
    pub deadline: Duration,
}

impl fmt::Debug for PrefillCall {
    /// Sizes instead of tokens: prompts do not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrefillCall")
            .field("request", &self.request)
            .field("tokens", &self.tokens.len())
            .field("from_block", &self.from_block)
            .field("candidate", &self.candidate)
            .finish_non_exhaustive()
    }
}

/// News of one choice.
#[derive(Clone, PartialEq, Debug)]
pub struct Update {
    /// The router's name for the request.
    pub request: RequestId,
    /// Which choice; 0 for news of the whole turn.
    pub choice: u16,
    /// What happened.
    pub news: News,
}

/// What happened to a choice.
#[derive(Clone, PartialEq, Debug)]
pub enum News {
    /// The turn has its credit.
    Admitted {
        /// Prompt tokens that this worker held.
        held_tokens: u32,
    },
    /// A token was drawn.
    Drawn {
        /// The token.
        drawn: Drawn,
        /// Whether its log-probability was asked for.
        logprobs: bool,
        /// What the prompt cost, with the first token of a choice.
        report: Option<Report>,
    },
    /// The choice has ended.
    Finished(FinishReason, Report),
    /// The turn has failed.
    Failed(Failure),
}

/// Why a turn failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Failure {
    /// Too many turns wait.
    #[error("too many requests are waiting on this decode worker (`limits.turns`)")]
    Overloaded,
    /// Nobody waits any more.
    #[error("the deadline has passed")]
    Deadline,
    /// The prompt exceeds the pool.
    #[error("the prompt needs {blocks} blocks and the pool has {slots} (`kv.memory`)")]
    TooLarge {
        /// Needed.
        blocks: usize,
        /// There are.
        slots: usize,
    },
    /// The daemon is going down.
    #[error("the worker is draining")]
    Draining,
}
