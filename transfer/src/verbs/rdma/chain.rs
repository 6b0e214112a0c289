//! Work requests in a row, posted with one doorbell.
//!
//! A chain is filled, posted, cleared and filled again; it allocates only when it is made. Its last
//! request is always signalled, so that its completion tells of all requests before it.

use super::memory::{Bindable, Local, Region, Remote, RemoteKey, Rights};
use super::sys;
use super::window::{MemoryWindow, WindowInner};
use std::ptr;
use std::sync::Arc;

/// What is to be done.
pub(crate) enum Work<'a> {
    /// Fetches from the peer's memory.
    Read {
        /// Where to.
        into: Local,
        /// Where from.
        from: Remote,
        /// Start only once all READs before it on this queue pair have completed.
        fenced: bool,
    },
    /// Puts into the peer's memory.
    Write {
        /// Where from.
        from: Local,
        /// Where to.
        into: Remote,
    },
    /// The same, and completes one of the peer's receives when everything before it has arrived.
    WriteImmediate {
        /// Where from.
        from: Local,
        /// Where to.
        into: Remote,
        /// What the peer's completion says.
        immediate: u32,
    },
    /// Opens a window on a stretch, under a new key: [`MemoryWindow::key`] afterwards. The window
    /// has to be unbound: new, or closed by an invalidation that has completed.
    Bind {
        /// The window.
        window: &'a mut MemoryWindow,
        /// What it is opened on.
        region: &'a Bindable,
        /// Which part of it.
        stretch: Local,
        /// What the peer may do.
        rights: Rights,
    },
    /// Closes a window. Once this has completed, the key opens nothing any more.
    Invalidate {
        /// The window's key.
        key: RemoteKey,
    },
}

/// A row of work requests.
pub(crate) struct Chain {
    requests: Box<[sys::SendWr]>,
    segments: Box<[sys::Sge]>,
    len: usize,
    signal_every: usize,
    /// What binds refer to, for as long as the provider may look at it.
    binds: Vec<(Arc<WindowInner>, Option<Arc<Region>>)>,
    posted: Posted,
}

/// How much was posted so far.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Posted {
    /// Work requests.
    pub(crate) requests: u64,
    /// Calls into the provider: each rings the doorbell once.
    pub(crate) doorbells: u64,
}

// SAFETY: the pointers in the requests are set from the chain's own memory for the length of one
// call that has it borrowed; those of binds are to what `binds` holds.
unsafe impl Send for Chain {}

impl Chain {
    /// A chain of up to `capacity` requests, of which only the last is signalled.
    ///
    /// # Panics
    /// If the capacity is zero.
    pub(crate) fn new(capacity: usize) -> Self {
        Self::signalling(capacity, capacity)
    }

    /// A chain in which every `signal_every`-th request is signalled, and the last.
    ///
    /// # Panics
    /// If either number is zero.
    pub(crate) fn signalling(capacity: usize, signal_every: usize) -> Self {
        assert!(capacity > 0 && signal_every > 0, "a chain holds something and signals it");
        Self {
            requests: vec![EMPTY; capacity].into(),
            segments: vec![sys::Sge { addr: 0, length: 0, lkey: 0 }; capacity].into(),
            len: 0,
            signal_every,
            binds: Vec::with_capacity(capacity),
            posted: Posted::default(),
        }
    }

