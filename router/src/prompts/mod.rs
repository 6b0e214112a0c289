//! What earlier prompts have cost is not paid again: their ids, by segment of text, and their hash
//! chains.
//!
//! A rendered prompt is cut into segments that its tokenizer provably treats one by one
//! ([`TextModel::segments`]), so known ids can be put where their text stands:
//!
//! 1. Of the earlier prompt that the new one extends ([`whole`]), ids and hashes are taken up to the
//!    last segment that is certain to begin in both.
//! 2. From there on segments are looked up one by one, wherever they stood before: behind a system
//!    message that has changed, or between messages whose reasoning was taken out.
//! 3. What is left is tokenised, and hashed.
//!
//! The result is, id for id, what tokenising the whole text gives. It does not rest on a hash:
//! before ids are taken, bytes are compared. Tenants share nothing here, so how long a prompt takes
//! tells nobody what others have sent.

mod cache;
mod whole;

use crate::cluster::Model;
use crate::metrics::Metrics;
use crate::switches::{Board, Switch};
use baton_kv::hash::Salt;
use baton_proto::ids::{SequenceHash, TenantId, TokenId};
use baton_text::{EncodeError, TextModel};
use cache::Cache;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use whole::{Whole, Wholes};

/// What an entry costs beside its contents, at most about: its place, headers, what the allocator
/// adds.
const ENTRY_BYTES: usize = 256;
/// A segment is rarely larger than some KiB.
const SEGMENTS_SHARD_BYTES: usize = 4 << 20;

/// What is remembered. Shared by the threads for text.
#[derive(Debug)]
pub(crate) struct Prompts {
    /// Whether it is used; without one it is.
    switch: Option<(Arc<Board>, Metrics)>,
    wholes: Wholes,
    segments: Cache<u64, Arc<Segment>>,
    hasher: RandomState,
    /// The bits of a segment's hash that count.
    mask: u64,
}

struct Segment {
    tenant: TenantId,
    text: Box<str>,
    ids: Box<[TokenId]>,
}

/// A prompt in ids.
#[derive(Default)]
pub(crate) struct Encoded {
    pub(crate) ids: Vec<TokenId>,
    /// How many of them were known.
    pub(crate) reused: usize,
    /// The hashes of its first blocks, as far as they are known.
    known: Vec<SequenceHash>,
    /// Where firm segments begin: in the text, in `ids`.
    firm: Vec<(u32, u32)>,
    /// The prompt that this one extends.
    extended: Option<u64>,
}

