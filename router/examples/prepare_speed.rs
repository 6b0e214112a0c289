//! What a turn of a long agent session costs the router, in processor time of the thread that takes
//! it in: from the body of the request to the message for the decode worker. Every turn extends the
//! one before it by a tool call and its result; beside it, the same from scratch.
//!
//! `cargo run --release -p baton-router --example prepare_speed [-- MODEL_DIR [KIB [TURNS]]]`
//!
//! The conversation is made of this repository's sources. The ids and hashes of the last turns are
//! compared with those from scratch.

use baton_router::intake::{Intake, Stages};
use baton_text::TextModel;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value as Json, json};
use std::collections::VecDeque;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Earlier prompts are kept in so many bytes: the router's default.
const CACHE_BYTES: usize = 256 << 20;
/// Bytes of a tool's result; with the call and the markers, some 700 new tokens of the tiny model.
const RESULT_BYTES: usize = 1700;
/// So many turns are prepared from scratch, too.
const SCRATCH_TURNS: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let model = args.next().map_or_else(|| root.join("tests/models/tiny-qwen3"), PathBuf::from);
    let kib: usize = args.next().map_or(Ok(215), |arg| arg.parse())?;
    let turns: usize = args.next().map_or(Ok(41), |arg| arg.parse())?;
    let source = sources(&root, (kib << 10) + turns * 4096)?;

    let intake = |bytes| Ok::<_, Box<dyn Error>>(Intake::new(TextModel::load(&model)?, bytes));
    let mut session = Session::new(&source);
    while session.bytes < kib << 10 {
        session.turn();
    }
    let first = session.body();
    let bodies: Vec<Vec<u8>> = (0..turns)
        .map(|_| {
            session.turn();
            session.body()
        })
        .collect();

    let mut found = Found::default();
    let warm = intake(CACHE_BYTES)?;
    warm.take(&first)?;
    // Of the others only the counts are kept: a router's turns end, and their memory is used again.
    let mut last = VecDeque::with_capacity(SCRATCH_TURNS);
    for body in &bodies {
        let (taken, spent) = timed(|| warm.take(body));
        let taken = taken?;
        found.total.push(spent);
        found.new.push(taken.ids.len() - taken.reused_tokens);
        found.tokens.push(taken.ids.len());
        if last.len() == SCRATCH_TURNS {
            last.pop_front();
        }
        last.push_back(taken);
    }
    let staged = intake(CACHE_BYTES)?;
    staged.take(&first)?;
    for body in &bodies {
        found.stages.push(staged.stages(body, cpu)?.1);
    }
    let cold = intake(0)?;
    for (body, taken) in bodies.iter().rev().zip(last.iter().rev()) {
        let (scratch, spent) = timed(|| cold.take(body));
        let scratch = scratch?;
        found.scratch.push(spent);
        if (&taken.ids, &taken.chain) != (&scratch.ids, &scratch.chain) {
            return Err("a turn is not what it is from scratch".into());
        }
        let rendered = cold.rendered(body)?;
        let (ids, spent) = timed(|| cold.text().encode_rendered(&rendered));
        if ids? != taken.ids {
            return Err("the ids are not those of the whole text".into());
        }
        found.whole.push(spent);
        found.chain.push(cold.stages(body, cpu)?.1.hash);
        found.rendered_bytes = found.rendered_bytes.max(rendered.len());
    }
    found.body_bytes = bodies.last().map_or(0, Vec::len);
    found.print();
    Ok(())
}

/// What was measured.
#[derive(Default)]
struct Found {
    total: Vec<Duration>,
    stages: Vec<Stages>,
    scratch: Vec<Duration>,
    whole: Vec<Duration>,
    chain: Vec<Duration>,
    new: Vec<usize>,
    tokens: Vec<usize>,
    body_bytes: usize,
    rendered_bytes: usize,
}

