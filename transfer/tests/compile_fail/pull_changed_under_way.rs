//! What is being pulled, and where to, cannot be changed any more.

use baton_transfer::{InFlight, Peer, Pull, Span, Transport};
use std::time::Duration;

fn change(transport: &dyn Transport, peer: &Peer, mut pull: Pull) -> InFlight {
    let flight = transport.pull(peer, vec![pull], Duration::from_secs(1));
    pull.span = Span { offset: 0, len: 1 };
    flight
}

fn main() {}
