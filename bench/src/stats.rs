//! Numbers from repeated measurements: the middle one, and how far the others are from it.

use serde_json::{Map, Value, json};

/// One figure, measured several times.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Sample {
    sorted: Vec<f64>,
}

impl FromIterator<f64> for Sample {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        Self { sorted }
    }
}

impl Sample {
    /// The smallest value that is not exceeded by `percent` of all (nearest rank); `None` without
    /// any value.
    pub(crate) fn percentile(&self, percent: f64) -> Option<f64> {
        let rank = (percent / 100.0 * self.sorted.len() as f64).ceil().max(1.0) as usize;
        self.sorted.get(rank.min(self.sorted.len()).checked_sub(1)?).copied()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.sorted.len()
    }

    /// The middle; of two, the mean.
    pub(crate) fn median(&self) -> Option<f64> {
        let upper = *self.sorted.get(self.sorted.len() / 2)?;
        let even = self.sorted.len().is_multiple_of(2);
        let lower = if even { self.sorted[self.sorted.len() / 2 - 1] } else { upper };
        Some(f64::midpoint(lower, upper))
    }

    pub(crate) fn min(&self) -> Option<f64> {
        self.sorted.first().copied()
    }

    pub(crate) fn max(&self) -> Option<f64> {
        self.sorted.last().copied()
    }

    /// Adds `name_p50`, `name_min` and `name_max`; null where nothing was measured.
    pub(crate) fn write(&self, name: &str, object: &mut Map<String, Value>) {
        for (suffix, value) in [("p50", self.median()), ("min", self.min()), ("max", self.max())] {
            object.insert(format!("{name}_{suffix}"), rounded(value));
        }
    }
}

/// A figure with as many digits as a reader may believe; null for none.
pub(crate) fn rounded(value: Option<f64>) -> Value {
    value.map_or(Value::Null, |value| json!((value * 1e3).round() / 1e3))
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "the values are given back as they came")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(values: &[f64]) -> Sample {
        values.iter().copied().collect()
    }

    #[test]
    fn the_middle_of_an_even_number_is_between_two() {
        assert_eq!(sample(&[3.0, 1.0, 2.0]).median(), Some(2.0));
        assert_eq!(sample(&[4.0, 1.0, 2.0, 3.0]).median(), Some(2.5));
        assert_eq!(sample(&[7.0]).median(), Some(7.0));
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let hundred: Sample = (1..=100).map(f64::from).collect();
        assert_eq!(hundred.percentile(99.0), Some(99.0));
        assert_eq!(hundred.percentile(100.0), Some(100.0));
        assert_eq!(hundred.percentile(0.0), Some(1.0));
        assert_eq!(sample(&[5.0, 6.0]).percentile(99.0), Some(6.0));
        assert_eq!(sample(&[5.0, 6.0]).percentile(50.0), Some(5.0));
    }

    #[test]
    fn nothing_measured_is_null_and_never_a_number() {
        let none = sample(&[f64::NAN, f64::INFINITY]);
        assert_eq!((none.median(), none.percentile(50.0)), (None, None));
        let mut object = Map::new();
        none.write("x_ms", &mut object);
        assert_eq!(
            Value::Object(object),
            json!({"x_ms_p50": null, "x_ms_min": null, "x_ms_max": null})
        );
    }

    proptest! {
        #[test]
        fn order_does_not_matter_and_the_spread_encloses_the_middle(
            mut values in prop::collection::vec(-1e6..1e6_f64, 1..50),
        ) {
            let forth = sample(&values);
            values.reverse();
            prop_assert_eq!(&forth, &sample(&values));
            let (min, max) = (forth.min().unwrap_or(f64::NAN), forth.max().unwrap_or(f64::NAN));
            for value in [forth.median(), forth.percentile(99.0)] {
                prop_assert!(value.is_some_and(|value| min <= value && value <= max));
            }
        }
    }
}
