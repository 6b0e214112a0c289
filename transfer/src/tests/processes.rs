//! Owners that are processes of their own: killed, started again at the same address, stopped.

use super::*;
use baton_proto::ids::{Generation, LeaseId, SlotId};
use rustix::process::{Pid, Signal, WaitOptions, waitpid};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use tokio::time::Instant;

const BYTES: usize = 1 << 20;
const BLOCKS: u64 = 24;
const WHAT: &str = "BATON_TEST_OWNER";

// Not over verbs: what takes the place of gRPC in these tests are calls within one process
// (`fabric`). Of queue pairs whose other end is gone tell `trouble`, and the device's own tests.
on_real! {
    a_killed_owner_is_an_error_and_its_successor_is_not_mistaken_for_it
    a_stopped_owner_is_waited_for_until_the_deadline_and_no_longer
}

/// Another process that owns blocks. It ends with this one, at the latest.
struct Process {
    child: Child,
    peer: Peer,
    blocks: Vec<BlockDescriptor>,
}

impl Process {
    fn start(place: &mut Place, run: u64) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "tests::processes::inside_owner", "--ignored", "--nocapture"]);
        command.env(WHAT, format!("{} {} {} {run}", place.kind, place.tcp, place.shm.display()));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let said = |line: String, word: &str| {
            line.split_once(word).map(|(_, rest)| rest.trim().to_owned())
        };
        let tcp = lines.find_map(|line| said(line, "serving")).expect("an owner");
        place.tcp = tcp.parse().unwrap();
        let incarnation = Incarnation(run);
        let block = |i| {
            let line = lines.find_map(|line| said(line, "block")).expect("a block");
            let numbers: Vec<u64> = line.split(' ').map(|n| n.parse().unwrap()).collect();
            BlockDescriptor {
                owner: OWNER,
                incarnation,
                lease: LeaseId(numbers[0]),
                lease_remaining_ms: 60_000,
                slot: SlotId(numbers[1] as u32),
                generation: Generation(numbers[2]),
                hash: hash(run * 1000 + i),
                group: GroupId(0),
                len: BYTES as u32,
                crc: numbers[3] as u32,
            }
        };
        let blocks = (0..BLOCKS).map(block).collect();
        let peer = Peer { worker: OWNER, incarnation, endpoints: place.endpoints() };
        Self { child, peer, blocks }
    }

    /// Stops it. The signal reaches its threads one by one; all have stopped when this returns.
    fn freeze(&self) {
        self.signal(Signal::STOP);
        let process = Some(Pid::from_child(&self.child));
        let (_, status) = waitpid(process, WaitOptions::UNTRACED).unwrap().expect("it is a child");
        assert!(status.stopped(), "{status:?}");
    }

    fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The other process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by other tests, in a process of its own"]
async fn inside_owner() {
    let Ok(what) = std::env::var(WHAT) else { return };
    let words: Vec<&str> = what.split(' ').collect();
    let kind = if words[0] == "tcp" { TransportKind::Tcp } else { TransportKind::Shm };
    let mut place = Place::new(kind);
    (place.tcp, place.shm) = (words[1].parse().unwrap(), words[2].into());
    let run = words[3].parse().unwrap();
    let store = Store::new(BLOCKS as u32, BYTES);
    let owner = Owner::start(&mut place, store, run, Guards::default()).await;
    println!("\nserving {}", place.tcp);
    for i in 0..BLOCKS {
        let BlockDescriptor { lease, slot, generation, crc, .. } =
            owner.publish(run * 1000 + i, BYTES);
        println!("block {} {} {} {crc}", lease.0, slot.0, generation.0);
    }
    // Until the parent closes it, or dies.
    TaskTracker::new()
        .spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()))
        .await
        .unwrap()
        .unwrap();
}

fn large_puller(place: &Place) -> Puller {
    Puller::with(place, Guards::default(), Store::new(BLOCKS as u32, BYTES), token())
}

