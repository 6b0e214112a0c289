//! An RDMA device, opened, with the port that is used of it.

use super::gid::{self, Gid, GidEntry, GidKind, LinkLayer};
use super::library::{self, Api};
use super::{DeviceError, sys};
use std::ffi::{CStr, c_int};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Arc;

/// Which device, port and address to use; what is left out is chosen.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct DeviceChoice {
    /// Name as `rdma link` and `ibv_devices` show it; else the first that has a usable port.
    pub device: Option<String>,
    /// Port, counted from 1; else the first that is active.
    pub port: Option<u8>,
    /// Index in the port's GID table; else RoCE v2, mapped IPv4 first, interface up.
    pub gid_index: Option<u8>,
}

/// What the device can do, as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Work requests that one send queue may hold.
    pub send_requests: u32,
    /// Entries of one completion queue.
    pub completions: u32,
    /// Scatter/gather elements of one work request.
    pub segments: u32,
    /// READs that one queue pair can answer at a time (`max_qp_rd_atom`).
    pub responder_reads: u8,
    /// READs that one queue pair can have under way (`max_qp_init_rd_atom`).
    pub initiator_reads: u8,
    /// Whether there are memory windows that belong to one queue pair and can be invalidated.
    pub type_2b_windows: bool,
    /// Memory windows of all processes together.
    pub windows: u32,
    /// Bytes that one work request may move.
    pub message_bytes: u32,
    /// Whether a fenced work request is sure to start once what it waits for is over.
    ///
    /// Not so on soft-RoCE (`rxe_req.c` of Linux 6.1): its requester looks whether READs are
    /// outstanding and then notes that it waits, its completer ends the last READ and then looks for
    /// such a note, and nothing orders the two. If the note comes second, the request is never sent,
    /// and no timer runs for it. Without a fence nothing is lost there: it carries READs out in
    /// their order, one after the other, and drops answers that come early.
    pub fences: bool,
}

/// The port by which everything leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Port {
    /// Counted from 1.
    pub number: u8,
    /// What it speaks.
    pub link: LinkLayer,
    /// Its address.
    pub gid: Gid,
    /// Where the address stands in the port's table.
    pub gid_index: u8,
    /// Its local identifier; 0 on Ethernet.
    pub lid: u16,
    /// Payload bytes of a packet, as the code of `ibv_mtu`: 1 for 256 bytes up to 5 for 4096.
    pub mtu: u8,
}

/// An open device. Clones are handles on the same one; it is closed with the last of them and of
/// all that was made from it.
#[derive(Clone)]
pub struct Device(pub(super) Arc<Inner>);

pub(super) struct Inner {
    context: Context,
    name: String,
    limits: Limits,
    port: Port,
    /// The index that was chosen, if one was.
    gid_index: Option<u8>,
}

/// An open context, closed on drop.
pub(super) struct Context {
    pub(super) api: &'static Api,
    pub(super) raw: NonNull<sys::Context>,
}

// SAFETY: libibverbs' calls on a context may be made from any thread, also at the same time.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: opened, and closed only here; what was made from it holds it alive.
        unsafe { (self.api.close_device)(self.raw.as_ptr()) };
    }
}

impl Device {
    /// Opens a device and chooses port and address. Reads /sys: not for a thread that must not
    /// block.
    pub fn open(choice: &DeviceChoice) -> Result<Self, DeviceError> {
        Self::open_with(library::api()?, choice)
    }

    fn open_with(api: &'static Api, choice: &DeviceChoice) -> Result<Self, DeviceError> {
        let list = List::new(api)?;
        let names: Vec<String> = (0..list.count).map(|i| list.name(i)).collect();
        let all = 0..list.count;
        let picked: Vec<usize> = match &choice.device {
            None => all.collect(),
            Some(name) => all.filter(|&i| names[i] == *name).collect(),
        };
        let mut failure = match &choice.device {
            Some(name) if !names.is_empty() => {
                DeviceError::NoSuchDevice { name: name.clone(), found: names }
            }
            _ => DeviceError::NoDevice,
        };
        for (tried, &index) in picked.iter().enumerate() {
            match list
                .open(index)
                .and_then(|context| Inner::choose(context, list.name(index), choice))
            {
                Ok(inner) => return Ok(Self(Arc::new(inner))),
                // The first device's trouble is the one to hear of.
                Err(error) if tried == 0 => failure = error,
                Err(_) => {}
            }
        }
        Err(failure)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What it can do.
    pub fn limits(&self) -> Limits {
        self.0.limits
    }

    /// The port that is used, as it was when the device was opened.
    pub fn port(&self) -> Port {
        self.0.port
    }

    /// The port that is used, as it is now: addresses, and with them their places in the table, may
    /// have changed. Reads /sys: not for a thread that must not block.
    pub fn port_now(&self) -> Result<Port, DeviceError> {
        let Inner { context, name, port, gid_index, .. } = &*self.0;
        context.port(name, port.number, *gid_index).map(|(port, _)| port)
    }

    pub(super) fn api(&self) -> &'static Api {
        self.0.context.api
    }

