//! The witness: an engine without weights whose tokens testify to the bytes that it read.
//!
//! It behaves like a model to everything around it: it fills blocks of the agreed layout, reads
//! what it is given, and draws tokens. But [anybody can compute](expected) the right stream from
//! the prompt and the seed, and a wrong byte anywhere gives another stream. So a storm of failures
//! is judged by one comparison, whatever went wrong underneath.
//!
//! # What it reads
//!
//! * The bytes of a position come from its token and from what is read back of the position
//!   before; those of the first position in a block from all blocks before it. They do not depend
//!   on seed or sampling, so that blocks can be shared.
//! * A block is read fully when it enters a sequence's table: at the sequence's first step here,
//!   and whenever the table grows or names another slot. Its digest joins the sequence's own, in
//!   order.
//! * A draw reads the tail (the block of the last position, up to that position) and one block
//!   before it, which the draw's name chooses. The last draw that the token limit allows reads
//!   everything once more.
//! * The token is a function of (seed, choice, position), the sequence's digest, and what the draw
//!   read. Temperature and its like have no meaning here.
//!
//! Nothing of this depends on chunks, batches, slots, or where a block was computed: the stream is
//! the same aggregated or pulled, preempted or not.
//!
//! # What is noticed
//!
//! Let a sequence have `B` blocks before its tail and `V` tokens to draw from. Digests of byte
//! strings that differ in one 64-bit word always differ; others coincide with probability 2^-64,
//! which is left out below.
//!
//! * A block that is wrong in any way (a flipped bit, another block's content, an older content of
//!   the slot, another place in the table) *when it enters* changes the sequence's digest for good,
//!   and with it everything drawn and written from there on. `n` draws all coincide with the right
//!   ones with probability `V^-n`; where the wrong block entered at a prefill worker, the blocks
//!   computed after it are wrong, and are noticed wherever they enter.
//! * A change of the tail is noticed by the next draw, and when the block enters the table.
//! * A change *after* a block has entered is noticed by each later draw with probability `1/B`,
//!   within `n` draws with `1 - (1 - 1/B)^n`, and by the last draw of the sequence always.
//! * A draw that notices gives another token with probability `1 - 1/V`. A token that differs
//!   stays in the sequence, so that nothing is right after it.

mod body;
mod bytes;
mod oracle;
#[cfg(test)]
pub(crate) mod rig;
mod spec;
#[cfg(test)]
mod tests;
mod token;

pub(crate) use body::Body;
pub use oracle::{expected, expected_under};
pub use spec::{LatencyModel, SpecError, WitnessSpec};
pub(crate) use token::report;

use crate::api::{Batch, Drawn, Engine, Item, ModelSpec, StepOutput};
use baton_arena::Arena;
use baton_proto::ids::SeqKey;
use bytes::absorb;
use token::{Name, Seen};

/// What the witness calls itself in formats and digests.
const KIND: &str = "witness";

/// The engine whose tokens testify to the bytes that it read.
#[derive(Debug)]
pub struct Witness {
    body: Body,
}

impl Witness {
    /// A witness of this shape.
    pub fn new(spec: WitnessSpec) -> Result<Self, SpecError> {
        Ok(Self { body: Body::new(spec, KIND)? })
    }
}

impl Engine for Witness {
    fn spec(&self) -> &ModelSpec {
        &self.body.model
    }

    fn step(&mut self, arena: &Arena, batch: Batch<'_>) -> StepOutput {
        self.body.step(arena, batch, |body, item, before| draw(body, arena, item, before))
    }

    fn forget(&mut self, seq: SeqKey) {
        self.body.forget(seq);
    }
}

fn draw(body: &Body, arena: &Arena, item: &Item<'_>, before: u64) -> Option<Drawn> {
    let sample = item.sample.as_ref()?;
    let name = Name::new(sample.sampling.seed, sample.choice, item.start + item.count);
    let (blocks, _) = body.tail(item);
    let read = |index| body.read_block(arena, item, index);
    let seen = Seen {
        before,
        tail: body.read_tail(arena, item),
        picked: name.pick(blocks).map(read),
        sweep: sample.last.then(|| (0..blocks).map(read).fold(body.bytes().root(), absorb)),
    };
    let token = sample.forced.unwrap_or_else(|| name.token(&body.spec, seen, &sample.suppressed));
    Some(report(token, body.spec.vocab, sample))
}