async fn a_killed_owner_is_an_error_and_its_successor_is_not_mistaken_for_it(kind: TransportKind) {
    let mut place = Place::new(kind);
    let mut first = Process::start(&mut place, 1);
    let puller = large_puller(&place);
    assert_eq!(puller.pull_one(&first.peer, &first.blocks[0]).await, Ok(()));
    let started = Instant::now();
    let flight = puller.start(&first.peer, &first.blocks);
    while puller.local.counters.sample(kind, Op::Pull).blocks < 3 {
        assert!(started.elapsed() < SOON);
        tokio::task::yield_now().await;
    }
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    // What has arrived is right; what has not is an error, and soon.
    for result in puller.judge(flight.settle().await, &first.blocks) {
        // Some of the connections may not have been made yet.
        let allowed = matches!(
            result,
            Ok(())
                | Err(TransferError::Lost { .. }
                    | TransferError::Unreachable { .. }
                    | TransferError::BackingOff { .. })
        );
        assert!(allowed, "{result:?}");
    }
    puller.pull_one(&first.peer, &first.blocks[0]).await.expect_err("nobody is there");
    assert!(started.elapsed() < SOON);

    let second = Process::start(&mut place, 2);
    assert_eq!(second.peer.endpoints, first.peer.endpoints);
    let void = loop {
        match puller.pull_one(&first.peer, &first.blocks[0]).await.unwrap_err() {
            TransferError::BackingOff { retry_in, .. } => tokio::time::sleep(retry_in).await,
            error => break error,
        }
    };
    assert_eq!(void, TransferError::Refused(Refused::Incarnation));
    let results = puller.pull(&second.peer, &second.blocks).await;
    assert_eq!(results, vec![Ok(()); BLOCKS as usize]);
    puller.finish().await;
}

async fn a_stopped_owner_is_waited_for_until_the_deadline_and_no_longer(kind: TransportKind) {
    let mut place = Place::new(kind);
    let owner = Process::start(&mut place, 1);
    let puller = large_puller(&place);
    assert_eq!(puller.pull_one(&owner.peer, &owner.blocks[0]).await, Ok(()));
    owner.freeze();
    let deadline = Duration::from_millis(300);
    let started = Instant::now();
    let pulls = puller.pulls(&owner.blocks);
    let settled = puller.transport.pull(&owner.peer, pulls, deadline).settle().await;
    for result in puller.judge(settled, &owner.blocks) {
        // Over shm its memory is still there, and it takes no part in a pull.
        let expected = match kind {
            TransportKind::Shm => matches!(result, Ok(()) | Err(TransferError::Deadline)),
            _ => result == Err(TransferError::Deadline),
        };
        assert!(expected, "{result:?}");
    }
    puller.store.assert_at_rest();
    assert!(started.elapsed() < SOON);
    // One that it has not met yet waits for an answer.
    let other = large_puller(&place);
    let pulls = other.pulls(&owner.blocks[..1]);
    let settled = other.transport.pull(&owner.peer, pulls, deadline).settle().await;
    assert_eq!(other.judge(settled, &owner.blocks[..1]), [Err(TransferError::Deadline)]);
    owner.signal(Signal::CONT);
    let results = puller.pull(&owner.peer, &owner.blocks).await;
    assert_eq!(results, vec![Ok(()); BLOCKS as usize]);
    other.finish().await;
    puller.finish().await;
}

/// The same on the simulated network, where the moment of death is exact.
#[test]
fn a_node_that_dies_in_the_middle_is_an_error_and_its_successor_is_another() {
    wires::run(TransportKind::Sim, async {
        let mut rig = Rig::new(TransportKind::Sim).await;
        let blocks: Vec<_> = (1..=16).map(|tag| rig.owner.publish(tag, SLOT_BYTES)).collect();
        let flight = rig.puller.start(&rig.owner.peer, &blocks);
        while rig.puller.local.counters.sample(TransportKind::Sim, Op::Pull).blocks < 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        rig.place.fabric().kill(wires::NODE);
        let results = rig.puller.judge(flight.settle().await, &blocks);
        let lost = Err(TransferError::Lost { kind: std::io::ErrorKind::TimedOut });
        assert!(results[..3].iter().all(Result::is_ok), "{results:?}");
        assert!(results[8..].iter().all(|result| *result == lost), "{results:?}");
        rig.owner.stop().await;

        let store = Store::new(64, SLOT_BYTES);
        let next = Owner::start(&mut rig.place, store, 2, Guards::default()).await;
        let block = next.publish(7, 4096);
        let void = rig.puller.pull_one(&rig.owner.peer, &blocks[0]).await;
        assert_eq!(void, Err(TransferError::Refused(Refused::Incarnation)));
        assert_eq!(rig.puller.pull_one(&next.peer, &block).await, Ok(()));
        next.stop().await;
        rig.finish().await;
    });
}
