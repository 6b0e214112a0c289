//! A lease is given back once.
use baton_kv::lease::{Draft, WriteLease};

fn wrong(lease: WriteLease) -> (Draft, Draft) {
    (lease.settle(), lease.settle())
}

fn main() {}