    pub(super) fn raw(&self) -> *mut sys::Context {
        self.0.context.raw.as_ptr()
    }

    /// Refuses a number above what the device allows.
    pub(super) fn within(
        &self,
        what: &'static str,
        asked: u32,
        limit: u32,
    ) -> Result<(), DeviceError> {
        if asked <= limit {
            return Ok(());
        }
        let (asked, limit) = (asked.into(), limit.into());
        Err(DeviceError::Limit { device: self.name().to_owned(), what, asked, limit })
    }

    /// The calls that the provider offers without going through the library.
    pub(super) fn ops(&self) -> &sys::ContextOps {
        // SAFETY: the context is open, and its table does not change.
        unsafe { &self.0.context.raw.as_ref().ops }
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device")
            .field("name", &self.0.name)
            .field("port", &self.0.port)
            .finish_non_exhaustive()
    }
}

/// The devices of this machine, as long as the list is held.
struct List {
    api: &'static Api,
    devices: NonNull<*mut sys::Device>,
    count: usize,
}

impl List {
    fn new(api: &'static Api) -> Result<Self, DeviceError> {
        let mut count: c_int = 0;
        // SAFETY: the count is a live integer.
        let devices = unsafe { (api.get_device_list)(&raw mut count) };
        let Some(devices) = NonNull::new(devices) else {
            let error = io::Error::last_os_error();
            // The kernel has no RDMA at all.
            let absent =
                matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::NotFound);
            return Err(if absent {
                DeviceError::NoDevice
            } else {
                DeviceError::Call { call: "ibv_get_device_list", source: error }
            });
        };
        Ok(Self { api, devices, count: usize::try_from(count).unwrap_or(0) })
    }

    fn at(&self, index: usize) -> *mut sys::Device {
        assert!(index < self.count);
        // SAFETY: the list has `count` entries and lives as long as `self`.
        unsafe { self.devices.add(index).read() }
    }

    fn name(&self, index: usize) -> String {
        // SAFETY: an entry of the list.
        let name = unsafe { (self.api.get_device_name)(self.at(index)) };
        if name.is_null() {
            return String::new();
        }
        // SAFETY: a string that lives as long as the device, that is, the list.
        unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
    }

    fn open(&self, index: usize) -> Result<Context, DeviceError> {
        // SAFETY: an entry of the list.
        let raw = NonNull::new(unsafe { (self.api.open_device)(self.at(index)) });
        raw.map(|raw| Context { api: self.api, raw }).ok_or_else(|| DeviceError::Open {
            device: self.name(index),
            source: io::Error::last_os_error(),
        })
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: as returned by the library; nothing refers to its entries any more: contexts
        // hold references of their own.
        unsafe { (self.api.free_device_list)(self.devices.as_ptr()) };
    }
}

impl Inner {
    fn choose(context: Context, name: String, choice: &DeviceChoice) -> Result<Self, DeviceError> {
        let attributes = context.attributes()?;
        let ports = attributes.phys_port_cnt;
        let (port, message_bytes) = match choice.port {
            Some(port) if port == 0 || port > ports => {
                return Err(DeviceError::NoSuchPort { device: name, port, ports });
            }
            Some(port) => context.port(&name, port, choice.gid_index)?,
            None => {
                let tried = (1..=ports).map(|port| context.port(&name, port, choice.gid_index));
                first_good(tried).unwrap_or_else(|| {
                    Err(DeviceError::NoSuchPort { device: name.clone(), port: 1, ports })
                })?
            }
        };
        let limits = limits(&attributes, message_bytes);
        Ok(Self { context, name, limits, port, gid_index: choice.gid_index })
    }
}

/// The first success, else the first failure.
fn first_good<T, E>(mut tried: impl Iterator<Item = Result<T, E>>) -> Option<Result<T, E>> {
    match tried.next()? {
        Ok(good) => Some(Ok(good)),
        Err(first) => Some(tried.find_map(Result::ok).ok_or(first)),
    }
}

/// What soft-RoCE calls its vendor (`RXE_VENDOR_ID`).
const SOFT_ROCE: u32 = 0x00ff_ffff;

fn limits(attributes: &sys::DeviceAttr, message_bytes: u32) -> Limits {
    let count = |value: c_int| u32::try_from(value).unwrap_or(0);
    // Both are bytes on the wire.
    let reads = |value: c_int| u8::try_from(value.clamp(0, 255)).unwrap_or(0);
    let type_2b = attributes.device_cap_flags & sys::DEVICE_MEM_WINDOW_TYPE_2B != 0;
    Limits {
        send_requests: count(attributes.max_qp_wr),
        completions: count(attributes.max_cqe),
        segments: count(attributes.max_sge),
        responder_reads: reads(attributes.max_qp_rd_atom),
        initiator_reads: reads(attributes.max_qp_init_rd_atom),
        type_2b_windows: type_2b && attributes.max_mw > 0,
        windows: count(attributes.max_mw),
        message_bytes,
        fences: attributes.vendor_id != SOFT_ROCE,
    }
}

