//! The witness's two promises: the right bytes give the expected stream on every path, and wrong
//! bytes give another one.
#![allow(clippy::unwrap_used)]

use super::bytes::mix;
use super::rig::{Rig, Sequence};
use super::{LatencyModel, Witness, WitnessSpec, expected};
use crate::api::Engine;
use baton_proto::ids::TokenId;
use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

/// Reproducible chance for tests.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(1);
        (mix(self.0) % n as u64) as usize
    }

    fn prompt(&mut self, len: usize) -> Vec<TokenId> {
        (0..len).map(|_| self.below(32_000) as TokenId).collect()
    }
}

fn spec() -> WitnessSpec {
    WitnessSpec { block_tokens: 16, ..WitnessSpec::small() }
}

fn witness() -> Witness {
    Witness::new(spec()).unwrap()
}

fn rig(slots: u32, garbage: u8) -> Rig {
    Rig::new(witness().spec(), slots, garbage)
}

/// The blocks of a prompt of `blocks` blocks, computed elsewhere.
fn computed(prompt: &[TokenId], chunk: u32) -> Vec<Vec<u8>> {
    let (mut rig, mut engine) = (rig(64, 0x5A), witness());
    let mut sequence = Sequence::new(1, prompt, 0, 0);
    rig.run(&mut engine, &mut sequence, chunk);
    rig.full_blocks(&sequence)
}

/// What a fresh engine answers on these blocks and the prompt that they belong to.
fn answer(prompt: &[TokenId], blocks: &[Vec<u8>], seed: u64, n: usize) -> Vec<TokenId> {
    let slots = (prompt.len() + n).div_ceil(16) as u32;
    let (mut rig, mut engine) = (rig(slots, 0xA5), witness());
    let mut sequence = Sequence::new(1, prompt, seed, n);
    rig.adopt(&mut sequence, blocks);
    rig.run(&mut engine, &mut sequence, 1000);
    sequence.answer().to_vec()
}

/// Golden tokens: a change of the bytes, the digests or the draw shows up here, and makes clients
/// that compute the stream themselves wrong.
#[test]
fn golden_stream() {
    let prompt: Vec<TokenId> = (100..140).collect();
    assert_eq!(expected(&spec(), &prompt, 7, 1, 6), [11329, 24394, 8099, 24937, 19204, 7356]);
    let small = WitnessSpec::small();
    assert_eq!(expected(&small, &prompt, 7, 1, 6), [28187, 20273, 6739, 15637, 15543, 13667]);
}

#[test]
fn any_chunks_any_company_and_any_preemption_give_the_expected_stream() {
    let mut chance = Chance(1);
    let (mut rig, mut engine) = (rig(400, 0xFF), witness());
    for round in 0..60 {
        let mut sequences: Vec<Sequence> = (0..=chance.below(5))
            .map(|i| {
                let len = [1, 15, 16, 17, 1 + chance.below(200)][chance.below(5)];
                let prompt = chance.prompt(len);
                let seed = chance.below(1 << 40) as u64;
                let n = 1 + chance.below(50);
                let mut sequence = Sequence::new(round * 10 + i as u64, &prompt, seed, n);
                sequence.choice = chance.below(3) as u16;
                sequence
            })
            .collect();
        while sequences.iter().any(|sequence| !sequence.finished()) {
            let mut work = Vec::new();
            for sequence in sequences.iter_mut().filter(|sequence| !sequence.finished()) {
                match chance.below(12) {
                    // Preempted: the draft is lost, full blocks stay.
                    0 => {
                        engine.forget(sequence.key);
                        sequence.draft = None;
                        sequence.computed = sequence.full.len() as u32 * 16;
                    }
                    // Preempted and evicted: the table gets shorter without a word.
                    1 => {
                        sequence.draft = None;
                        sequence.full.truncate(chance.below(sequence.full.len() + 1));
                        sequence.computed = sequence.full.len() as u32 * 16;
                    }
                    2 => continue,
                    _ => {}
                }
                work.push((sequence, 1 + chance.below(60) as u32));
            }
            rig.step(&mut engine, &mut work);
        }
        for s in sequences {
            let prompt = &s.tokens[..s.prompt_len as usize];
            let right = expected(&spec(), prompt, s.sampling.seed, s.choice, s.max_tokens);
            assert_eq!(s.answer(), right, "prompt of {}, n {}", s.prompt_len, s.max_tokens);
            engine.forget(s.key);
        }
    }
}

