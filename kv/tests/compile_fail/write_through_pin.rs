//! A reader cannot write.
use baton_kv::lease::{ReadPin, WriteLease};

fn wrong(pin: ReadPin) -> WriteLease {
    pin.lend()
}

fn main() {}
