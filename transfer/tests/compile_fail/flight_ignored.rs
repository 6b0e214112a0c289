//! A pull that nobody waits for is one that is cancelled; whoever means that says so.
#![deny(unused_must_use)]

use baton_transfer::{Peer, Pull, Transport};
use std::time::Duration;

fn forget(transport: &dyn Transport, peer: &Peer, pulls: Vec<Pull>) {
    transport.pull(peer, pulls, Duration::from_secs(1));
}

fn main() {}
