//! Who only watches a pull cannot take its leases.

use baton_transfer::{InFlight, Settled};

async fn take(flight: &InFlight) -> Vec<Settled> {
    flight.settle().await
}

fn main() {}
