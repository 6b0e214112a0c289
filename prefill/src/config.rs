//! The prefill daemon's file.

use crate::schedule::Limits;
use baton_node::config::{ConfigError, Layered, Span};
use baton_node::serve::ServeConfig;
use baton_node::telemetry::LogConfig;
use baton_node::tenants::TenantsConfig;
use baton_worker::config::{
    ClusterConfig, Common, KvConfig, ModelConfig, TransferConfig, WorkerSwitches,
};
use serde::{Deserialize, Serialize};

/// Everything that a prefill daemon is told.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrefillConfig {
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
    pub limits: PrefillLimits,
}

impl Default for PrefillConfig {
    fn default() -> Self {
        Self {
            name: "prefill-0".into(),
            cluster: ClusterConfig::default(),
            serve: ServeConfig::internal(),
            log: LogConfig::default(),
            drain_grace: Span::secs(30),
            model: ModelConfig::default(),
            kv: KvConfig::default(),
            transfer: TransferConfig::default(),
            switches: WorkerSwitches::default(),
            tenants: TenantsConfig::default(),
            limits: PrefillLimits::default(),
        }
    }
}

/// `[limits]`
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrefillLimits {
    /// Jobs accepted at a time.
    pub jobs: usize,
    /// Positions of one job in one step.
    pub chunk_tokens: u32,
    /// Positions in one step.
    pub batch_tokens: u32,
    /// Blocks a job pulls from its caller at a time.
    pub pull_window_blocks: usize,
    /// A pull that takes longer has failed.
    pub pull_timeout: Span,
    /// How long announced blocks are kept without a renewal.
    pub lease_ttl: Span,
    /// Waiting that long counts as one step of priority.
    pub ageing: Span,
    /// Announcements that a caller may be behind before its call is ended.
    pub announcements_queued: usize,
}

impl Default for PrefillLimits {
    fn default() -> Self {
        Self {
            jobs: 1024,
            chunk_tokens: 512,
            batch_tokens: 2048,
            pull_window_blocks: 32,
            pull_timeout: Span::secs(5),
            lease_ttl: Span::secs(10),
            ageing: Span::secs(1),
            announcements_queued: 1024,
        }
    }
}

impl PrefillConfig {
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
            jobs_max: limits.jobs,
            chunk_tokens: limits.chunk_tokens,
            batch_tokens: limits.batch_tokens,
            pull_window_blocks: limits.pull_window_blocks,
            pull_timeout: limits.pull_timeout.0,
            lease_ttl: limits.lease_ttl.0,
            ageing: limits.ageing.0,
        }
    }

    /// Refuses values that have the right type and still make no sense.
    pub fn check(config: &Layered<Self>) -> Result<(), ConfigError> {
        let value = config.value();
        baton_worker::config::check(config, &value.common())?;
        let limits = &value.limits;
        let positive = [
            ("limits.jobs", limits.jobs),
            ("limits.chunk_tokens", limits.chunk_tokens as usize),
            ("limits.pull_window_blocks", limits.pull_window_blocks),
            ("limits.announcements_queued", limits.announcements_queued),
        ];
        for (key, found) in positive {
            if found == 0 {
                return Err(config.refuse(key, "at least 1", found));
            }
        }
        let spans =
            [("limits.pull_timeout", limits.pull_timeout), ("limits.lease_ttl", limits.lease_ttl)];
        baton_worker::config::check_spans(config, &spans)
    }
}
