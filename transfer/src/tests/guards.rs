//! Each guard has a case that only it stops: refused with the guard, let through without. The
//! table says for which transports; for the others it says what else stands there.

use super::*;
use crate::guards::Guard;
use crate::sim::{Faults, Link};

/// What a case led to.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Outcome {
    /// The bytes of the block that was asked for.
    Right,
    /// It was said that the block arrived, and other bytes did, or ones that are nobody's business.
    Wrong,
    Refused(TransferError),
    /// A slot came back that somebody could still write.
    Early,
}
use Outcome::{Early, Right, Wrong};

/// What the transport says, and what the bytes are.
async fn pull(puller: &Puller, peer: &Peer, block: BlockDescriptor, span: Span) -> Outcome {
    let mut pulls = puller.pulls(&[block]);
    pulls[0].span = span;
    puller.store.arena.write(pulls[0].into.slot().0).fill(0xee);
    match puller.transport.pull(peer, pulls, SOON).settle().await.remove(0) {
        Settled::Arrived { lease, .. } => {
            let draft = lease.settle();
            let right = content(tag(&block), SLOT_BYTES);
            let found = &puller.store.arena.read(draft.slot().0)[span.range()];
            let inside = span.fits(block.len) && *found == right[span.range()];
            if inside { Right } else { Wrong }
        }
        Settled::Failed { lease, error, .. } => {
            drop(lease.settle());
            Outcome::Refused(error)
        }
    }
}

async fn whole(puller: &Puller, peer: &Peer, block: BlockDescriptor) -> Outcome {
    pull(puller, peer, block, Span::whole(&block)).await
}

/// A caller from another cluster.
async fn stranger(kind: TransportKind, guards: Guards) -> Outcome {
    let rig = Rig::guarded(kind, guards).await;
    let block = rig.owner.publish(1, 4096);
    let stranger = Puller::with(&rig.place, guards, Store::new(4, SLOT_BYTES), Token::new([8; 32]));
    let outcome = whole(&stranger, &rig.owner.peer, block).await;
    stranger.finish().await;
    rig.finish().await;
    // Whatever a stranger gets is wrong.
    if outcome == Right { Wrong } else { outcome }
}

/// A caller with another model's slots.
async fn other_model(kind: TransportKind, guards: Guards) -> Outcome {
    let rig = Rig::guarded(kind, guards).await;
    let block = rig.owner.publish(1, 4096);
    let other = Puller::with(&rig.place, guards, Store::new(4, SLOT_BYTES * 2), token());
    let outcome = whole(&other, &rig.owner.peer, block).await;
    other.finish().await;
    rig.finish().await;
    if outcome == Right { Wrong } else { outcome }
}

/// A damaged payload beside a right record.
async fn damaged_payload(kind: TransportKind, guards: Guards) -> Outcome {
    let rig = Rig::guarded(kind, guards).await;
    let block = rig.owner.publish(1, 4096);
    rig.owner.store.arena.write(block.slot.0)[100] ^= 4;
    let outcome = whole(&rig.puller, &rig.owner.peer, block).await;
    rig.finish().await;
    outcome
}

/// A part of which nothing is written though the card says so.
async fn short_part(kind: TransportKind, guards: Guards) -> Outcome {
    let faults = Faults { short_ppm: 1_000_000, ..Faults::default() };
    let rig = Rig::at(Place::rough(kind, 1, Link::default(), faults), guards).await;
    let block = rig.owner.publish(1, 20_000);
    let span = Span { offset: 4000, len: 9000 };
    let outcome = pull(&rig.puller, &rig.owner.peer, block, span).await;
    rig.finish().await;
    outcome
}

/// A reference to one block that names the place of another, equal in all but its identity.
async fn other_block(kind: TransportKind, guards: Guards) -> Outcome {
    let rig = Rig::guarded(kind, guards).await;
    let held = rig.owner.publish(1, 4096);
    let asked = BlockDescriptor { hash: hash(2), ..held };
    let outcome = whole(&rig.puller, &rig.owner.peer, asked).await;
    rig.finish().await;
    outcome
}

