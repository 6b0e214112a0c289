//! Memory that the device may reach by itself, and who may name it.
//!
//! Everything is registered with addresses that count from the start of the memory, not with
//! those of the process: an arena's slots are where its layout says, at both ends, and no peer
//! learns where anything lies here.
//!
//! The device writes behind the compiler's back. Whoever posts a request that writes into a slot
//! holds the slot's `WriteGuard` until the request is known to be over; nothing here can check
//! that. What is checked, by the device, is that it stays inside of what was registered, and only
//! as long as that is registered.

use super::{Device, DeviceError, sys};
use baton_arena::{Arena, Layout, RECORD_BYTES};
use rustix::mm::{MapFlags, ProtFlags};
use std::ffi::{c_uint, c_void};
use std::fmt;
use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering, fence};

/// What a peer may do.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Rights {
    /// READ.
    pub(crate) read: bool,
    /// WRITE.
    pub(crate) write: bool,
}

impl Rights {
    #[cfg(test)]
    pub(crate) const NONE: Self = Self { read: false, write: false };
    pub(crate) const READ: Self = Self { read: true, write: false };
    pub(crate) const WRITE: Self = Self { read: false, write: true };

    pub(super) fn flags(self) -> c_uint {
        let read = if self.read { sys::ACCESS_REMOTE_READ } else { 0 };
        let write = if self.write { sys::ACCESS_REMOTE_WRITE } else { 0 };
        read | write
    }
}

/// Names memory for a peer: whoever has it may use it. Shown nowhere.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct RemoteKey(u32);

impl RemoteKey {
    /// A key that a peer sent.
    pub(crate) fn from_wire(key: u32) -> Self {
        Self(key)
    }

    /// The key, to be sent to the one peer that it is meant for.
    pub(crate) fn to_wire(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for RemoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RemoteKey(..)")
    }
}

/// What keys and queue pairs belong to: they work only together with those of the same domain.
#[derive(Clone)]
pub(crate) struct ProtectionDomain(pub(super) Arc<PdInner>);

pub(super) struct PdInner {
    pub(super) device: Device,
    pub(super) raw: NonNull<sys::Pd>,
}

// SAFETY: calls on a protection domain may be made from any thread.
unsafe impl Send for PdInner {}
// SAFETY: as above.
unsafe impl Sync for PdInner {}

impl ProtectionDomain {
    /// A new domain of the device.
    pub(crate) fn new(device: &Device) -> Result<Self, DeviceError> {
        // SAFETY: an open context.
        let raw = NonNull::new(unsafe { (device.api().alloc_pd)(device.raw()) })
            .ok_or_else(|| DeviceError::last("ibv_alloc_pd"))?;
        Ok(Self(Arc::new(PdInner { device: device.clone(), raw })))
    }

    /// Its device.
    pub(crate) fn device(&self) -> &Device {
        &self.0.device
    }
}

impl Drop for PdInner {
    fn drop(&mut self) {
        // SAFETY: freed only here, and everything made from it holds it alive.
        unsafe { (self.device.api().dealloc_pd)(self.raw.as_ptr()) };
    }
}

/// A registration; what it registers outlives it.
pub(super) struct Region {
    pd: ProtectionDomain,
    raw: NonNull<sys::Mr>,
    /// It has been deregistered, and is only dropped from then on.
    ended: bool,
    // After the registration, which `drop` ends first.
    memory: Memory,
}

// SAFETY: the fields of the registration that are read never change.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

/// What may be registered, held so that it stays mapped.
#[derive(Clone)]
enum Memory {
    Arena(Arena),
    Scratch(Arc<Shared>),
}

impl Memory {
    fn bytes(&self) -> NonNull<[u8]> {
        match self {
            Self::Arena(arena) => arena.memory(),
            Self::Scratch(shared) => NonNull::slice_from_raw_parts(shared.base, shared.bytes),
        }
    }
}

