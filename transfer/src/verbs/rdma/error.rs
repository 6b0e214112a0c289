//! Why there is no device, or why it does not do what was asked.

use super::gid::GidProblem;
use std::io;

/// A device cannot be used, or refused a step of the set-up.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The library is not installed, or does not load.
    #[error(
        "{library} cannot be loaded: {reason}; install rdma-core's user-space libraries (Debian: libibverbs1 and ibverbs-providers), or choose another transport"
    )]
    Library {
        /// Its file name.
        library: String,
        /// What the loader said.
        reason: String,
    },
    /// The library lacks a function.
    #[error("{library} has no {symbol}: rdma-core 32 or newer is needed")]
    Symbol {
        /// Its file name.
        library: String,
        /// The function.
        symbol: &'static str,
    },
    /// The machine has no RDMA device, or this process does not see it.
    #[error(
        "there is no RDMA device: compare `rdma link show`, and see that /dev/infiniband is visible to this process"
    )]
    NoDevice,
    /// There are devices, but none of that name.
    #[error("there is no RDMA device {name}; there is {}", .found.join(", "))]
    NoSuchDevice {
        /// The name that was configured.
        name: String,
        /// The devices that there are.
        found: Vec<String>,
    },
    /// The device file cannot be opened.
    #[error(
        "device {device} cannot be opened: {source}; this user needs read and write access to /dev/infiniband/uverbs*"
    )]
    Open {
        /// The device.
        device: String,
        /// What the system said.
        source: io::Error,
    },
    /// The device has no such port.
    #[error("device {device} has ports 1 to {ports}, not {port}")]
    NoSuchPort {
        /// The device.
        device: String,
        /// The port that was configured.
        port: u8,
        /// Its number of ports.
        ports: u8,
    },
    /// The port is there, but cannot send.
    #[error(
        "port {port} of device {device} is {state}, not active: check cable, switch and `ip link` of its network interface"
    )]
    PortDown {
        /// The device.
        device: String,
        /// The port, the first one if none was configured.
        port: u8,
        /// What it is instead.
        state: &'static str,
    },
    /// The port has no address that can be used.
    #[error("port {port} of device {device}: {problem}")]
    Gid {
        /// The device.
        device: String,
        /// The port.
        port: u8,
        /// What is wrong with its GIDs.
        problem: GidProblem,
    },
    /// Memory could not be registered: the limit of locked memory is too low.
    #[error(
        "registering {wanted} bytes was refused: RLIMIT_MEMLOCK of this process is {limit} bytes; raise it with LimitMEMLOCK=infinity in the systemd unit, `ulimit -l unlimited` in the shell or `memlock` in /etc/security/limits.conf, or grant CAP_IPC_LOCK"
    )]
    LockedMemory {
        /// Bytes to be registered.
        wanted: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// A stretch was named that the memory does not have.
    #[error("bytes {start} to {end} lie outside of a memory of {bytes} bytes")]
    OutOfRange {
        /// First byte.
        start: u64,
        /// One past the last byte.
        end: u64,
        /// Bytes that there are.
        bytes: u64,
    },
    /// More was asked for than the device can do.
    #[error("{asked} {what} were asked for, device {device} allows {limit}")]
    Limit {
        /// The device.
        device: String,
        /// Of what.
        what: &'static str,
        /// How many were asked for.
        asked: u64,
        /// How many it allows.
        limit: u64,
    },
    /// The device has no memory windows of type 2B.
    #[error("device {device} has no memory windows of type 2B")]
    NoWindows {
        /// The device.
        device: String,
    },
    /// The other end cannot be reached from this port.
    #[error("the other end cannot be connected to: {what}")]
    RemoteEnd {
        /// What is wrong with it.
        what: &'static str,
    },
    /// What the device reports cannot be heard any more: it has been removed or reset.
    #[error(
        "device {device} reports nothing any more: it was removed, or reset; restart this process"
    )]
    Lost {
        /// The device.
        device: String,
    },
    /// A call failed otherwise.
    #[error("{call}: {source}")]
    Call {
        /// The function.
        call: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl DeviceError {
    /// The last system error, as the error of a call that reports by `errno`.
    pub(super) fn last(call: &'static str) -> Self {
        Self::Call { call, source: io::Error::last_os_error() }
    }

    /// The error of a call that returns an `errno`, or -1 and sets it.
    pub(super) fn of(call: &'static str, code: i32) -> Self {
        if code > 0 {
            return Self::Call { call, source: io::Error::from_raw_os_error(code) };
        }
        Self::last(call)
    }
}

/// A chain of work requests was not accepted as a whole.
#[derive(Debug, thiserror::Error)]
#[error("only {posted} of {asked} work requests were accepted: {source}")]
pub(crate) struct PostError {
    /// Work requests from the start of the chain that were accepted: they are outstanding.
    pub(crate) posted: usize,
    /// Work requests of the chain.
    pub(crate) asked: usize,
    /// What the provider said.
    pub(crate) source: io::Error,
}