impl Context {
    fn attributes(&self) -> Result<sys::DeviceAttr, DeviceError> {
        let mut attributes = MaybeUninit::<sys::DeviceAttr>::zeroed();
        // SAFETY: an open context and room for one structure.
        let code = unsafe { (self.api.query_device)(self.raw.as_ptr(), attributes.as_mut_ptr()) };
        if code != 0 {
            return Err(DeviceError::of("ibv_query_device", code));
        }
        // SAFETY: plain integers, zeroed and then filled.
        Ok(unsafe { attributes.assume_init() })
    }

    /// A port and the bytes of its largest message, if it can be used.
    fn port(
        &self,
        device: &str,
        number: u8,
        wanted: Option<u8>,
    ) -> Result<(Port, u32), DeviceError> {
        let mut attributes = MaybeUninit::<sys::PortAttr>::zeroed();
        // SAFETY: an open context and room for one structure.
        let code =
            unsafe { (self.api.query_port)(self.raw.as_ptr(), number, attributes.as_mut_ptr()) };
        if code != 0 {
            return Err(DeviceError::of("ibv_query_port", code));
        }
        // SAFETY: plain integers, zeroed and then filled.
        let attributes = unsafe { attributes.assume_init() };
        if !matches!(attributes.state, sys::PORT_ACTIVE | sys::PORT_ACTIVE_DEFER) {
            let state = state_name(attributes.state);
            return Err(DeviceError::PortDown { device: device.to_owned(), port: number, state });
        }
        // Old providers leave the link layer of InfiniBand unspecified.
        let link = match attributes.link_layer {
            sys::LINK_LAYER_ETHERNET => LinkLayer::Ethernet,
            _ => LinkLayer::InfiniBand,
        };
        let (gid_index, gid) =
            gid::choose(&self.gids(number)?, link, wanted).map_err(|problem| DeviceError::Gid {
                device: device.to_owned(),
                port: number,
                problem,
            })?;
        // The codes end at 5; an unknown one would be refused by every peer.
        let mtu = attributes.active_mtu.clamp(1, 5) as u8;
        let port = Port { number, link, gid, gid_index, lid: attributes.lid, mtu };
        Ok((port, attributes.max_msg_sz))
    }

    /// The entries of a port's GID table that are in use.
    fn gids(&self, port: u8) -> Result<Vec<GidEntry>, DeviceError> {
        // Of all ports together, those in use; the kernel takes a length of 16 bits, in bytes.
        const ENTRIES: usize = u16::MAX as usize / size_of::<sys::GidEntry>();
        let empty = sys::GidEntry {
            gid: sys::Gid([0; 16]),
            gid_index: 0,
            port_num: 0,
            gid_type: 0,
            ndev_ifindex: 0,
        };
        let mut entries = vec![empty; ENTRIES];
        // SAFETY: room for as many entries of this size as are named.
        let found = unsafe {
            let size = size_of::<sys::GidEntry>();
            (self.api.query_gid_table)(self.raw.as_ptr(), entries.as_mut_ptr(), ENTRIES, 0, size)
        };
        let found = usize::try_from(found).map_err(|_| {
            // Negative: the error itself.
            DeviceError::of("ibv_query_gid_table", -i32::try_from(found).unwrap_or(-1))
        })?;
        entries.truncate(found);
        Ok(entries.iter().filter(|raw| raw.port_num == u32::from(port)).map(entry).collect())
    }
}

fn entry(raw: &sys::GidEntry) -> GidEntry {
    let kind = match raw.gid_type {
        sys::GID_TYPE_IB => GidKind::InfiniBand,
        sys::GID_TYPE_ROCE_V1 => GidKind::RoceV1,
        sys::GID_TYPE_ROCE_V2 => GidKind::RoceV2,
        _ => GidKind::Unknown,
    };
    let interface_up = (raw.ndev_ifindex != 0).then(|| interface_up(raw.ndev_ifindex)).flatten();
    GidEntry { index: raw.gid_index, kind, gid: Gid(raw.gid.0), interface_up }
}

/// Whether a network interface is up; `None` if it cannot be told.
fn interface_up(index: u32) -> Option<bool> {
    for entry in fs::read_dir("/sys/class/net").ok()?.flatten() {
        let said = |file| fs::read_to_string(entry.path().join(file)).ok();
        if said("ifindex").and_then(|text| text.trim().parse().ok()) == Some(index) {
            // Some drivers never say more than "unknown".
            return said("operstate").map(|state| matches!(state.trim(), "up" | "unknown"));
        }
    }
    None
}

fn state_name(state: sys::Enum) -> &'static str {
    match state {
        1 => "down",
        2 => "initialising",
        3 => "armed",
        _ => "in no known state",
    }
}
