//! Which grants a connection has, and until when. No clock, no device.

use std::collections::HashMap;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Grants of one connection, at most so many.
pub(super) struct Grants<H> {
    held: HashMap<u64, (H, Instant)>,
    /// Those that were taken and are not over, with what tells of their end.
    ending: HashMap<u64, CancellationToken>,
    next: u64,
    limit: usize,
    /// No more are taken.
    closed: bool,
}

impl<H> Grants<H> {
    pub(super) fn new(limit: usize) -> Self {
        Self { held: HashMap::new(), ending: HashMap::new(), next: 1, limit, closed: false }
    }

    /// Whether there is room for one more.
    pub(super) fn room(&self) -> bool {
        !self.closed && self.held.len() + self.ending.len() < self.limit
    }

    /// Keeps a grant until it is taken, and says its number, which is never 0. If there is no room
    /// (any more), gives it back.
    pub(super) fn insert(&mut self, held: H, until: Instant) -> Result<u64, H> {
        if !self.room() {
            return Err(held);
        }
        let number = self.next;
        self.next += 1;
        self.held.insert(number, (held, until));
        Ok(number)
    }

    /// Takes a grant out, to be ended; `None` if that has happened. Say [`over`](Self::over) then.
    pub(super) fn take(&mut self, number: u64) -> Option<H> {
        let (held, _) = self.held.remove(&number)?;
        self.ending.insert(number, CancellationToken::new());
        Some(held)
    }

    /// Takes out all whose time is up, with their numbers.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<(u64, H)> {
        self.take_if(|until| until <= now)
    }

    fn take_if(&mut self, which: impl Fn(Instant) -> bool) -> Vec<(u64, H)> {
        let taken = self.held.extract_if(|_, (_, until)| which(*until));
        let taken: Vec<_> = taken.map(|(number, (held, _))| (number, held)).collect();
        self.ending.extend(taken.iter().map(|(number, _)| (*number, CancellationToken::new())));
        taken
    }

    /// What was taken has ended.
    pub(super) fn over(&mut self, number: u64) {
        if let Some(over) = self.ending.remove(&number) {
            over.cancel();
        }
    }

    /// What tells of the end of a grant that was taken, if it has not ended.
    pub(super) fn ending(&self, number: u64) -> Option<CancellationToken> {
        self.ending.get(&number).cloned()
    }

    /// When the next one is up.
    pub(super) fn next_moment(&self) -> Option<Instant> {
        self.held.values().map(|(_, until)| *until).min()
    }

    /// Takes no more, from now on.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Takes out all, with their numbers.
    pub(super) fn drain(&mut self) -> Vec<(u64, H)> {
        self.take_if(|_| true)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_grant_ends_once() {
        let now = Instant::now();
        let mut grants = Grants::new(2);
        let a = grants.insert("a", now + Duration::from_secs(2)).unwrap();
        let b = grants.insert("b", now + Duration::from_secs(1)).unwrap();
        assert!(a != b && a != 0 && b != 0);
        assert_eq!(grants.insert("c", now), Err("c"));
        assert_eq!(grants.next_moment(), Some(now + Duration::from_secs(1)));
        assert!(grants.expired(now).is_empty());
        assert_eq!(grants.expired(now + Duration::from_secs(1)), [(b, "b")]);
        assert_eq!(grants.take(b), None);
        assert_eq!(grants.take(a), Some("a"));
        assert_eq!(grants.take(a), None);
        assert!(grants.is_empty());
        // Until they are over they have their place, and who asks for it hears of the end.
        assert_eq!(grants.insert("c", now), Err("c"));
        let ending = [a, b].map(|number| grants.ending(number).unwrap());
        grants.over(a);
        assert_eq!(ending.map(|over| over.is_cancelled()), [true, false]);
        assert!(grants.ending(a).is_none() && grants.ending(77).is_none());
        // Numbers are not used again.
        let c = grants.insert("c", now).unwrap();
        assert!(c != a && c != b);
        grants.close();
        assert_eq!(grants.insert("d", now), Err("d"));
        assert_eq!(grants.drain(), [(c, "c")]);
    }
}
