//! A sequence on one worker: its tokens, the chain of its whole blocks, and where their KV lies.

use crate::blocks::Blocks;
use crate::tenancy::Guest;
use baton_engine::api::{Item, Sample};
use baton_kv::hash::{ChainRoot, Salt};
use baton_kv::lease::{Draft, ReadPin, WriteLease};
use baton_kv::pool::Exhausted;
use baton_kv::retention::Class;
use baton_proto::ids::{SeqKey, SequenceHash, SlotId, TokenId};
use std::fmt;
use std::sync::Arc;

/// What decides the hash chain of a sequence besides its tokens.
#[derive(Clone, Debug)]
pub struct ChainKey {
    /// The model's and the cluster's part.
    pub root: Arc<ChainRoot>,
    /// Tokens per block.
    pub block_tokens: u32,
    /// Whose blocks these are.
    pub tenant: Guest,
    /// Number of leading blocks that are shared between tenants.
    pub public_blocks: u32,
}

impl ChainKey {
    fn salt(&self) -> Salt<'_> {
        Salt { tenant: &self.tenant.scope, public_blocks: self.public_blocks }
    }
}

/// A sequence: tokens, and the KV of the first `computed` of them.
pub struct Sequence {
    key: SeqKey,
    chain_key: ChainKey,
    tokens: Vec<TokenId>,
    /// So many of them were given; the others are drawn.
    given: usize,
    /// Hashes of the whole blocks of `tokens`.
    chain: Vec<SequenceHash>,
    /// The leading whole blocks that are at hand, in order.
    pins: Vec<ReadPin>,
    /// The pins' slots, as the engine wants them.
    table: Vec<SlotId>,
    /// The block after `pins`, where it has been begun.
    draft: Option<Draft>,
    computed: u32,
}

impl fmt::Debug for Sequence {
    /// Sizes instead of tokens: prompts do not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sequence")
            .field("key", &self.key)
            .field("tokens", &self.tokens.len())
            .field("blocks", &self.pins.len())
            .field("computed", &self.computed)
            .finish_non_exhaustive()
    }
}

impl Sequence {
    /// A sequence of which nothing is computed.
    pub fn new(key: SeqKey, chain_key: ChainKey, tokens: Vec<TokenId>) -> Self {
        let block_tokens = chain_key.block_tokens as usize;
        let chain = chain_key.root.chain(&chain_key.salt(), block_tokens, &tokens);
        Self {
            key,
            chain_key,
            given: tokens.len(),
            tokens,
            chain,
            pins: Vec::new(),
            table: Vec::new(),
            draft: None,
            computed: 0,
        }
    }

    /// Another sequence with the same tokens and the same whole blocks.
    #[must_use]
    pub fn fork(&self, key: SeqKey) -> Self {
        Self {
            key,
            chain_key: self.chain_key.clone(),
            tokens: self.tokens.clone(),
            given: self.given,
            chain: self.chain.clone(),
            pins: self.pins.clone(),
            table: self.table.clone(),
            draft: None,
            computed: self.pins.len() as u32 * self.chain_key.block_tokens,
        }
    }

    /// The engine's name for it.
    pub fn key(&self) -> SeqKey {
        self.key
    }

    /// All tokens.
    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// Hashes of the whole blocks.
    pub fn chain(&self) -> &[SequenceHash] {
        &self.chain
    }

    /// The leading whole blocks at hand.
    pub fn pins(&self) -> &[ReadPin] {
        &self.pins
    }

    /// Positions whose KV exists.
    pub fn computed(&self) -> u32 {
        self.computed
    }

    /// Tokens per block.
    pub fn block_tokens(&self) -> u32 {
        self.chain_key.block_tokens
    }

    /// The hash of the block before block `index`.
    pub fn parent_of(&self, index: usize) -> Option<SequenceHash> {
        index.checked_sub(1).map(|before| self.chain[before])
    }

    /// Adds a drawn token.
    pub fn push(&mut self, token: TokenId) {
        self.tokens.push(token);
        let block_tokens = self.chain_key.block_tokens as usize;
        if !self.tokens.len().is_multiple_of(block_tokens) {
            return;
        }
        let index = self.chain.len();
        let ids = &self.tokens[index * block_tokens..];
        let next =
            self.chain_key.root.next(&self.chain_key.salt(), index, self.parent_of(index), ids);
        self.chain.push(next);
    }

    /// Takes in the next whole block from the pool. The draft in its place, if any, is dropped:
    /// somebody else was quicker.
    pub fn adopt(&mut self, pin: ReadPin) {
        assert_eq!(pin.hash(), self.chain[self.pins.len()], "a foreign block entered a table");
        self.draft = None;
        self.table.push(pin.slot());
        self.pins.push(pin);
        self.computed = self.pins.len() as u32 * self.chain_key.block_tokens;
    }

    /// Takes slots for the next `count` positions; nothing is kept on failure but what was there.
    pub fn lend(&mut self, count: u32, blocks: &Blocks) -> Result<Vec<WriteLease>, Exhausted> {
        let end = (self.computed + count).div_ceil(self.chain_key.block_tokens) as usize;
        let wanted = end - self.pins.len();
        let mut drafts = Vec::with_capacity(wanted);
        drafts.extend(self.draft.take());
        while drafts.len() < wanted {
            match blocks.draft() {
                Ok(draft) => drafts.push(draft),
                Err(exhausted) => {
                    let begun = !self.computed.is_multiple_of(self.chain_key.block_tokens);
                    self.draft = drafts.into_iter().next().filter(|_| begun);
                    return Err(exhausted);
                }
            }
        }
        Ok(drafts.into_iter().map(Draft::lend).collect())
    }

    /// The engine's view of the next `count` positions.
    pub fn item<'a>(
        &'a self,
        count: u32,
        drafts: Vec<WriteLease>,
        sample: Option<Sample<'a>>,
    ) -> Item<'a> {
        Item {
            seq: self.key,
            tokens: &self.tokens,
            start: self.computed,
            count,
            table: &self.table,
            drafts,
            sample,
        }
    }

    /// The engine has computed `count` positions into `drafts`: whole blocks are sealed and
    /// published, what is left stays the draft. Returns the hashes that became available.
    pub fn absorb(
        &mut self,
        count: u32,
        drafts: Vec<WriteLease>,
        blocks: &Blocks,
    ) -> Vec<SequenceHash> {
        self.computed += count;
        let whole = (self.computed / self.chain_key.block_tokens) as usize;
        let mut published = Vec::new();
        for draft in drafts.into_iter().map(WriteLease::settle) {
            let index = self.pins.len();
            if index == whole {
                self.draft = Some(draft);
                continue;
            }
            let hash = self.chain[index];
            let end = (index + 1) * self.chain_key.block_tokens as usize;
            let class = if end <= self.given { Class::History } else { Class::Answer };
            let pin = blocks.publish_computed(draft, hash, self.parent_of(index), class);
            self.table.push(pin.slot());
            self.pins.push(pin);
            published.push(hash);
        }
        published
    }

    /// Gives up all memory, keeping the tokens: sealed blocks stay findable in the pool.
    pub fn unload(&mut self) {
        self.pins.clear();
        self.table.clear();
        self.draft = None;
        self.computed = 0;
    }
}
