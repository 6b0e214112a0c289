//! What a router can be told. Every key has a default except the model's text side and the
//! workers; unknown keys are refused by the reader in `node::config`.

use crate::choose::{Assumed, Line, PolicyName, Rules};
use crate::parse::{Format, Reasoning};
pub use crate::switches::{Switch, Switches};
use baton_node::config::{ByteSize, ConfigError, Layered, Span, Threshold};
use baton_node::serve::ServeConfig;
use baton_node::telemetry::LogConfig;
use baton_node::tenants::TenantsConfig;
use http::Uri;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Beyond that no decode worker would ever compute a prompt, and sums would lose all else.
const HARM_MAX: f64 = 1000.0;
/// A turn waits that long for its choice.
const EXTERNAL_TIMEOUT_MAX: Span = Span::secs(10);
/// Each decode candidate is priced with each prefill candidate while the cluster's state is locked.
const EXTERNAL_CANDIDATES_MAX: usize = 64;
/// Each holds a question in memory, some kilobytes.
const EXTERNAL_IN_FLIGHT_MAX: usize = 4096;
/// Two files of a few lines each.
const RECORD_BYTES_MIN: ByteSize = ByteSize::mib(1);

/// A router's configuration.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where and how clients connect: HTTP and gRPC on one port.
    #[serde(deserialize_with = "serve_section")]
    pub serve: ServeConfig,
    /// What is logged and how.
    pub log: LogConfig,
    /// How long requests in flight get when the router goes down.
    pub drain_grace: Span,
    /// The model as clients and the text side see it.
    pub model: ModelConfig,
    /// The cluster this router belongs to.
    pub cluster: ClusterConfig,
    /// Which features act; the one section that SIGHUP has read again.
    pub switches: Switches,
    /// Who computes a turn.
    pub placement: PlacementConfig,
    /// A record of every decision.
    pub decisions: RecordConfig,
    /// A record of what was granted to whom.
    pub audit: RecordConfig,
    /// Who may ask for what.
    pub tenants: TenantsConfig,
    /// How much clients may ask for.
    pub hints: HintsConfig,
    /// What is computed before it is asked for.
    pub speculation: SpeculationConfig,
    /// Bounds on what comes in.
    pub limits: Limits,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// The prefill workers.
    pub prefill: Vec<Peer>,
    /// The decode workers; at least one.
    pub decode: Vec<Peer>,
}

/// The model as clients and the text side see it.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// The name that clients use; without it, the last part of `dir`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Further names for the same model; a `*` stands for any text.
    pub aliases: Vec<String>,
    /// The checkpoint directory; only its tokenizer and template are read here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// The format in which the model writes calls, where its template does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_format: Option<String>,
    /// How it marks its reasoning, where its template does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_format: Option<String>,
    /// In place of `dir`, for engines without a checkpoint: text of that many made-up tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub synthetic_vocab: Option<u32>,
}

/// The cluster this router belongs to.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterConfig {
    /// File with the cluster's secret, the same for all its daemons; without it the secret is
    /// expected in the environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
}

/// Who computes a turn. docs/routing.md has the formulas that these enter.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlacementConfig {
    /// The rule by which one worker is preferred to another.
    pub policy: PolicyName,
    /// Whether a request's header may name another rule.
    pub policy_header: bool,
    /// Whether a request's header may ask for the reasons of a decision.
    pub explain_header: bool,
    /// From how many missing whole blocks on a prefill worker may be asked; 0: one always is,
    /// "inf": never.
    pub disaggregate_min_blocks: Threshold<u32>,
    /// The harm of computing prompt tokens on a decode worker, as a share of the time that takes,
    /// for turns that are still to come there.
    pub local_harm: f64,
    /// The same on a prefill worker; what keeps a turn from computing again elsewhere what it could
    /// as well wait for.
    pub prefill_harm: f64,
    /// The probability that an evicted block would have been wanted again; 0 leaves evictions out.
    pub eviction_weight: f64,
    /// How many further decode workers a turn may be moved to before its first token.
    pub moves_max: u32,
    /// The answer's length that is assumed where nobody says one and nothing is known.
    pub answer_tokens_assumed: u32,
    /// What is assumed of workers until it has been measured.
    pub assumed: AssumedConfig,
    /// The policy called `external`.
    pub external: ExternalConfig,
}

