//! Each guard has a scenario that only it stops: refused with the guard, let through without.

use super::*;
use crate::guards::Guard;

type Outcome = Result<(), TransferError>;

/// A damaged payload beside a right record.
async fn damaged_payload(kind: TransportKind, guards: Guards) -> Outcome {
    let rig = Rig::guarded(kind, guards).await;
    let mut damaged = content(1, 4096);
    damaged[100] ^= 4;
    let block = rig.owner.publish(1, 4096);
    rig.owner.store.arena.write(block.slot.0)[..4096].copy_from_slice(&damaged);
    let outcome = pull_unjudged(&rig.puller, &rig.owner.peer, block).await;
    rig.finish().await;
    outcome
}

/// A reference to a slot that was reused since, even for the same block.
async fn reused_slot(kind: TransportKind, guards: Guards) -> Outcome {
    let mut place = Place::new(kind);
    let owner = Owner::start(&mut place, Store::new(1, SLOT_BYTES), 1, guards).await;
    let puller = Puller::new(&place, guards);
    let before = owner.publish(1, 4096);
    owner.release(&before);
    // One slot: another block, and the first one again.
    let between = owner.publish(2, 4096);
    owner.release(&between);
    let after = owner.publish(1, 4096);
    assert!(after.generation > before.generation && after.slot == before.slot);
    let stale = BlockDescriptor { generation: before.generation, ..after };
    let outcome = pull_unjudged(&puller, &owner.peer, stale).await;
    puller.finish().await;
    owner.stop().await;
    outcome
}

/// A reference to an earlier run, whose successor holds the same block in the same place.
async fn earlier_run(kind: TransportKind, guards: Guards) -> Outcome {
    let mut place = Place::new(kind);
    let first = Owner::start(&mut place, Store::new(4, SLOT_BYTES), 1, guards).await;
    let block = first.publish(1, 4096);
    first.stop().await;
    let second = Owner::start(&mut place, Store::new(4, SLOT_BYTES), 2, guards).await;
    let again = second.publish(1, 4096);
    assert_eq!(BlockDescriptor { incarnation: Incarnation(1), ..again }, block);
    let puller = Puller::new(&place, guards);
    let outcome = pull_unjudged(&puller, &first.peer, block).await;
    puller.finish().await;
    second.stop().await;
    outcome
}

/// A block that still lies there, after the time for which that was promised.
async fn overdue(kind: TransportKind, guards: Guards) -> Outcome {
    let rig = Rig::guarded(kind, guards).await;
    let block = BlockDescriptor { lease_remaining_ms: 0, ..rig.owner.publish(1, 4096) };
    rig.owner.advance(Duration::from_secs(61));
    let outcome = pull_unjudged(&rig.puller, &rig.owner.peer, block).await;
    rig.finish().await;
    outcome
}

/// What the transport says; the bytes are of no interest here.
async fn pull_unjudged(puller: &Puller, peer: &Peer, block: BlockDescriptor) -> Outcome {
    match puller.start(peer, &[block]).settle().await.remove(0) {
        Settled::Arrived { lease, .. } => {
            drop(lease.settle());
            Ok(())
        }
        Settled::Failed { lease, error, .. } => {
            drop(lease.settle());
            Err(error)
        }
    }
}

macro_rules! guard {
    ($name:ident, $guard:ident, $scenario:ident, $refusal:pat) => {
        #[test]
        fn $name() {
            for kind in KINDS {
                wires::run(kind, async {
                    let refused = $scenario(kind, Guards::default()).await;
                    assert!(matches!(refused, Err($refusal)), "{kind}: {refused:?}");
                    let let_through = $scenario(kind, Guards::without(Guard::$guard)).await;
                    assert_eq!(let_through, Ok(()), "{kind}: something else stops it as well");
                });
            }
        }
    };
}

guard!(
    the_checksum_stops_a_damaged_payload,
    Crc,
    damaged_payload,
    TransferError::Mismatch(Mismatch::Checksum { .. })
);
guard!(
    the_generation_stops_a_reused_slot,
    Generation,
    reused_slot,
    TransferError::Mismatch(Mismatch::Generation { .. })
        | TransferError::Refused(Refused::Generation)
);
guard!(
    the_incarnation_stops_a_reference_to_an_earlier_run,
    Incarnation,
    earlier_run,
    TransferError::Refused(Refused::Incarnation)
);
guard!(the_lease_stops_a_pull_that_is_overdue, Lease, overdue, TransferError::LeaseExpired);
