//! A slot whose right to write was not handed over is no destination.

use baton_kv::lease::Draft;
use baton_proto::block::BlockDescriptor;
use baton_transfer::Pull;

fn keep_the_draft(block: BlockDescriptor, draft: &Draft) -> Pull {
    Pull::whole(block, draft)
}

fn main() {}