#[test]
fn blocks_do_not_depend_on_chunks_and_serve_elsewhere() {
    let mut chance = Chance(2);
    for _ in 0..50 {
        let len = 17 + chance.below(150);
        let prompt = chance.prompt(len);
        let blocks = computed(&prompt, 1000);
        assert_eq!(blocks.len(), len / 16);
        assert!(blocks == computed(&prompt, 1 + chance.below(40) as u32), "chunks show");
        // A hit on every prefix that leaves something to compute.
        let held = chance.below((len - 1) / 16 + 1);
        let right = expected(&spec(), &prompt, 9, 0, 20);
        assert_eq!(answer(&prompt, &blocks[..held], 9, 20), right);
    }
}

#[test]
fn every_one_of_ten_thousand_flips_before_entry_changes_the_stream() {
    const FLIPS: usize = 10_000;
    const BLOCKS: usize = 6;
    const ANSWER: usize = 4;
    let mut chance = Chance(3);
    let prompt = chance.prompt(BLOCKS * 16 + 5);
    let right = expected(&spec(), &prompt, 1, 0, ANSWER);
    let blocks = computed(&prompt, 1000);
    let (mut rig, mut engine) = (rig(BLOCKS as u32 + 2, 0), witness());
    let mut holder = Sequence::new(0, &prompt, 1, ANSWER);
    rig.adopt(&mut holder, &blocks);
    let bits = blocks[0].len() * 8;
    for flip in 0..=FLIPS {
        let (block, bit) = (chance.below(BLOCKS), chance.below(bits));
        let slot = holder.full[block].slot();
        // The first round shows that without a flip all is well.
        if flip > 0 {
            rig.flip(slot, bit);
        }
        let mut sequence = Sequence::new(flip as u64, &prompt, 1, ANSWER);
        (sequence.full, sequence.computed) = (holder.full, BLOCKS as u32 * 16);
        rig.run(&mut engine, &mut sequence, 1000);
        assert_eq!(sequence.answer() == right, flip == 0, "block {block}, bit {bit}");
        engine.forget(sequence.key);
        sequence.draft = None;
        holder.full = sequence.full;
        if flip > 0 {
            rig.flip(slot, bit);
        }
    }
}

/// The decode worker may hold good copies of what the prefill worker read wrongly.
#[test]
fn what_is_computed_after_a_wrong_block_is_wrong() {
    let mut chance = Chance(4);
    let prompt = chance.prompt(6 * 16 + 3);
    let good = computed(&prompt, 1000);
    let right = expected(&spec(), &prompt, 5, 0, 8);
    for _ in 0..300 {
        let (mut rig, mut engine) = (rig(16, 0), witness());
        let mut sequence = Sequence::new(1, &prompt, 0, 0);
        rig.adopt(&mut sequence, &good[..4]);
        let bit = chance.below(good[0].len() * 8);
        rig.flip(sequence.full[chance.below(4)].slot(), bit);
        rig.run(&mut engine, &mut sequence, 7);
        let mut mixed = good[..4].to_vec();
        mixed.extend(rig.full_blocks(&sequence).drain(4..));
        assert_ne!(answer(&prompt, &mixed, 5, 8), right, "bit {bit}");
    }
}

#[test]
fn misplaced_foreign_and_stale_blocks_change_the_stream() {
    let mut chance = Chance(5);
    let prompt = chance.prompt(6 * 16 + 1);
    let good = computed(&prompt, 1000);
    let right = expected(&spec(), &prompt, 5, 0, 4);
    assert_eq!(answer(&prompt, &good, 5, 4), right);
    for (a, b) in (0..6).flat_map(|a| (0..a).map(move |b| (a, b))) {
        let mut swapped = good.clone();
        swapped.swap(a, b);
        assert_ne!(answer(&prompt, &swapped, 5, 4), right, "{a} and {b} swapped");
    }
    for place in 0..6 {
        // The same place of another prompt, of which only one early token differs.
        let mut other = prompt.clone();
        other[0] ^= 1;
        let mut foreign = good.clone();
        foreign[place].clone_from(&computed(&other, 1000)[place]);
        assert_ne!(answer(&prompt, &foreign, 5, 4), right, "{place} is foreign");
        let mut stale = good.clone();
        stale[place].fill(0);
        assert_ne!(answer(&prompt, &stale, 5, 4), right, "{place} is stale");
        let mut torn = good.clone();
        let half = torn[place].len() / 2;
        torn[place][half..].fill(0xA5);
        assert_ne!(answer(&prompt, &torn, 5, 4), right, "{place} is torn");
    }
    // Another witness's blocks.
    let mut other = Witness::new(WitnessSpec { name: "another".to_owned(), ..spec() }).unwrap();
    let mut rig = rig(8, 0);
    let mut sequence = Sequence::new(1, &prompt, 5, 0);
    rig.run(&mut other, &mut sequence, 1000);
    assert_ne!(answer(&prompt, &rig.full_blocks(&sequence), 5, 4), right);
}

