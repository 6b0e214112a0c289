//! Keys of clients. A file has their digests alone, and nothing here shows a key or a digest in
//! `Debug`, a log or an error.
//!
//! A key is 256 random bits, so a fast hash is enough: there is nothing to guess.

use crate::auth::SecretError;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use subtle::ConstantTimeEq;

/// What a digest begins with, in the file.
const PREFIX: &str = "blake3:";
/// What a key begins with, so that people and scanners know one when they see it.
const KEY_PREFIX: &str = "baton-";
const EXPECTED: &str = "\"blake3:\" and 64 hexadecimal digits (`baton tenants key` makes them)";

/// The digest of a client's key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyDigest([u8; 32]);

impl KeyDigest {
    /// Of that key.
    pub fn of(key: &[u8]) -> Self {
        Self(*blake3::hash(key).as_bytes())
    }

    /// Whether both are of one key, in constant time.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    pub(super) fn bytes(&self) -> [u8; 32] {
        self.0
    }

    fn parse(text: &str) -> Option<Self> {
        let digest = blake3::Hash::from_hex(text.strip_prefix(PREFIX)?).ok()?;
        Some(Self(*digest.as_bytes()))
    }
}

impl fmt::Display for KeyDigest {
    /// As it stands in the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyDigest(<redacted>)")
    }
}

impl Serialize for KeyDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A new key: to be shown once, to whoever will use it.
pub fn generate() -> Result<String, SecretError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(SecretError::Entropy)?;
    Ok(format!("{KEY_PREFIX}{}", blake3::Hash::from_bytes(bytes).to_hex()))
}

/// Reads a list of digests. What stands in the place of one may be a key: it is not repeated.
pub(super) fn digests<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<KeyDigest>, D::Error> {
    let value = toml::Value::deserialize(value)?;
    let kind = value.type_str();
    let toml::Value::Array(items) = value else {
        let message =
            format!("invalid type: a value of type {kind}, expected a list of {EXPECTED}");
        return Err(D::Error::custom(message));
    };
    let digest = |(index, item): (usize, &toml::Value)| {
        let text = item.as_str().unwrap_or_default();
        KeyDigest::parse(text).ok_or_else(|| {
            let length = text.chars().count();
            let found = format!("{length} characters of another form at index {index}");
            D::Error::custom(format!("invalid value: {found}, expected {EXPECTED}"))
        })
    };
    items.iter().enumerate().map(digest).collect()
}