impl Region {
    /// Registers a stretch, addressed by its place in the memory.
    fn new(
        pd: &ProtectionDomain,
        memory: Memory,
        stretch: Range<u64>,
        access: c_uint,
    ) -> Result<Arc<Self>, DeviceError> {
        let all = memory.bytes();
        let Range { start, end } = stretch;
        if start >= end || end > all.len() as u64 {
            return Err(DeviceError::OutOfRange { start, end, bytes: all.len() as u64 });
        }
        // SAFETY: inside the memory, as checked.
        let base = unsafe { all.cast::<u8>().add(start as usize) };
        let wanted = end - start;
        let access = access | sys::ACCESS_RELAXED_ORDERING;
        // SAFETY: the stretch is mapped and stays so as long as `memory` is held, which is until
        // after the registration has ended.
        let raw = unsafe {
            let (address, length) = (base.as_ptr().cast::<c_void>(), wanted as usize);
            (pd.device().api().reg_mr_iova2)(pd.0.raw.as_ptr(), address, length, start, access)
        };
        let raw = NonNull::new(raw).ok_or_else(|| refused(wanted))?;
        Ok(Arc::new(Self { pd: pd.clone(), raw, ended: false, memory }))
    }

    pub(super) fn raw(&self) -> *mut sys::Mr {
        self.raw.as_ptr()
    }

    fn local_key(&self) -> u32 {
        // SAFETY: a live registration.
        unsafe { self.raw.as_ref().lkey }
    }

    fn remote_key(&self) -> RemoteKey {
        // SAFETY: a live registration.
        RemoteKey(unsafe { self.raw.as_ref().rkey })
    }
}

impl Region {
    /// Ends the registration, if that has not happened yet: then the device has forgotten the
    /// memory. Nothing but `drop` may follow.
    fn end(&mut self) -> Result<(), DeviceError> {
        if self.ended {
            return Ok(());
        }
        // SAFETY: ended only here, and once.
        match unsafe { (self.pd.device().api().dereg_mr)(self.raw.as_ptr()) } {
            0 => {
                self.ended = true;
                Ok(())
            }
            code => Err(DeviceError::of("ibv_dereg_mr", code)),
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            // The device may still reach the memory: never unmap it.
            std::mem::forget(self.memory.clone());
            tracing::error!(%error, "a memory region could not be deregistered; its memory is kept");
        }
    }
}

/// Why a registration of so many bytes failed, from the last system error.
fn refused(wanted: u64) -> DeviceError {
    let source = io::Error::last_os_error();
    let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
    let memory = matches!(source.raw_os_error(), Some(code)
        if code == rustix::io::Errno::NOMEM.raw_os_error()
            || code == rustix::io::Errno::AGAIN.raw_os_error());
    match limit {
        Some(limit) if memory => DeviceError::LockedMemory { wanted, limit },
        _ => DeviceError::Call { call: "ibv_reg_mr_iova2", source },
    }
}

/// A stretch of memory of this process, as a work request names it.
#[derive(Clone, Copy)]
pub(crate) struct Local {
    pub(super) address: u64,
    pub(super) bytes: u32,
    pub(super) key: u32,
}

impl Local {
    /// Where it starts, counted from the start of its memory. With a remote key it is what a peer
    /// has to name.
    pub(crate) fn address(self) -> u64 {
        self.address
    }

    /// Its length.
    pub(crate) fn bytes(self) -> u32 {
        self.bytes
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Local({} bytes at {})", self.bytes, self.address)
    }
}

/// A place in a peer's memory and the key that opens it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Remote {
    /// As the peer counts it.
    pub(crate) address: u64,
    /// As the peer sent it.
    pub(crate) key: RemoteKey,
}

/// Where an arena's slots and records are for work requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ArenaMap {
    layout: Layout,
    key: u32,
}

impl ArenaMap {
    pub(super) fn new(layout: Layout, key: u32) -> Self {
        Self { layout, key }
    }

    /// `bytes` bytes from `offset` into a slot on; they may reach into the slots behind it. `None`
    /// if the arena does not have them.
    pub(crate) fn slots(&self, slot: u32, offset: u64, bytes: u64) -> Option<Local> {
        let shape = self.layout.shape;
        if slot >= shape.slots {
            return None;
        }
        let start = (u64::from(slot) * self.layout.stride).checked_add(offset)?;
        let last = u64::from(shape.slots - 1) * self.layout.stride + shape.slot_bytes as u64;
        self.local(self.layout.payload, start, bytes, last)
    }

