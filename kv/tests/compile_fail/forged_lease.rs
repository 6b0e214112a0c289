//! Only the pool makes handles.
use baton_kv::lease::{Draft, WriteLease};

fn wrong(draft: Draft) -> WriteLease {
    WriteLease { claim: draft.claim }
}

fn main() {}
