//! A sealed block cannot be lent to a writer.
use baton_kv::lease::{Sealed, WriteLease};

fn wrong(sealed: Sealed) -> WriteLease {
    sealed.lend()
}

fn main() {}