    /// The records of so many slots from `slot` on.
    pub(crate) fn records(&self, slot: u32, count: u32) -> Option<Local> {
        let record = RECORD_BYTES as u64;
        let (start, bytes) = (u64::from(slot) * record, u64::from(count) * record);
        self.local(self.layout.records, start, bytes, u64::from(self.layout.shape.slots) * record)
    }

    fn local(&self, base: u64, start: u64, bytes: u64, limit: u64) -> Option<Local> {
        if bytes == 0 || start.checked_add(bytes)? > limit {
            return None;
        }
        Some(Local { address: base + start, bytes: u32::try_from(bytes).ok()?, key: self.key })
    }
}

/// A whole arena, registered for this process's own requests. No peer may touch it, except
/// through a window.
#[derive(Clone)]
pub(crate) struct ArenaRegion {
    region: Arc<Region>,
    map: ArenaMap,
}

/// What memory windows can be opened on.
#[derive(Clone)]
pub(crate) struct Bindable(Option<Arc<Region>>);

impl Bindable {
    /// Nothing, for the null provider.
    #[cfg(test)]
    pub(super) const NULL: Self = Self(None);

    pub(super) fn region(&self) -> Option<&Arc<Region>> {
        self.0.as_ref()
    }
}

impl ArenaRegion {
    /// Registers an arena. With `windows`, memory windows can be opened on it.
    pub(crate) fn register(
        pd: &ProtectionDomain,
        arena: &Arena,
        windows: bool,
    ) -> Result<Self, DeviceError> {
        let layout = arena.layout();
        let memory = Memory::Arena(arena.clone());
        let region = Region::new(pd, memory, 0..layout.total, own_access(windows))?;
        let map = ArenaMap::new(layout, region.local_key());
        Ok(Self { region, map })
    }

    /// Where its slots and records are.
    pub(crate) fn map(&self) -> ArenaMap {
        self.map
    }

    /// What windows on it are bound to.
    pub(crate) fn bindable(&self) -> Bindable {
        Bindable(Some(Arc::clone(&self.region)))
    }
}

fn own_access(windows: bool) -> c_uint {
    sys::ACCESS_LOCAL_WRITE | if windows { sys::ACCESS_MW_BIND } else { 0 }
}

/// One stretch that peers may touch for as long as this exists: what there is where the device has
/// no windows. Any queue pair of the same protection domain may use its key.
pub(crate) struct RemoteRegion {
    region: Arc<Region>,
}

impl RemoteRegion {
    /// Opens a stretch of an arena.
    pub(crate) fn of_arena(
        pd: &ProtectionDomain,
        arena: &Arena,
        stretch: Local,
        rights: Rights,
    ) -> Result<Self, DeviceError> {
        Self::new(pd, Memory::Arena(arena.clone()), stretch, rights)
    }

    /// Opens a stretch of a scratch memory.
    pub(crate) fn of_scratch(
        pd: &ProtectionDomain,
        scratch: &Scratch,
        stretch: Local,
        rights: Rights,
    ) -> Result<Self, DeviceError> {
        Self::new(pd, Memory::Scratch(Arc::clone(&scratch.shared)), stretch, rights)
    }

    fn new(
        pd: &ProtectionDomain,
        memory: Memory,
        stretch: Local,
        rights: Rights,
    ) -> Result<Self, DeviceError> {
        let stretch = stretch.address..stretch.address + u64::from(stretch.bytes);
        // Who may be written by a peer has to be writable here, too.
        let local = if rights.write { sys::ACCESS_LOCAL_WRITE } else { 0 };
        Region::new(pd, memory, stretch, local | rights.flags()).map(|region| Self { region })
    }

    /// Closes it: its key opens nothing any more. Otherwise it is still there.
    pub(crate) fn close(self) -> Result<(), (Self, DeviceError)> {
        match Arc::try_unwrap(self.region) {
            Ok(mut region) => {
                region.end().map_err(|error| (Self { region: Arc::new(region) }, error))
            }
            Err(region) => {
                let source = io::Error::other("something still refers to the region");
                Err((Self { region }, DeviceError::Call { call: "ibv_dereg_mr", source }))
            }
        }
    }

