//! The decode daemon's file.

use crate::schedule::Limits;
use baton_node::config::{ConfigError, Layered, Span};
use baton_node::serve::ServeConfig;
use baton_node::telemetry::LogConfig;
use baton_node::tenants::TenantsConfig;
use baton_worker::config::{
    ClusterConfig, Common, KvConfig, ModelConfig, TransferConfig, WorkerSwitches,
};
use serde::{Deserialize, Serialize};

/// Fewer could not be told from a queue that is always nearly full.
const FRAMES_QUEUED_MIN: usize = 16;

/// Everything that a decode daemon is told.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DecodeConfig {
    /// The worker's name, unique in the cluster.
    pub name: String,
    /// The cluster that the worker belongs to.
    pub cluster: ClusterConfig,
    /// How the others are answered.
    #[serde(deserialize_with = "ServeConfig::internal_section")]
    pub serve: ServeConfig,
    /// What is logged and how.
    pub log: LogConfig,
    /// What work in flight gets when the daemon is told to go.
    pub drain_grace: Span,
    /// What is served.
    pub model: ModelConfig,
    /// The block pool.
    pub kv: KvConfig,
    /// How blocks come and go.
    pub transfer: TransferConfig,
    /// Which features act; read again at SIGHUP.
    pub switches: WorkerSwitches,
    /// Who may ask for what.
    pub tenants: TenantsConfig,
    /// Bounds and sizes.
    pub limits: DecodeLimits,
}

impl Default for DecodeConfig {
    fn default() -> Self {
        Self {
            name: "decode-0".into(),
            cluster: ClusterConfig::default(),
            serve: ServeConfig::internal(),
            log: LogConfig::default(),
            drain_grace: Span::secs(30),
            model: ModelConfig::default(),
            kv: KvConfig::default(),
            transfer: TransferConfig::default(),
            switches: WorkerSwitches::default(),
            tenants: TenantsConfig::default(),
            limits: DecodeLimits::default(),
        }
    }
}

/// `[limits]`
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DecodeLimits {
    /// Turns accepted at a time.
    pub turns: usize,
    /// Positions in one step.
    pub batch_tokens: u32,
    /// Prompt positions computed here in a step that also draws for others.
    pub local_fill_tokens: u32,
    /// Blocks a turn pulls at a time.
    pub pull_window_blocks: usize,
    /// A pull that takes longer has failed.
    pub pull_timeout: Span,
    /// How long this worker's own blocks are kept for a prefill worker without a renewal.
    pub lease_ttl: Span,
    /// Prefill workers asked for one turn, at most.
    pub prefill_attempts: usize,
    /// A prefill worker that announces nothing for that long is given up for the turn.
    pub prefill_patience: Span,
    /// Waiting that long counts as one step of priority.
    pub ageing: Span,
    /// Frames that a router may be behind before its streams are dropped.
    pub frames_queued: usize,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self {
            turns: 1024,
            batch_tokens: 2048,
            local_fill_tokens: 256,
            pull_window_blocks: 32,
            pull_timeout: Span::secs(5),
            lease_ttl: Span::secs(10),
            prefill_attempts: 2,
            prefill_patience: Span::secs(60),
            ageing: Span::secs(1),
            frames_queued: 1024,
        }
    }
}

impl DecodeConfig {
    /// The sections shared with the other worker daemon.
    pub fn common(&self) -> Common<'_> {
        Common {
            name: &self.name,
            model: &self.model,
            kv: &self.kv,
            transfer: &self.transfer,
            tenants: &self.tenants,
            listen: self.serve.listen,
            insecure_plaintext: self.serve.insecure_plaintext,
            batch_tokens: self.limits.batch_tokens,
        }
    }

    /// The schedule's part.
    pub fn schedule_limits(&self) -> Limits {
        let limits = &self.limits;
        Limits {
            turns_max: limits.turns,
            batch_tokens: limits.batch_tokens,
            local_fill_tokens: limits.local_fill_tokens,
            pull_window_blocks: limits.pull_window_blocks,
            pull_timeout: limits.pull_timeout.0,
            lease_ttl: limits.lease_ttl.0,
            prefill_attempts: limits.prefill_attempts,
            prefill_patience: limits.prefill_patience.0,
            ageing: limits.ageing.0,
        }
    }

    /// Refuses values that have the right type and still make no sense.
    pub fn check(config: &Layered<Self>) -> Result<(), ConfigError> {
        let value = config.value();
        baton_worker::config::check(config, &value.common())?;
        let limits = &value.limits;
        let positive = [
            ("limits.turns", limits.turns),
            ("limits.local_fill_tokens", limits.local_fill_tokens as usize),
            ("limits.pull_window_blocks", limits.pull_window_blocks),
        ];
        for (key, found) in positive {
            if found == 0 {
                return Err(config.refuse(key, "at least 1", found));
            }
        }
        if limits.frames_queued < FRAMES_QUEUED_MIN {
            let expected = format!("at least {FRAMES_QUEUED_MIN}");
            return Err(config.refuse("limits.frames_queued", expected, limits.frames_queued));
        }
        let spans = [
            ("limits.pull_timeout", limits.pull_timeout),
            ("limits.lease_ttl", limits.lease_ttl),
            ("limits.prefill_patience", limits.prefill_patience),
        ];
        baton_worker::config::check_spans(config, &spans)
    }
}
