//! The state of a feature that can be switched while a daemon runs.

use serde::{Deserialize, Serialize};

/// Whether a feature acts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// It does nothing.
    Off,
    /// It decides, and what it would do is counted.
    Shadow,
    /// It acts.
    #[default]
    On,
}

impl Switch {
    /// Its name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Shadow => "shadow",
            Self::On => "on",
        }
    }
}
