//! Who comes first: the order in which the turns and jobs of one worker are served.
//!
//! 1. The tier: the strict priority that a request names; what is computed ahead of any request
//!    stands behind all tiers.
//! 2. Within a tier, tenants have shares: whoever was given least for its weight comes first
//!    ([`Shares`]). This stands above priority and age, since a flood has those as well.
//! 3. Within a tenant, priority, which waiting raises, so that nothing starves.
//! 4. By when the answer is wanted, where that is said: the earliest deadline first.
//! 5. The predicted shortest, by powers of two, so that alike ones keep their order.
//! 6. Who came first.
//!
//! Switched off, only that counts.

use baton_node::switch::Switch;
use baton_proto::ids::TenantId;
use baton_proto::ir::BACKGROUND_PRIORITY;
use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

/// Tenants without work whose accounts are remembered, so that leaving and coming back gains
/// nothing.
const IDLE_ACCOUNTS_MAX: usize = 1024;
/// The largest weight of a tenant.
pub const WEIGHT_MAX: u32 = 1000;

/// What a request says about who comes first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Precedence {
    /// Work of a larger one comes first, however long that of a smaller one waits.
    pub strict_priority: u8,
    /// Larger is more urgent; waiting makes up for it. [`BACKGROUND_PRIORITY`] is behind
    /// everything.
    pub priority: i32,
    /// By when the answer is wanted, on this process's clock. It orders, and ends nothing.
    pub wanted: Option<Duration>,
}

impl Precedence {
    /// From a message: `wanted_ms` counts from `now`.
    pub fn from_wire(
        strict_priority: u32,
        priority: i32,
        wanted_ms: Option<u32>,
        now: Duration,
    ) -> Self {
        Self {
            strict_priority: u8::try_from(strict_priority).unwrap_or(u8::MAX),
            priority,
            wanted: wanted_ms.map(|ms| now + Duration::from_millis(u64::from(ms))),
        }
    }

    /// What is left until the answer is wanted, for a message.
    pub fn wanted_ms(&self, now: Duration) -> Option<u32> {
        let left = |wanted: Duration| wanted.saturating_sub(now).as_millis();
        self.wanted.map(|wanted| u32::try_from(left(wanted)).unwrap_or(u32::MAX))
    }

    /// The tier; what no request waits for is behind all.
    fn tier(&self) -> i16 {
        if self.priority == BACKGROUND_PRIORITY { -1 } else { i16::from(self.strict_priority) }
    }
}

/// What decides when a piece of work is served, beside its tenant's share.
#[derive(Clone, Copy, Debug)]
pub struct Urgency {
    /// What the request says.
    pub precedence: Precedence,
    /// When the work came.
    pub arrived: Duration,
    /// When nobody wants it any more.
    pub deadline: Duration,
}

impl Urgency {
    /// The priority with what waiting has made of it; waiting for `ageing` is worth one.
    fn aged(&self, now: Duration, ageing: Duration) -> i64 {
        let waited = now.saturating_sub(self.arrived).as_millis() / ageing.as_millis().max(1);
        i64::from(self.precedence.priority) + waited as i64
    }

    /// Whether this may take the memory of work that has begun to compute its prompt: of a lower
    /// tier, or, as long as it has not waited for that, of less than ordinary priority.
    fn displaces(&self, other: &Self, now: Duration, ageing: Duration) -> bool {
        let (tier, theirs) = (self.precedence.tier(), other.precedence.tier());
        let low = |urgency: &Self| urgency.aged(now, ageing) < 0;
        tier > theirs || (tier == theirs && low(other) && !low(self))
    }
}

/// A piece of work that is to be ordered.
#[derive(Debug)]
pub struct Entry<'a, Id> {
    /// Its name; of equals the lesser one comes first.
    pub id: Id,
    /// Whose it is.
    pub tenant: &'a TenantId,
    /// The tenant's weight, from 1 to [`WEIGHT_MAX`].
    pub weight: u32,
    /// What the request says, and its times.
    pub urgency: Urgency,
    /// Tokens that it will probably take.
    pub cost_tokens: u64,
}

