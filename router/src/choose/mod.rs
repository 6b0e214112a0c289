//! The choice of who computes a turn: a decode worker, and prefill workers to ask, or none.
//!
//! Pure: it reads what it is given, no clock and no entropy, so that the same functions place
//! turns in the simulator.
//!
//! The estimate is a first, simple one, in units of *blocks of work*: what a worker lacks of the
//! prompt, what it has accepted before, and how crowded it is. One unit of prompt costs the same
//! everywhere; what a queue or a running sequence costs beside it are the constants below.

use baton_node::config::Threshold;
use baton_proto::ids::WorkerId;

/// A queued turn delays the next one about as much as this many blocks of prompt.
const QUEUED_BLOCKS: f64 = 8.0;
/// A running sequence slows a step down about as much as this many blocks of prompt do, once.
const RUNNING_BLOCKS: f64 = 0.5;
/// What does not fit in a worker's memory at completion waits for another turn to end.
const SHORT_BLOCKS: f64 = 4.0;
/// How many prefill workers a decode worker is told about; more would only be tried in a disaster.
const PREFILL_CANDIDATES_MAX: usize = 3;

/// A turn, as far as the choice depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ask {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens that the answer will probably have.
    pub answer_tokens: usize,
    /// Tokens of a block.
    pub block_tokens: usize,
    /// Decides between equals, so that new prompts spread: any number that differs from turn to turn.
    pub spread: u64,
}

impl Ask {
    /// Whole blocks that another worker can compute: all before the last token, which the decode
    /// worker computes itself to draw from it.
    pub fn whole_blocks(&self) -> usize {
        self.prompt_tokens.saturating_sub(1) / self.block_tokens
    }

    fn blocks_at_completion(&self) -> usize {
        (self.prompt_tokens + self.answer_tokens).div_ceil(self.block_tokens)
    }
}

/// A worker that could be chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// Which one.
    pub worker: WorkerId,
    /// Leading blocks of the prompt that it holds.
    pub held: usize,
    /// What it has to do.
    pub load: Load,
}

/// What a worker has to do, and the memory it has left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Load {
    /// Turns that wait.
    pub queued: u32,
    /// Turns that run.
    pub running: u32,
    /// Blocks that are free or could be evicted.
    pub available_blocks: u32,
    /// Prompt tokens accepted and not yet computed.
    pub pending_tokens: u64,
}

/// Who computes a turn.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The decode worker.
    pub decode: WorkerId,
    /// Prefill workers to ask, the best first; none: the decode worker computes the prompt.
    pub prefill: Vec<WorkerId>,
}

/// Chooses among the workers that are left; `None` if no decode worker is.
pub fn choose(
    ask: &Ask,
    decode: &[Candidate],
    prefill: &[Candidate],
    threshold: Threshold<u32>,
) -> Option<Plan> {
    let decode = decode
        .iter()
        .min_by(|a, b| compare(ask, a, decode_cost(ask, a), b, decode_cost(ask, b)))?;
    let missing = ask.whole_blocks().saturating_sub(decode.held);
    let remote = missing > 0 && threshold.is_reached_by(&(missing as u32));
    let prefill = if remote { rank_prefill(ask, prefill) } else { Vec::new() };
    Some(Plan { decode: decode.worker, prefill })
}

fn rank_prefill(ask: &Ask, candidates: &[Candidate]) -> Vec<WorkerId> {
    let mut ranked: Vec<_> = candidates.iter().collect();
    ranked.sort_by(|a, b| compare(ask, a, work(ask, a), b, work(ask, b)));
    ranked.iter().take(PREFILL_CANDIDATES_MAX).map(|candidate| candidate.worker).collect()
}

/// What has to be computed before this turn's first token, and what slows it down.
fn work(ask: &Ask, candidate: &Candidate) -> f64 {
    let missing = ask.whole_blocks().saturating_sub(candidate.held) as f64;
    let pending = candidate.load.pending_tokens as f64 / ask.block_tokens as f64;
    let queued = f64::from(candidate.load.queued) * QUEUED_BLOCKS;
    missing + pending + queued + f64::from(candidate.load.running) * RUNNING_BLOCKS
}

fn decode_cost(ask: &Ask, candidate: &Candidate) -> f64 {
    // Blocks of the prompt that are held here count as available: they would be pinned, not taken.
    let needed = ask.blocks_at_completion().saturating_sub(candidate.held);
    let short = needed.saturating_sub(candidate.load.available_blocks as usize) as f64;
    work(ask, candidate) + short * SHORT_BLOCKS
}

/// By cost, then in an order of the workers that differs from turn to turn.
fn compare(
    ask: &Ask,
    a: &Candidate,
    a_cost: f64,
    b: &Candidate,
    b_cost: f64,
) -> std::cmp::Ordering {
    a_cost
        .total_cmp(&b_cost)
        .then_with(|| scatter(ask.spread, a.worker).cmp(&scatter(ask.spread, b.worker)))
}

/// A permutation of the worker numbers for each value of `spread` (the finaliser of SplitMix64).
fn scatter(spread: u64, worker: WorkerId) -> u64 {
    let mut x = spread ^ (u64::from(worker.0) << 32 | u64::from(worker.0));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests;
