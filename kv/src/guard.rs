//! The checks that keep a stale or foreign reference from being served or believed, each by name,
//! so that a test can take one away and show that nothing else would have caught what it catches.

/// A check, by what it compares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Guard {
    /// The lease of a descriptor is live.
    Lease,
    /// The descriptor's generation is the slot's.
    Generation,
    /// The descriptor's identity is the block's.
    Identity,
    /// Length and checksum are those that were sealed.
    Content,
    /// The tenant's salt enters the hash chain.
    Salt,
    /// Events of an earlier run of a worker are void.
    Incarnation,
    /// A reader of the index does not begin where a change is under way,
    Odd,
    /// and looks again where one was made meanwhile,
    Version,
    /// or where the bucket was split,
    Bucket,
    /// or where the block has got another set of holders,
    Set,
    /// or where a guessed entry has become another block's,
    Name,
    /// or where a set of holders has become another one,
    Row,
    /// or where a worker came, went, or began to have holes.
    Members,
}

impl Guard {
    /// Whether this guard lets pass what is `good` or not.
    pub(crate) fn passes(self, good: bool) -> bool {
        good || !self.stands()
    }

    /// Always, except where a test has taken the guard away.
    #[cfg(not(test))]
    #[allow(clippy::unused_self)]
    pub(crate) fn stands(self) -> bool {
        true
    }

    #[cfg(test)]
    pub(crate) fn stands(self) -> bool {
        REMOVED.get() != Some(self)
    }

    /// Runs `body` as if this guard did not exist.
    #[cfg(test)]
    pub(crate) fn without<T>(self, body: impl FnOnce() -> T) -> T {
        struct PutBack;
        impl Drop for PutBack {
            fn drop(&mut self) {
                REMOVED.set(None);
            }
        }
        REMOVED.set(Some(self));
        let _put_back = PutBack;
        body()
    }
}

#[cfg(test)]
thread_local! {
    static REMOVED: std::cell::Cell<Option<Guard>> = const { std::cell::Cell::new(None) };
}
