//! Which grants a connection has, and until when. No clock, no device.

use std::collections::HashMap;
use tokio::time::Instant;

/// Grants of one connection, at most so many.
pub(super) struct Grants<H> {
    held: HashMap<u64, (H, Instant)>,
    next: u64,
    limit: usize,
    /// No more are taken.
    closed: bool,
}

impl<H> Grants<H> {
    pub(super) fn new(limit: usize) -> Self {
        Self { held: HashMap::new(), next: 1, limit, closed: false }
    }

    /// Whether there is room for one more.
    pub(super) fn room(&self) -> bool {
        !self.closed && self.held.len() < self.limit
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

    /// Ends a grant; `None` if it has ended.
    pub(super) fn take(&mut self, number: u64) -> Option<H> {
        self.held.remove(&number).map(|(held, _)| held)
    }

    /// Ends all whose time is up.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<H> {
        self.held.extract_if(|_, (_, until)| *until <= now).map(|(_, (held, _))| held).collect()
    }

    /// When the next one is up.
    pub(super) fn next_moment(&self) -> Option<Instant> {
        self.held.values().map(|(_, until)| *until).min()
    }

    /// Takes no more, from now on.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Ends all.
    pub(super) fn drain(&mut self) -> Vec<H> {
        self.held.drain().map(|(_, (held, _))| held).collect()
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
        assert_eq!(grants.expired(now + Duration::from_secs(1)), ["b"]);
        assert_eq!(grants.take(b), None);
        assert_eq!(grants.take(a), Some("a"));
        assert_eq!(grants.take(a), None);
        assert!(grants.is_empty());
        // Numbers are not used again.
        let c = grants.insert("c", now).unwrap();
        assert!(c != a && c != b);
        grants.close();
        assert_eq!(grants.insert("d", now), Err("d"));
        assert_eq!(grants.drain(), ["c"]);
    }
}