impl Prompts {
    /// An empty memory of at most `bytes_max`; with 0 nothing is remembered.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self::with(bytes_max, None)
    }

    /// The same, to be used as a switch says; where it says `shadow`, what this would have given is
    /// compared with what a prompt is, and counted.
    pub(crate) fn switched(bytes_max: usize, board: Arc<Board>, metrics: Metrics) -> Self {
        Self::with(bytes_max, Some((board, metrics)))
    }

    fn with(bytes_max: usize, switch: Option<(Arc<Board>, Metrics)>) -> Self {
        Self {
            switch,
            wholes: Wholes::new(bytes_max / 2),
            segments: Cache::new(bytes_max / 2, SEGMENTS_SHARD_BYTES),
            hasher: RandomState::new(),
            mask: u64::MAX,
        }
    }

    /// The ids that `text.encode_rendered` gives, to be hashed for this model.
    pub(crate) fn encode(
        &self,
        text: &TextModel,
        model: &Model,
        tenant: &TenantId,
        rendered: &str,
    ) -> Result<Encoded, EncodeError> {
        let state = self.state();
        if state == Switch::On {
            return self.encode_new(text, model, tenant, rendered);
        }
        let ids = text.encode_rendered(rendered)?;
        if state == Switch::Off {
            return Ok(Encoded { ids, ..Encoded::default() });
        }
        let remembered = self.encode_new(text, model, tenant, rendered)?;
        let same = remembered.ids == ids;
        if let Some((_, metrics)) = &self.switch {
            metrics.shadowed("prompt_cache", same);
        }
        // Of what was wrong nothing is built upon.
        let basis = if same { remembered } else { Encoded::default() };
        Ok(Encoded { ids, reused: 0, known: Vec::new(), ..basis })
    }

    fn state(&self) -> Switch {
        self.switch.as_ref().map_or(Switch::On, |(board, _)| board.get().prompt_cache)
    }

    /// Only what no earlier prompt has left is tokenised.
    fn encode_new(
        &self,
        text: &TextModel,
        model: &Model,
        tenant: &TenantId,
        rendered: &str,
    ) -> Result<Encoded, EncodeError> {
        let mut encoded = self.begin(text, model, tenant, rendered);
        let mut at = encoded.firm.pop().map_or(0, |(at, _)| at as usize);
        for part in text.segments(rendered, at)? {
            if part.firm {
                encoded.firm.push((at as u32, encoded.ids.len() as u32));
            }
            at += part.text.len();
            let key = self.hasher.hash_one((&tenant.0, part.text)) & self.mask;
            let known = self.segments.get(key);
            let known = known.filter(|known| known.tenant == *tenant && *known.text == *part.text);
            if let Some(known) = known {
                encoded.reused += known.ids.len();
                encoded.ids.extend_from_slice(&known.ids);
            } else {
                let before = encoded.ids.len();
                text.append_rendered(part.text, &mut encoded.ids)?;
                self.learn(key, tenant, part.text, &encoded.ids[before..]);
            }
        }
        Ok(encoded)
    }

    /// What an earlier prompt gives; the last firm segment is the one to go on from.
    fn begin(&self, text: &TextModel, model: &Model, tenant: &TenantId, rendered: &str) -> Encoded {
        let domain = &model.description.domain;
        let found = self.wholes.find(tenant, domain, rendered, text.lookahead());
        let Some(found) = found else {
            return Encoded { ids: Vec::with_capacity(rendered.len() / 2), ..Encoded::default() };
        };
        let (whole, reused) = (&found.whole, found.ids_end);
        // What is new is rarely longer than that in ids.
        let mut ids = Vec::with_capacity(reused + (rendered.len() - found.text_end) / 2 + 16);
        ids.extend_from_slice(&whole.ids[..reused]);
        let blocks = reused / model.description.block_tokens as usize;
        Encoded {
            ids,
            reused,
            known: whole.chain[..blocks.min(whole.chain.len())].to_vec(),
            firm: whole.firm[..=found.firm].to_vec(),
            extended: found.extended,
        }
    }

    fn learn(&self, key: u64, tenant: &TenantId, part: &str, ids: &[TokenId]) {
        let weight = ENTRY_BYTES + part.len() + size_of_val(ids);
        let segment = Segment { tenant: tenant.clone(), text: part.into(), ids: ids.into() };
        self.segments.insert(key, Arc::new(segment), weight);
    }

    /// Keeps a prompt for those that extend it.
    pub(crate) fn keep(
        &self,
        model: &Model,
        tenant: &TenantId,
        text: String,
        encoded: &Encoded,
        chain: &[SequenceHash],
    ) {
        if self.state() == Switch::Off || !Wholes::keeps(&encoded.firm) {
            return;
        }
        let whole = Whole {
            tenant: tenant.clone(),
            domain: model.description.domain.clone(),
            text,
            ids: encoded.ids.clone(),
            chain: chain.to_vec(),
            firm: encoded.firm.clone(),
        };
        self.wholes.keep(whole, encoded.extended);
    }
}

impl Encoded {
    /// A prompt whose ids the client has sent: nothing was known.
    pub(crate) fn given(ids: Vec<TokenId>) -> Self {
        Self { ids, ..Self::default() }
    }

    /// The hashes of the whole blocks of a prompt.
    pub(crate) fn chain(&mut self, model: &Model, salt: &Salt<'_>) -> Vec<SequenceHash> {
        let known = std::mem::take(&mut self.known);
        let block_tokens = model.description.block_tokens as usize;
        model.root.continued(salt, block_tokens, &self.ids, known)
    }

    /// Puts before a text what the model wants there; whether it wants anything.
    pub(crate) fn add_prefix(&mut self, text: &TextModel) -> bool {
        let before = self.ids.len();
        text.add_prefix(&mut self.ids);
        let added = self.ids.len() > before;
        if added {
            // Every block has other ids in it now.
            self.known.clear();
        }
        added
    }
}

/// Shows no text: prompts do not belong in logs.
impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Segment({} bytes, {} ids)", self.text.len(), self.ids.len())
    }
}

#[cfg(test)]
mod tests;
