//! A block that somebody reads is no destination.

use baton_kv::lease::ReadPin;
use baton_proto::block::BlockDescriptor;
use baton_transfer::Pull;

fn overwrite(block: BlockDescriptor, pin: ReadPin) -> Pull {
    Pull::whole(block, pin)
}

fn main() {}
