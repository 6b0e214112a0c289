//! The identity of a block, computed here and nowhere else.
//!
//! Blocks form chains: a block's hash covers its token ids and its parent's hash, so it covers
//! every token before it. The chain hangs from a root that covers what else decides the bytes
//! (weights, KV format, numerics class) and is keyed by the cluster's secret, so that nobody
//! outside the cluster can tell what a hash stands for or find two inputs with the same one.
//!
//! The hash is the first 16 bytes of BLAKE3, keyed by the root, of (little-endian):
//!
//! ```text
//!    0          1          2          4               8
//!    ┌──────────┬──────────┬──────────┬───────────────┐
//!    │ version  │  flags   │   zero   │   ids (n)     │
//!    ├──────────┴──────────┴──────────┴───────────────┤  8
//!    │ parent's hash, 16 bytes; zero without a parent │
//!    ├────────────────────────────────────────────────┤ 24
//!    │ digest of the tenant's salt, 32 bytes          │
//!    │ zero except in the first block that is not     │
//!    │ public                                         │
//!    ├────────────────────────────────────────────────┤ 56
//!    │ digest of other inputs in range (images, LoRA  │
//!    │ content), 32 bytes; reserved, zero             │
//!    ├────────────────────────────────────────────────┤ 88
//!    │ n token ids, 4 bytes each                      │
//!    └────────────────────────────────────────────────┘
//!    version: 1        flags: 1 has a parent, 2 salted
//! ```

use crate::guard::Guard;
use baton_proto::ids::{SequenceHash, TenantId, TokenId};
use std::fmt;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 88;
const FLAG_PARENT: u8 = 1;
const FLAG_SALTED: u8 = 2;

const DOMAIN_CONTEXT: &str = "baton.kv 2026-11 domain v1";
const ROOT_CONTEXT: &str = "baton.kv 2026-11 chain root v1";
const SALT_CONTEXT: &str = "baton.kv 2026-11 tenant salt v1";

/// Digest of everything but tokens, tenant and secret that decides a block's bytes. Workers with
/// equal digests can read each other's blocks.
///
/// `kv_format` names dtype, layout and position encoding; `numerics_class` names back-end,
/// instruction set, quantisation and parallel degree: within a class equal inputs give equal bytes.
pub fn domain_digest(
    weights: &[u8; 32],
    kv_format: &str,
    block_tokens: u32,
    numerics_class: &str,
) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(DOMAIN_CONTEXT);
    hasher.update(weights);
    // Each text is preceded by its length: no two pairs of texts give the same bytes.
    for text in [kv_format, numerics_class] {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    hasher.update(&block_tokens.to_le_bytes());
    *hasher.finalize().as_bytes()
}

/// Where all chains of one model in one cluster begin.
#[derive(Clone)]
pub struct ChainRoot {
    key: [u8; 32],
}

/// Who may share a chain's blocks: everybody up to `public_blocks`, from there on the tenant alone.
#[derive(Clone, Copy, Debug)]
pub struct Salt<'a> {
    /// The tenant.
    pub tenant: &'a TenantId,
    /// Number of leading blocks that are declared public.
    pub public_blocks: u32,
}

impl ChainRoot {
    /// The root for one cluster and one [`domain_digest`].
    pub fn new(cluster_secret: &[u8; 32], domain: &[u8; 32]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(ROOT_CONTEXT);
        hasher.update(cluster_secret);
        hasher.update(domain);
        Self { key: *hasher.finalize().as_bytes() }
    }

    /// The hashes of all whole blocks of `ids`; a last, partial block has none.
    pub fn chain(
        &self,
        salt: &Salt<'_>,
        block_tokens: usize,
        ids: &[TokenId],
    ) -> Vec<SequenceHash> {
        self.continued(salt, block_tokens, ids, Vec::new())
    }

    /// The same for ids of whose chain the beginning is `known`: only the rest is computed.
    pub fn continued(
        &self,
        salt: &Salt<'_>,
        block_tokens: usize,
        ids: &[TokenId],
        known: Vec<SequenceHash>,
    ) -> Vec<SequenceHash> {
        assert!(block_tokens > 0, "a block has tokens");
        let mut chain = known;
        chain.reserve_exact((ids.len() / block_tokens).saturating_sub(chain.len()));
        for (index, block) in ids.chunks_exact(block_tokens).enumerate().skip(chain.len()) {
            chain.push(self.next(salt, index, chain.last().copied(), block));
        }
        chain
    }

    /// The hash of the block of `ids` at `index` of its chain, which follows `parent`; `None` for
    /// the first block.
    pub fn next(
        &self,
        salt: &Salt<'_>,
        index: usize,
        parent: Option<SequenceHash>,
        ids: &[TokenId],
    ) -> SequenceHash {
        assert_eq!(index == 0, parent.is_none(), "the first block alone has no parent");
        let salted = index == salt.public_blocks as usize && Guard::Salt.stands();

        let mut header = [0; HEADER_BYTES];
        header[0] = VERSION;
        header[4..8].copy_from_slice(&(ids.len() as u32).to_le_bytes());
        if let Some(parent) = parent {
            header[1] |= FLAG_PARENT;
            header[8..24].copy_from_slice(&parent.0);
        }
        if salted {
            header[1] |= FLAG_SALTED;
            header[24..56].copy_from_slice(&self.salt_digest(salt.tenant));
        }

        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&header);
        update_ids(&mut hasher, ids);
        let mut hash = [0; 16];
        hash.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        SequenceHash(hash)
    }

    fn salt_digest(&self, tenant: &TenantId) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(SALT_CONTEXT);
        hasher.update(&self.key);
        hasher.update(tenant.0.as_bytes());
        *hasher.finalize().as_bytes()
    }
}

impl fmt::Debug for ChainRoot {
    /// Shows nothing: the key is derived from the cluster's secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChainRoot(..)")
    }
}

/// Feeds `ids` in pieces of 64, so that a whole block costs one or a few updates and no allocation.
fn update_ids(hasher: &mut blake3::Hasher, ids: &[TokenId]) {
    let mut bytes = [0; 256];
    for piece in ids.chunks(bytes.len() / 4) {
        for (place, id) in bytes.chunks_exact_mut(4).zip(piece) {
            place.copy_from_slice(&id.to_le_bytes());
        }
        hasher.update(&bytes[..piece.len() * 4]);
    }
}

#[cfg(test)]
#[path = "hash_tests.rs"]
mod tests;
