//! The stream that a witness must give, computed from prompt and seed: no arena, no table, no
//! steps.

use super::KIND;
use super::bytes::{Bytes, absorb};
use super::spec::WitnessSpec;
use super::token::{Name, Seen};
use baton_proto::ids::TokenId;

/// The first `n` tokens that a witness draws after `prompt`, where the `n`th is the last that the
/// request's token limit allows. Shorter only if it draws an end token, with which it ends.
///
/// # Panics
///
/// If the specification does not pass [`WitnessSpec::check`] or the prompt is empty.
pub fn expected(
    spec: &WitnessSpec,
    prompt: &[TokenId],
    seed: u64,
    choice: u16,
    n: usize,
) -> Vec<TokenId> {
    expected_under(spec, prompt, seed, choice, n, |_| (None, Vec::new()))
}

/// The same where a rule says, of the answer so far, which token is forced and which are suppressed.
///
/// # Panics
///
/// As [`expected`].
pub fn expected_under(
    spec: &WitnessSpec,
    prompt: &[TokenId],
    seed: u64,
    choice: u16,
    n: usize,
    mut rule: impl FnMut(&[TokenId]) -> (Option<TokenId>, Vec<TokenId>),
) -> Vec<TokenId> {
    assert_eq!(spec.check(), Ok(()), "such a witness cannot be");
    assert!(!prompt.is_empty(), "a prompt has at least one token");
    let mut history = History::new(spec);
    for token in prompt {
        history.push(*token);
    }
    let mut answer: Vec<TokenId> = Vec::with_capacity(n);
    while answer.len() < n {
        let (forced, suppressed) = rule(&answer);
        let last = answer.len() + 1 == n;
        let drawn = || history.draw(spec, (seed, choice), last, &suppressed);
        let token = forced.unwrap_or_else(drawn);
        answer.push(token);
        if spec.eos.contains(&token) {
            break;
        }
        history.push(token);
    }
    answer
}

/// A sequence's blocks, of which only the last one's bytes are kept.
struct History {
    bytes: Bytes,
    block_tokens: usize,
    /// The digests of the blocks before the tail, and of all of them together.
    blocks: Vec<u64>,
    before: u64,
    tail: Vec<u8>,
    /// Positions in the tail: 0 only at the very beginning.
    tail_tokens: usize,
}

impl History {
    fn new(spec: &WitnessSpec) -> Self {
        let bytes = Bytes::new(spec, &spec.model(KIND).weights_digest);
        let tail = vec![0; bytes.block_bytes()];
        let before = bytes.root();
        let block_tokens = spec.block_tokens as usize;
        Self { bytes, block_tokens, blocks: Vec::new(), before, tail, tail_tokens: 0 }
    }

    fn push(&mut self, token: TokenId) {
        if self.tail_tokens == self.block_tokens {
            let digest = self.bytes.block(&self.tail);
            self.blocks.push(digest);
            self.before = absorb(self.before, digest);
            self.tail_tokens = 0;
        }
        self.bytes.write(&mut self.tail, self.before, self.tail_tokens, &[token]);
        self.tail_tokens += 1;
    }

    fn draw(
        &self,
        spec: &WitnessSpec,
        (seed, choice): (u64, u16),
        last: bool,
        suppressed: &[TokenId],
    ) -> TokenId {
        let position = self.blocks.len() * self.block_tokens + self.tail_tokens;
        let name = Name::new(seed, choice, position as u32);
        let seen = Seen {
            before: self.before,
            tail: self.bytes.head(&self.tail, self.tail_tokens),
            picked: name.pick(self.blocks.len()).map(|index| self.blocks[index]),
            sweep: last.then_some(self.before),
        };
        name.token(spec, seen, suppressed)
    }
}
