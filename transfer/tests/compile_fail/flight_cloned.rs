//! One pull has one handle: two could both give its leases back.

use baton_transfer::InFlight;

fn two_handles(flight: InFlight) -> (InFlight, InFlight) {
    (flight.clone(), flight)
}

fn main() {}