#[test]
fn a_table_that_names_another_slot_is_read_again() {
    let mut chance = Chance(6);
    let prompt = chance.prompt(3 * 16 + 2);
    let right = expected(&spec(), &prompt, 5, 0, 6);
    let (mut rig, mut engine) = (rig(8, 0), witness());
    let mut sequence = Sequence::new(1, &prompt, 5, 6);
    rig.run_until(&mut engine, &mut sequence, 2);
    assert_eq!(sequence.answer(), &right[..2]);
    let mut wrong = rig.bytes(sequence.full[1].slot());
    wrong[77] ^= 4;
    let replaced = rig.draft();
    rig.arena.write(replaced.slot().0).copy_from_slice(&wrong);
    sequence.full[1] = replaced;
    rig.run(&mut engine, &mut sequence, 1);
    assert_ne!(sequence.answer(), right);
}

/// The bound in the module's documentation, with fixed seeds: one block in `B` is read again by
/// each draw, and all of them by the last.
#[test]
fn later_flips_are_noticed_as_often_as_stated() {
    const TRIALS: usize = 4000;
    const BLOCKS: usize = 8;
    const DRAWS: usize = 4;
    let mut chance = Chance(7);
    let prompt = chance.prompt(BLOCKS * 16 + 1);
    let (mut rig, mut engine) = (rig(BLOCKS as u32 + 2, 0), witness());
    let mut holder = Sequence::new(0, &prompt, 0, 1);
    rig.adopt(&mut holder, &computed(&prompt, 1000));
    let bits = rig.bytes(holder.full[0].slot()).len() * 8;
    let (mut early, mut late) = (0, 0);
    for trial in 0..TRIALS {
        // One draw to enter, then the flip, then some draws, then the last one.
        let n = DRAWS + 2;
        let right = expected(&spec(), &prompt, trial as u64, 0, n);
        let mut sequence = Sequence::new(trial as u64, &prompt, trial as u64, n);
        (sequence.full, sequence.computed) = (holder.full, BLOCKS as u32 * 16);
        rig.run_until(&mut engine, &mut sequence, 1);
        let (slot, bit) = (sequence.full[chance.below(BLOCKS)].slot(), chance.below(bits));
        rig.flip(slot, bit);
        rig.run(&mut engine, &mut sequence, 1);
        rig.flip(slot, bit);
        early += usize::from(sequence.answer()[..=DRAWS] != right[..=DRAWS]);
        late += usize::from(sequence.answer() != right);
        engine.forget(sequence.key);
        sequence.draft = None;
        holder.full = sequence.full;
    }
    let stated = 1.0 - (1.0 - 1.0 / BLOCKS as f64).powi(DRAWS as i32);
    let sigma = (stated * (1.0 - stated) / TRIALS as f64).sqrt();
    let found = early as f64 / TRIALS as f64;
    assert!((found - stated).abs() < 4.0 * sigma, "{found} noticed early, {stated} stated");
    // All but one in 32,000.
    assert!(late >= TRIALS - 2, "{late} of {TRIALS} noticed at the end");
}

#[test]
fn a_flip_in_the_tail_is_noticed_by_the_next_draw() {
    let mut chance = Chance(8);
    let (mut rig, mut engine) = (rig(8, 0), witness());
    let mut noticed = 0;
    for trial in 0..2000 {
        let tail = 1 + chance.below(14);
        let prompt = chance.prompt(16 + tail);
        let mut sequence = Sequence::new(trial, &prompt, trial, 3);
        rig.run_until(&mut engine, &mut sequence, 1);
        // A written position of the tail: 16 bytes in each of 8 rows of 256.
        let bit = chance.below(8) * 256 * 8 + chance.below(tail * 16 * 8);
        rig.flip(sequence.draft.as_ref().unwrap().slot(), bit);
        rig.run_until(&mut engine, &mut sequence, 2);
        let right = expected(&spec(), &prompt, trial, 0, 3);
        noticed += usize::from(sequence.answer()[1] != right[1]);
    }
    assert!(noticed >= 1998, "{noticed} of 2000");
}

