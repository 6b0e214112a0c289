//! The right to write cannot be doubled.
use baton_kv::lease::WriteLease;

fn wrong(lease: WriteLease) -> (WriteLease, WriteLease) {
    (lease.clone(), lease)
}

fn main() {}
