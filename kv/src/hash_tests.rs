//! What the hash chain must do: same inputs, same hash; any other input, another.

#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;
use std::collections::HashSet;
use std::sync::Arc;

fn tenant(name: &str) -> TenantId {
    TenantId(Arc::from(name))
}

fn root() -> ChainRoot {
    ChainRoot::new(&[1; 32], &domain_digest(&[2; 32], "f32/hlktd/rope", 4, "cpu/avx2/f32/tp1"))
}

/// Every stored block of every cluster is named by these: if one changes, so must `VERSION`.
#[test]
fn golden_vectors() {
    let ids: Vec<TokenId> = (0..12).map(|n| n * 1000).collect();
    let acme = tenant("acme");
    let hex = |public_blocks| {
        let chain = root().chain(&Salt { tenant: &acme, public_blocks }, 4, &ids);
        chain.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        hex(0),
        [
            "f0f373e54940ce96c53de8ad43f7d996",
            "48fd5427b50dd0fc358572ffa22964f5",
            "94cb0d19e76b647b3e71f32d7ffd26f5"
        ]
    );
    assert_eq!(
        hex(1),
        [
            "bf99245d826cf3128c0776c891a79016",
            "04fbce5e731455d6f7a1397d64bbe783",
            "e077987443701467820540d052515387"
        ]
    );
}

/// The preimage once more, put together by hand from the diagram.
#[test]
fn the_preimage_is_that_of_the_diagram() {
    let (root, acme) = (root(), tenant("acme"));
    let salt = Salt { tenant: &acme, public_blocks: 1 };
    let expect = |preimage: &[u8]| {
        let full = blake3::keyed_hash(&root.key, preimage);
        SequenceHash(full.as_bytes()[..16].try_into().unwrap())
    };

    let mut first = vec![1, 0, 0, 0, 2, 0, 0, 0];
    first.extend([0; 80]);
    first.extend([7, 0, 0, 0, 0, 1, 0, 0]);
    let parent = root.next(&salt, 0, None, &[7, 256]);
    assert_eq!(parent, expect(&first));

    let mut second = vec![1, 3, 0, 0, 1, 0, 0, 0];
    second.extend(parent.0);
    let mut salt_material = root.key.to_vec();
    salt_material.extend(b"acme");
    second.extend(blake3::derive_key(SALT_CONTEXT, &salt_material));
    second.extend([0; 32]);
    second.extend([255; 4]);
    assert_eq!(root.next(&salt, 1, Some(parent), &[u32::MAX]), expect(&second));
}

#[test]
fn only_whole_blocks_have_a_name() {
    let acme = tenant("acme");
    let salt = Salt { tenant: &acme, public_blocks: 0 };
    for (ids, blocks) in [(0, 0), (63, 0), (64, 1), (65, 1), (1000, 15)] {
        assert_eq!(root().chain(&salt, 64, &vec![5; ids]).len(), blocks);
    }
}

#[test]
fn everything_in_the_root_changes_the_root() {
    let digests = [
        domain_digest(&[2; 32], "f32", 64, "cpu"),
        domain_digest(&[3; 32], "f32", 64, "cpu"),
        domain_digest(&[2; 32], "f16", 64, "cpu"),
        domain_digest(&[2; 32], "f32", 32, "cpu"),
        domain_digest(&[2; 32], "f32", 64, "gpu"),
        domain_digest(&[2; 32], "f32c", 64, "pu"),
        domain_digest(&[2; 32], "", 64, "f32cpu"),
    ];
    let tenant = tenant("t");
    let salt = Salt { tenant: &tenant, public_blocks: 1 };
    let first = |secret, domain| ChainRoot::new(&secret, domain).next(&salt, 0, None, &[1]);
    let hashes: HashSet<_> = digests
        .iter()
        .flat_map(|domain| [first([1; 32], domain), first([9; 32], domain)])
        .collect();
    assert_eq!(hashes.len(), 2 * digests.len());
}

/// Without the guard one tenant finds what another has computed.
#[test]
fn the_salt_keeps_tenants_apart() {
    let (acme, evil) = (tenant("acme"), tenant("evil"));
    let first = |tenant| root().next(&Salt { tenant, public_blocks: 0 }, 0, None, &[1, 2, 3]);
    assert_ne!(first(&acme), first(&evil));
    Guard::Salt.without(|| assert_eq!(first(&acme), first(&evil)));
}

#[test]
fn debug_output_shows_no_key() {
    assert_eq!(format!("{:?}", root()), "ChainRoot(..)");
}

/// What decides a block's identity under one root, written down in full.
#[derive(Clone, PartialEq, Debug)]
struct Input {
    tenant: u8,
    public_blocks: u32,
    ids: Vec<TokenId>,
}

const BLOCK: usize = 2;

impl Input {
    fn chain(&self) -> Vec<SequenceHash> {
        let tenant = tenant(&self.tenant.to_string());
        root().chain(&Salt { tenant: &tenant, public_blocks: self.public_blocks }, BLOCK, &self.ids)
    }

    /// Everything that block `index` has to stand for, and nothing else.
    fn means(&self, index: usize) -> (&[TokenId], Option<(u8, u32)>) {
        let private = index >= self.public_blocks as usize;
        (&self.ids[..(index + 1) * BLOCK], private.then_some((self.tenant, self.public_blocks)))
    }
}

prop_compose! {
    /// Few values, so that equal and nearly equal inputs are common.
    fn input()(
        tenant in 0..2_u8,
        public_blocks in 0..4_u32,
        ids in prop::collection::vec(0..2_u32, 0..9),
    ) -> Input {
        Input { tenant, public_blocks, ids }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn names_are_equal_exactly_where_the_inputs_are(a in input(), b in input()) {
        for (i, x) in a.chain().iter().enumerate() {
            for (j, y) in b.chain().iter().enumerate() {
                prop_assert_eq!(x == y, a.means(i) == b.means(j), "block {} and {}", i, j);
            }
        }
    }

    #[test]
    fn tenants_share_the_public_prefix_and_nothing_after_it(a in input(), tokens in 2..9_usize) {
        let a = Input { ids: vec![7; tokens], ..a };
        let b = Input { tenant: a.tenant + 1, ..a.clone() };
        let public = a.public_blocks as usize;
        for (index, (x, y)) in a.chain().iter().zip(b.chain()).enumerate() {
            prop_assert_eq!(*x == y, index < public);
        }
    }

    #[test]
    fn a_chain_is_made_of_single_steps(ids in prop::collection::vec(any::<u32>(), 0..400)) {
        let tenant = tenant("t");
        let salt = Salt { tenant: &tenant, public_blocks: 1 };
        let mut parent = None;
        let chain = root().chain(&salt, 100, &ids);
        for (index, (block, hash)) in ids.chunks_exact(100).zip(&chain).enumerate() {
            parent = Some(root().next(&salt, index, parent, block));
            prop_assert_eq!(parent, Some(*hash));
            let known = chain[..index].to_vec();
            prop_assert_eq!(&root().continued(&salt, 100, &ids, known), &chain);
        }
    }
}
