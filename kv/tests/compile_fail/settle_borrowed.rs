//! Only who owns the lease can say that the writer is quiet.
use baton_kv::lease::{Draft, WriteLease};

fn wrong(lease: &WriteLease) -> Draft {
    lease.settle()
}

fn main() {}
