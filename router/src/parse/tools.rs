//! What the parsers know of a request's tools.

use std::collections::HashMap;
use std::ops::BitOr;

/// JSON types that a parameter's schema allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Types(u8);

impl Types {
    /// Any text.
    pub const STRING: Self = Self(1);
    /// A number; `integer` too.
    pub const NUMBER: Self = Self(2);
    /// `true` or `false`.
    pub const BOOLEAN: Self = Self(4);
    /// `null`.
    pub const NULL: Self = Self(8);
    /// An object.
    pub const OBJECT: Self = Self(16);
    /// An array.
    pub const ARRAY: Self = Self(32);

    /// The type of this name in JSON Schema.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "string" => Self::STRING,
            "number" | "integer" => Self::NUMBER,
            "boolean" => Self::BOOLEAN,
            "null" => Self::NULL,
            "object" => Self::OBJECT,
            "array" => Self::ARRAY,
            _ => return None,
        })
    }

    /// All of `other` are among them.
    pub fn allow(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Types {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The tools of a request, by name. Formats that write values without quotes need the types of a
/// tool's parameters, and an answer that is bare JSON is a call only if it names a tool.
#[derive(Clone, Debug, Default)]
pub struct Tools(HashMap<String, HashMap<String, Types>>);

impl Tools {
    /// No tools.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tool with those of its parameters whose types are known.
    pub fn add(&mut self, name: &str, parameters: impl IntoIterator<Item = (String, Types)>) {
        self.0.insert(name.to_owned(), parameters.into_iter().collect());
    }

    /// There is a tool of this name.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The types of a tool's parameter; a string where nothing is known.
    pub fn types(&self, tool: &str, parameter: &str) -> Types {
        let types = self.0.get(tool).and_then(|parameters| parameters.get(parameter));
        types.copied().unwrap_or(Types::STRING)
    }
}
