//! What both worker daemons are told: the sections of their files that are the same.

use baton_node::config::{ByteSize, ConfigError, Layered, Span};
use baton_node::switch::Switch;
use baton_node::tenants::TenantsConfig;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// `[model]`: what is served, and by which engine.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// Checkpoint directory; the witness needs none.
    pub dir: PathBuf,
    /// The model's name in the API; empty: the directory's name.
    pub name: String,
    /// Who computes.
    pub engine: EngineKind,
    /// Tokens per block: a power of two, 16 to 256. The same on all workers of a cluster.
    pub block_tokens: u32,
    /// Longest sequence; 0: what the checkpoint says.
    pub context_tokens: u32,
    /// Threads that compute; 0: one per core.
    pub threads: usize,
    /// What the scripted engine plays.
    pub script: PathBuf,
    /// The witness's and the scripted engine's latency: per step, ...
    pub step_latency: Span,
    /// ... per prompt token, ...
    pub prefill_token_latency: Span,
    /// ... and per drawn token.
    pub decode_token_latency: Span,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            dir: PathBuf::new(),
            name: String::new(),
            engine: EngineKind::Auto,
            block_tokens: 64,
            context_tokens: 0,
            threads: 0,
            script: PathBuf::new(),
            step_latency: Span::millis(0),
            prefill_token_latency: Span::millis(0),
            decode_token_latency: Span::millis(0),
        }
    }
}

/// Who computes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// The best engine that this machine and the checkpoint allow; today the CPU's.
    Auto,
    /// The model, on the CPU.
    Cpu,
    /// Tokens that are a function of the KV bytes read: an oracle for the data path.
    Witness,
    /// Given tokens, for protocol tests.
    Scripted,
}

/// `[kv]`: the block pool.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KvConfig {
    /// Memory for blocks.
    pub memory: ByteSize,
    /// Block events kept for watchers that lag.
    pub events_kept: usize,
    /// Leases on blocks at a time.
    pub leases: usize,
}

impl Default for KvConfig {
    fn default() -> Self {
        Self { memory: ByteSize::mib(256), events_kept: 65_536, leases: 4096 }
    }
}

/// `[transfer]`: how blocks come and go.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransferConfig {
    /// Where peers pull blocks over tcp; port 0: any.
    pub tcp_listen: SocketAddr,
    /// Directory for the socket that hands the arena to peers on this host; empty: no shm.
    pub shm_dir: PathBuf,
    /// Slots that one peer on this host may use in place at a time; at most a quarter of all.
    pub shm_mapped_slots: u32,
    /// Threads that copy for one large pull over shm; each takes a core from the engine.
    pub shm_threads: usize,
    /// Which transport is tried first.
    pub prefer: Preferred,
    /// Peers connected at a time.
    pub connections: usize,
    /// Encryption of what travels over tcp.
    pub tls: TlsConfig,
    /// RDMA.
    pub verbs: VerbsConfig,
}

impl Default for TransferConfig {
    fn default() -> Self {
        Self {
            tcp_listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            shm_dir: PathBuf::new(),
            shm_mapped_slots: 4096,
            shm_threads: 1,
            prefer: Preferred::Shm,
            connections: 256,
            tls: TlsConfig::default(),
            verbs: VerbsConfig::default(),
        }
    }
}

/// `[transfer.tls]`: files in PEM, all of them or none. With them blocks travel over tcp encrypted,
/// and only to and from workers that show a certificate of the same authority.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// The worker's certificate, and those between it and the authority's.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Certificates of the cluster's authority.
    pub ca: PathBuf,
}

impl TlsConfig {
    /// Whether there is anything to show.
    pub fn is_on(&self) -> bool {
        !self.cert.as_os_str().is_empty()
    }
}

/// `[transfer.verbs]`: RDMA over libibverbs, which is looked for when the daemon starts.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VerbsConfig {
    /// Whether it is used.
    pub mode: VerbsMode,
    /// The device's name, such as `mlx5_0`; empty: the first with a usable port.
    pub device: String,
    /// The device's port; 0: the first that is up.
    pub port: u8,
    /// Index of the address in the port's GID table; -1: chosen by rule.
    pub gid_index: i16,
}

impl Default for VerbsConfig {
    fn default() -> Self {
        Self { mode: VerbsMode::Off, device: String::new(), port: 0, gid_index: -1 }
    }
}

/// Whether RDMA is used.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VerbsMode {
    /// It is not looked for.
    #[default]
    Off,
    /// Where there is a device; otherwise a line in the log says why not.
    Auto,
    /// Without a device the daemon does not start.
    Required,
}

/// Which transport is tried first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preferred {
    /// Shared memory with peers on this host that offer it, then verbs, then tcp.
    Shm,
    /// Verbs with peers that offer it, then shared memory, then tcp.
    Verbs,
    /// Always tcp.
    Tcp,
}

/// Which features of a worker act.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerSwitches {
    /// Work is ordered by more than its arrival: see [`crate::queue`].
    pub queue: Switch,
}

/// The sections that both daemons have, by reference.
#[derive(Clone, Copy, Debug)]
pub struct Common<'a> {
    /// The worker's name; its identity is derived from it.
    pub name: &'a str,
    /// `[model]`
    pub model: &'a ModelConfig,
    /// `[kv]`
    pub kv: &'a KvConfig,
    /// `[transfer]`
    pub transfer: &'a TransferConfig,
    /// `[tenants]`
    pub tenants: &'a TenantsConfig,
    /// Where the gRPC services listen.
    pub listen: SocketAddr,
    /// Whether other machines may be served without TLS.
    pub insecure_plaintext: bool,
    /// Most positions in one step.
    pub batch_tokens: u32,
}