/// A policy outside of the router, that is asked over gRPC.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExternalConfig {
    /// Where it listens: `http://host:port`; without it there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// How long a turn waits for its answer before the default policy decides.
    pub timeout: Span,
    /// Candidates of each role that it is told of.
    pub candidates_max: usize,
    /// Turns that it is asked about at once; what comes beyond, the default policy decides.
    pub in_flight_max: usize,
}

/// What is assumed of workers until it has been measured.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AssumedConfig {
    /// A prefill worker computes a prompt token.
    pub prefill_token: Span,
    /// A decode worker computes a prompt token beside its steps.
    pub local_prefill_token: Span,
    /// A decode step, without what each turn in it adds.
    pub step: Span,
    /// What each turn adds to a step.
    pub step_turn: Span,
    /// A block comes from another worker.
    pub block_fetch: Span,
    /// From the last announced block to the first decoding step.
    pub handover: Span,
}

/// How much clients may ask for; what is beyond is clamped, and the answer says so.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HintsConfig {
    /// The largest `priority`; its negative is the smallest.
    pub priority_max: u16,
    /// The largest `strict_priority`; 0: there is one tier.
    pub strict_priority_max: u8,
}

/// What is computed before it is asked for, for turns whose hints want that.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpeculationConfig {
    /// Prompts that are prepared or computed ahead at once; what comes beyond is not.
    pub running_max: usize,
    /// How long one may take; it holds memory of its worker.
    pub patience: Span,
    /// Memory for the conversations of turns that run, whose next prompt is to be prepared for.
    pub bytes_max: ByteSize,
    /// Blocks that were computed ahead, of which it is followed what comes of them.
    pub remembered_blocks_max: usize,
}

/// A record on disk; it has nothing of what was said.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecordConfig {
    /// Where it is written, one JSON object a line; without it, nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// What it may take on disk, with the older half in `FILE.1`.
    pub bytes_max: ByteSize,
}

/// Bounds on what comes in.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Requests in the house at once.
    pub requests_max: usize,
    /// Bytes of request bodies in memory at once; at least one body of the largest size.
    pub bodies_bytes_max: ByteSize,
    /// Bytes of earlier prompts, their ids and hashes, that are kept so that a turn costs only what
    /// is new in it; 0: nothing is kept.
    pub prompt_cache_bytes_max: ByteSize,
    /// Requests that may wait for the stream to one decode worker.
    pub submits_max: usize,
    /// Threads that parse, render and tokenise; 0: one per core.
    pub text_threads: usize,
    /// Messages of a conversation.
    pub messages_max: usize,
    /// Tools of a request.
    pub tools_max: usize,
    /// Choices of a request.
    pub choices_max: u16,
    /// Stop strings of a request.
    pub stop_strings_max: usize,
    /// Bytes of a stop string.
    pub stop_string_bytes_max: usize,
    /// Stop ids of a request.
    pub stop_ids_max: usize,
    /// Entries of `logit_bias`.
    pub logit_bias_max: usize,
    /// Alternatives reported beside a drawn token.
    pub top_logprobs_max: u8,
    /// Messages of a gRPC stream that wait for its reader.
    pub stream_pieces_max: usize,
}

/// How long things may take.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// From a request's arrival to its last token.
    pub request: Span,
    /// A stream whose reader takes nothing for that long is cut.
    pub slow_reader: Span,
    /// A stream that has nothing to say says so this often.
    pub keep_alive: Span,
    /// To connect to a worker, and for its answers to short calls.
    pub connect: Span,
    /// The longest pause between attempts to reach a worker.
    pub reconnect_max: Span,
    /// A connection to a worker that is silent for that long is probed.
    pub probe: Span,
    /// A probed worker that does not answer for that long is lost.
    pub probe_answer: Span,
}

