//! The memory that request bodies may take together, from their first byte until their prompt is
//! token ids.
//!
//! Counted as the bytes arrive, so that a length that is only announced takes nothing from others.

use crate::error::TurnError;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What one permit stands for; a semaphore gives out at most 2^32 at once.
const UNIT_BYTES: usize = 1024;

/// The budget.
#[derive(Clone, Debug)]
pub(crate) struct Bodies {
    units: Arc<Semaphore>,
    units_max: usize,
}

/// What one body holds of it; given back when dropped.
#[derive(Debug)]
pub(crate) struct Held {
    bodies: Bodies,
    bytes: usize,
    units: Option<OwnedSemaphorePermit>,
}

impl Bodies {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let units_max = bytes_max.div_ceil(UNIT_BYTES).min(Semaphore::MAX_PERMITS);
        Self { units: Arc::new(Semaphore::new(units_max)), units_max }
    }

    /// For a body of which nothing has arrived.
    pub(crate) fn enter(&self) -> Held {
        Held { bodies: self.clone(), bytes: 0, units: None }
    }
}

impl Held {
    /// So many further bytes have arrived.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), TurnError> {
        self.bytes = self.bytes.saturating_add(bytes);
        let needed = self.bytes.div_ceil(UNIT_BYTES);
        if needed > self.bodies.units_max {
            // To come back later would not help.
            return Err(TurnError::BodyTooLarge);
        }
        let held = self.units.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let full = || TurnError::Overloaded("too many request bodies are in memory".to_owned());
        let more = u32::try_from(needed - held).map_err(|_| full())?;
        let more = self.bodies.units.clone().try_acquire_many_owned(more).map_err(|_| full())?;
        match &mut self.units {
            Some(units) => units.merge(more),
            None => self.units = Some(more),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_share_a_budget_and_give_it_back() {
        let bodies = Bodies::new(10 * UNIT_BYTES);
        let (mut one, mut other) = (bodies.enter(), bodies.enter());
        assert_eq!(one.grow(6 * UNIT_BYTES), Ok(()));
        assert_eq!(other.grow(4 * UNIT_BYTES), Ok(()));
        assert!(matches!(other.grow(1), Err(TurnError::Overloaded(_))));
        drop(one);
        assert_eq!(other.grow(1), Ok(()));
    }

    #[test]
    fn small_pieces_are_counted_by_their_sum() {
        let mut held = Bodies::new(UNIT_BYTES).enter();
        for _ in 0..UNIT_BYTES {
            assert_eq!(held.grow(1), Ok(()));
        }
        assert_eq!(held.grow(1), Err(TurnError::BodyTooLarge));
    }
}
