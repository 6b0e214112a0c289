//! Values that must never reach a log.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What is printed instead.
const SHOWN: &str = "<redacted>";

/// A value whose text forms (`Debug`, `Display`, serialisation) do not show it: prompts, keys,
/// memory keys of peers. Reading it takes the word [`expose`](Self::expose).
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Redacted<T>(T);

impl<T> Redacted<T> {
    /// Hides a value.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself; whoever writes this keeps it out of every log.
    pub fn expose(&self) -> &T {
        &self.0
    }

    /// The value itself, given away.
    pub fn into_exposed(self) -> T {
        self.0
    }
}

impl<T> From<T> for Redacted<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<T> fmt::Debug for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SHOWN)
    }
}

impl<T> fmt::Display for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SHOWN)
    }
}

impl<T> Serialize for Redacted<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(SHOWN)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Redacted<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_form_shows_the_value() {
        let secret = Redacted::new("canary".to_string());
        let shown = format!("{secret} {secret:?} {:?}", Some(&secret));
        let json = serde_json::to_string(&secret).expect("serialisable");
        assert!(!shown.contains("canary") && !json.contains("canary"), "{shown} {json}");
        assert_eq!(secret.expose(), "canary");
    }
}