/// A reference to a slot that was reused since. Nothing but its generation tells, since it holds
/// the same block again; that alone is wrong, as the bytes may be on their way out already.
async fn reused_slot(kind: TransportKind, guards: Guards) -> Outcome {
    let mut place = Place::new(kind);
    let owner = Owner::start(&mut place, Store::new(1, SLOT_BYTES), 1, guards).await;
    let puller = Puller::new(&place, guards);
    let before = owner.publish(1, 4096);
    owner.release(&before);
    let between = owner.publish(2, 4096);
    owner.release(&between);
    let after = owner.publish(1, 4096);
    assert!(after.generation > before.generation && after.slot == before.slot);
    let stale = BlockDescriptor { generation: before.generation, ..after };
    let outcome = whole(&puller, &owner.peer, stale).await;
    puller.finish().await;
    owner.stop().await;
    if outcome == Right { Wrong } else { outcome }
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
    let outcome = whole(&puller, &first.peer, block).await;
    puller.finish().await;
    second.stop().await;
    if outcome == Right { Wrong } else { outcome }
}

/// A block that still lies there, after the time for which that was promised.
async fn overdue(kind: TransportKind, guards: Guards) -> Outcome {
    let rig = Rig::guarded(kind, guards).await;
    let block = BlockDescriptor { lease_remaining_ms: 0, ..rig.owner.publish(1, 4096) };
    rig.owner.advance(Duration::from_secs(61));
    let outcome = whole(&rig.puller, &rig.owner.peer, block).await;
    rig.finish().await;
    if outcome == Right { Wrong } else { outcome }
}

/// Bytes behind a block, of what was in its slot before.
async fn beyond_the_block(kind: TransportKind, guards: Guards) -> Outcome {
    let rig = Rig::guarded(kind, guards).await;
    let block = rig.owner.publish(1, 4096);
    let span = Span { offset: 4000, len: 1000 };
    let outcome = pull(&rig.puller, &rig.owner.peer, block, span).await;
    rig.finish().await;
    outcome
}

/// A block whose lease ends while it is being sent, and whose slot somebody would like to have.
async fn reused_while_sent(kind: TransportKind, guards: Guards) -> Outcome {
    let link = Link { bandwidth: Some(1_000_000), ..Link::default() };
    let mut place = Place::rough(kind, 1, link, Faults::default());
    let owner = Owner::start(&mut place, Store::new(2, SLOT_BYTES), 1, guards).await;
    let puller = Puller::new(&place, guards);
    let block = owner.publish(1, SLOT_BYTES);
    let sending = async {
        // A quarter of a second on the wire: it is under way.
        tokio::time::sleep(Duration::from_millis(100)).await;
        owner.release(&block);
        for tag in 2..6 {
            let other = owner.publish(tag, SLOT_BYTES);
            owner.release(&other);
        }
    };
    let (outcome, ()) = tokio::join!(whole(&puller, &owner.peer, block), sending);
    puller.finish().await;
    owner.stop().await;
    outcome
}