    /// What opens it; addresses are those of the stretch.
    pub(crate) fn key(&self) -> RemoteKey {
        self.region.remote_key()
    }
}

/// Registered memory for what is small and passes through: slot records on their way.
#[derive(Clone)]
pub(crate) struct Scratch {
    region: Arc<Region>,
    shared: Arc<Shared>,
}

/// Where a scratch memory is for work requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScratchMap {
    bytes: u64,
    key: u32,
}

impl ScratchMap {
    pub(super) fn new(bytes: u64, key: u32) -> Self {
        Self { bytes, key }
    }

    /// A stretch of it; `None` if it does not have it.
    pub(crate) fn at(&self, offset: u64, bytes: u32) -> Option<Local> {
        let end = offset.checked_add(u64::from(bytes))?;
        (bytes > 0 && end <= self.bytes).then_some(Local { address: offset, bytes, key: self.key })
    }
}

/// An anonymous mapping. Shared, because a private one would be copied under the device's feet
/// when the process forks.
struct Shared {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: plain memory that no thread owns; it is accessed by atomics only.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: mapped with this length, and nothing refers to it any more.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

impl Scratch {
    /// Maps and registers zeroed memory. With `windows`, memory windows can be opened on it.
    pub(crate) fn new(
        pd: &ProtectionDomain,
        bytes: usize,
        windows: bool,
    ) -> Result<Self, DeviceError> {
        let failed = |source| DeviceError::Call { call: "mmap", source };
        // SAFETY: no address is prescribed, so no existing mapping is replaced.
        let base = unsafe {
            let protection = ProtFlags::READ | ProtFlags::WRITE;
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), bytes, protection, MapFlags::SHARED)
        };
        let base = base.map_err(|error| failed(error.into()))?;
        let base =
            NonNull::new(base.cast()).ok_or_else(|| failed(io::Error::other("mapped at zero")))?;
        let shared = Arc::new(Shared { base, bytes });
        let memory = Memory::Scratch(Arc::clone(&shared));
        let region = Region::new(pd, memory, 0..bytes as u64, own_access(windows))?;
        Ok(Self { region, shared })
    }

    /// Its length.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.shared.bytes
    }

    /// What windows on it are bound to.
    pub(crate) fn bindable(&self) -> Bindable {
        Bindable(Some(Arc::clone(&self.region)))
    }

    /// Where it is for work requests.
    pub(crate) fn map(&self) -> ScratchMap {
        ScratchMap::new(self.shared.bytes as u64, self.region.local_key())
    }

    /// A stretch of it for a work request; `None` if it does not have it.
    pub(crate) fn at(&self, offset: u64, bytes: u32) -> Option<Local> {
        self.map().at(offset, bytes)
    }

    /// Copies out what the device wrote. It may be torn while the device still writes.
    ///
    /// # Panics
    /// If the scratch memory does not have the bytes.
    pub(crate) fn copy_out(&self, offset: usize, into: &mut [u8]) {
        let atomics = self.atomics(offset, into.len());
        for (byte, atomic) in into.iter_mut().zip(atomics) {
            *byte = atomic.load(Ordering::Relaxed);
        }
        fence(Ordering::Acquire);
    }

    /// Zeroes a stretch, so that what lay there before is not taken for something new.
    ///
    /// # Panics
    /// If the scratch memory does not have the bytes.
    pub(crate) fn clear(&self, offset: usize, bytes: usize) {
        for atomic in self.atomics(offset, bytes) {
            atomic.store(0, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
    }

    fn atomics(&self, offset: usize, bytes: usize) -> &[AtomicU8] {
        let end = offset.checked_add(bytes).filter(|&end| end <= self.shared.bytes);
        assert!(end.is_some(), "{bytes} bytes at {offset} of {}", self.shared.bytes);
        // SAFETY: inside the mapping, which lives as long as `self`; bytes are always aligned; in
        // this process they are accessed by atomics only.
        unsafe { std::slice::from_raw_parts(self.shared.base.cast().add(offset).as_ptr(), bytes) }
    }
}