/// Refuses values of the shared sections that have the right type and still make no sense.
pub fn check<T>(config: &Layered<T>, common: &Common<'_>) -> Result<(), ConfigError> {
    let model = common.model;
    if common.name.is_empty() {
        return Err(config.refuse("name", "a name that is unique in the cluster", "\"\""));
    }
    let tokens = model.block_tokens;
    if !tokens.is_power_of_two() || !(16..=256).contains(&tokens) {
        return Err(config.refuse("model.block_tokens", "a power of two, 16 to 256", tokens));
    }
    if common.batch_tokens < tokens {
        let expected = format!("at least `model.block_tokens` ({tokens})");
        return Err(config.refuse("limits.batch_tokens", expected, common.batch_tokens));
    }
    if model.dir.as_os_str().is_empty() && model.engine != EngineKind::Witness {
        return Err(config.refuse("model.dir", "a checkpoint directory", "\"\""));
    }
    for (key, found) in [("kv.leases", common.kv.leases), ("kv.events_kept", common.kv.events_kept)]
    {
        if found == 0 {
            return Err(config.refuse(key, "at least 1", found));
        }
    }
    check_transfer(config, common.transfer, common.insecure_plaintext)?;
    common.tenants.check()?;
    if model.engine == EngineKind::Scripted && model.script.as_os_str().is_empty() {
        return Err(config.refuse("model.script", "the script that the engine plays", "\"\""));
    }
    Ok(())
}

/// What `transfer.connections` may be.
const CONNECTIONS: RangeInclusive<usize> = 1..=65_536;
/// What `transfer.verbs.gid_index` may be.
const GID_INDICES: RangeInclusive<i16> = -1..=255;

fn check_transfer<T>(
    config: &Layered<T>,
    transfer: &TransferConfig,
    insecure_plaintext: bool,
) -> Result<(), ConfigError> {
    if transfer.shm_threads == 0 {
        return Err(config.refuse("transfer.shm_threads", "at least 1", 0));
    }
    if !CONNECTIONS.contains(&transfer.connections) {
        let expected = format!("{} to {}", CONNECTIONS.start(), CONNECTIONS.end());
        return Err(config.refuse("transfer.connections", expected, transfer.connections));
    }
    let gid_index = transfer.verbs.gid_index;
    if !GID_INDICES.contains(&gid_index) {
        let expected = "an index of the GID table, 0 to 255, or -1 for the address by rule";
        return Err(config.refuse("transfer.verbs.gid_index", expected, gid_index));
    }
    if transfer.prefer == Preferred::Verbs && transfer.verbs.mode == VerbsMode::Off {
        let expected = "\"shm\" or \"tcp\" while `transfer.verbs.mode` is \"off\"";
        return Err(config.refuse("transfer.prefer", expected, "\"verbs\""));
    }
    let TlsConfig { cert, key, ca } = &transfer.tls;
    let files = [("transfer.tls.cert", cert), ("transfer.tls.key", key), ("transfer.tls.ca", ca)];
    if files.iter().any(|(_, path)| !path.as_os_str().is_empty())
        && let Some((name, _)) = files.iter().find(|(_, path)| path.as_os_str().is_empty())
    {
        return Err(config.refuse(name, "a file, as the other two of `transfer.tls` have", "\"\""));
    }
    let blocks_at = transfer.tcp_listen;
    let reachable = insecure_plaintext || transfer.tls.is_on();
    if blocks_at.ip().is_unspecified() && reachable {
        let expected = "the one address that peers reach: it is what they are told";
        return Err(config.refuse("transfer.tcp_listen", expected, blocks_at));
    }
    if !blocks_at.ip().is_loopback() && !reachable {
        let expected = "a loopback address, or certificates in `transfer.tls`, or \
                        `serve.insecure_plaintext = true`";
        return Err(config.refuse("transfer.tcp_listen", expected, blocks_at));
    }
    Ok(())
}

/// What makes sense on some networks and is a mistake on most: to be said loudly at start.
pub fn cautions(common: &Common<'_>) -> Vec<String> {
    let (listen, transfer) = (common.listen, common.transfer);
    let mut cautions = Vec::new();
    if listen.ip().is_loopback() {
        return cautions;
    }
    let blocks_at = transfer.tcp_listen;
    if blocks_at.ip().is_loopback() {
        cautions.push(format!(
            "`serve.listen` = {listen} is for other machines, and `transfer.tcp_listen` = {blocks_at} \
             is not: peers there are told {}, where they find nothing, and compute what this worker \
             holds. Set `transfer.tcp_listen` to the address of this machine that peers reach",
            blocks_at.ip()
        ));
    }
    if transfer.tls.is_on() && transfer.verbs.mode != VerbsMode::Off {
        cautions.push(format!(
            "`transfer.tls` covers tcp only: with `transfer.verbs.mode` on, the cluster's token and \
             the keys to memory windows cross the network in the clear to and from `serve.listen` = \
             {listen}, and RDMA is not encrypted. Keep both on a network that is trusted, or set \
             `transfer.verbs.mode` = \"off\""
        ));
    }
    cautions
}

/// `[cluster]`: what all daemons of a cluster share.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterConfig {
    /// File with the cluster's secret: 64 hexadecimal digits. Empty: taken from the environment.
    pub secret_file: PathBuf,
}

/// Refuses times in which nothing can happen.
pub fn check_spans<T>(config: &Layered<T>, spans: &[(&str, Span)]) -> Result<(), ConfigError> {
    match spans.iter().find(|(_, span)| span.0.is_zero()) {
        Some((key, span)) => Err(config.refuse(key, "more than nothing", span)),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
