//! What a simulated cluster is like, what is asked of it, and what befalls it.

use super::chance::Chance;
use baton_decode::schedule::Limits as DecodeLimits;
use baton_engine::witness::{LatencyModel, WitnessSpec};
use baton_prefill::schedule::Limits as PrefillLimits;
use baton_router::choose::PolicyName;
use baton_transfer::sim::Link;
use std::num::NonZeroU32;
use std::time::Duration;

/// A cluster, its load and its misfortunes. The seed of a run decides everything else.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What it is called.
    pub name: &'static str,
    /// Routers.
    pub routers: usize,
    /// Prefill workers.
    pub prefills: usize,
    /// Decode workers.
    pub decodes: usize,
    /// Slots of each prefill worker.
    pub prefill_slots: u32,
    /// Slots of each decode worker.
    pub decode_slots: u32,
    /// Block events that a worker keeps for routers that lag.
    pub events_kept: usize,
    /// Bounds of the prefill schedules.
    pub prefill_limits: PrefillLimits,
    /// Bounds of the decode schedules.
    pub decode_limits: DecodeLimits,
    /// The model.
    pub model: WitnessSpec,
    /// What links do to calls and their answers. A lost message breaks its stream.
    pub control: Link,
    /// What links do to blocks.
    pub data: Link,
    /// Pulls that read the owner's memory instead of asking it, in parts per million.
    pub mapped_ppm: u32,
    /// Whether what arrives is compared with what was announced. Without it runs have to find
    /// wrong tokens: that is how the judgement itself is tested.
    pub verify_pulls: bool,
    /// How routers place turns.
    pub policy: PolicyName,
    /// Missing blocks from which on a prefill worker may be asked.
    pub disaggregate_min_blocks: u32,
    /// The requests.
    pub load: Load,
    /// What breaks, and about when: up to half as much later.
    pub faults: Vec<(Duration, Fault)>,
}

/// The requests of a scenario.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// How many.
    pub requests: usize,
    /// Time between two requests on average.
    pub gap: Duration,
    /// Prefixes that requests share.
    pub families: u64,
    /// Tokens of such a prefix, at most.
    pub prefix_tokens: u64,
    /// Tokens that follow it, at most.
    pub suffix_tokens: u64,
    /// Tokens of an answer, at most.
    pub answer_tokens: u64,
    /// Choices of a request, at most.
    pub choices: u64,
    /// Requests that continue an earlier answer, in parts per million.
    pub continued_ppm: u32,
    /// Requests whose expected answer length is understated, in parts per million.
    pub understated_ppm: u32,
    /// Requests whose client loses interest, in parts per million.
    pub cancelled_ppm: u32,
    /// Choices that the router ends early, as at a stop string, in parts per million.
    pub stopped_ppm: u32,
    /// When nobody waits any more.
    pub deadline: Duration,
}

/// Something that breaks or is mended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A prefill worker's process ends.
    KillPrefill(usize),
    /// It is started again, as a new incarnation.
    StartPrefill(usize),
    /// A decode worker's process ends.
    KillDecode(usize),
    /// It is started again, as a new incarnation.
    StartDecode(usize),
    /// A prefill and a decode worker cannot reach each other.
    Cut(usize, usize),
    /// They can again.
    Mend(usize, usize),
}

const MS: Duration = Duration::from_millis(1);

impl Scenario {
    /// Two of each, and nothing goes wrong.
    pub fn calm() -> Self {
        let delay = Duration::from_micros(200);
        Self {
            name: "calm",
            routers: 2,
            prefills: 2,
            decodes: 2,
            prefill_slots: 160,
            decode_slots: 160,
            events_kept: 4096,
            prefill_limits: prefill_limits(),
            decode_limits: decode_limits(),
            model: model(),
            control: Link { delay, jitter: MS, ..Link::default() },
            data: Link { delay, jitter: 2 * MS, reorder: true, ..Link::default() },
            mapped_ppm: 500_000,
            verify_pulls: true,
            policy: PolicyName::KvAware,
            disaggregate_min_blocks: 2,
            load: Load {
                requests: 150,
                gap: 15 * MS,
                families: 6,
                prefix_tokens: 160,
                suffix_tokens: 60,
                answer_tokens: 24,
                choices: 1,
                continued_ppm: 200_000,
                understated_ppm: 0,
                cancelled_ppm: 0,
                stopped_ppm: 0,
                deadline: Duration::from_secs(20),
            },
            faults: Vec::new(),
        }
    }

    /// Messages get lost, pulls come corrupted, twice, out of order or not at all; a prefill worker
    /// is killed and comes back, a decode worker is killed, others cannot reach each other.
    pub fn storm() -> Self {
        let calm = Self::calm();
        Self {
            name: "storm",
            events_kept: 64,
            control: Link { loss_ppm: 1_500, duplicate_ppm: 1_000, ..calm.control },
            data: Link {
                bandwidth: Some(50_000_000),
                loss_ppm: 5_000,
                duplicate_ppm: 10_000,
                corrupt_ppm: 10_000,
                ..calm.data
            },
            load: Load {
                choices: 3,
                understated_ppm: 200_000,
                cancelled_ppm: 40_000,
                stopped_ppm: 60_000,
                ..calm.load
            },
            faults: vec![
                (300 * MS, Fault::Cut(0, 0)),
                (600 * MS, Fault::KillPrefill(0)),
                (700 * MS, Fault::Mend(0, 0)),
                (1_100 * MS, Fault::StartPrefill(0)),
                (1_200 * MS, Fault::KillDecode(1)),
                (1_500 * MS, Fault::StartDecode(1)),
                (1_700 * MS, Fault::KillPrefill(1)),
            ],
            ..calm
        }
    }

