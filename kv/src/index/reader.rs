//! Looking chains up one after the other: what was found stays in compact form, workers of one depth
//! together, and is spelt out only for whoever asks.

use super::atomics::Ordering;
use super::steps::Steps;
use super::table::GroupMix;
use super::view::{Match, Scratch, View, worker};
use baton_proto::ids::{GroupId, SequenceHash};

/// Someone who looks chains up, with arrays that one lookup leaves to the next.
#[derive(Debug)]
pub struct Reader {
    view: View,
    scratch: Scratch,
    /// The index' names of slots, as they were after so many changes.
    names: Vec<u64>,
    renames: Option<u64>,
}

/// The workers that hold the beginning of a chain, the deepest first.
#[derive(Clone, Copy, Debug)]
pub struct Depths<'a> {
    steps: &'a Steps,
    names: &'a [u64],
}

impl View {
    /// Someone who looks chains up.
    pub fn reader(&self) -> Reader {
        let (scratch, names) = (Scratch::default(), Vec::new());
        Reader { view: self.clone(), scratch, names, renames: None }
    }
}

impl Reader {
    /// The same workers as those of [`View::matches`].
    pub fn find(&mut self, chain: &[SequenceHash], group: GroupId) -> Depths<'_> {
        let Self { view, scratch, names, renames } = self;
        view.steady(|| {
            let shared = &*view.0;
            let now = Some(shared.renames.load(Ordering::Acquire));
            if *renames != now {
                names.clear();
                names.extend(shared.names.iter().map(|name| name.load(Ordering::Relaxed)));
                *renames = now;
            }
            shared.search(chain, GroupMix::new(group), scratch)
        });
        Depths { steps: &scratch.found, names }
    }
}

impl<'a> Depths<'a> {
    /// How many workers.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether nobody holds the first block.
    pub fn is_empty(&self) -> bool {
        self.steps.deepest().is_none()
    }

    /// How many of the chain's leading blocks the deepest holds.
    pub fn deepest(&self) -> usize {
        self.steps.deepest().unwrap_or(0)
    }

    /// Each worker with its depth.
    pub fn iter(&self) -> impl Iterator<Item = Match> + 'a {
        let names = self.names;
        let named = move |(depth, slot, tier)| {
            Some(Match { worker: worker(names[slot as usize])?, depth, tier })
        };
        self.steps.iter().filter_map(named)
    }
}
