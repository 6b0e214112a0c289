//! The handles on a real device: soft-RoCE in a virtual machine does, over its own loopback.
//!
//! They run where `BATON_VERBS_DEVICE` names a device, and say so where it does not.

mod moves;
mod refusals;
mod trouble;

use crate::verbs::rdma::{
    ArenaRegion, Chain, Completion, CompletionQueue, Device, DeviceChoice, DeviceError, GidProblem,
    Local, MemoryWindow, PairOptions, ProtectionDomain, QueuePair, RECEIVE, Ready, Remote,
    RemoteEnd, RemoteKey, RemoteRegion, Rights, Scratch, Status, Work,
};
use baton_arena::{Arena, ArenaOptions};
use std::future::Future;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

const SLOTS: u32 = 16;
const SLOT_BYTES: usize = 64 << 10;
const DEPTH: u32 = 64;

/// The device's name, or a loud line.
fn name(test: &str) -> Option<String> {
    let name = std::env::var("BATON_VERBS_DEVICE").ok();
    if name.is_none() {
        eprintln!("SKIPPED {test}: BATON_VERBS_DEVICE names no RDMA device");
    }
    name
}

fn open(name: &str) -> Device {
    let device = Some(name.to_owned());
    Device::open(&DeviceChoice { device, ..DeviceChoice::default() }).unwrap()
}

/// Some tests change what all others see: the port goes down, resources are counted.
static DEVICE: RwLock<()> = RwLock::new(());

/// Runs a test against a device if there is one, beside others.
fn with_device<F: Future<Output = ()>>(test: &str, run: impl FnOnce(Device) -> F) {
    let Some(name) = name(test) else { return };
    let _beside_others = DEVICE.read().unwrap_or_else(PoisonError::into_inner);
    block_on(async { run(open(&name)).await });
}

/// Runs a test that needs the device for itself.
fn alone<F: Future<Output = ()>>(test: &str, run: impl FnOnce(String) -> F) {
    let Some(name) = name(test) else { return };
    let _alone = DEVICE.write().unwrap_or_else(PoisonError::into_inner);
    block_on(run(name));
}

/// Nothing in here takes long.
fn block_on(run: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let limit = Duration::from_mins(2);
    runtime.block_on(async { tokio::time::timeout(limit, run).await.unwrap() });
}

/// One side: an arena, registered, and a queue pair per peer.
struct Side {
    pd: ProtectionDomain,
    arena: Arena,
    region: ArenaRegion,
    completions: CompletionQueue,
    chain: Chain,
}

impl Side {
    fn new(device: &Device) -> Self {
        let pd = ProtectionDomain::new(device).unwrap();
        let options = ArenaOptions { slots: SLOTS, slot_bytes: SLOT_BYTES, name: "verbs-test" };
        let arena = Arena::create(options).unwrap();
        let region = ArenaRegion::register(&pd, &arena, true).unwrap();
        let completions = CompletionQueue::new(device, 4 * DEPTH).unwrap();
        Self { pd, arena, region, completions, chain: Chain::new(16) }
    }

    fn slot(&self, slot: u32) -> Local {
        self.region.map().slots(slot, 0, SLOT_BYTES as u64).unwrap()
    }

    fn fill(&self, slot: u32, with: u8) {
        let mut guard = self.arena.write(slot);
        for (i, byte) in guard.iter_mut().enumerate() {
            *byte = with ^ (i % 251) as u8;
        }
    }

    fn holds(&self, slot: u32, with: u8) -> bool {
        self.arena.read(slot).iter().enumerate().all(|(i, &byte)| byte == with ^ (i % 251) as u8)
    }

    /// Waits on the channel until so many completions have come.
    async fn completions(&mut self, count: usize) -> Vec<Completion> {
        let mut all = Vec::new();
        let mut some = [Completion::NONE; 8];
        loop {
            let found = self.completions.poll(&mut some).unwrap();
            all.extend_from_slice(&some[..found]);
            if all.len() >= count {
                return all;
            }
            if found == 0 {
                self.completions.arm().unwrap();
                let found = self.completions.poll(&mut some).unwrap();
                all.extend_from_slice(&some[..found]);
                if all.len() < count && found == 0 {
                    self.completions.readable().await.unwrap();
                }
            }
        }
    }

    async fn one(&mut self) -> Completion {
        let mut all = self.completions(1).await;
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    /// Posts one request and waits for its end.
    async fn carry_out(&mut self, pair: &mut QueuePair<Ready>, work: Work<'_>) -> Status {
        self.chain.clear();
        assert!(self.chain.push(77, work));
        pair.post(&mut self.chain).unwrap();
        let end = self.one().await;
        assert_eq!((end.work, end.queue_pair), (77, pair.number()));
        end.status
    }

    /// Opens a window and says what the other side needs.
    async fn open(
        &mut self,
        pair: &mut QueuePair<Ready>,
        window: &mut MemoryWindow,
        stretch: Local,
        rights: Rights,
    ) -> Remote {
        let region = &self.region.bindable();
        let bind = Work::Bind { window, region, stretch, rights };
        self.chain.clear();
        assert!(self.chain.push(1, bind));
        pair.post(&mut self.chain).unwrap();
        assert_eq!(self.one().await.status, Status::Done);
        Remote { address: stretch.address(), key: window.key() }
    }
}

const BOTH: Rights = Rights { read: true, write: true };

fn end(device: &Device, number: u32, psn: u32) -> RemoteEnd {
    let (port, limits) = (device.port(), device.limits());
    RemoteEnd {
        number,
        psn,
        gid: port.gid,
        lid: port.lid,
        mtu: port.mtu,
        responder_reads: limits.responder_reads,
        initiator_reads: limits.initiator_reads,
    }
}

/// Two sides and a connected queue pair of each.
fn connected(device: &Device) -> (Side, QueuePair<Ready>, Side, QueuePair<Ready>) {
    let (a, b) = (Side::new(device), Side::new(device));
    let (x, y) = connect(device, &a, &b);
    (a, x, b, y)
}

fn connect(device: &Device, a: &Side, b: &Side) -> (QueuePair<Ready>, QueuePair<Ready>) {
    let options = PairOptions { sends: DEPTH, receives: 8, rights: BOTH };
    let x = QueuePair::new(&a.pd, &a.completions, options).unwrap();
    let y = QueuePair::new(&b.pd, &b.completions, options).unwrap();
    let (to_y, to_x) = (end(device, y.number(), y.psn()), end(device, x.number(), x.psn()));
    (x.connect(&device.port(), &to_y).unwrap(), y.connect(&device.port(), &to_x).unwrap())
}
