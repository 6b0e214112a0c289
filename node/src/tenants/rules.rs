//! The tenants file as it is written: what each tenant may ask for. docs/tenants.md is this page
//! for people.

use super::keys::{self, KeyDigest};
use crate::config::{ConfigError, Layered, Span, Threshold};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;

/// Tenants in one file: whatever is counted by tenant is bounded by it.
pub const TENANTS_MAX: usize = 1024;
/// Keys in one file: every request with a key is compared with all of them.
pub const KEYS_MAX: usize = 4096;
/// Bytes of a tenant's name.
pub const NAME_BYTES_MAX: usize = 128;
/// What `weight` may be.
pub const WEIGHTS: RangeInclusive<u16> = 1..=1000;

/// The name that requests without a key go by; no tenant may have it.
pub(super) const ANONYMOUS: &str = "anonymous";

/// A tenants file.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct File {
    /// What requests without a key may ask for; without the section they are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anonymous: Option<Rules>,
    /// The tenants by their names.
    pub tenants: BTreeMap<String, Rules>,
}

/// What a tenant may ask for. What is not said is the least, but for quotas, which are none.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// Digests of the tenant's keys.
    #[serde(deserialize_with = "keys::digests")]
    pub keys: Vec<KeyDigest>,
    /// The highest `priority` that counts.
    pub priority: i32,
    /// The highest `strict_priority` that counts.
    pub strict_priority: u8,
    /// Whether prompts are computed ahead.
    pub speculate: Speculate,
    /// The longest time that blocks are kept for a request's sake.
    pub ttl_max: Span,
    /// The coldest memory that blocks of a class may lie in.
    pub coldest: Coldest,
    /// Who finds the tenant's blocks.
    pub reuse: Reuse,
    /// The tenant's share of a worker where others have work, too.
    pub weight: u16,
    /// How much at most.
    pub quota: Quota,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            priority: 0,
            strict_priority: 0,
            speculate: Speculate::Asked,
            ttl_max: Span::secs(3600),
            coldest: Coldest::default(),
            reuse: Reuse::Tenant,
            weight: 100,
            quota: Quota::default(),
        }
    }
}

/// Whether prompts are computed ahead for a tenant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Speculate {
    /// Never, whatever is asked for.
    Off,
    /// For requests that ask for it.
    Asked,
    /// For all requests that do not say otherwise.
    Always,
}

impl Speculate {
    /// Its name in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Asked => "asked",
            Self::Always => "always",
        }
    }
}

/// Who finds a tenant's blocks: those whose names are salted alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reuse {
    /// The tenant alone.
    Tenant,
    /// All tenants that say `cluster`.
    Cluster,
    /// All tenants that say `public`.
    Public,
}

impl Reuse {
    /// Its name in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Cluster => "cluster",
            Self::Public => "public",
        }
    }
}

/// Where blocks may lie, the warmest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Where the engine computes on them.
    Device,
    /// The host's memory.
    Host,
    /// A disk of the worker's node.
    Disk,
    /// Another node, or an object store.
    Remote,
}

impl Tier {
    /// Its name in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Host => "host",
            Self::Disk => "disk",
            Self::Remote => "remote",
        }
    }
}

/// The coldest tier of each class of blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Coldest {
    /// System messages and tool definitions.
    pub system_and_tools: Tier,
    /// Earlier turns.
    pub history: Tier,
    /// What tools said.
    pub tool_result: Tier,
    /// What the model thought.
    pub reasoning: Tier,
    /// What the model said.
    pub answer: Tier,
    /// Conversations that work for others.
    pub subagent: Tier,
}

impl Default for Coldest {
    fn default() -> Self {
        let tier = Tier::Remote;
        Self {
            system_and_tools: tier,
            history: tier,
            tool_result: tier,
            reasoning: tier,
            answer: tier,
            subagent: tier,
        }
    }
}

