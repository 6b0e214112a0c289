//! Which features act. Each is `off`, `on`, or `shadow`: it decides, what it would do is counted,
//! and nothing is done. With all of them off the router serves plainly: the least loaded worker,
//! every prompt from scratch, no hint, no guess.

pub use baton_node::switch::Switch;
use serde::{Deserialize, Serialize};
use std::sync::{PoisonError, RwLock};

/// The switches, as they stand in the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Switches {
    /// `kv-aware`: predicted seconds instead of the least loaded worker.
    pub kv_aware: Switch,
    /// A policy outside of the router, where one is configured and named.
    pub external: Switch,
    /// Turns go where equal work is under way, and wait for it.
    pub fan_out: Switch,
    /// What earlier prompts have left is not rendered, tokenised and hashed again.
    pub prompt_cache: Switch,
    /// What harnesses say about their intent.
    pub hints: Switch,
    /// What the next prompt certainly begins with is computed ahead.
    pub speculation: Switch,
}

impl Switches {
    /// Every feature is in this state.
    pub fn all(state: Switch) -> Self {
        Self {
            kv_aware: state,
            external: state,
            fan_out: state,
            prompt_cache: state,
            hints: state,
            speculation: state,
        }
    }

    /// The features by name.
    pub fn named(&self) -> [(&'static str, Switch); 6] {
        [
            ("kv_aware", self.kv_aware),
            ("external", self.external),
            ("fan_out", self.fan_out),
            ("prompt_cache", self.prompt_cache),
            ("hints", self.hints),
            ("speculation", self.speculation),
        ]
    }
}

/// The switches of a running router, which can be set at any time.
#[derive(Debug)]
pub(crate) struct Board(RwLock<Switches>);

impl Board {
    pub(crate) fn new(switches: Switches) -> Self {
        Self(RwLock::new(switches))
    }

    pub(crate) fn get(&self) -> Switches {
        *self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets them; what changed, for the log.
    pub(crate) fn set(&self, switches: Switches) -> Vec<String> {
        let before = {
            let mut now = self.0.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *now, switches)
        };
        let pairs = before.named().into_iter().zip(switches.named());
        pairs
            .filter(|(before, after)| before != after)
            .map(|((name, before), (_, after))| {
                format!("{name}: {} -> {}", before.as_str(), after.as_str())
            })
            .collect()
    }
}
