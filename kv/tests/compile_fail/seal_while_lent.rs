//! What may still be written cannot be sealed.
use baton_kv::lease::{Sealed, WriteLease};
use baton_kv::pool::{BlockId, Pool};

fn wrong(pool: &mut Pool, lease: WriteLease, id: BlockId) -> Sealed {
    pool.seal(lease, id, 0, 0)
}

fn main() {}
