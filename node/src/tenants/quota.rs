//! What tenants have at once, and in a minute. Pure: the time is handed in.

use crate::config::Threshold;
use baton_proto::ids::TenantId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What of a kind each tenant has at once. Clones share it; it has an entry for each tenant that
/// has something, and no other.
#[derive(Clone, Debug, Default)]
pub struct Seats {
    taken: Arc<Mutex<HashMap<TenantId, u32>>>,
}

/// One of a tenant's; it is given back when this falls.
#[derive(Debug)]
pub struct Seat {
    tenant: TenantId,
    seats: Seats,
}

impl Seats {
    /// One more for that tenant, unless it has `max`.
    pub fn take(&self, tenant: &TenantId, max: Threshold<u32>) -> Option<Seat> {
        let mut taken = self.lock();
        let count = taken.get(tenant).copied().unwrap_or(0);
        if max.is_reached_by(&count) {
            return None;
        }
        taken.insert(tenant.clone(), count + 1);
        Some(Seat { tenant: tenant.clone(), seats: self.clone() })
    }

    /// How many that tenant has.
    pub fn taken(&self, tenant: &TenantId) -> u32 {
        self.lock().get(tenant).copied().unwrap_or(0)
    }

    /// Tenants that have something.
    pub fn tenants(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, u32>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.lock();
        if let Some(count) = taken.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.tenant);
            }
        }
    }
}

/// What each tenant has used of a quota by the minute. What was used is worn off evenly, so that a
/// tenant at its quota gets on at the pace of it.
#[derive(Debug, Default)]
pub struct Budgets {
    used: HashMap<TenantId, Used>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Used {
    tokens: f64,
    /// When that was so.
    at: Duration,
}

impl Budgets {
    /// Uses so many of `per_minute`, or says when they can be had. More than a minute's worth can
    /// be had by whoever has used nothing, and has to be worn off before anything else.
    pub fn spend(
        &mut self,
        tenant: &TenantId,
        tokens: u64,
        per_minute: u32,
        now: Duration,
    ) -> Result<(), Duration> {
        let used = self.used.entry(tenant.clone()).or_default();
        let (most, rate) = (f64::from(per_minute), f64::from(per_minute) / 60.0);
        let worn = now.saturating_sub(used.at).as_secs_f64() * rate;
        *used = Used { tokens: (used.tokens - worn).max(0.0), at: now };
        let over = used.tokens + (tokens as f64).min(most) - most;
        // What lies below a token is rounding.
        if over > 1e-6 {
            return Err(Duration::from_secs_f64(over / rate));
        }
        used.tokens += tokens as f64;
        Ok(())
    }

    /// Forgets the tenants that are not `known` any more.
    pub fn retain(&mut self, known: impl Fn(&TenantId) -> bool) {
        self.used.retain(|tenant, _| known(tenant));
    }

    /// Tenants that something is remembered of.
    pub fn tenants(&self) -> usize {
        self.used.len()
    }
}
