//! How tokens are drawn where a request does not say it: what generation_config.json recommends.

use crate::LoadError;
use crate::files;
use serde_json::{Map, Value as Json};
use std::ops::RangeInclusive;
use std::path::Path;

/// A checkpoint's own sampling parameters. What it does not name is neutral: the distribution as
/// the model gives it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct SamplingDefaults {
    /// 0 is greedy, which is also what `"do_sample": false` means.
    pub temperature: f32,
    /// 0 is off.
    pub top_k: u32,
    /// 1 is off.
    pub top_p: f32,
    /// 0 is off.
    pub min_p: f32,
    /// 1 is off.
    pub repetition_penalty: f32,
}

impl Default for SamplingDefaults {
    fn default() -> Self {
        Self { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0 }
    }
}

impl SamplingDefaults {
    /// Reads generation_config.json of a checkpoint directory, if there is one.
    pub(crate) fn read(dir: &Path) -> Result<Self, LoadError> {
        let path = dir.join("generation_config.json");
        let Some(fields) = files::object(&path)? else { return Ok(Self::default()) };
        let malformed = |reason| LoadError::Malformed { path: path.clone(), reason };
        Self::from_fields(&fields).map_err(malformed)
    }

    fn from_fields(fields: &Map<String, Json>) -> Result<Self, String> {
        let neutral = Self::default();
        let number = |name, range, otherwise| number(fields, name, range, otherwise);
        let temperature = match fields.get("do_sample") {
            Some(Json::Bool(false)) => 0.0,
            _ => number("temperature", 0.0..=2.0, neutral.temperature)?,
        };
        Ok(Self {
            temperature,
            // Both 0 and -1 are in use for "off".
            top_k: number("top_k", -1.0..=1e9, neutral.top_k as f32)?.max(0.0) as u32,
            top_p: number("top_p", f32::MIN_POSITIVE..=1.0, neutral.top_p)?,
            min_p: number("min_p", 0.0..=1.0, neutral.min_p)?,
            repetition_penalty: number(
                "repetition_penalty",
                f32::MIN_POSITIVE..=10.0,
                neutral.repetition_penalty,
            )?,
        })
    }
}

fn number(
    fields: &Map<String, Json>,
    name: &str,
    range: RangeInclusive<f32>,
    otherwise: f32,
) -> Result<f32, String> {
    let value = match fields.get(name) {
        None | Some(Json::Null) => return Ok(otherwise),
        Some(value) => value,
    };
    value.as_f64().map(|number| number as f32).filter(|number| range.contains(number)).ok_or_else(
        || format!("{name}: expected {} to {}, found {value}", range.start(), range.end()),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn read(config: &Json) -> Result<SamplingDefaults, LoadError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("generation_config.json"), config.to_string()).unwrap();
        SamplingDefaults::read(dir.path())
    }

    #[test]
    fn a_directory_without_the_file_and_a_file_without_the_fields_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(SamplingDefaults::read(dir.path()).unwrap(), SamplingDefaults::default());
        let fields = json!({"eos_token_id": [2, 3], "temperature": null});
        assert_eq!(read(&fields).unwrap(), SamplingDefaults::default());
    }

    #[test]
    fn what_the_checkpoint_recommends_is_taken() {
        // Qwen3's own.
        let fields = json!({"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.95});
        let wanted = SamplingDefaults {
            temperature: 0.6,
            top_k: 20,
            top_p: 0.95,
            ..SamplingDefaults::default()
        };
        assert_eq!(read(&fields).unwrap(), wanted);
        assert_eq!(read(&json!({"top_k": -1})).unwrap().top_k, 0);
        let greedy = read(&json!({"do_sample": false, "temperature": 0.6})).unwrap();
        assert_eq!(greedy, SamplingDefaults { temperature: 0.0, ..SamplingDefaults::default() });
    }

    #[test]
    fn what_no_sampler_can_use_is_refused_with_file_and_field() {
        for (name, value) in [
            ("temperature", json!(-1)),
            ("temperature", json!("hot")),
            ("top_p", json!(0)),
            ("top_k", json!(-2)),
            ("min_p", json!(1.5)),
            ("repetition_penalty", json!([])),
        ] {
            let error = read(&json!({name: value})).unwrap_err().to_string();
            assert!(error.contains("generation_config.json"), "{error}");
            assert!(error.contains(name) && error.contains(&value.to_string()), "{error}");
        }
    }
}
