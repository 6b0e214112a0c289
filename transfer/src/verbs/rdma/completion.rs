//! Completion queues: what became of work requests, and how to sleep until something did.

use super::event::watch;
use super::{Device, DeviceError, sys};
use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::unix::AsyncFd;

/// How a work request ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Status {
    /// Done.
    #[error("done")]
    Done,
    /// Given up without being carried out, or at least not to its end: the queue pair failed
    /// before.
    #[error("flushed: its queue pair failed before")]
    Flushed,
    /// The peer's key does not open what was asked for, or no longer.
    #[error("the peer's memory is not open to it: its window was closed, or never covered it")]
    RemoteAccess,
    /// The peer did not answer as often as was tried.
    #[error("the peer does not answer")]
    RetriesExceeded,
    /// The peer had posted no receive for an immediate.
    #[error("the peer has no receive posted")]
    ReceiverNotReady,
    /// The own key does not cover what was named.
    #[error("the own memory is not registered for it")]
    LocalProtection,
    /// A window could not be bound.
    #[error("the memory window could not be bound")]
    Bind,
    /// The peer's device objects to the request as such.
    #[error("the peer's device refuses the request")]
    RemoteRefused,
    /// Anything else: the code of `ibv_wc_status`.
    #[error("status {0} of ibv_wc_status")]
    Other(u32),
}

impl Status {
    fn from_code(code: sys::Enum) -> Self {
        match code {
            sys::WC_SUCCESS => Self::Done,
            sys::WC_WR_FLUSH_ERR => Self::Flushed,
            sys::WC_REM_ACCESS_ERR => Self::RemoteAccess,
            sys::WC_RETRY_EXC_ERR => Self::RetriesExceeded,
            sys::WC_RNR_RETRY_EXC_ERR => Self::ReceiverNotReady,
            sys::WC_LOC_PROT_ERR => Self::LocalProtection,
            sys::WC_MW_BIND_ERR => Self::Bind,
            sys::WC_REM_INV_REQ_ERR | sys::WC_REM_OP_ERR => Self::RemoteRefused,
            other => Self::Other(other),
        }
    }
}

/// The end of a signalled, or a failed, work request, and of all before it on its queue pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Completion {
    /// The id that the request was given; [`RECEIVE`](super::RECEIVE) for receives.
    pub(crate) work: u64,
    /// How it ended.
    pub(crate) status: Status,
    /// The device's own code, for its vendor.
    pub(crate) vendor: u32,
    /// Bytes that came, of a receive.
    pub(crate) bytes: u32,
    /// What the peer's WRITE brought along.
    pub(crate) immediate: Option<u32>,
    /// The number of the queue pair.
    pub(crate) queue_pair: u32,
}

impl Completion {
    /// Something to fill a buffer with.
    pub(crate) const NONE: Self =
        Self { work: 0, status: Status::Done, vendor: 0, bytes: 0, immediate: None, queue_pair: 0 };
}

/// A completion queue and the channel that wakes whoever waits for it.
#[derive(Debug)]
pub(crate) struct CompletionQueue {
    pub(super) inner: Arc<Inner>,
    channel: AsyncFd<Arc<Channel>>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) raw: NonNull<sys::Cq>,
    id: u64,
    channel: Arc<Channel>,
}

// SAFETY: libibverbs' calls on a completion queue may be made from any thread.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

#[derive(Debug)]
struct Channel {
    device: Device,
    raw: NonNull<sys::CompChannel>,
}

// SAFETY: as for completion queues.
unsafe impl Send for Channel {}
// SAFETY: as above.
unsafe impl Sync for Channel {}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        // SAFETY: a live channel.
        unsafe { self.raw.as_ref().fd }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // SAFETY: destroyed only here, after the queue that uses it.
        unsafe { (self.device.api().destroy_comp_channel)(self.raw.as_ptr()) };
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: destroyed only here, after the queue pairs that use it; every event that was
        // taken has been acknowledged at once.
        let code = unsafe { (self.channel.device.api().destroy_cq)(self.raw.as_ptr()) };
        if code != 0 {
            tracing::warn!(code, "a completion queue could not be destroyed");
        }
    }
}