    /// Requests that it has room for.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.requests.len()
    }

    /// Requests in it.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Empties it, for new requests.
    pub(crate) fn clear(&mut self) {
        self.len = 0;
        self.binds.clear();
    }

    /// What was posted with it since it was made.
    pub(crate) fn posted(&self) -> Posted {
        self.posted
    }

    /// Appends a request that its completion will call `id`; `false` if there is no room.
    pub(crate) fn push(&mut self, id: u64, work: Work<'_>) -> bool {
        if self.len == self.requests.len() {
            return false;
        }
        let signalled = (self.len + 1).is_multiple_of(self.signal_every);
        let (request, segment) = (&mut self.requests[self.len], &mut self.segments[self.len]);
        request.wr_id = id;
        // Providers object to an immediate where there can be none.
        request.imm_data_or_rkey = 0;
        request.send_flags = if signalled { sys::SEND_SIGNALED } else { 0 };
        let mut transfer = |opcode, local: Local, remote: Remote| {
            *segment = sys::Sge { addr: local.address, length: local.bytes, lkey: local.key };
            request.opcode = opcode;
            request.num_sge = 1;
            request.wr.remote_addr = remote.address;
            request.wr.rkey = remote.key.to_wire();
        };
        match work {
            Work::Read { into, from, fenced } => {
                transfer(sys::WR_RDMA_READ, into, from);
                request.send_flags |= if fenced { sys::SEND_FENCE } else { 0 };
            }
            Work::Write { from, into } => transfer(sys::WR_RDMA_WRITE, from, into),
            Work::WriteImmediate { from, into, immediate } => {
                transfer(sys::WR_RDMA_WRITE_WITH_IMM, from, into);
                request.imm_data_or_rkey = immediate.to_be();
            }
            Work::Bind { window, region, stretch, rights } => {
                request.opcode = sys::WR_BIND_MW;
                request.num_sge = 0;
                let region = region.region();
                request.bind_mw = sys::BindWr {
                    mw: window.inner.raw(),
                    rkey: window.renew().to_wire(),
                    bind_info: sys::MwBindInfo {
                        mr: region.map_or(ptr::null_mut(), |region| region.raw()),
                        addr: stretch.address,
                        length: u64::from(stretch.bytes),
                        mw_access_flags: rights.flags(),
                    },
                };
                self.binds.push((Arc::clone(&window.inner), region.cloned()));
            }
            Work::Invalidate { key } => {
                request.opcode = sys::WR_LOCAL_INV;
                request.num_sge = 0;
                request.imm_data_or_rkey = key.to_wire();
            }
        }
        self.len += 1;
        true
    }

    /// Appends a request without effect; for queue pairs that carry out nothing any more.
    pub(super) fn marker(&mut self, id: u64) {
        if let Some(request) = self.requests.get_mut(self.len) {
            *request = sys::SendWr { wr_id: id, opcode: sys::WR_RDMA_WRITE, ..EMPTY };
            self.len += 1;
        }
    }

    /// Ties the requests together and signals the last; `None` if there is none.
    pub(super) fn link(&mut self) -> Option<*mut sys::SendWr> {
        let last = self.len.checked_sub(1)?;
        for (request, segment) in self.requests[..=last].iter_mut().zip(self.segments.iter_mut()) {
            request.sg_list = segment;
        }
        self.requests[last].send_flags |= sys::SEND_SIGNALED;
        self.requests[last].next = ptr::null_mut();
        let first = self.requests.as_mut_ptr();
        for i in 0..last {
            // SAFETY: both requests are in the box, which nothing else borrows.
            unsafe { (*first.add(i)).next = first.add(i + 1) };
        }
        Some(first)
    }

    /// The requests as the null provider sees them: id, and whether signalled.
    pub(super) fn linked(&self) -> impl Iterator<Item = (u64, bool)> {
        let signalled = |request: &sys::SendWr| request.send_flags & sys::SEND_SIGNALED != 0;
        self.requests[..self.len].iter().map(move |request| (request.wr_id, signalled(request)))
    }

    /// How many requests come before one of them.
    pub(super) fn position(&self, request: *const sys::SendWr) -> usize {
        let offset = request.addr().wrapping_sub(self.requests.as_ptr().addr());
        (offset / size_of::<sys::SendWr>()).min(self.len)
    }

    /// Counts what was posted, and hands out what its binds refer to.
    pub(super) fn count(
        &mut self,
        posted: usize,
    ) -> impl Iterator<Item = (Arc<WindowInner>, Option<Arc<Region>>)> {
        self.posted.requests += posted as u64;
        self.posted.doorbells += 1;
        self.binds.drain(..)
    }
}

const EMPTY: sys::SendWr = sys::SendWr {
    wr_id: 0,
    next: ptr::null_mut(),
    sg_list: ptr::null_mut(),
    num_sge: 0,
    opcode: 0,
    send_flags: 0,
    imm_data_or_rkey: 0,
    wr: sys::RdmaWr { remote_addr: 0, rkey: 0, _rest: [0; 5] },
    qp_type: 0,
    bind_mw: sys::BindWr {
        mw: ptr::null_mut(),
        rkey: 0,
        bind_info: sys::MwBindInfo { mr: ptr::null_mut(), addr: 0, length: 0, mw_access_flags: 0 },
    },
};
