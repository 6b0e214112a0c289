//! A slot that a transport may still write is not given back by whoever lent it.

use baton_kv::lease::WriteLease;
use baton_proto::block::BlockDescriptor;
use baton_transfer::{Peer, Pull, Transport};
use std::time::Duration;

fn free_it_early(
    transport: &dyn Transport,
    peer: &Peer,
    from: BlockDescriptor,
    lease: WriteLease,
) {
    let pulls = vec![Pull::whole(from, lease)];
    let _flight = transport.pull(peer, pulls, Duration::from_secs(1));
    drop(lease.settle());
}

fn main() {}
