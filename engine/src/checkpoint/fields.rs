//! Reading fields of a configuration, with errors that name them.

use super::CheckpointError;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Largest JSON file that is read, bytes: an index of a large model has a few megabytes.
const JSON_BYTES_MAX: u64 = 64 << 20;

/// An object of a JSON file.
pub(super) struct Fields<'a> {
    file: &'a Path,
    /// Path of the object in the file, with a dot at the end; empty at the top.
    prefix: String,
    map: &'a Map<String, Value>,
}

/// Reads and parses a JSON object; `Ok(None)` where there is no such file.
pub(super) fn read_json(file: &Path) -> Result<Option<Map<String, Value>>, CheckpointError> {
    let read = |source| CheckpointError::Read { file: file.to_owned(), source };
    let length = match std::fs::metadata(file) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(read(error)),
    };
    if length > JSON_BYTES_MAX {
        return Err(CheckpointError::Field {
            file: file.to_owned(),
            field: "(file)".to_owned(),
            expected: format!("at most {JSON_BYTES_MAX} bytes"),
            found: format!("{length} bytes"),
        });
    }
    let bytes = std::fs::read(file).map_err(read)?;
    let value = serde_json::from_slice(&bytes)
        .map_err(|source| CheckpointError::Json { file: file.to_owned(), source })?;
    match value {
        Value::Object(map) => Ok(Some(map)),
        other => Err(CheckpointError::Field {
            file: file.to_owned(),
            field: "(file)".to_owned(),
            expected: "an object".to_owned(),
            found: brief(&other),
        }),
    }
}

impl<'a> Fields<'a> {
    pub(super) fn new(file: &'a Path, map: &'a Map<String, Value>) -> Self {
        Self { file, prefix: String::new(), map }
    }

    pub(super) fn file(&self) -> PathBuf {
        self.file.to_owned()
    }

    /// The value, unless the field is not there or null.
    pub(super) fn get(&self, field: &str) -> Option<&'a Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    /// The object in a field.
    pub(super) fn object(&self, field: &str) -> Result<Option<Fields<'a>>, CheckpointError> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::Object(map)) => {
                let prefix = format!("{}{field}.", self.prefix);
                Ok(Some(Fields { file: self.file, prefix, map }))
            }
            Some(other) => Err(self.wrong(field, "an object", brief(other))),
        }
    }

    /// A whole number in a range.
    pub(super) fn number(
        &self,
        field: &str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<usize>, CheckpointError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        if let Some(n) = value.as_u64().filter(|n| range.contains(n)) {
            return Ok(Some(n as usize));
        }
        let expected = format!("a whole number in {}..={}", range.start(), range.end());
        Err(self.wrong(field, &expected, brief(value)))
    }

    /// A whole number in a range that has to be there.
    pub(super) fn required(
        &self,
        field: &str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<usize, CheckpointError> {
        let missing = format!("a whole number in {}..={}", range.start(), range.end());
        self.number(field, range)?.ok_or_else(|| self.wrong(field, &missing, "nothing".to_owned()))
    }

    /// A finite number from `min` on.
    pub(super) fn float(&self, field: &str, min: f32) -> Result<Option<f32>, CheckpointError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        match value.as_f64().map(|x| x as f32).filter(|x| x.is_finite() && *x >= min) {
            Some(x) => Ok(Some(x)),
            None => Err(self.wrong(field, &format!("a number of at least {min}"), brief(value))),
        }
    }

    /// A finite number from `min` on that has to be there.
    pub(super) fn required_float(&self, field: &str, min: f32) -> Result<f32, CheckpointError> {
        self.float(field, min)?.ok_or_else(|| {
            self.wrong(field, &format!("a number of at least {min}"), "nothing".to_owned())
        })
    }

    /// A truth value; false where there is none.
    pub(super) fn flag(&self, field: &str) -> Result<bool, CheckpointError> {
        match self.get(field) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.wrong(field, "true or false", brief(other))),
        }
    }

    /// A text.
    pub(super) fn text(&self, field: &str) -> Result<Option<&'a str>, CheckpointError> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(field, "a text", brief(other))),
        }
    }

    /// A value that makes no sense.
    pub(super) fn wrong(&self, field: &str, expected: &str, found: String) -> CheckpointError {
        CheckpointError::Field {
            file: self.file(),
            field: format!("{}{field}", self.prefix),
            expected: expected.to_owned(),
            found,
        }
    }

    /// A value that makes sense but is not implemented.
    pub(super) fn unsupported(
        &self,
        field: &str,
        found: String,
        supported: &str,
    ) -> CheckpointError {
        CheckpointError::Unsupported {
            file: self.file(),
            field: format!("{}{field}", self.prefix),
            found,
            supported: supported.to_owned(),
        }
    }
}

/// A value on one line of bounded length.
pub(super) fn brief(value: &Value) -> String {
    let mut text = value.to_string();
    if text.chars().count() > 60 {
        text = text.chars().take(60).collect();
        text.push_str("...");
    }
    text
}
