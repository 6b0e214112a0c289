//! A pull is settled once: each lease comes back once.

use baton_transfer::InFlight;

async fn twice(flight: InFlight) {
    let first = flight.settle().await;
    let second = flight.settle().await;
    drop((first, second));
}

fn main() {}