#[test]
fn end_tokens_come_only_where_asked_for_and_never_where_suppressed() {
    let spec = WitnessSpec { vocab: 8, eos: vec![3, 5], ..spec() };
    let stream = expected(&spec, &[1, 2], 1, 0, 2000);
    let seen: BTreeSet<TokenId> = stream.iter().copied().collect();
    assert_eq!(seen, BTreeSet::from([0, 1, 2, 4, 6, 7]));

    let spec = WitnessSpec { ends: NonZeroU32::new(20), ..spec };
    let lengths: Vec<usize> = (0..400)
        .map(|seed| expected(&spec, &[1, 2], seed, 0, 2000))
        .inspect(|stream| assert_eq!(stream.iter().position(|t| *t == 3), Some(stream.len() - 1)))
        .map(|stream| stream.len())
        .collect();
    let mean = lengths.iter().sum::<usize>() as f64 / 400.0;
    assert!((mean - 20.0).abs() < 4.0, "ends after {mean} tokens on average");

    let mut engine = Witness::new(spec).unwrap();
    let mut rig = Rig::new(engine.spec(), 64, 0);
    let mut sequence = Sequence::new(1, &[1, 2], 1, 500);
    sequence.suppressed = vec![3, 6];
    rig.run(&mut engine, &mut sequence, 10);
    let seen: BTreeSet<TokenId> = sequence.answer().iter().copied().collect();
    assert_eq!(seen, BTreeSet::from([0, 1, 2, 4, 7]));
}

#[test]
fn seed_choice_prompt_and_name_all_count() {
    let stream = |spec: &WitnessSpec, prompt: &[TokenId], seed, choice| {
        expected(spec, prompt, seed, choice, 8)
    };
    let another = WitnessSpec { name: "another".to_owned(), ..spec() };
    let streams = [
        stream(&spec(), &[1, 2], 1, 0),
        stream(&spec(), &[2, 1], 1, 0),
        stream(&spec(), &[1, 2, 1], 1, 0),
        stream(&spec(), &[1, 2], 2, 0),
        stream(&spec(), &[1, 2], 1, 1),
        stream(&another, &[1, 2], 1, 0),
    ];
    assert_eq!(streams.iter().collect::<BTreeSet<_>>().len(), streams.len());
}

#[test]
fn the_latency_model_tells_prompts_from_draws() {
    let millis = Duration::from_millis;
    let latency =
        LatencyModel { step: millis(100), prefill_token: millis(1), decode_sequence: millis(10) };
    let mut engine = Witness::new(WitnessSpec { latency, ..spec() }).unwrap();
    let mut rig = Rig::new(engine.spec(), 16, 0);
    let mut a = Sequence::new(1, &[1; 30], 0, 9);
    let mut b = Sequence::new(2, &[2; 5], 0, 9);
    assert_eq!(rig.step(&mut engine, &mut [(&mut a, 20), (&mut b, 20)]), millis(125));
    assert_eq!(rig.step(&mut engine, &mut [(&mut a, 20), (&mut b, 20)]), millis(120));
    assert_eq!(rig.step(&mut engine, &mut [(&mut a, 20), (&mut b, 20)]), millis(120));
    assert_eq!(rig.step(&mut engine, &mut []), Duration::ZERO);
}

#[test]
fn impossible_shapes_are_refused() {
    let refused = |spec: WitnessSpec| Witness::new(spec).unwrap_err().to_string();
    let message = refused(WitnessSpec { block_tokens: 48, ..spec() });
    assert_eq!(message, "witness: `block_tokens` must be a power of two in 16..=256, found 48");
    for wrong in [
        WitnessSpec { dim: 3, ..spec() },
        WitnessSpec { layers: 0, ..spec() },
        WitnessSpec { heads: 4096, ..spec() },
        WitnessSpec { context: 0, ..spec() },
        WitnessSpec { eos: vec![32_000], ..spec() },
        WitnessSpec { vocab: 1, eos: vec![0], ..spec() },
        WitnessSpec { eos: Vec::new(), ends: NonZeroU32::new(2), ..spec() },
    ] {
        assert!(refused(wrong).starts_with("witness: `"));
    }
}

#[test]
#[should_panic(expected = "full blocks before position 16")]
fn a_table_that_is_too_short_is_a_broken_invariant() {
    let (mut rig, mut engine) = (rig(8, 0), witness());
    let mut sequence = Sequence::new(1, &[1; 20], 0, 3);
    rig.step(&mut engine, &mut [(&mut sequence, 16)]);
    sequence.full.clear();
    rig.step(&mut engine, &mut [(&mut sequence, 4)]);
}

#[test]
#[should_panic(expected = "beyond the context")]
fn a_position_beyond_the_context_is_a_broken_invariant() {
    let mut engine = Witness::new(WitnessSpec { context: 19, ..spec() }).unwrap();
    let mut rig = rig(8, 0);
    rig.step(&mut engine, &mut [(&mut Sequence::new(1, &[1; 20], 0, 3), 20)]);
}
