//! Queue pairs, whose state is their type: only a connected one can be posted to, and a failed one
//! can only be drained.

use super::chain::Chain;
use super::completion::{self, CompletionQueue};
use super::gid::{Gid, LinkLayer};
use super::memory::{ProtectionDomain, Rights};
use super::{DeviceError, Port, PostError, sys};
use std::ffi::c_int;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::Arc;

/// 4.096 us * 2^14 = 67 ms until a packet is sent again; a device may take up to four times that.
const TIMEOUT: u8 = 14;
/// How often a packet is sent again before the queue pair fails. Not 7: soft-RoCE takes that for
/// without end, and would never notice that a peer is gone.
const RETRIES: u8 = 6;
/// Likewise for a peer without a receive; 7 means without end, which pulls bound by a deadline.
const RECEIVER_RETRIES: u8 = 7;
/// 0.64 ms: how long a peer without a receive asks to be left alone.
const RECEIVER_TIMER: u8 = 12;
/// Routers on the way.
const HOPS: u8 = 64;

/// The id of every receive.
pub(crate) const RECEIVE: u64 = u64::MAX;

/// Just made.
#[derive(Debug)]
pub(crate) struct Reset;
/// Connected; work can be posted.
#[derive(Debug)]
pub(crate) struct Ready;
/// Nothing is carried out any more; what is outstanding completes as flushed.
#[derive(Debug)]
pub(crate) struct Failed;

/// What a queue pair has room for and lets its peer do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PairOptions {
    /// Work requests outstanding at a time.
    pub(crate) sends: u32,
    /// Receives posted at a time: WRITEs with an immediate that may arrive.
    pub(crate) receives: u32,
    /// What the peer may do at all; windows then say where.
    pub(crate) rights: Rights,
}

/// The other end, as it describes itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RemoteEnd {
    /// Number of its queue pair.
    pub(crate) number: u32,
    /// The first packet sequence number that it sends.
    pub(crate) psn: u32,
    /// Address of its port.
    pub(crate) gid: Gid,
    /// Local identifier of its port; 0 on Ethernet.
    pub(crate) lid: u16,
    /// Code of its port's MTU.
    pub(crate) mtu: u8,
    /// READs that it can answer at a time.
    pub(crate) responder_reads: u8,
    /// READs that it can have under way.
    pub(crate) initiator_reads: u8,
}

/// A reliably connected queue pair. It is destroyed once it and all windows that were bound on it
/// are dropped; then nothing of it is outstanding any more.
pub(crate) struct QueuePair<State> {
    inner: Arc<Inner>,
    options: PairOptions,
    psn: u32,
    state: PhantomData<State>,
}

pub(super) struct Inner {
    raw: NonNull<sys::Qp>,
    number: u32,
    pd: ProtectionDomain,
    _completions: Arc<completion::Inner>,
}

// SAFETY: libibverbs' calls on a queue pair may be made from any thread.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: destroyed only here, after the windows bound on it.
        let code = unsafe { (self.pd.device().api().destroy_qp)(self.raw.as_ptr()) };
        if code != 0 {
            tracing::error!(code, number = self.number, "a queue pair could not be destroyed");
        }
    }
}

impl<State> QueuePair<State> {
    /// Its number, by which the peer and completions know it.
    pub(crate) fn number(&self) -> u32 {
        self.inner.number
    }

    /// The first packet sequence number that it sends, drawn at random.
    pub(crate) fn psn(&self) -> u32 {
        self.psn
    }

    fn into<Next>(self) -> QueuePair<Next> {
        let Self { inner, options, psn, .. } = self;
        QueuePair { inner, options, psn, state: PhantomData }
    }

    fn modify(
        &mut self,
        step: &'static str,
        attributes: &mut sys::QpAttr,
        mask: c_int,
    ) -> Result<(), DeviceError> {
        // SAFETY: a live queue pair, and a whole structure of attributes.
        let code = unsafe {
            let api = self.inner.pd.device().api();
            (api.modify_qp)(self.inner.raw.as_ptr(), attributes, mask)
        };
        if code == 0 { Ok(()) } else { Err(DeviceError::of(step, code)) }
    }
}