    /// Pools that hold little more than one turn, and answers longer than announced: everybody
    /// waits, is preempted and evicted.
    pub fn tight() -> Self {
        let calm = Self::calm();
        Self {
            name: "tight",
            prefill_slots: 18,
            decode_slots: 18,
            events_kept: 16,
            load: Load {
                requests: 60,
                families: 3,
                choices: 3,
                answer_tokens: 60,
                understated_ppm: 800_000,
                deadline: Duration::from_mins(1),
                ..calm.load
            },
            ..calm
        }
    }

    /// A small cluster drawn from a seed, in which anything may be scarce and anything may break.
    pub fn drawn(seed: u64) -> Self {
        let mut chance = Chance::new(seed ^ 0x5ce7_a410);
        let mut scenario = if chance.hits(500_000) { Self::storm() } else { Self::tight() };
        scenario.name = "drawn";
        scenario.policy = PolicyName::ALL[chance.below(PolicyName::ALL.len() as u64) as usize];
        scenario.disaggregate_min_blocks = chance.below(4) as u32;
        scenario.routers = chance.between(1, 2) as usize;
        scenario.prefills = chance.between(1, 2) as usize;
        scenario.decodes = chance.between(1, 2) as usize;
        scenario.prefill_slots = chance.between(16, 60) as u32;
        scenario.decode_slots = chance.between(16, 60) as u32;
        scenario.prefill_limits.chunk_tokens = chance.between(5, 100) as u32;
        scenario.prefill_limits.batch_tokens = chance.between(16, 200) as u32;
        scenario.prefill_limits.pull_window_blocks = chance.between(1, 8) as usize;
        scenario.prefill_limits.jobs_max = chance.between(2, 40) as usize;
        scenario.decode_limits.batch_tokens = chance.between(16, 200) as u32;
        scenario.decode_limits.local_fill_tokens = chance.between(1, 64) as u32;
        scenario.decode_limits.pull_window_blocks = chance.between(1, 8) as usize;
        scenario.control.loss_ppm = chance.below(5_000) as u32;
        scenario.data.loss_ppm = chance.below(50_000) as u32;
        scenario.data.corrupt_ppm = chance.below(50_000) as u32;
        scenario.data.duplicate_ppm = chance.below(50_000) as u32;
        scenario.mapped_ppm = chance.below(1_000_001) as u32;
        scenario.load.requests = chance.between(10, 40) as usize;
        scenario.load.gap = Duration::from_millis(chance.between(1, 30));
        scenario.load.families = chance.between(1, 4);
        scenario.load.answer_tokens = chance.between(1, 150);
        scenario.load.understated_ppm = chance.below(1_000_001) as u32;
        scenario.load.cancelled_ppm = chance.below(200_000) as u32;
        scenario.load.stopped_ppm = chance.below(200_000) as u32;
        scenario.load.deadline = Duration::from_mins(2);
        scenario.faults = drawn_faults(&mut chance, scenario.prefills, scenario.decodes);
        scenario
    }
}

/// Workers go and come back, so that in the end there is always somebody to answer.
fn drawn_faults(chance: &mut Chance, prefills: usize, decodes: usize) -> Vec<(Duration, Fault)> {
    let mut faults = Vec::new();
    for _ in 0..chance.below(5) {
        let at = Duration::from_millis(chance.between(20, 800));
        let back = at * 2 + Duration::from_millis(chance.between(1, 400));
        let prefill = chance.below(prefills as u64) as usize;
        let decode = chance.below(decodes as u64) as usize;
        let (breaks, mends) = match chance.below(3) {
            0 => (Fault::KillPrefill(prefill), Fault::StartPrefill(prefill)),
            1 => (Fault::KillDecode(decode), Fault::StartDecode(decode)),
            _ => (Fault::Cut(prefill, decode), Fault::Mend(prefill, decode)),
        };
        faults.extend([(at, breaks), (back, mends)]);
    }
    faults
}

fn model() -> WitnessSpec {
    WitnessSpec {
        name: "sim".to_owned(),
        vocab: 1 << 20,
        context: 4096,
        block_tokens: 16,
        layers: 1,
        heads: 1,
        dim: 2,
        eos: vec![0],
        ends: NonZeroU32::new(60),
        batch_tokens_max: 4096,
        latency: LatencyModel {
            step: Duration::from_millis(2),
            prefill_token: Duration::from_micros(40),
            decode_sequence: Duration::from_micros(200),
        },
    }
}

fn prefill_limits() -> PrefillLimits {
    PrefillLimits {
        jobs_max: 64,
        chunk_tokens: 64,
        batch_tokens: 128,
        pull_window_blocks: 8,
        pull_timeout: 200 * MS,
        lease_ttl: 500 * MS,
        ageing: 100 * MS,
    }
}

fn decode_limits() -> DecodeLimits {
    DecodeLimits {
        turns_max: 64,
        batch_tokens: 256,
        local_fill_tokens: 32,
        pull_window_blocks: 8,
        pull_timeout: 200 * MS,
        lease_ttl: 500 * MS,
        prefill_attempts: 2,
        prefill_patience: Duration::from_secs(10),
        ageing: 100 * MS,
    }
}