/// A card that goes on writing after it was told to stop.
async fn late_write(kind: TransportKind, guards: Guards) -> Outcome {
    let link = Link { bandwidth: Some(1_000_000), ..Link::default() };
    let faults = Faults { late: Duration::from_millis(50), ..Faults::default() };
    let rig = Rig::at(Place::rough(kind, 1, link, faults), guards).await;
    let block = rig.owner.publish(1, SLOT_BYTES);
    let flight = rig.puller.start(&rig.owner.peer, &[block]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    flight.cancel();
    let settled = flight.settle().await.remove(0);
    let written = rig.puller.store.arena.guards() > 0;
    let Settled::Failed { lease, error, .. } = settled else { panic!("{settled:?}") };
    drop(lease.settle());
    rig.place.clone().finish().await;
    rig.finish().await;
    if written { Early } else { Outcome::Refused(error) }
}

/// One row of the table: with the guard an error of this kind, without it that outcome. A module
/// with a test for each transport.
macro_rules! guard {
    ($name:ident: $guard:ident, $case:ident over [$($kind:ident),+] is $with:pat, not $without:pat) => {
        mod $name {
            use super::*;
            $(#[test]
            fn $kind() {
                let kind = guard!(@kind $kind);
                wires::run(kind, async {
                    let with = $case(kind, Guards::default()).await;
                    assert!(matches!(with, $with), "with the guard: {with:?}");
                    let without = $case(kind, Guards::without(Guard::$guard)).await;
                    assert!(matches!(without, $without), "without: {without:?}");
                });
            })+
        }
    };
    (@kind shm) => { TransportKind::Shm };
    (@kind tcp) => { TransportKind::Tcp };
    (@kind sim) => { TransportKind::Sim };
    (@kind verbs) => { TransportKind::Verbs };
}

// Over verbs the channel on which connections are set up checks the token, and without equal slots
// there is no address arithmetic that could go wrong quietly: the pairing compares the stride too.
guard!(the_token_stops_a_stranger:
    Token, stranger over [shm, tcp, sim]
    is Outcome::Refused(TransferError::Refused(Refused::Token)), not Wrong);
// Over shm an arena of another shape cannot be mapped either.
guard!(the_slot_size_stops_another_model:
    Layout, other_model over [tcp, sim]
    is Outcome::Refused(TransferError::Refused(Refused::SlotBytes)), not Wrong);
guard!(the_checksum_stops_a_damaged_payload:
    Crc, damaged_payload over [shm, tcp, sim, verbs]
    is Outcome::Refused(TransferError::Mismatch(Mismatch::Checksum { .. })), not Wrong);
guard!(the_checksum_stops_a_part_that_was_not_written:
    Crc, short_part over [sim]
    is Outcome::Refused(TransferError::Mismatch(Mismatch::Checksum { .. })), not Wrong);
guard!(the_identity_stops_another_block:
    Identity, other_block over [shm, tcp, sim, verbs]
    is Outcome::Refused(
        TransferError::Mismatch(Mismatch::Identity) | TransferError::Refused(Refused::Hash)
    ), not Wrong);
guard!(the_generation_stops_a_reused_slot:
    Generation, reused_slot over [shm, tcp, sim, verbs]
    is Outcome::Refused(
        TransferError::Mismatch(Mismatch::Generation { .. })
            | TransferError::Refused(Refused::Generation)
    ), not Wrong);
guard!(the_incarnation_stops_a_reference_to_an_earlier_run:
    Incarnation, earlier_run over [shm, tcp, sim, verbs]
    is Outcome::Refused(TransferError::Refused(Refused::Incarnation)), not Wrong);
guard!(the_lease_stops_a_pull_that_is_overdue:
    Lease, overdue over [shm, tcp, sim, verbs]
    is Outcome::Refused(TransferError::LeaseExpired), not Wrong);
// Over shm the checksum of the whole block, which is all there is, stops it as well.
guard!(the_bounds_of_a_part_keep_what_lies_behind_a_block:
    Span, beyond_the_block over [tcp, sim, verbs]
    is Outcome::Refused(TransferError::Span { .. }), not Wrong);
// Over shm nobody pins; over tcp see `a_block_that_is_being_sent_is_not_reused`: without its pin
// the arena ends the process, because the slot is written while it is read.
guard!(the_pin_keeps_a_block_that_is_being_sent:
    Pin, reused_while_sent over [sim]
    is Right, not Outcome::Refused(TransferError::Mismatch(_)));
// The other two write from the task or thread itself: when that has ended, nobody writes.
guard!(the_wait_for_the_card_keeps_a_slot_that_is_written_late:
    Quiet, late_write over [sim]
    is Outcome::Refused(TransferError::Cancelled), not Early);
