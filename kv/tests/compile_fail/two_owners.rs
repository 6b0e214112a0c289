//! A draft cannot be doubled.
use baton_kv::lease::Draft;

fn wrong(draft: Draft) -> (Draft, Draft) {
    (draft.clone(), draft)
}

fn main() {}