/// A worker.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Where its gRPC service listens: `http://host:port`.
    pub uri: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            serve: serve_default(),
            log: LogConfig::default(),
            drain_grace: Span::secs(30),
            model: ModelConfig::default(),
            cluster: ClusterConfig::default(),
            switches: Switches::default(),
            placement: PlacementConfig::default(),
            decisions: RecordConfig::default(),
            audit: RecordConfig::default(),
            tenants: TenantsConfig::default(),
            hints: HintsConfig::default(),
            speculation: SpeculationConfig::default(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            prefill: Vec::new(),
            decode: Vec::new(),
        }
    }
}

impl Default for PlacementConfig {
    fn default() -> Self {
        Self {
            policy: PolicyName::KvAware,
            policy_header: false,
            explain_header: true,
            disaggregate_min_blocks: Threshold::At(4),
            local_harm: 0.25,
            prefill_harm: 0.1,
            eviction_weight: 0.1,
            moves_max: 2,
            answer_tokens_assumed: 512,
            assumed: AssumedConfig::default(),
            external: ExternalConfig::default(),
        }
    }
}

impl Default for ExternalConfig {
    fn default() -> Self {
        Self { uri: None, timeout: Span::millis(5), candidates_max: 32, in_flight_max: 64 }
    }
}

impl Default for AssumedConfig {
    fn default() -> Self {
        let micros = |count| Span(Duration::from_micros(count));
        Self {
            prefill_token: micros(250),
            local_prefill_token: micros(500),
            step: Span::millis(20),
            step_turn: micros(200),
            block_fetch: Span::millis(5),
            handover: Span::millis(5),
        }
    }
}

impl Default for RecordConfig {
    fn default() -> Self {
        Self { file: None, bytes_max: ByteSize::mib(64) }
    }
}

impl Default for HintsConfig {
    fn default() -> Self {
        Self { priority_max: 100, strict_priority_max: 7 }
    }
}

impl Default for SpeculationConfig {
    fn default() -> Self {
        Self {
            running_max: 64,
            patience: Span::secs(10),
            bytes_max: ByteSize::mib(256),
            remembered_blocks_max: 65_536,
        }
    }
}

impl PlacementConfig {
    /// The part of it that the choice takes.
    pub fn rules(&self) -> Rules {
        Rules {
            disaggregate_min_blocks: self.disaggregate_min_blocks,
            local_harm: self.local_harm,
            prefill_harm: self.prefill_harm,
            eviction_weight: self.eviction_weight,
        }
    }
}

impl AssumedConfig {
    /// The same in seconds, as the choice takes it.
    pub fn lines(&self) -> Assumed {
        let line = |base: Span, slope: Span| Line {
            base_s: base.0.as_secs_f64(),
            slope_s: slope.0.as_secs_f64(),
        };
        Assumed {
            prefill: line(Span::default(), self.prefill_token),
            local: line(Span::default(), self.local_prefill_token),
            step: line(self.step, self.step_turn),
            fetch: line(Span::default(), self.block_fetch),
            handover_s: self.handover.0.as_secs_f64(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests_max: 4096,
            bodies_bytes_max: ByteSize::mib(1 << 10),
            prompt_cache_bytes_max: ByteSize::mib(256),
            submits_max: 1024,
            text_threads: 0,
            messages_max: 16_384,
            tools_max: 1024,
            choices_max: 16,
            stop_strings_max: 16,
            stop_string_bytes_max: 1024,
            stop_ids_max: 128,
            logit_bias_max: 1024,
            top_logprobs_max: 20,
            stream_pieces_max: 64,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            request: Span::secs(600),
            slow_reader: Span::secs(10),
            keep_alive: Span::secs(15),
            connect: Span::secs(2),
            reconnect_max: Span::secs(2),
            probe: Span::secs(2),
            probe_answer: Span::secs(5),
        }
    }
}

/// For harnesses, which send long histories and keep many streams open.
fn serve_default() -> ServeConfig {
    ServeConfig {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8000)),
        body_bytes_max: Threshold::At(ByteSize::mib(32)),
        connections_max: 8192,
        ..ServeConfig::default()
    }
}

