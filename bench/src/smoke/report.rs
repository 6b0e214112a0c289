//! The figures, for people and for programs.

use super::SmokeArgs;
use super::moved::Moved;
use super::turn::{Turn, decode_tokens_per_s};
use crate::stats::{Sample, rounded};
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// What was measured.
#[derive(Debug)]
pub(super) struct Figures {
    url: String,
    model: String,
    /// Known of a cluster that was started here.
    transport: Option<&'static str>,
    prompts: u32,
    prompt_tokens: u32,
    max_tokens: u32,
    ttft_cold_ms: Sample,
    ttft_warm_ms: Sample,
    itl_ms: Sample,
    prefill_tokens_per_s: Sample,
    decode_tokens_per_s: Sample,
    decode_4_streams_tokens_per_s: Sample,
    handover_ms: Sample,
    cached_tokens_warm: Sample,
    moved: Moved,
}

impl Figures {
    pub(super) fn new(
        args: &SmokeArgs,
        url: &str,
        model: &str,
        cold: &[Turn],
        warm: &[Turn],
        together: &[f64],
        moved: Moved,
    ) -> Self {
        let both = || cold.iter().chain(warm);
        Self {
            url: url.to_owned(),
            model: model.to_owned(),
            transport: args.url.is_none().then(|| args.transport.as_str()),
            prompts: args.prompts,
            prompt_tokens: args.prompt_tokens,
            max_tokens: args.max_tokens,
            ttft_cold_ms: cold.iter().filter_map(Turn::ttft_ms).collect(),
            ttft_warm_ms: warm.iter().filter_map(Turn::ttft_ms).collect(),
            itl_ms: both().flat_map(Turn::gaps_ms).collect(),
            prefill_tokens_per_s: cold.iter().filter_map(Turn::prefill_tokens_per_s).collect(),
            decode_tokens_per_s: both()
                .filter_map(|turn| decode_tokens_per_s(std::slice::from_ref(turn)))
                .collect(),
            decode_4_streams_tokens_per_s: together.iter().copied().collect(),
            handover_ms: cold.iter().filter_map(|turn| turn.handover_ms).collect(),
            cached_tokens_warm: warm
                .iter()
                .filter_map(|turn| turn.cached_tokens.map(|tokens| tokens as f64))
                .collect(),
            moved,
        }
    }

    /// One object; null where nothing could be measured.
    pub(super) fn to_json(&self) -> Value {
        let mut object = Map::new();
        let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
        put("url", json!(self.url));
        put("model", json!(self.model));
        put("transport", json!(self.transport));
        put("prompts", json!(self.prompts));
        put("prompt_tokens", json!(self.prompt_tokens));
        put("max_tokens", json!(self.max_tokens));
        self.ttft_cold_ms.write("ttft_cold_ms", &mut object);
        self.ttft_warm_ms.write("ttft_warm_ms", &mut object);
        self.itl_ms.write("itl_ms", &mut object);
        object.insert("itl_ms_p99".to_owned(), rounded(self.itl_ms.percentile(99.0)));
        for (name, speed) in [
            ("prefill_tokens_per_s", &self.prefill_tokens_per_s),
            ("decode_tokens_per_s", &self.decode_tokens_per_s),
            ("decode_4_streams_tokens_per_s", &self.decode_4_streams_tokens_per_s),
        ] {
            object.insert(name.to_owned(), rounded(speed.median()));
            object.insert(format!("{name}_min"), rounded(speed.min()));
            object.insert(format!("{name}_max"), rounded(speed.max()));
        }
        self.handover_ms.write("handover_ms", &mut object);
        object
            .insert("cached_tokens_warm_p50".to_owned(), rounded(self.cached_tokens_warm.median()));
        object.insert("moved_blocks".to_owned(), json!(self.moved.blocks));
        object.insert("moved_bytes".to_owned(), json!(self.moved.bytes));
        Value::Object(object)
    }

    /// Aligned lines, each with what it means.
    pub(super) fn to_table(&self) -> String {
        let over = self.transport.map_or_else(String::new, |name| format!(", blocks over {name}"));
        let mut text = format!(
            "{} at {}{over}\n{} prompts of {} tokens, each sent twice; answers of {} tokens\n\n",
            self.model, self.url, self.prompts, self.prompt_tokens, self.max_tokens
        );
        let mut line = |cells: [&str; 6]| {
            let [name, median, min, max, unit, meaning] = cells;
            let line = format!("{name:<23}{median:>10}{min:>10}{max:>10}  {unit:<9} {meaning}");
            writeln!(text, "{}", line.trim_end()).expect("a String takes all writes");
        };
        line(["", "median", "min", "max", "", ""]);
        for (name, sample, unit, meaning) in self.samples() {
            let [median, min, max] = [sample.median(), sample.min(), sample.max()].map(shown);
            line([name, &median, &min, &max, unit, meaning]);
        }
        line(["", "overall", "", "", "", ""]);
        for (name, figure, unit, meaning) in self.totals() {
            line([name, &figure, "", "", unit, meaning]);
        }
        text
    }

