//! A lease is taken out of an outcome once, by its owner.

use baton_kv::lease::WriteLease;
use baton_transfer::Settled;

fn take(settled: &Settled) -> WriteLease {
    let (Settled::Arrived { lease, .. } | Settled::Failed { lease, .. }) = settled;
    *lease
}

fn main() {}