/// What the section does not say is the router's default, not that of other daemons.
fn serve_section<'de, D: Deserializer<'de>>(section: D) -> Result<ServeConfig, D::Error> {
    serve_default().section(section)
}

/// Reads and checks a configuration; without a file, what nobody said is the default.
pub fn load(path: Option<&Path>) -> Result<Layered<Config>, ConfigError> {
    let config = baton_node::config::load(path)?;
    check(&config)?;
    Ok(config)
}

/// What the types alone do not refuse. To be called again after flags have changed something.
pub fn check(layered: &Layered<Config>) -> Result<(), ConfigError> {
    let config = layered.value();
    if config.model.dir.is_some() == config.model.synthetic_vocab.is_some() {
        let found = if config.model.dir.is_some() { "both" } else { "neither" };
        return Err(layered.refuse("model.dir", "either `dir` or `synthetic_vocab`", found));
    }
    if config.decode.is_empty() {
        return Err(layered.refuse("decode", "at least one decode worker", "none"));
    }
    let mut known = HashSet::new();
    for (section, peers) in [("prefill", &config.prefill), ("decode", &config.decode)] {
        for (i, peer) in peers.iter().enumerate() {
            let key = format!("{section}[{i}].uri");
            check_address(layered, &key, &peer.uri)?;
            if !known.insert(&peer.uri) {
                return Err(layered.refuse(&key, "each worker once", &peer.uri));
            }
        }
    }
    let (bodies, body) = (config.limits.bodies_bytes_max, config.serve.body_bytes_max.at());
    if body.is_some_and(|body| bodies.bytes() < body.bytes()) {
        let expected = "at least `serve.body_bytes_max`";
        return Err(layered.refuse("limits.bodies_bytes_max", expected, bodies));
    }
    let placement = &config.placement;
    let shares = [
        ("placement.local_harm", placement.local_harm, HARM_MAX),
        ("placement.prefill_harm", placement.prefill_harm, HARM_MAX),
        ("placement.eviction_weight", placement.eviction_weight, 1.0),
    ];
    if let Some((key, found, max)) =
        shares.into_iter().find(|(_, share, max)| !(0.0..=*max).contains(share))
    {
        return Err(layered.refuse(key, format!("0 to {max}"), found));
    }
    check_external(layered)?;
    check_formats(layered)?;
    let records = [
        ("decisions.bytes_max", config.decisions.bytes_max),
        ("audit.bytes_max", config.audit.bytes_max),
    ];
    if let Some((key, found)) = records.into_iter().find(|(_, bytes)| *bytes < RECORD_BYTES_MIN) {
        return Err(layered.refuse(key, format!("at least {RECORD_BYTES_MIN}"), found));
    }
    config.tenants.check()?;
    let positive = [
        ("limits.requests_max", config.limits.requests_max),
        ("limits.submits_max", config.limits.submits_max),
        ("limits.choices_max", usize::from(config.limits.choices_max)),
        ("limits.stream_pieces_max", config.limits.stream_pieces_max),
    ];
    if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
        return Err(layered.refuse(key, "at least 1", 0));
    }
    let timeouts = &config.timeouts;
    let spans = [
        ("timeouts.keep_alive", timeouts.keep_alive),
        ("timeouts.slow_reader", timeouts.slow_reader),
    ];
    match spans.iter().find(|(_, span)| span.0.is_zero()) {
        Some((key, span)) => Err(layered.refuse(key, "longer than nothing", span)),
        None => Ok(()),
    }
}

fn check_address(layered: &Layered<Config>, key: &str, uri: &str) -> Result<(), ConfigError> {
    let valid = uri
        .parse::<Uri>()
        .is_ok_and(|uri| uri.scheme_str() == Some("http") && uri.authority().is_some());
    if valid {
        return Ok(());
    }
    Err(layered.refuse(key, "an address such as \"http://127.0.0.1:7001\"", uri))
}

