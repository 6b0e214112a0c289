//! How fast the witness generates on one core: sequences of up to `context` tokens, each drawn
//! token by token, several in one batch, blocks going from drafts to tables as in a worker.
//!
//! `cargo run --release -p baton-engine --example witness_speed [-- CONTEXT [TOKENS]]`

use baton_arena::{Arena, ArenaOptions};
use baton_engine::api::{Batch, Engine, Item, Sample};
use baton_engine::witness::{Witness, WitnessSpec};
use baton_kv::lease::{Draft, WriteLease};
use baton_kv::pool::{Pool, PoolConfig};
use baton_proto::ids::{SeqKey, SlotId, TokenId};
use baton_proto::ir::Sampling;
use std::time::{Duration, Instant};

const SEQUENCES: usize = 8;
const PROMPT: u32 = 64;

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let context: u32 = args.next().map_or(Ok(1000), |arg| arg.parse())?;
    let tokens: u64 = args.next().map_or(Ok(1_000_000), |arg| arg.parse())?;

    let spec = WitnessSpec::small();
    let mut engine = Witness::new(spec)?;
    let model = engine.spec().clone();
    let slots = SEQUENCES as u32 * context.div_ceil(model.block_tokens);
    let options = ArenaOptions { slots, slot_bytes: model.block_bytes, name: "witness-speed" };
    let arena = Arena::create(options)?;
    let mut pool = Pool::new(PoolConfig { slots, events_kept: 16, leases_max: 16 });

    let (mut drawn, mut spent, mut next_key) = (0, Duration::ZERO, 0);
    while drawn < tokens {
        let mut sequences: Vec<Sequence> = (0..SEQUENCES)
            .map(|_| {
                next_key += 1;
                Sequence::new(SeqKey(next_key))
            })
            .collect();
        let start = Instant::now();
        for _ in PROMPT..context {
            drawn += round(&mut engine, &arena, &mut pool, &mut sequences)?;
        }
        spent += start.elapsed();
        for sequence in &sequences {
            engine.forget(sequence.key);
        }
    }
    let per_second = drawn as f64 / spent.as_secs_f64();
    println!(
        r#"{{"context_tokens":{context},"tokens":{drawn},"tokens_per_s":{per_second:.0},"us_per_token":{:.3}}}"#,
        1e6 / per_second
    );
    Ok(())
}

/// One step of all sequences; the first one of each computes its prompt.
fn round(
    engine: &mut Witness,
    arena: &Arena,
    pool: &mut Pool,
    sequences: &mut [Sequence],
) -> Result<u64, Box<dyn std::error::Error>> {
    let block_tokens = engine.spec().block_tokens;
    let sampling = Sampling::greedy();
    let mut items = Vec::with_capacity(sequences.len());
    for sequence in sequences.iter_mut() {
        let end = sequence.tokens.len() as u32;
        if sequence.draft.is_none() {
            sequence.draft = Some(pool.draft()?.0);
        }
        items.push(Item {
            seq: sequence.key,
            tokens: &sequence.tokens,
            start: sequence.computed,
            count: end - sequence.computed,
            table: &sequence.table,
            drafts: sequence.draft.take().into_iter().map(Draft::lend).collect(),
            sample: Some(Sample {
                sampling: &sampling,
                choice: 0,
                prompt_len: PROMPT,
                suppressed: std::borrow::Cow::Borrowed(&[]),
                forced: None,
                logprobs: None,
                raw_top: 0,
                last: false,
            }),
        });
    }
    let output = engine.step(arena, Batch { items });
    for (sequence, output) in sequences.iter_mut().zip(output.items) {
        sequence.computed = sequence.tokens.len() as u32;
        sequence.draft = output.drafts.into_iter().map(WriteLease::settle).next();
        if sequence.computed.is_multiple_of(block_tokens)
            && let Some(full) = sequence.draft.take()
        {
            sequence.table.push(full.slot());
            sequence.full.push(full);
        }
        sequence.tokens.extend(output.drawn.map(|drawn| drawn.token));
    }
    Ok(sequences.len() as u64)
}

struct Sequence {
    key: SeqKey,
    tokens: Vec<TokenId>,
    computed: u32,
    table: Vec<SlotId>,
    full: Vec<Draft>,
    draft: Option<Draft>,
}

impl Sequence {
    fn new(key: SeqKey) -> Self {
        let tokens = (0..PROMPT).map(|i| i * 7 + key.0 as u32 % 1000).collect();
        Self { key, tokens, computed: 0, table: Vec::new(), full: Vec::new(), draft: None }
    }
}