impl QueuePair<Reset> {
    /// A queue pair that sends its completions to `completions`.
    pub(crate) fn new(
        pd: &ProtectionDomain,
        completions: &CompletionQueue,
        options: PairOptions,
    ) -> Result<Self, DeviceError> {
        let device = pd.device();
        let limit = device.limits().send_requests;
        device.within("send requests", options.sends, limit)?;
        device.within("receives", options.receives, limit)?;
        let mut random = [0; 4];
        getrandom::fill(&mut random).map_err(|error| DeviceError::Call {
            call: "getrandom",
            source: io::Error::other(error),
        })?;
        let psn = u32::from_le_bytes(random) & 0xff_ffff;
        let mut attributes = sys::QpInitAttr {
            qp_context: ptr::null_mut(),
            send_cq: completions.inner.raw.as_ptr(),
            recv_cq: completions.inner.raw.as_ptr(),
            srq: ptr::null_mut(),
            cap: sys::QpCap {
                max_send_wr: options.sends.max(1),
                max_recv_wr: options.receives.max(1),
                max_send_sge: 1,
                max_recv_sge: 1,
                max_inline_data: 0,
            },
            qp_type: sys::QPT_RC,
            sq_sig_all: 0,
        };
        // SAFETY: a live protection domain and completion queue of one device, or the call fails.
        let raw = unsafe { (device.api().create_qp)(pd.0.raw.as_ptr(), &raw mut attributes) };
        let raw = NonNull::new(raw).ok_or_else(|| DeviceError::last("ibv_create_qp"))?;
        // SAFETY: just created.
        let number = unsafe { raw.as_ref().qp_num };
        let completions = Arc::clone(&completions.inner);
        let inner = Arc::new(Inner { raw, number, pd: pd.clone(), _completions: completions });
        Ok(Self { inner, options, psn, state: PhantomData })
    }

    /// Connects to the other end, by an own port that is as the other end was told. That has to
    /// happen at both; what is sent before the other has done it is sent again. Not for a thread
    /// that must not block: the kernel may have to ask the network for the other's address.
    pub(crate) fn connect(
        mut self,
        port: &Port,
        remote: &RemoteEnd,
    ) -> Result<QueuePair<Ready>, DeviceError> {
        let limits = self.inner.pd.device().limits();
        let ethernet = port.link == LinkLayer::Ethernet;
        if ethernet && remote.gid.0 == [0; 16] {
            return Err(DeviceError::RemoteEnd { what: "it has no GID, this port is Ethernet" });
        }
        if !ethernet && remote.lid == 0 {
            return Err(DeviceError::RemoteEnd { what: "it has no LID, this port is InfiniBand" });
        }
        if !(1..=5).contains(&remote.mtu) || remote.number > 0xff_ffff || remote.psn > 0xff_ffff {
            return Err(DeviceError::RemoteEnd { what: "it names values that do not exist" });
        }

        let mut to_init = attributes(sys::QPS_INIT);
        to_init.port_num = port.number;
        to_init.qp_access_flags = self.options.rights.flags();
        let mask = sys::QP_STATE | sys::QP_PKEY_INDEX | sys::QP_PORT | sys::QP_ACCESS_FLAGS;
        self.modify("ibv_modify_qp to INIT", &mut to_init, mask)?;

        let mut to_rtr = attributes(sys::QPS_RTR);
        to_rtr.path_mtu = sys::Enum::from(port.mtu.min(remote.mtu));
        to_rtr.dest_qp_num = remote.number;
        to_rtr.rq_psn = remote.psn;
        to_rtr.max_dest_rd_atomic = limits.responder_reads.min(remote.initiator_reads);
        to_rtr.min_rnr_timer = RECEIVER_TIMER;
        to_rtr.ah_attr.is_global = u8::from(ethernet);
        to_rtr.ah_attr.dlid = remote.lid;
        to_rtr.ah_attr.port_num = port.number;
        to_rtr.ah_attr.grh.dgid = sys::Gid(remote.gid.0);
        to_rtr.ah_attr.grh.sgid_index = port.gid_index;
        to_rtr.ah_attr.grh.hop_limit = HOPS;
        let mask = sys::QP_STATE
            | sys::QP_AV
            | sys::QP_PATH_MTU
            | sys::QP_DEST_QPN
            | sys::QP_RQ_PSN
            | sys::QP_MAX_DEST_RD_ATOMIC
            | sys::QP_MIN_RNR_TIMER;
        self.modify("ibv_modify_qp to RTR", &mut to_rtr, mask)?;

        let mut to_rts = attributes(sys::QPS_RTS);
        to_rts.timeout = TIMEOUT;
        to_rts.retry_cnt = RETRIES;
        to_rts.rnr_retry = RECEIVER_RETRIES;
        to_rts.sq_psn = self.psn;
        to_rts.max_rd_atomic = limits.initiator_reads.min(remote.responder_reads);
        let mask = sys::QP_STATE
            | sys::QP_TIMEOUT
            | sys::QP_RETRY_CNT
            | sys::QP_RNR_RETRY
            | sys::QP_SQ_PSN
            | sys::QP_MAX_QP_RD_ATOMIC;
        self.modify("ibv_modify_qp to RTS", &mut to_rts, mask)?;
        Ok(self.into())
    }
}

impl QueuePair<Ready> {
    /// Posts a chain, with one doorbell. An empty one is nothing.
    ///
    /// The caller counts: no more than [`PairOptions::sends`] may be outstanding, or this fails.
    /// After an error the requests that were accepted are outstanding, and their completions will
    /// not tell of all of them: fail the queue pair, and [`mark`](QueuePair::mark) its end.
    pub(crate) fn post(&mut self, chain: &mut Chain) -> Result<(), PostError> {
        let asked = chain.len();
        let Some(first) = chain.link() else { return Ok(()) };
        let result = post(&self.inner, first).map_err(|(source, bad)| {
            // A provider that says nothing about where has accepted none.
            let posted = if bad.is_null() { 0 } else { chain.position(bad) };
            PostError { posted, asked, source }
        });
        let posted = result.as_ref().map_or_else(|error| error.posted, |()| asked);
        for (window, region) in chain.count(posted) {
            if let Some(region) = region {
                window.bound(&self.inner, region);
            }
        }
        result
    }

