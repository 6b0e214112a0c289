//! Memory windows of type 2: a key on a stretch of a region that one queue pair's peer may use,
//! until it is invalidated.

use super::memory::{ProtectionDomain, Region, RemoteKey};
use super::pair;
use super::{DeviceError, sys};
use std::fmt;
use std::ptr::NonNull;
#[cfg(test)]
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A window. It opens nothing until it is bound, by a work request; each bind gives it another
/// key.
pub(crate) struct MemoryWindow {
    pub(super) inner: Arc<WindowInner>,
    key: RemoteKey,
}

pub(super) struct WindowInner {
    /// `None` for a window of the null provider.
    device: Option<(ProtectionDomain, NonNull<sys::Mw>)>,
    /// A window ends before the queue pair and the region that it was bound to.
    bound: Mutex<Option<(Arc<pair::Inner>, Arc<Region>)>>,
    /// How often freeing it is refused first.
    #[cfg(test)]
    refusals: Option<Arc<AtomicUsize>>,
}

// SAFETY: calls on a window may be made from any thread.
unsafe impl Send for WindowInner {}
// SAFETY: as above.
unsafe impl Sync for WindowInner {}

impl MemoryWindow {
    /// A window of type 2, bound to nothing.
    pub(crate) fn alloc(pd: &ProtectionDomain) -> Result<Self, DeviceError> {
        let device = pd.device();
        let absent = || DeviceError::NoWindows { device: device.name().to_owned() };
        if !device.limits().type_2b_windows {
            return Err(absent());
        }
        let alloc = device.ops().alloc_mw.ok_or_else(absent)?;
        // SAFETY: a live protection domain.
        let raw = NonNull::new(unsafe { alloc(pd.0.raw.as_ptr(), sys::MW_TYPE_2) })
            .ok_or_else(|| DeviceError::last("ibv_alloc_mw"))?;
        // SAFETY: just allocated.
        let key = RemoteKey::from_wire(unsafe { raw.as_ref().rkey });
        let (device, bound) = (Some((pd.clone(), raw)), Mutex::new(None));
        let inner = WindowInner {
            device,
            bound,
            #[cfg(test)]
            refusals: None,
        };
        Ok(Self { inner: Arc::new(inner), key })
    }

    /// A window without a device, for the null provider.
    #[cfg(test)]
    pub(super) fn null(key: u32, refusals: Option<Arc<AtomicUsize>>) -> Self {
        let inner = WindowInner { device: None, bound: Mutex::new(None), refusals };
        Self { inner: Arc::new(inner), key: RemoteKey::from_wire(key) }
    }

    /// Frees it: no key of it opens anything any more. Otherwise it is still there.
    pub(crate) fn close(mut self) -> Result<(), (Self, DeviceError)> {
        let Some(inner) = Arc::get_mut(&mut self.inner) else {
            let source = std::io::Error::other("a work request still refers to the window");
            return Err((self, DeviceError::Call { call: "ibv_dealloc_mw", source }));
        };
        inner.dealloc().map_err(|error| (self, error))
    }

    /// Its key, which is good once the bind that was put into a chain last has completed, and
    /// until it is invalidated.
    pub(crate) fn key(&self) -> RemoteKey {
        self.key
    }

    /// Draws the key of the next bind: another one than before, and not the next in a row, so
    /// that an old one tells nothing about it.
    pub(super) fn renew(&mut self) -> RemoteKey {
        let old = self.key.to_wire();
        if let Some((_, raw)) = &self.inner.device {
            // The library leaves it to its user to note which key a window has by now, and
            // providers compare it with the device's when the window is bound again.
            // SAFETY: a live window, whose key nobody reads but through this handle.
            unsafe { (*raw.as_ptr()).rkey = old };
        }
        let mut drawn = [0; 1];
        // Without entropy the key still changes.
        let step = getrandom::fill(&mut drawn).map_or(1, |()| 1 + u32::from(drawn[0]) % 255);
        // The low byte is the consumer's, the rest the device's.
        self.key = RemoteKey::from_wire(old & !0xff | old.wrapping_add(step) & 0xff);
        self.key
    }
}

impl WindowInner {
    pub(super) fn raw(&self) -> *mut sys::Mw {
        self.device.as_ref().map_or(std::ptr::null_mut(), |(_, raw)| raw.as_ptr())
    }

    /// Notes to what a bind was posted.
    pub(super) fn bound(&self, pair: &Arc<pair::Inner>, region: Arc<Region>) {
        let mut bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        *bound = Some((Arc::clone(pair), region));
    }
}

impl WindowInner {
    /// Frees the window, if that has not happened yet. After an error it is as it was.
    fn dealloc(&mut self) -> Result<(), DeviceError> {
        #[cfg(test)]
        if let Some(refusals) = &self.refusals {
            let refused = |left: usize| left.checked_sub(1);
            if refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, refused).is_ok() {
                return Err(DeviceError::of("ibv_dealloc_mw", 16));
            }
        }
        let Some((pd, raw)) = &self.device else { return Ok(()) };
        let call = "ibv_dealloc_mw";
        let absent = || DeviceError::Call { call, source: std::io::ErrorKind::Unsupported.into() };
        let dealloc = pd.device().ops().dealloc_mw.ok_or_else(absent)?;
        // SAFETY: freed only here, and once; what it is bound to and on is still there.
        match unsafe { dealloc(raw.as_ptr()) } {
            0 => {
                self.device = None;
                Ok(())
            }
            code => Err(DeviceError::of(call, code)),
        }
    }
}

impl Drop for WindowInner {
    fn drop(&mut self) {
        if let Err(error) = self.dealloc() {
            tracing::warn!(%error, "a memory window could not be deallocated");
        }
    }
}

impl fmt::Debug for MemoryWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryWindow(..)")
    }
}
