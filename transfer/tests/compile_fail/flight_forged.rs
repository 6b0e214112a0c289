//! Only a transport makes handles on pulls.

use baton_transfer::InFlight;

fn forged(flight: InFlight) -> InFlight {
    InFlight { parts: flight.parts, settled: Vec::new(), cancel: flight.cancel }
}

fn main() {}