    fn samples(&self) -> [(&'static str, &Sample, &'static str, &'static str); 8] {
        [
            (
                "TTFT, new prompt",
                &self.ttft_cold_ms,
                "ms",
                "time to first token, from sending the request; the prompt is computed",
            ),
            (
                "TTFT, same prompt again",
                &self.ttft_warm_ms,
                "ms",
                "the same when the prompt's KV blocks are in the cache",
            ),
            (
                "found in the cache",
                &self.cached_tokens_warm,
                "tokens",
                "of a prompt that was sent again; they are not computed",
            ),
            (
                "ITL",
                &self.itl_ms,
                "ms",
                "inter-token latency: from one token of a stream to the next",
            ),
            (
                "hand-over",
                &self.handover_ms,
                "ms",
                "from prefill's last block announced to decode's first step",
            ),
            (
                "prefill",
                &self.prefill_tokens_per_s,
                "tokens/s",
                "new prompts: tokens computed per second of their TTFT",
            ),
            (
                "decode, 1 stream",
                &self.decode_tokens_per_s,
                "tokens/s",
                "answer tokens after the first",
            ),
            (
                "decode, 4 streams",
                &self.decode_4_streams_tokens_per_s,
                "tokens/s",
                "answer tokens of all four together, while all four run",
            ),
        ]
    }

    fn totals(&self) -> [(&'static str, String, &'static str, &'static str); 3] {
        let tail = shown(self.itl_ms.percentile(99.0));
        let (blocks, bytes) = (self.moved.blocks, self.moved.bytes);
        [
            ("ITL, p99", tail, "ms", "inter-token latency that 1 token in 100 exceeds"),
            (
                "moved",
                blocks.to_string(),
                "blocks",
                "KV blocks that decode has pulled from prefill, all prompts",
            ),
            ("moved", shown(Some(bytes as f64 / f64::from(1 << 20))), "MiB", "their bytes"),
        ]
    }
}

/// Three digits or more; a dash for what could not be measured.
fn shown(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value.abs() >= 100.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(ttft: &[f64], moved: Moved) -> Figures {
        let sample: Sample = ttft.iter().copied().collect();
        Figures {
            url: "http://127.0.0.1:1".to_owned(),
            model: "m".to_owned(),
            transport: Some("tcp"),
            prompts: 3,
            prompt_tokens: 64,
            max_tokens: 2,
            ttft_cold_ms: sample.clone(),
            ttft_warm_ms: sample.clone(),
            itl_ms: sample.clone(),
            prefill_tokens_per_s: sample.clone(),
            decode_tokens_per_s: sample.clone(),
            decode_4_streams_tokens_per_s: sample.clone(),
            handover_ms: sample.clone(),
            cached_tokens_warm: sample,
            moved,
        }
    }

    #[test]
    fn json_has_every_figure_with_its_unit_in_the_key() {
        let moved = Moved { blocks: 48, bytes: 3 << 20 };
        let json = figures(&[1.0, 9.0, 2.0], moved).to_json();
        for (key, expected) in [
            ("ttft_cold_ms_p50", 2.0),
            ("ttft_warm_ms_max", 9.0),
            ("itl_ms_p50", 2.0),
            ("itl_ms_p99", 9.0),
            ("prefill_tokens_per_s", 2.0),
            ("decode_tokens_per_s_min", 1.0),
            ("decode_4_streams_tokens_per_s", 2.0),
            ("handover_ms_p50", 2.0),
            ("cached_tokens_warm_p50", 2.0),
            ("moved_blocks", 48.0),
            ("moved_bytes", f64::from(3 << 20)),
        ] {
            assert_eq!(json[key].as_f64(), Some(expected), "{key}");
        }
        assert_eq!(json.to_string().lines().count(), 1);
    }

    #[test]
    fn what_was_not_measured_is_null_and_a_dash() {
        let nothing = figures(&[], Moved::default());
        assert_eq!(nothing.to_json()["handover_ms_p50"], Value::Null);
        let table = nothing.to_table();
        let line = table.lines().find(|line| line.starts_with("hand-over"));
        assert_eq!(line.map(|line| line.matches(" - ").count()), Some(3), "{table}");
    }

    #[test]
    fn the_columns_of_all_lines_stand_below_each_other() {
        let table = figures(&[123.456, 0.5], Moved::default()).to_table();
        let figures = table.lines().skip(3).filter(|line| line.chars().any(|c| c.is_ascii_digit()));
        for line in figures {
            let unit = line.get(55..).and_then(|rest| rest.split_whitespace().next());
            let known = ["ms", "tokens", "tokens/s", "blocks", "MiB"];
            assert!(unit.is_some_and(|unit| known.contains(&unit)), "{line}");
        }
    }
}
