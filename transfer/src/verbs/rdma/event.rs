//! What a device reports by itself: ports that go down, addresses that change, its own end.

use super::{Device, DeviceError, sys};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Something that happened to a device, a port or a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AsyncEvent {
    /// The device is lost, with everything on it.
    DeviceFatal,
    /// A port went down.
    PortError {
        /// The port.
        port: u8,
    },
    /// A port came up.
    PortActive {
        /// The port.
        port: u8,
    },
    /// The addresses of a port changed: connections may be pointing nowhere.
    GidChange {
        /// The port.
        port: u8,
    },
    /// The local identifier of a port changed.
    LidChange {
        /// The port.
        port: u8,
    },
    /// A queue pair failed in a way that no completion tells of.
    QueuePairFatal {
        /// Its number.
        number: u32,
    },
    /// A completion queue overflowed or failed: nothing more comes from it.
    CompletionQueueError {
        /// Its [`id`](super::CompletionQueue::id).
        queue: u64,
    },
    /// Anything else; of no consequence for connections.
    Other {
        /// The code of `ibv_event_type`.
        code: u32,
    },
}

/// The events of one device. There should be one of these per device: an event goes to whoever
/// asks first.
#[derive(Debug)]
pub(crate) struct AsyncEvents {
    events: AsyncFd<EventFd>,
}

#[derive(Debug)]
struct EventFd(Device);

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        // SAFETY: an open context.
        unsafe { (*self.0.raw()).async_fd }
    }
}

impl Device {
    /// Listens to the device. Has to be called inside a tokio runtime.
    pub(crate) fn events(&self) -> Result<AsyncEvents, DeviceError> {
        // SAFETY: the context's own descriptor, open as long as the device.
        Ok(AsyncEvents { events: unsafe { watch(EventFd(self.clone())) }? })
    }
}

/// Registers a descriptor with the runtime, for reading without blocking.
///
/// # Safety
/// It is always the same one, and open as long as `of` lives.
pub(super) unsafe fn watch<T: AsRawFd>(of: T) -> Result<AsyncFd<T>, DeviceError> {
    let failed = |source| DeviceError::Call { call: "watching a file descriptor", source };
    tokio::runtime::Handle::try_current().map_err(|error| failed(std::io::Error::other(error)))?;
    // SAFETY: open as long as `of` is.
    let fd = unsafe { BorrowedFd::borrow_raw(of.as_raw_fd()) };
    let flags = rustix::fs::fcntl_getfl(fd).map_err(|error| failed(error.into()))?;
    rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK)
        .map_err(|error| failed(error.into()))?;
    // SAFETY: as the caller says.
    let registered = unsafe { AsyncFd::register_with_interest(of, Interest::READABLE) };
    registered.map_err(|refused| failed(refused.into()))
}

impl AsyncEvents {
    /// The next event. Dropping the future loses none.
    pub(crate) async fn next(&mut self) -> Result<AsyncEvent, DeviceError> {
        loop {
            let failed = |source| DeviceError::Call { call: "ibv_get_async_event", source };
            let mut ready = self.events.readable().await.map_err(failed)?;
            match ready.try_io(|events| take(&events.get_ref().0)) {
                Ok(event) => return event.map_err(failed),
                Err(_would_block) => {}
            }
        }
    }
}

/// Takes an event, if there is one, and acknowledges it.
fn take(device: &Device) -> std::io::Result<AsyncEvent> {
    let mut raw = MaybeUninit::<sys::AsyncEvent>::zeroed();
    // SAFETY: an open context and room for one event.
    if unsafe { (device.api().get_async_event)(device.raw(), raw.as_mut_ptr()) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: filled by the call.
    let mut raw = unsafe { raw.assume_init() };
    // SAFETY: the event is not acknowledged yet, which is what destroying its object waits for;
    // and its type says which member of the union is the one.
    let event = unsafe { read(&raw) };
    // SAFETY: taken above, acknowledged once.
    unsafe { (device.api().ack_async_event)(&raw mut raw) };
    Ok(event)
}

/// # Safety
/// The event has been taken and not been acknowledged.
unsafe fn read(raw: &sys::AsyncEvent) -> AsyncEvent {
    // SAFETY: for the types that are about a port, see above.
    let port = || unsafe { raw.element.port_num } as u8;
    // SAFETY: for the types that are about a queue pair, see above.
    let number = || unsafe { (*raw.element.qp).qp_num };
    // SAFETY: for the types that are about a completion queue, see above.
    let queue = || unsafe { (*raw.element.cq).cq_context } as u64;
    match raw.event_type {
        sys::EVENT_DEVICE_FATAL => AsyncEvent::DeviceFatal,
        sys::EVENT_PORT_ERR => AsyncEvent::PortError { port: port() },
        sys::EVENT_PORT_ACTIVE => AsyncEvent::PortActive { port: port() },
        sys::EVENT_GID_CHANGE => AsyncEvent::GidChange { port: port() },
        sys::EVENT_LID_CHANGE => AsyncEvent::LidChange { port: port() },
        sys::EVENT_QP_FATAL | sys::EVENT_QP_REQ_ERR | sys::EVENT_QP_ACCESS_ERR => {
            AsyncEvent::QueuePairFatal { number: number() }
        }
        sys::EVENT_CQ_ERR => AsyncEvent::CompletionQueueError { queue: queue() },
        code => AsyncEvent::Other { code },
    }
}
