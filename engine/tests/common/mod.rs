//! What the engine's tests share: an engine on a small arena, and sequences that run on it.

#![allow(clippy::unwrap_used, dead_code)]

use baton_arena::{Arena, ArenaOptions};
use baton_engine::api::{Batch, Drawn, Engine, Item, Sample};
use baton_engine::checkpoint::Checkpoint;
use baton_engine::cpu::{CpuEngine, CpuOptions};
use baton_kv::lease::{Draft, WriteLease};
use baton_kv::pool::{Pool, PoolConfig};
use baton_proto::ids::{SeqKey, SlotId, TokenId};
use baton_proto::ir::Sampling;
use std::path::{Path, PathBuf};

/// The checkpoints in the repository.
pub(crate) fn model(name: &str) -> PathBuf {
    let models = if name == "demo" { "../models" } else { "../tests/models" };
    Path::new(env!("CARGO_MANIFEST_DIR")).join(models).join(name)
}

/// An engine with an arena and a pool to run on.
pub(crate) struct Rig {
    pub(crate) engine: CpuEngine,
    arena: Arena,
    pool: Pool,
}

/// A sequence on a rig.
pub(crate) struct Sequence {
    key: SeqKey,
    pub(crate) tokens: Vec<TokenId>,
    computed: usize,
    blocks: Vec<Draft>,
}

/// What was seen of a sequence: everything that has to be the same.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Seen {
    pub(crate) ids: Vec<TokenId>,
    /// Bits of the log-probabilities of the ids.
    pub(crate) logprobs: Vec<u32>,
    /// The largest raw logits at the first draw.
    pub(crate) raw_top: Vec<(TokenId, f32)>,
}

impl Seen {
    pub(crate) fn new() -> Self {
        Self { ids: Vec::new(), logprobs: Vec::new(), raw_top: Vec::new() }
    }

    pub(crate) fn push(&mut self, drawn: Drawn) {
        if self.ids.is_empty() {
            self.raw_top = drawn.raw_top;
        }
        self.ids.push(drawn.token);
        self.logprobs.push(drawn.logprob.to_bits());
    }
}

impl Rig {
    pub(crate) fn new(dir: &Path, options: &CpuOptions) -> Self {
        let engine = CpuEngine::load(&Checkpoint::open(dir).unwrap(), options, &|_| ()).unwrap();
        let slot_bytes = engine.spec().block_bytes;
        let slots = 8192 / engine.spec().block_tokens + 64;
        let arena = Arena::create(ArenaOptions { slots, slot_bytes, name: "engine-test" }).unwrap();
        // Slots hold what earlier owners left; nothing of it may reach a result.
        for slot in 0..slots {
            arena.write(slot).f32s_mut().fill(f32::NAN);
        }
        let pool = Pool::new(PoolConfig { slots, events_kept: 16, leases_max: 16 });
        Self { engine, arena, pool }
    }

    /// One step: `count` further positions of each sequence. A draw follows where all known
    /// tokens are then computed; drawn tokens are appended.
    pub(crate) fn step(&mut self, work: &mut [(&mut Sequence, usize)]) -> Vec<Option<Drawn>> {
        let greedy = Sampling::greedy();
        let block = self.engine.spec().block_tokens as usize;
        let mut parts = Vec::new();
        for (sequence, count) in work.iter_mut() {
            let (from, to) = (sequence.computed / block, sequence.computed + *count);
            while sequence.blocks.len() < to.div_ceil(block) {
                sequence.blocks.push(self.pool.draft().unwrap().0);
            }
            let leases: Vec<_> = sequence.blocks.drain(from..).map(Draft::lend).collect();
            let table: Vec<SlotId> = sequence.blocks.iter().map(Draft::slot).collect();
            parts.push((table, leases));
        }
        let items =
            parts.iter_mut().zip(work.iter()).map(|((table, leases), (sequence, count))| {
                let sample = Sample {
                    sampling: &greedy,
                    choice: 0,
                    prompt_len: 0,
                    suppressed: std::borrow::Cow::Borrowed(&[]),
                    forced: None,
                    logprobs: Some(0),
                    raw_top: 8,
                    last: false,
                };
                Item {
                    seq: sequence.key,
                    tokens: &sequence.tokens,
                    start: sequence.computed as u32,
                    count: *count as u32,
                    table,
                    drafts: std::mem::take(leases),
                    sample: (sequence.computed + count == sequence.tokens.len()).then_some(sample),
                }
            });
        let output = self.engine.step(&self.arena, Batch { items: items.collect() });
        assert_eq!(output.items.len(), work.len());
        let mut drawn = Vec::new();
        for (item, (sequence, count)) in output.items.into_iter().zip(work.iter_mut()) {
            assert_eq!(item.seq, sequence.key);
            sequence.blocks.extend(item.drafts.into_iter().map(WriteLease::settle));
            sequence.computed += *count;
            sequence.tokens.extend(item.drawn.as_ref().map(|d| d.token));
            drawn.push(item.drawn);
        }
        drawn
    }

    /// Runs one sequence alone: the prompt in chunks of `chunk`, then `draws` tokens.
    pub(crate) fn alone(&mut self, prompt: &[TokenId], chunk: usize, draws: usize) -> Seen {
        let mut seen = Seen::new();
        let mut sequence = Sequence::new(1, prompt);
        while seen.ids.len() < draws {
            let count = chunk.min(sequence.left());
            if let Some(drawn) = self.step(&mut [(&mut sequence, count)]).remove(0) {
                seen.push(drawn);
            }
        }
        seen
    }
}

impl Sequence {
    pub(crate) fn new(key: u64, tokens: &[TokenId]) -> Self {
        let (key, tokens) = (SeqKey(key), tokens.to_vec());
        Self { key, tokens, computed: 0, blocks: Vec::new() }
    }

    /// Known tokens that are not computed yet.
    pub(crate) fn left(&self) -> usize {
        self.tokens.len() - self.computed
    }
}

/// A case of a golden file.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) prompt: Vec<TokenId>,
    pub(crate) top: Vec<(TokenId, f32)>,
    pub(crate) greedy: Option<Vec<TokenId>>,
}

pub(crate) fn golden(dir: &Path) -> Vec<Case> {
    cases(&dir.join("golden.json"))
}

pub(crate) fn cases(file: &Path) -> Vec<Case> {
    let text = std::fs::read_to_string(file).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let ids = |v: &serde_json::Value| {
        v.as_array().map(|a| a.iter().map(|x| x.as_u64().unwrap() as TokenId).collect::<Vec<_>>())
    };
    let case = |case: &serde_json::Value| Case {
        prompt: ids(&case["input_ids"]).unwrap(),
        top: case["last_logits_top8"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| (p[0].as_u64().unwrap() as TokenId, p[1].as_f64().unwrap() as f32))
            .collect(),
        greedy: ids(&case["greedy_48"]),
    };
    json["cases"].as_array().unwrap().iter().map(case).collect()
}
