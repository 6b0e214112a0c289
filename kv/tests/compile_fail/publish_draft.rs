//! What is not sealed cannot be published.
use baton_kv::lease::{Draft, ReadPin};
use baton_kv::pool::Pool;

fn wrong(pool: &mut Pool, draft: Draft) -> ReadPin {
    pool.publish(draft)
}

fn main() {}