/// What each tenant was given, for fair shares.
///
/// A tenant's account grows by what it is given, divided by its weight; the least account is
/// served first. Whoever comes after a time without work starts at the least account of those who
/// have some: shares are not saved up. (The virtual token counter of Sheng et al., "Fairness in
/// Serving Large Language Models", OSDI 2024, which bounds the difference between two tenants that
/// have work by the largest single grant, as deficit round robin does, and gives an order instead
/// of a visiting sequence.)
#[derive(Debug, Default)]
pub struct Shares {
    accounts: BTreeMap<TenantId, Account>,
    switch: Switch,
    shadow: Cell<Shadow>,
}

/// What an order in shadow would have put first: how often what was, and how often another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Shadow {
    /// The same.
    pub same: u64,
    /// Another.
    pub other: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Account {
    /// Pieces of work that are there.
    present: usize,
    given: u64,
}

impl Shares {
    /// A piece of work of this tenant has come.
    pub fn enter(&mut self, tenant: &TenantId) {
        let floor = self.floor();
        let account = self.accounts.entry(tenant.clone()).or_default();
        if account.present == 0 {
            account.given = account.given.max(floor.unwrap_or(0));
        }
        account.present += 1;
    }

    /// A piece of work of this tenant is gone.
    pub fn leave(&mut self, tenant: &TenantId) {
        if let Some(account) = self.accounts.get_mut(tenant) {
            account.present = account.present.saturating_sub(1);
        }
        match self.floor() {
            None => self.accounts.clear(),
            Some(floor) => {
                // Those below the floor would be lifted to it anyway.
                self.accounts.retain(|_, account| account.present > 0 || account.given > floor);
                self.trim();
            }
        }
    }

    /// The tenant was given so many tokens.
    pub fn charge(&mut self, tenant: &TenantId, weight: u32, tokens: u64) {
        if let Some(account) = self.accounts.get_mut(tenant) {
            account.given = account.given.saturating_add(dues(tokens, weight));
        }
    }

    /// Whether the order acts, from now on.
    pub fn set(&mut self, switch: Switch) {
        self.switch = switch;
    }

    /// What the order would have done while it was in shadow.
    pub fn shadow(&self) -> Shadow {
        self.shadow.get()
    }

    /// Whether one piece of work may take the memory of another ([`Urgency::displaces`]).
    pub fn displaces(
        &self,
        one: &Urgency,
        other: &Urgency,
        now: Duration,
        ageing: Duration,
    ) -> bool {
        self.switch == Switch::On && one.displaces(other, now, ageing)
    }

    /// Of pieces of work in their order, with the blocks that each would give back: the last ones
    /// that `urgency` displaces and that together give back what is `missing`; `None` where all of
    /// those do not.
    pub fn displaced<Id>(
        &self,
        urgency: &Urgency,
        order: impl DoubleEndedIterator<Item = (Id, Urgency, usize)>,
        missing: usize,
        (now, ageing): (Duration, Duration),
    ) -> Option<Vec<Id>> {
        let mut gained = 0;
        let mut chosen = Vec::new();
        for (id, other, blocks) in order.rev() {
            if gained >= missing {
                break;
            }
            if self.displaces(urgency, &other, now, ageing) {
                gained += blocks;
                chosen.push(id);
            }
        }
        (gained >= missing).then_some(chosen)
    }

    /// The order in which these are to be served.
    pub fn order<Id: Copy + Ord>(
        &self,
        entries: Vec<Entry<'_, Id>>,
        now: Duration,
        ageing: Duration,
    ) -> Vec<Id> {
        if self.switch == Switch::On {
            return self.by_urgency(entries, now, ageing);
        }
        let mut order: Vec<Id> = entries.iter().map(|entry| entry.id).collect();
        order.sort_unstable();
        if self.switch == Switch::Shadow && order.len() > 1 {
            let Shadow { same, other } = self.shadow.get();
            let agrees = u64::from(self.by_urgency(entries, now, ageing).first() == order.first());
            self.shadow.set(Shadow { same: same + agrees, other: other + 1 - agrees });
        }
        order
    }