    /// Posts receives without memory, for immediates that may arrive.
    pub(crate) fn post_receives(&mut self, count: u32) -> Result<(), PostError> {
        const BATCH: usize = 16;
        let refused = |posted, source| PostError { posted, asked: count as usize, source };
        let ops = self.inner.pd.device().ops();
        let unsupported = || refused(0, io::ErrorKind::Unsupported.into());
        let post = ops.post_recv.ok_or_else(unsupported)?;
        let empty = sys::RecvWr {
            wr_id: RECEIVE,
            next: ptr::null_mut(),
            sg_list: ptr::null_mut(),
            num_sge: 0,
        };
        let mut posted = 0;
        while posted < count as usize {
            let batch = (count as usize - posted).min(BATCH);
            let mut requests = [empty; BATCH];
            let base = requests.as_mut_ptr();
            for (i, request) in requests[..batch - 1].iter_mut().enumerate() {
                request.next = base.wrapping_add(i + 1);
            }
            let mut bad = ptr::null_mut();
            // SAFETY: a live queue pair and a chain of whole requests on this stack, which the
            // provider copies.
            let code = unsafe { post(self.inner.raw.as_ptr(), base, &raw mut bad) };
            if code != 0 {
                let bad = bad.addr().saturating_sub(base.addr()) / size_of::<sys::RecvWr>();
                return Err(refused(posted + bad.min(batch), system_error(code)));
            }
            posted += batch;
        }
        Ok(())
    }

    /// Ends it: whatever is outstanding completes as flushed, unless it has completed already, and
    /// the peer can do nothing any more.
    ///
    /// If the device does not even do that, the queue pair is dropped.
    pub(crate) fn fail(mut self) -> Result<QueuePair<Failed>, DeviceError> {
        let mut to_error = attributes(sys::QPS_ERR);
        self.modify("ibv_modify_qp to ERR", &mut to_error, sys::QP_STATE)?;
        Ok(self.into())
    }
}

/// Breaks a queue pair behind the back of whoever holds it, as a device may.
#[cfg(test)]
pub(crate) struct Fuse(std::sync::Weak<Inner>);

#[cfg(test)]
impl QueuePair<Ready> {
    pub(crate) fn fuse(&self) -> Fuse {
        Fuse(Arc::downgrade(&self.inner))
    }
}

#[cfg(test)]
impl Fuse {
    /// Does it, if the queue pair still exists.
    pub(crate) fn blow(&self) {
        let Some(inner) = self.0.upgrade() else { return };
        let mut to_error = attributes(sys::QPS_ERR);
        let modify = inner.pd.device().api().modify_qp;
        // SAFETY: a live queue pair, and a whole structure of attributes.
        let code = unsafe { modify(inner.raw.as_ptr(), &raw mut to_error, sys::QP_STATE) };
        assert_eq!(code, 0, "ibv_modify_qp to ERR");
    }
}

impl QueuePair<Failed> {
    /// Posts a request that is flushed at once: when it completes, so has everything that was
    /// posted before it.
    pub(crate) fn mark(&mut self, id: u64) -> Result<(), PostError> {
        let mut chain = Chain::new(1);
        chain.marker(id);
        let Some(first) = chain.link() else { return Ok(()) };
        post(&self.inner, first).map_err(|(source, _)| PostError { posted: 0, asked: 1, source })
    }
}

/// Posts a linked chain; on an error says which request was not accepted.
fn post(inner: &Inner, first: *mut sys::SendWr) -> Result<(), (io::Error, *mut sys::SendWr)> {
    let mut bad = ptr::null_mut();
    let Some(post) = inner.pd.device().ops().post_send else {
        return Err((io::ErrorKind::Unsupported.into(), first));
    };
    // SAFETY: a live queue pair and a linked chain whose memory, windows and regions are there;
    // the provider copies the requests.
    match unsafe { post(inner.raw.as_ptr(), first, &raw mut bad) } {
        0 => Ok(()),
        code => Err((system_error(code), bad)),
    }
}

fn system_error(code: c_int) -> io::Error {
    // Providers return the error; some return -1 and set it, some negate it.
    if code == -1 { io::Error::last_os_error() } else { io::Error::from_raw_os_error(code.abs()) }
}

/// All zero, but for the state to go to.
fn attributes(state: sys::Enum) -> sys::QpAttr {
    // SAFETY: integers only, of which zero is a value.
    let mut attributes: sys::QpAttr = unsafe { std::mem::zeroed() };
    attributes.qp_state = state;
    attributes
}

impl<State> fmt::Debug for QueuePair<State> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuePair")
            .field("number", &self.number())
            .field("state", &std::any::type_name::<State>().rsplit("::").next())
            .finish_non_exhaustive()
    }
}