fn check_external(layered: &Layered<Config>) -> Result<(), ConfigError> {
    let PlacementConfig { policy, external, .. } = &layered.value().placement;
    let key = "placement.external.uri";
    match &external.uri {
        Some(uri) => check_address(layered, key, uri)?,
        None if *policy == PolicyName::External => {
            let expected = "an address, since `placement.policy` is \"external\"";
            return Err(layered.refuse(key, expected, "none"));
        }
        None => {}
    }
    let (timeout, max) = (external.timeout, EXTERNAL_TIMEOUT_MAX);
    if timeout.0.is_zero() || timeout.0 > max.0 {
        let key = "placement.external.timeout";
        return Err(layered.refuse(key, format!("more than nothing, at most {max}"), timeout));
    }
    let counts = [
        ("placement.external.candidates_max", external.candidates_max, EXTERNAL_CANDIDATES_MAX),
        ("placement.external.in_flight_max", external.in_flight_max, EXTERNAL_IN_FLIGHT_MAX),
    ];
    match counts.into_iter().find(|(_, count, max)| !(1..=*max).contains(count)) {
        Some((key, count, max)) => Err(layered.refuse(key, format!("1 to {max}"), count)),
        None => Ok(()),
    }
}

impl ModelConfig {
    /// The name that clients see in lists and answers.
    pub fn display_name(&self) -> String {
        let dir_name = || Some(self.dir.as_ref()?.file_name()?.to_string_lossy().into_owned());
        self.name.clone().or_else(dir_name).unwrap_or_else(|| "synthetic".to_owned())
    }

    /// Whether a client that asks for `name` gets this model.
    pub fn answers_to(&self, name: &str) -> bool {
        name == self.display_name() || self.aliases.iter().any(|alias| fits(alias, name))
    }

    /// Its names that stand for themselves, the one of [`display_name`](Self::display_name) first.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let aliases = self.aliases.iter().filter(|alias| !alias.contains('*')).cloned();
        std::iter::once(self.display_name()).chain(aliases)
    }
}

/// Whether a name is of a pattern, in which each `*` stands for any text.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut rest) = name.strip_prefix(before) else { return false };
    let mut parts: Vec<&str> = after.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// The formats that are named, if they are known.