impl Found {
    fn print(&self) {
        let stage =
            |of: fn(&Stages) -> Duration| ms(&self.stages.iter().map(of).collect::<Vec<_>>());
        let (p50, max) = ms(&self.total);
        let (new, tokens) = (middle(&self.new), middle(&self.tokens));
        let row = |name: &str, (p50, max): (f64, f64)| eprintln!("{name:28}{p50:9.3}{max:9.3}");
        eprintln!(
            "medians: {tokens} tokens, {new} of them new; at the end {} KiB of text in a body of {}\n\n\
             {:28}{:>9}{:>9}  ms",
            self.rendered_bytes >> 10,
            self.body_bytes >> 10,
            "",
            "median",
            "max"
        );
        row("parse the JSON", stage(|s| s.parse));
        row("render the template", stage(|s| s.render));
        row("match, and encode the new", stage(|s| s.encode));
        row("hash the new", stage(|s| s.hash));
        row("keep it for the next", stage(|s| s.keep));
        row("all, with the message", (p50, max));
        row("from scratch: encode", ms(&self.whole));
        row("from scratch: hash", ms(&self.chain));
        row("from scratch: all", ms(&self.scratch));
        let line = json!({
            "text_bytes": self.rendered_bytes, "body_bytes": self.body_bytes,
            "tokens_p50": tokens, "new_tokens_p50": new,
            "cpu_p50_ms": p50, "cpu_max_ms": max,
            "parse_p50_ms": stage(|s| s.parse).0, "render_p50_ms": stage(|s| s.render).0,
            "encode_p50_ms": stage(|s| s.encode).0, "hash_p50_ms": stage(|s| s.hash).0,
            "keep_p50_ms": stage(|s| s.keep).0,
            "scratch_encode_p50_ms": ms(&self.whole).0, "scratch_hash_p50_ms": ms(&self.chain).0,
            "scratch_p50_ms": ms(&self.scratch).0,
        });
        println!("{line}");
    }
}

fn middle(counts: &[usize]) -> usize {
    let mut counts = counts.to_vec();
    counts.sort_unstable();
    counts.get(counts.len() / 2).copied().unwrap_or_default()
}

/// Median and maximum in milliseconds.
fn ms(times: &[Duration]) -> (f64, f64) {
    let mut times: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
    times.sort_unstable_by(f64::total_cmp);
    let round = |ms: f64| (ms * 1e3).round() / 1e3;
    (round(times[times.len() / 2]), round(times[times.len() - 1]))
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = cpu();
    let result = work();
    (result, cpu().saturating_sub(start))
}

/// Processor time of this thread.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// An agent's session on a code base.
struct Session<'a> {
    messages: Vec<Json>,
    source: &'a str,
    at: usize,
    bytes: usize,
}

impl<'a> Session<'a> {
    fn new(source: &'a str) -> Self {
        let mut session = Self { messages: Vec::new(), source, at: 0, bytes: 0 };
        let instructions = session.read(8000);
        session.messages.push(json!({"role": "system", "content": instructions}));
        session
            .messages
            .push(json!({"role": "user", "content": "Find out what is slow, and why."}));
        session
    }

    /// The model calls a tool, and the tool answers.
    fn turn(&mut self) {
        let call = format!("call_{}", self.messages.len());
        let arguments =
            json!({"path": format!("src/file_{}.rs", self.messages.len()), "limit": 60});
        self.messages.push(json!({
            "role": "assistant", "content": "I look at the next file, which may hold the reason.",
            "tool_calls": [{"id": call, "type": "function",
                            "function": {"name": "read_file", "arguments": arguments.to_string()}}],
        }));
        let content = self.read(RESULT_BYTES);
        self.messages.push(json!({"role": "tool", "tool_call_id": call, "content": content}));
    }

    fn read(&mut self, bytes: usize) -> &'a str {
        let (start, mut end) = (self.at, (self.at + bytes).min(self.source.len()));
        while !self.source.is_char_boundary(end) {
            end += 1;
        }
        self.at = end;
        self.bytes += bytes;
        &self.source[start..end]
    }

    fn body(&self) -> Vec<u8> {
        let function = |name: &str| {
            json!({"type": "function", "function": {
                "name": name, "description": "Reads part of a file of the project.",
                "parameters": {"type": "object", "properties": {"path": {"type": "string"},
                                                                "limit": {"type": "integer"}}}}})
        };
        let tools: Vec<Json> = (0..20).map(|n| function(&format!("tool_{n}"))).collect();
        json!({"model": "m", "messages": self.messages, "tools": tools, "stream": true})
            .to_string()
            .into_bytes()
    }
}

/// The repository's own sources, at least so many bytes.
fn sources(root: &Path, bytes: usize) -> Result<String, Box<dyn Error>> {
    let mut files: Vec<PathBuf> = Vec::new();
    for room in ["router", "kv", "text", "transfer", "engine", "worker", "node", "bench", "proto"] {
        let mut folders = vec![root.join(room).join("src")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder)? {
                let path = entry?.path();
                match path.extension() {
                    None if path.is_dir() => folders.push(path),
                    Some(extension) if extension == "rs" => files.push(path),
                    _ => {}
                }
            }
        }
    }
    files.sort();
    let mut source = String::new();
    for path in files {
        source.push_str(&std::fs::read_to_string(path)?);
    }
    if source.len() < bytes {
        return Err(format!("the sources have {} bytes, fewer than {bytes}", source.len()).into());
    }
    Ok(source)
}
