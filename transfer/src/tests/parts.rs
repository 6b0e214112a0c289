//! Parts of blocks: the bytes asked for, at their place, and nothing beside them.

use super::*;

on_all! {
    a_part_arrives_at_its_place_and_nothing_else_is_touched
    parts_that_the_block_does_not_have_are_refused
    parts_and_whole_blocks_share_a_pull
}

const CANARY: u8 = 0xa5;

async fn a_part_arrives_at_its_place_and_nothing_else_is_touched(kind: TransportKind) {
    let rig = Rig::new(kind).await;
    let len = SLOT_BYTES - 100;
    let block = rig.owner.publish(1, len);
    let right = content(1, len);
    let ends = [(0, 1), (0, len - 1), (1, len), (len - 1, len), (63, 65), (4096, 70_001), (0, len)];
    for (start, end) in ends {
        let mut pull = rig.puller.pulls(&[block]);
        let slot = pull[0].into.slot().0;
        rig.puller.store.arena.write(slot).fill(CANARY);
        pull[0].span = Span { offset: start as u32, len: (end - start) as u32 };
        let settled =
            rig.puller.transport.pull(&rig.owner.peer, pull, SOON).settle().await.remove(0);
        let Settled::Arrived { lease, .. } = settled else { panic!("{settled:?}") };
        let draft = lease.settle();
        let found = rig.puller.store.arena.read(draft.slot().0);
        assert!(found[start..end] == right[start..end], "{start}..{end}");
        let beside = found[..start].iter().chain(&found[end..]);
        assert!(beside.copied().all(|byte| byte == CANARY), "{start}..{end}");
    }
    let bytes: usize = ends.iter().map(|(start, end)| end - start).sum();
    assert_eq!(rig.puller.local.counters.sample(kind, Op::Pull).bytes, bytes as u64);
    rig.finish().await;
}

async fn parts_that_the_block_does_not_have_are_refused(kind: TransportKind) {
    let rig = Rig::new(kind).await;
    let block = rig.owner.publish(1, 1000);
    for (offset, len) in [(0, 1001), (1, 1000), (1000, 1), (0, 0), (500, 0), (u32::MAX, u32::MAX)] {
        let mut pull = rig.puller.pulls(&[block]);
        pull[0].span = Span { offset, len };
        let settled = rig.puller.transport.pull(&rig.owner.peer, pull, SOON).settle().await;
        let refused = TransferError::Span { offset, len, block_len: 1000 };
        assert_eq!(rig.puller.judge(settled, &[block]), [Err(refused)]);
    }
    // Nothing of that reached the owner.
    assert_eq!(rig.owner.counters.sample(kind, Op::Serve).failed, 0);
    rig.finish().await;
}

async fn parts_and_whole_blocks_share_a_pull(kind: TransportKind) {
    let rig = Rig::new(kind).await;
    let blocks: Vec<_> = (1..=9).map(|tag| rig.owner.publish(tag, 10_000)).collect();
    let mut pulls = rig.puller.pulls(&blocks);
    for pull in pulls.iter_mut().step_by(2) {
        pull.span = Span { offset: 2500, len: 2500 };
    }
    let settled = rig.puller.transport.pull(&rig.owner.peer, pulls, SOON).settle().await;
    assert_eq!(settled.len(), blocks.len());
    for (i, settled) in settled.into_iter().enumerate() {
        let Settled::Arrived { block, lease } = settled else { panic!("{settled:?}") };
        let draft = lease.settle();
        let bytes = if i % 2 == 0 { 2500..5000 } else { 0..10_000 };
        let right = content(tag(&block), 10_000);
        assert!(rig.puller.store.arena.read(draft.slot().0)[bytes.clone()] == right[bytes]);
    }
    rig.finish().await;
}