impl Coldest {
    /// Every class with its tier.
    pub fn classes(&self) -> [(&'static str, Tier); 6] {
        [
            ("system_and_tools", self.system_and_tools),
            ("history", self.history),
            ("tool_result", self.tool_result),
            ("reasoning", self.reasoning),
            ("answer", self.answer),
            ("subagent", self.subagent),
        ]
    }
}

/// How much a tenant may have at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quota {
    /// Requests at a router at once.
    pub requests: Threshold<u32>,
    /// Prompt tokens at a router in a minute.
    pub prompt_tokens_per_minute: Threshold<u32>,
    /// Tokens of one request's answer, over all its choices.
    pub answer_tokens: Threshold<u32>,
    /// Turns, or prefill jobs, at a worker at once.
    pub turns_per_worker: Threshold<u32>,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            requests: Threshold::Never,
            prompt_tokens_per_minute: Threshold::Never,
            answer_tokens: Threshold::Never,
            turns_per_worker: Threshold::Never,
        }
    }
}

impl Quota {
    /// Every quota with its key.
    pub fn all(&self) -> [(&'static str, Threshold<u32>); 4] {
        [
            ("quota.requests", self.requests),
            ("quota.prompt_tokens_per_minute", self.prompt_tokens_per_minute),
            ("quota.answer_tokens", self.answer_tokens),
            ("quota.turns_per_worker", self.turns_per_worker),
        ]
    }
}

/// Refuses what the types alone do not.
pub(super) fn check(layered: &Layered<File>) -> Result<(), ConfigError> {
    let file = layered.value();
    let found = file.tenants.len();
    if found > TENANTS_MAX {
        return Err(layered.refuse("tenants", format!("at most {TENANTS_MAX} tenants"), found));
    }
    if found == 0 && file.anonymous.is_none() {
        let expected = "at least one tenant, or `[anonymous]`: as it stands, nobody is served";
        return Err(layered.refuse("tenants", expected, "none"));
    }
    if let Some(rules) = &file.anonymous {
        if !rules.keys.is_empty() {
            let expected = "no key: these are the rules of requests without one";
            return Err(layered.refuse("anonymous.keys", expected, rules.keys.len()));
        }
        check_rules(layered, ANONYMOUS, rules)?;
    }
    let mut holders = HashMap::new();
    for (name, rules) in &file.tenants {
        let table = format!("tenants.{name}");
        check_name(layered, &table, name)?;
        if rules.keys.is_empty() {
            let expected = "`keys` with at least one digest; `baton tenants key` makes one";
            return Err(layered.refuse(&table, expected, "none"));
        }
        let keys = format!("{table}.keys");
        for digest in &rules.keys {
            if let Some(holder) = holders.insert(digest.bytes(), name) {
                let found = format!("one that `tenants.{holder}.keys` has, too");
                return Err(layered.refuse(&keys, "keys that nobody else has", found));
            }
        }
        if holders.len() > KEYS_MAX {
            return Err(layered.refuse(&keys, format!("at most {KEYS_MAX} keys in all"), "more"));
        }
        check_rules(layered, &table, rules)?;
    }
    Ok(())
}

fn check_name(layered: &Layered<File>, table: &str, name: &str) -> Result<(), ConfigError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(plain) {
        let expected =
            format!("a name of 1 to {NAME_BYTES_MAX} letters, digits and any of - _ . @");
        return Err(layered.refuse(table, expected, format!("`{name}`")));
    }
    if name == ANONYMOUS {
        let expected = "another name: requests without a key have this one, and `[anonymous]`";
        return Err(layered.refuse(table, expected, format!("`{name}`")));
    }
    Ok(())
}

fn check_rules(layered: &Layered<File>, table: &str, rules: &Rules) -> Result<(), ConfigError> {
    if !WEIGHTS.contains(&rules.weight) {
        let expected = format!("{} to {}", WEIGHTS.start(), WEIGHTS.end());
        return Err(layered.refuse(&format!("{table}.weight"), expected, rules.weight));
    }
    match rules.quota.all().into_iter().find(|(_, quota)| *quota == Threshold::At(0)) {
        Some((key, _)) => {
            let expected =
                "at least 1, or \"inf\"; a tenant that is to have nothing has no section";
            Err(layered.refuse(&format!("{table}.{key}"), expected, 0))
        }
        None => Ok(()),
    }
}
