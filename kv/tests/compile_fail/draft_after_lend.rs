//! Who has lent a draft cannot seal it before the writer gives it back.
use baton_kv::lease::{Draft, Sealed, WriteLease};
use baton_kv::pool::{BlockId, Pool};

fn wrong(pool: &mut Pool, draft: Draft, id: BlockId) -> (WriteLease, Sealed) {
    let lease = draft.lend();
    (lease, pool.seal(draft, id, 0, 0))
}

fn main() {}
