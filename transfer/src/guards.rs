//! The checks that stand between a stale or damaged byte and the engine.
//!
//! In tests each can be taken away, to show that the test named after it fails without it. In any
//! other build all of them are on and nothing can turn them off.

/// A check that tests can take away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Guard {
    /// The cluster's token in a hello.
    Token,
    /// Equal slots on both sides.
    Layout,
    /// CRC32C of the payload.
    Crc,
    /// The block's hash and group.
    Identity,
    /// The slot's generation.
    Generation,
    /// The owner's run.
    Incarnation,
    /// The lease's remaining time.
    Lease,
    /// That a part lies in its block.
    Span,
    /// The pin on a block while it is being sent.
    Pin,
    /// The look at readers' boards before a slot is reused.
    Board,
    /// The wait for a writer that was told to stop.
    Quiet,
    /// The end of a peer's keys before the pins of what they open.
    Revocation,
}

/// Which checks are on: all but at most one, in tests.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Guards {
    #[cfg(test)]
    without: Option<Guard>,
}

impl Guards {
    /// All checks but one.
    #[cfg(test)]
    pub(crate) fn without(guard: Guard) -> Self {
        Self { without: Some(guard) }
    }

    /// Whether a check is made.
    #[cfg(test)]
    pub(crate) fn on(self, guard: Guard) -> bool {
        self.without != Some(guard)
    }

    /// Whether a check is made.
    #[cfg(not(test))]
    #[allow(clippy::unused_self, reason = "the answer depends on it in tests")]
    pub(crate) fn on(self, _: Guard) -> bool {
        true
    }
}
