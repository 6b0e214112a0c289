//! What a pull led to holds leases: to forget it is to lose slots.
#![deny(unused_must_use)]

use baton_transfer::InFlight;

async fn forget(flight: InFlight) {
    flight.settle().await;
}

fn main() {}