    fn by_urgency<Id: Copy + Ord>(
        &self,
        mut entries: Vec<Entry<'_, Id>>,
        now: Duration,
        ageing: Duration,
    ) -> Vec<Id> {
        entries.sort_by_cached_key(|entry| {
            let Urgency { precedence, deadline, .. } = entry.urgency;
            let aged = entry.urgency.aged(now, ageing);
            let wanted = precedence.wanted.unwrap_or(Duration::MAX);
            let size = entry.cost_tokens.checked_ilog2();
            (Reverse(precedence.tier()), Reverse(aged), wanted, size, deadline, entry.id)
        });
        let same_tier = |a: &Entry<'_, Id>, b: &Entry<'_, Id>| {
            a.urgency.precedence.tier() == b.urgency.precedence.tier()
        };
        let mut accounts = BTreeMap::new();
        entries.chunk_by(same_tier).flat_map(|tier| self.share(tier, &mut accounts)).collect()
    }

    /// One tier in the order of its tenants' shares; each tenant's work keeps its order. What is
    /// given by this order counts in `accounts`.
    fn share<'a, Id: Copy>(
        &self,
        tier: &[Entry<'a, Id>],
        accounts: &mut BTreeMap<&'a TenantId, u64>,
    ) -> Vec<Id> {
        if tier.iter().all(|entry| entry.tenant == tier[0].tenant) {
            return tier.iter().map(|entry| entry.id).collect();
        }
        let mut lines: BTreeMap<&TenantId, Vec<&Entry<'_, Id>>> = BTreeMap::new();
        for entry in tier.iter().rev() {
            lines.entry(entry.tenant).or_default().push(entry);
        }
        let account = |tenant: &TenantId| self.accounts.get(tenant).map_or(0, |own| own.given);
        let start = lines.keys().copied().map(|tenant| {
            Reverse((*accounts.entry(tenant).or_insert_with(|| account(tenant)), tenant))
        });
        let mut next: BinaryHeap<_> = start.collect();
        let mut order = Vec::with_capacity(tier.len());
        while let Some(Reverse((given, tenant))) = next.pop() {
            let line = lines.get_mut(tenant).expect("every tenant has a line");
            let Some(entry) = line.pop() else {
                accounts.insert(tenant, given);
                continue;
            };
            order.push(entry.id);
            let given = given.saturating_add(dues(entry.cost_tokens, entry.weight));
            next.push(Reverse((given, tenant)));
        }
        order
    }

    /// The least account of those who have work.
    fn floor(&self) -> Option<u64> {
        let present = self.accounts.values().filter(|account| account.present > 0);
        present.map(|account| account.given).min()
    }

    /// Forgets the idle tenants that were given least, where there are too many of them.
    fn trim(&mut self) {
        let idle = self.accounts.iter().filter(|(_, account)| account.present == 0);
        let mut idle: Vec<_> = idle.map(|(tenant, account)| (account.given, tenant)).collect();
        if idle.len() <= IDLE_ACCOUNTS_MAX {
            return;
        }
        idle.sort_unstable();
        let surplus = idle.len() - IDLE_ACCOUNTS_MAX;
        let forgotten: Vec<TenantId> =
            idle[..surplus].iter().map(|(_, tenant)| (*tenant).clone()).collect();
        for tenant in forgotten {
            self.accounts.remove(&tenant);
        }
    }
}

/// What tokens cost a tenant of that weight.
fn dues(tokens: u64, weight: u32) -> u64 {
    tokens.saturating_mul(u64::from(WEIGHT_MAX)) / u64::from(weight.clamp(1, WEIGHT_MAX))
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
