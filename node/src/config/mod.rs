//! Configuration: one TOML file per daemon, unknown keys refused, every value's origin known.
//!
//! A daemon owns its structs (`Default + Serialize + Deserialize` with
//! `#[serde(default, deny_unknown_fields)]`); this module loads them, says in one line what is
//! wrong and where, and prints what is effective and why (`--check`). Loading binds nothing and
//! starts nothing.

mod error;
mod source;
mod units;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use error::{ConfigError, Place};
use source::{Source, join};
pub use units::{ByteSize, QuantityError, Span, Threshold};

/// The largest file that is still taken for a configuration.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A configuration with the origin of each of its values.
///
/// Values are what remains after the layers: defaults, then the file, then flags.
pub struct Layered<T> {
    value: T,
    /// What the file and the flags say, without the defaults.
    said: toml::Table,
    places: BTreeMap<String, Place>,
}

/// Where an effective value comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A line of a file.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "from {}:{line}", path.display()),
            Self::Flag(flag) => write!(f, "from {flag}"),
        }
    }
}

/// Loads a file over the defaults of `T`; without a file, the defaults alone.
pub fn load<T>(path: Option<&Path>) -> Result<Layered<T>, ConfigError>
where
    T: Default + Serialize + DeserializeOwned,
{
    match path {
        None => {
            Ok(Layered { value: T::default(), said: toml::Table::new(), places: BTreeMap::new() })
        }
        Some(path) => parse(path, &read(path)?),
    }
}

/// Parses a text that was read from `path`.
pub fn parse<T>(path: &Path, text: &str) -> Result<Layered<T>, ConfigError>
where
    T: Serialize + DeserializeOwned,
{
    let source = Source::parse(path, text)?;
    let value = source.read()?;
    let said: toml::Table = source.read()?;
    let places = source.places();
    Ok(Layered { value, said, places })
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.into(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(ConfigError::TooLarge { path: path.into(), bytes_max: FILE_BYTES_MAX });
    }
    Ok(text)
}

impl<T> Layered<T> {
    /// The effective values.
    pub fn value(&self) -> &T {
        &self.value
    }

    /// The effective values, without their origins.
    pub fn into_value(self) -> T {
        self.value
    }

    /// Where a value comes from. Keys are written with dots: `pool.slots`, `prefill[0].name`.
    pub fn origin(&self, key: &str) -> Origin {
        match self.places.get(key) {
            None | Some(Place::Default) => Origin::Default,
            Some(Place::File { path, line, .. }) => {
                Origin::File { path: path.clone(), line: *line }
            }
            Some(Place::Flag(flag)) => Origin::Flag(flag),
        }
    }

    /// The error for a value that has the right type and still makes no sense. It names the
    /// place where the value was written.
    pub fn refuse(
        &self,
        key: &str,
        expected: impl Into<String>,
        found: impl fmt::Display,
    ) -> ConfigError {
        ConfigError::Value {
            at: self.places.get(key).cloned().unwrap_or(Place::Default),
            key: key.into(),
            expected: expected.into(),
            found: found.to_string(),
        }
    }
}

impl<T: Serialize + DeserializeOwned> Layered<T> {
    /// Lets a flag of the command line speak over file and default. `key` is a key with dots,
    /// not into an array.
    pub fn set(
        &mut self,
        key: &str,
        value: impl Serialize,
        flag: &'static str,
    ) -> Result<(), ConfigError> {
        let at = Place::Flag(flag);
        let wrong = |message: &str, written: &str| {
            source::explain(at.clone(), key.into(), message, written)
        };
        let value = toml::Value::try_from(value).map_err(|error| wrong(&error.to_string(), ""))?;
        let mut said = self.said.clone();
        insert(&mut said, key, value.clone());
        self.value = T::deserialize(toml::Value::Table(said.clone()))
            .map_err(|error| wrong(error.message(), &value.to_string()))?;
        self.said = said;
        self.places.insert(key.into(), at);
        Ok(())
    }
}

impl<T: Serialize> fmt::Display for Layered<T> {
    /// The answer to `--check`: one line per key with its effective value and where it came from.
    /// Optional keys that nobody set are not listed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = toml::Table::try_from(&self.value).map_err(|_| fmt::Error)?;
        let mut lines = Vec::new();
        leaves("", &table, &mut |key, value| {
            let origin = self.origin(&key);
            lines.push((format!("{key} = {value}"), origin));
        });
        let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0).min(60);
        lines.iter().try_for_each(|(line, origin)| writeln!(f, "{line:width$}  # {origin}"))
    }
}

/// Calls `each` for every value that is not a table, in the order of keys.
fn leaves(prefix: &str, table: &toml::Table, each: &mut impl FnMut(String, &toml::Value)) {
    for (name, value) in table {
        let key = join(prefix, name);
        match value {
            toml::Value::Table(inner) => leaves(&key, inner, each),
            toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
                for (index, item) in items.iter().enumerate() {
                    match item {
                        toml::Value::Table(inner) => {
                            leaves(&format!("{key}[{index}]"), inner, each);
                        }
                        other => each(format!("{key}[{index}]"), other),
                    }
                }
            }
            other => each(key, other),
        }
    }
}

/// Puts a value at a key with dots, making the tables on the way.
fn insert(table: &mut toml::Table, key: &str, value: toml::Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.into(), value);
        }
        Some((name, rest)) => {
            let inner = table.entry(name).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            // A value where a table belongs was refused when the file was read.
            if let toml::Value::Table(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests;