fn check_formats(layered: &Layered<Config>) -> Result<(), ConfigError> {
    let model = &layered.value().model;
    if let Some(name) = &model.call_format
        && Format::named(name).is_none()
    {
        let names: Vec<_> = Format::all().map(Format::name).collect();
        let expected = format!("one of {}", names.join(", "));
        return Err(layered.refuse("model.call_format", expected, name));
    }
    match &model.reasoning_format {
        Some(name) if Reasoning::named(name).is_none() => {
            let expected = "one of none, think, brackets";
            Err(layered.refuse("model.reasoning_format", expected, name))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = "[model]\nsynthetic_vocab = 100\n[[decode]]\nuri = \"http://h:1\"\n";

    const EXTERNAL: &str = "[placement.external]\n";

    #[test]
    fn a_pattern_answers_to_names_of_its_form() {
        for (pattern, name, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("claude-*", "claude-haiku-4-5", true),
            ("claude-*", "gpt-5", false),
            ("claude-*-*", "claude-haiku-4", true),
            ("claude-*-*", "claude-haiku", false),
            ("*-mini", "gpt-mini", true),
            ("ab*ba", "aba", false),
            ("a*b*a", "aba", true),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_format_that_nobody_knows_is_refused_with_those_that_are() {
        let with = |line: &str| read(&MINIMAL.replace("[model]\n", &format!("[model]\n{line}\n")));
        let model =
            with("call_format = \"hermes\"\nreasoning_format = \"none\"").expect("known").model;
        assert_eq!(model.call_format.as_deref(), Some("hermes"));
        for line in ["call_format = \"morse\"", "reasoning_format = \"morse\""] {
            let error = with(line).expect_err("unknown");
            assert!(
                error.contains("morse") && error.contains("none") | error.contains("hermes"),
                "{error}"
            );
        }
    }

    fn read(text: &str) -> Result<Config, String> {
        let path = Path::new("router.toml");
        let layered = baton_node::config::parse(path, text).map_err(|error| error.to_string())?;
        check(&layered).map_err(|error| error.to_string())?;
        Ok(layered.into_value())
    }

    #[test]
    fn a_section_that_says_something_keeps_the_other_defaults() {
        let config = read(&format!("{MINIMAL}[serve]\nidle_timeout = \"5 s\"\n")).expect("valid");
        let serve = ServeConfig { idle_timeout: Span::secs(5), ..serve_default() };
        assert_eq!(config.serve, serve);
        assert_eq!(read(MINIMAL).expect("valid").serve, serve_default());
    }

    #[test]
    fn the_effective_values_can_be_read_back() {
        let config = read(MINIMAL).expect("valid");
        let text = toml::to_string(&config).expect("text");
        assert_eq!(read(&text), Ok(config));
    }

    #[test]
    fn thresholds_force_either_path() {
        for (text, threshold) in [("0", Threshold::At(0)), ("\"inf\"", Threshold::Never)] {
            let text = format!("{MINIMAL}[placement]\ndisaggregate_min_blocks = {text}\n");
            let config = read(&text).expect("valid");
            assert_eq!(config.placement.disaggregate_min_blocks, threshold);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_key_named() {
        for (text, word) in [
            ("[model]\nsynthetic_vocab = 100\n", "decode"),
            ("[[decode]]\nuri = \"http://h:1\"\n", "model.dir"),
            (&format!("{MINIMAL}[[prefill]]\nuri = \"h:1\"\n"), "prefill[0].uri"),
            (&format!("{MINIMAL}[[prefill]]\nuri = \"http://h:1\"\n"), "decode[0].uri"),
            (&format!("{MINIMAL}[limits]\nrequests_max = 0\n"), "limits.requests_max"),
            (&format!("{MINIMAL}[limits]\nrequest_max = 1\n"), "request_max"),
            (
                &format!("{MINIMAL}[limits]\nbodies_bytes_max = \"1 MiB\"\n"),
                "limits.bodies_bytes_max",
            ),
            (&format!("{MINIMAL}[serve]\nlisten_on = 1\n"), "listen_on"),
            (&format!("{MINIMAL}[timeouts]\nrequest = 5\n"), "timeouts.request"),
            (&format!("{MINIMAL}[placement]\npolicy = \"random\"\n"), "kv-aware"),
            (&format!("{MINIMAL}[placement]\neviction_weight = 1.5\n"), "eviction_weight"),
            (&format!("{MINIMAL}[placement]\nlocal_harm = nan\n"), "local_harm"),
            (&format!("{MINIMAL}[placement]\nlocal_harm = 1e300\n"), "placement.local_harm"),
            (&format!("{MINIMAL}[placement]\nlocal_harm = -1\n"), "placement.local_harm"),
            (&format!("{MINIMAL}[placement.assumed]\nstep = 20\n"), "placement.assumed.step"),
            (&format!("{MINIMAL}[decisions]\nbytes_max = \"1 KiB\"\n"), "decisions.bytes_max"),
            (&format!("{MINIMAL}[placement]\npolicy = \"external\"\n"), "placement.external.uri"),
            (&format!("{MINIMAL}{EXTERNAL}uri = \"h:1\"\n"), "placement.external.uri"),
            (&format!("{MINIMAL}{EXTERNAL}timeout = \"0 ms\"\n"), "placement.external.timeout"),
            (&format!("{MINIMAL}{EXTERNAL}timeout = \"1 m\"\n"), "placement.external.timeout"),
            (&format!("{MINIMAL}{EXTERNAL}candidates_max = 65\n"), "external.candidates_max"),
            (&format!("{MINIMAL}{EXTERNAL}in_flight_max = 0\n"), "external.in_flight_max"),
            (&format!("{MINIMAL}[switches]\nexternal = \"maybe\"\n"), "shadow"),
            (&format!("{MINIMAL}[audit]\nbytes_max = \"1 KiB\"\n"), "audit.bytes_max"),
            (&format!("{MINIMAL}[tenants]\nfile = \"no/such.toml\"\n"), "no/such.toml"),
        ] {
            let error = read(text).expect_err("refused");
            assert!(error.contains(word), "{word} is not in: {error}");
        }
    }
}
