//! A sealed block is published once.
use baton_kv::lease::{ReadPin, Sealed};
use baton_kv::pool::Pool;

fn wrong(pool: &mut Pool, sealed: Sealed) -> (ReadPin, ReadPin) {
    (pool.publish(sealed), pool.publish(sealed))
}

fn main() {}
