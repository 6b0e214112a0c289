//! An outcome whose lease was taken out of it cannot give the slot back as well.

use baton_transfer::Settled;

fn take_twice(settled: Settled) {
    let (Settled::Arrived { lease, .. } | Settled::Failed { lease, .. }) = settled;
    settled.give_back();
    drop(lease.settle());
}

fn main() {}