impl CompletionQueue {
    /// A queue with room for `entries` completions. Has to be called inside a tokio runtime.
    ///
    /// The queue pairs that use it must not be able to complete more at once: that loses
    /// completions and is reported as
    /// [`CompletionQueueError`](super::AsyncEvent::CompletionQueueError).
    pub(crate) fn new(device: &Device, entries: u32) -> Result<Self, DeviceError> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        device.within("completion queue entries", entries, device.limits().completions)?;
        let api = device.api();
        // SAFETY: an open context.
        let raw = NonNull::new(unsafe { (api.create_comp_channel)(device.raw()) })
            .ok_or_else(|| DeviceError::last("ibv_create_comp_channel"))?;
        let channel = Arc::new(Channel { device: device.clone(), raw });
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: an open context and a live channel of it; the queue's own context is a number.
        let raw = unsafe {
            let (entries, vector) = (entries as c_int, 0);
            let own = ptr::without_provenance_mut::<c_void>(id as usize);
            (api.create_cq)(device.raw(), entries, own, channel.raw.as_ptr(), vector)
        };
        let raw = NonNull::new(raw).ok_or_else(|| DeviceError::last("ibv_create_cq"))?;
        let inner = Arc::new(Inner { raw, id, channel: Arc::clone(&channel) });
        // SAFETY: the channel's own descriptor, open as long as the channel.
        Ok(Self { inner, channel: unsafe { watch(channel) }? })
    }

    /// What device events call it.
    pub(crate) fn id(&self) -> u64 {
        self.inner.id
    }

    /// Takes completions, as many as there are and fit, without waiting.
    ///
    /// After an error the queue is broken: nothing more comes from it, and its queue pairs have to
    /// be destroyed.
    pub(crate) fn poll(&mut self, into: &mut [Completion]) -> Result<usize, DeviceError> {
        const BATCH: usize = 32;
        let mut raw = [const { MaybeUninit::<sys::Wc>::uninit() }; BATCH];
        let poll = self.inner.channel.device.ops().poll_cq.ok_or_else(|| absent("ibv_poll_cq"))?;
        let mut filled = 0;
        while filled < into.len() {
            let room = (into.len() - filled).min(BATCH);
            // SAFETY: a live queue, and room for as many completions as are asked for.
            let found = unsafe {
                poll(self.inner.raw.as_ptr(), room as c_int, raw.as_mut_ptr().cast::<sys::Wc>())
            };
            let found = usize::try_from(found).map_err(|_| DeviceError::Call {
                call: "ibv_poll_cq",
                source: io::Error::other("the completion queue is broken"),
            })?;
            let found = found.min(room);
            for (into, raw) in into[filled..].iter_mut().zip(&raw[..found]) {
                // SAFETY: the first `found` have been filled.
                *into = completion(unsafe { raw.assume_init_ref() });
            }
            filled += found;
            if found < room {
                break;
            }
        }
        Ok(filled)
    }

    /// Asks for a wake-up by the next completion that is added. What was added before has to be
    /// polled for once more afterwards.
    pub(crate) fn arm(&mut self) -> Result<(), DeviceError> {
        let call = "ibv_req_notify_cq";
        let notify = self.inner.channel.device.ops().req_notify_cq.ok_or_else(|| absent(call))?;
        // SAFETY: a live queue.
        match unsafe { notify(self.inner.raw.as_ptr(), 0) } {
            0 => Ok(()),
            code => Err(DeviceError::of(call, code)),
        }
    }

    /// Waits for the wake-up that was asked for. Dropping the future loses nothing.
    pub(crate) async fn readable(&mut self) -> Result<(), DeviceError> {
        let failed = |source| DeviceError::Call { call: "ibv_get_cq_event", source };
        loop {
            let mut ready = self.channel.readable().await.map_err(failed)?;
            match ready.try_io(|channel| take(channel.get_ref())) {
                Ok(taken) => return taken.map_err(failed),
                Err(_would_block) => {}
            }
        }
    }
}

fn absent(call: &'static str) -> DeviceError {
    DeviceError::Call { call, source: io::ErrorKind::Unsupported.into() }
}

/// Takes an event of the channel, if there is one, and acknowledges it.
fn take(channel: &Channel) -> io::Result<()> {
    let (mut queue, mut context) = (ptr::null_mut(), ptr::null_mut());
    let api = channel.device.api();
    // SAFETY: a live channel and room for both answers.
    let code =
        unsafe { (api.get_cq_event)(channel.raw.as_ptr(), &raw mut queue, &raw mut context) };
    if code != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the queue of the event, which is not destroyed before this acknowledgement.
    unsafe { (api.ack_cq_events)(queue, 1) };
    Ok(())
}

fn completion(raw: &sys::Wc) -> Completion {
    let status = Status::from_code(raw.status);
    // Of a failed request only id, status, queue pair and vendor's code mean anything.
    let done = status == Status::Done;
    let immediate =
        done && raw.opcode == sys::WC_RECV_RDMA_WITH_IMM && raw.wc_flags & sys::WC_WITH_IMM != 0;
    Completion {
        work: raw.wr_id,
        status,
        vendor: if done { 0 } else { raw.vendor_err },
        bytes: if done { raw.byte_len } else { 0 },
        immediate: immediate.then(|| u32::from_be(raw.imm_data)),
        queue_pair: raw.qp_num,
    }
}
