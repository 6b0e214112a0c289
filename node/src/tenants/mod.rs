//! Tenants: who asks, by which key, and what they may ask for. Routers and workers read one file.
//!
//! [`Tenants`] is such a file, read and checked; [`LiveTenants`] is the one in force, which a
//! [reload](crate::reload) replaces as a whole or not at all. [`Seats`] and [`Budgets`] count what a
//! quota bounds; they outlive the file's versions.

pub mod keys;
mod quota;
mod rules;

pub use keys::KeyDigest;
pub use quota::{Budgets, Seat, Seats};
pub use rules::{
    Coldest, File, KEYS_MAX, NAME_BYTES_MAX, Quota, Reuse, Rules, Speculate, TENANTS_MAX, Tier,
    WEIGHTS,
};

use crate::config::{self, ConfigError, Threshold};
use baton_proto::ids::TenantId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

/// `[tenants]` in a daemon's file.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TenantsConfig {
    /// The tenants file; without one, everybody is served and every name believed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

impl TenantsConfig {
    /// Reads the file, if one is named, to see whether it can be used.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.open().map(drop)
    }

    /// The file's rules, if one is named.
    pub fn open(&self) -> Result<Option<LiveTenants>, ConfigError> {
        self.file.as_deref().map(LiveTenants::open).transpose()
    }
}

/// A tenant with its rules.
#[derive(Clone, PartialEq, Debug)]
pub struct Tenant {
    /// Its name.
    pub name: TenantId,
    /// What its blocks are salted with: tenants of one scope find each other's.
    pub scope: TenantId,
    /// What it may ask for.
    pub rules: Rules,
}

impl Tenant {
    fn new(name: &str, rules: Rules) -> Self {
        let scope = match rules.reuse {
            Reuse::Tenant => name.to_owned(),
            // No tenant's name has a slash.
            Reuse::Cluster | Reuse::Public => format!("scope/{}", rules.reuse.as_str()),
        };
        Self { name: TenantId(Arc::from(name)), scope: TenantId(scope.into()), rules }
    }

    /// Tokens that each choice of a request may have.
    pub fn answer_tokens(&self, choices: u32) -> Option<u32> {
        match self.rules.quota.answer_tokens {
            Threshold::At(most) => Some((most / choices.max(1)).max(1)),
            Threshold::Never => None,
        }
    }
}

/// The tenants of a file.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Tenants {
    anonymous: Option<Arc<Tenant>>,
    named: BTreeMap<Arc<str>, Arc<Tenant>>,
    keys: Vec<(KeyDigest, Arc<Tenant>)>,
}

impl Tenants {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::from_layers(config::load(Some(path))?)
    }

    /// The same from a text that was read from `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        Self::from_layers(config::parse(path, text)?)
    }

    fn from_layers(layered: config::Layered<File>) -> Result<Self, ConfigError> {
        rules::check(&layered)?;
        let file = layered.into_value();
        let tenant = |name: &str, rules| Arc::new(Tenant::new(name, rules));
        let mut tenants = Self {
            anonymous: file.anonymous.map(|rules| tenant(rules::ANONYMOUS, rules)),
            ..Self::default()
        };
        for (name, rules) in file.tenants {
            let tenant = tenant(&name, rules);
            let keys = tenant.rules.keys.iter().map(|key| (*key, Arc::clone(&tenant)));
            tenants.keys.extend(keys);
            tenants.named.insert(Arc::clone(&tenant.name.0), tenant);
        }
        Ok(tenants)
    }

    /// Whose key that is. It takes as long whoever it is.
    pub fn holder(&self, key: &[u8]) -> Option<&Arc<Tenant>> {
        let claimed = KeyDigest::of(key);
        let mut holder = None;
        for (digest, tenant) in &self.keys {
            if digest.is(&claimed) {
                holder = Some(tenant);
            }
        }
        holder
    }

    /// Whose requests have no key, if those are served.
    pub fn anonymous(&self) -> Option<&Arc<Tenant>> {
        self.anonymous.as_ref()
    }

    /// The tenant of that name; what has no key goes by [`TenantId::anonymous`].
    pub fn named(&self, name: &str) -> Option<&Arc<Tenant>> {
        if name == rules::ANONYMOUS { self.anonymous() } else { self.named.get(name) }
    }

    /// All tenants, those without a key first.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.anonymous.iter().chain(self.named.values())
    }
}

/// The tenants in force. Clones share them.
#[derive(Clone, Debug)]
pub struct LiveTenants {
    path: Arc<Path>,
    current: Arc<RwLock<Arc<Tenants>>>,
}

impl LiveTenants {
    /// Those of a file.
    pub fn open(path: &Path) -> Result<Self, ConfigError> {
        let tenants = Arc::new(Tenants::load(path)?);
        Ok(Self { path: Arc::from(path), current: Arc::new(RwLock::new(tenants)) })
    }

    /// The rules as they are now.
    pub fn current(&self) -> Arc<Tenants> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the file again and says what is different. A file that cannot be used changes nothing.
    pub fn reload(&self) -> Result<String, ConfigError> {
        let new = Arc::new(Tenants::load(&self.path)?);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *current, Arc::clone(&new));
        drop(current);
        let changed = new.all().filter(|tenant| old.named(&tenant.name.0) != Some(tenant)).count();
        let gone = old.all().filter(|tenant| new.named(&tenant.name.0).is_none()).count();
        Ok(format!("{} tenants, {changed} new or changed, {gone} gone", new.all().count()))
    }
}

#[cfg(test)]
mod tests;
