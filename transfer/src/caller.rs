//! What the pulling sides share: judging the answer to a hello, and patience with a peer that
//! cannot be reached.

use crate::guards::{Guard, Guards};
use crate::wire::Welcome;
use crate::{Identity, Refused, TransferError};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Whether the answer to a hello is that of the expected peer; then, how many slots it has.
pub(crate) fn accept(
    welcome: &[u8; Welcome::BYTES],
    expected: Identity,
    bytes: usize,
    guards: Guards,
) -> Result<u32, TransferError> {
    let welcome = Welcome::from_bytes(welcome)
        .map_err(|garbled| TransferError::Protocol { what: garbled.0 })?;
    let (identity, slots, slot_bytes) = match welcome {
        Welcome::Accepted { identity, slots, slot_bytes } => (identity, slots, slot_bytes),
        Welcome::Declined(refused) => return Err(refused.into()),
    };
    if identity.worker != expected.worker {
        return Err(Refused::Worker.into());
    }
    if guards.on(Guard::Incarnation) && identity.incarnation != expected.incarnation {
        return Err(Refused::Incarnation.into());
    }
    if guards.on(Guard::Layout) && slot_bytes != bytes as u64 {
        return Err(Refused::SlotBytes.into());
    }
    Ok(slots)
}

/// How long to leave a peer alone that could not be reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BackOff {
    /// After the first failed attempt; doubled with each further one.
    pub first: Duration,
    /// At most.
    pub last: Duration,
}

impl Default for BackOff {
    fn default() -> Self {
        Self { first: Duration::from_millis(20), last: Duration::from_secs(2) }
    }
}

impl BackOff {
    /// How long to wait after one more failure than `before`.
    pub(crate) fn after(self, before: u32) -> Duration {
        let factor = 1u32.checked_shl(before).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.last)
    }
}

/// How attempts to reach a peer went lately. A success makes it new.
#[derive(Default, Debug)]
pub(crate) struct Health {
    failures: u32,
    not_before: Option<Instant>,
}

impl Health {
    /// Whether the wait that earlier failures impose is over.
    pub(crate) fn may_try(&self, address: &dyn fmt::Display) -> Result<(), TransferError> {
        let now = Instant::now();
        match self.not_before {
            Some(moment) if moment > now => Err(TransferError::BackingOff {
                address: address.to_string(),
                retry_in: moment - now,
            }),
            _ => Ok(()),
        }
    }

    /// Whether the last attempt, if there was one, succeeded.
    pub(crate) fn is_new(&self) -> bool {
        self.failures == 0
    }

    /// How long the next attempt has to wait.
    pub(crate) fn wait(&self) -> Duration {
        self.not_before
            .map_or(Duration::ZERO, |moment| moment.saturating_duration_since(Instant::now()))
    }

    /// Counts a failure; those that happened side by side count once.
    pub(crate) fn failed(&mut self, back_off: BackOff) {
        let now = Instant::now();
        if self.not_before.is_none_or(|moment| moment <= now) {
            self.not_before = Some(now + back_off.after(self.failures));
            self.failures = self.failures.saturating_add(1);
        }
    }
}

/// Locks what no code panics in.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
