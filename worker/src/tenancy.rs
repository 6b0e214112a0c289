//! Tenants at a worker: who is let in, at what rights, and for how many turns at once. A worker
//! reads the tenants file itself, so that no router can give a tenant more than that says.
//!
//! Without a file every name is taken as it comes.

use baton_node::config::ConfigError;
use baton_node::exit::{Failure, Hint};
use baton_node::reload::Reload;
use baton_node::tenants::{LiveTenants, NAME_BYTES_MAX, Seat, Seats, Tenant, TenantsConfig};
use baton_proto::ids::TenantId;
use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;
use thiserror::Error;

/// Lets tenants in. Clones share what is counted.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    file: Option<LiveTenants>,
    seats: Seats,
}

/// Whose turn it is. The turn counts among the tenant's for as long as a clone of this lives.
#[derive(Clone, Debug)]
pub struct Guest {
    /// The tenant.
    pub name: TenantId,
    /// What its blocks are salted with.
    pub scope: TenantId,
    _seat: Option<Arc<Seat>>,
}

/// A turn that was let in, with its tenant's rights.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// Whose it is.
    pub guest: Guest,
    tenant: Option<Arc<Tenant>>,
}

/// Why a turn is not let in.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The file does not have that tenant.
    #[error("the tenant `{tenant}` is not in this worker's tenants file")]
    Unknown {
        /// The name, or its beginning.
        tenant: String,
    },
    /// The tenant has what it may have here.
    #[error("the tenant `{tenant}` has {limit} turns at this worker, its `quota.turns_per_worker`")]
    Full {
        /// Whose quota it is.
        tenant: String,
        /// What it is.
        limit: u32,
    },
}

impl Hint for Refusal {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Unknown { .. } => {
                Some("give routers and workers the same file, and send them SIGHUP".into())
            }
            Self::Full { .. } => None,
        }
    }
}

impl From<Refusal> for tonic::Status {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.message();
        match refusal {
            Refusal::Unknown { .. } => Self::permission_denied(message),
            Refusal::Full { .. } => Self::resource_exhausted(message),
        }
    }
}

impl Refusal {
    /// What is wrong and what can be done, in one line.
    pub fn message(&self) -> String {
        Failure::from(self.clone()).to_string()
    }
}

impl Gate {
    /// By the file of a configuration, if it names one.
    pub fn open(config: &TenantsConfig) -> Result<Self, ConfigError> {
        Ok(Self { file: config.open()?, seats: Seats::default() })
    }

    /// The file is read again with everything else.
    pub fn register(&self, reload: &Reload) {
        if let Some(file) = self.file.clone() {
            reload.register("tenants", move || Ok(file.reload()?));
        }
    }

    /// Lets a turn of that tenant in.
    pub fn admit(&self, name: &str) -> Result<Admitted, Refusal> {
        let Some(file) = &self.file else {
            let guest = TenantId(Arc::from(name)).into();
            return Ok(Admitted { guest, tenant: None });
        };
        let clipped = || name[..name.floor_char_boundary(NAME_BYTES_MAX)].to_owned();
        let tenants = file.current();
        let unknown = || Refusal::Unknown { tenant: clipped() };
        let tenant = tenants.named(name).ok_or_else(unknown)?;
        let max = tenant.rules.quota.turns_per_worker;
        let seat = self.seats.take(&tenant.name, max).ok_or_else(|| Refusal::Full {
            tenant: clipped(),
            limit: max.at().unwrap_or(u32::MAX),
        })?;
        let (name, scope) = (tenant.name.clone(), tenant.scope.clone());
        let guest = Guest { name, scope, _seat: Some(Arc::new(seat)) };
        Ok(Admitted { guest, tenant: Some(Arc::clone(tenant)) })
    }

    /// Turns of that tenant that are here.
    pub fn turns(&self, tenant: &TenantId) -> u32 {
        self.seats.taken(tenant)
    }
}

impl Admitted {
    /// A strict priority and a priority, as far as the tenant may have them.
    pub fn precedence(&self, strict_priority: u32, priority: i32) -> (u32, i32) {
        match &self.tenant {
            None => (strict_priority, priority),
            Some(tenant) => (
                strict_priority.min(u32::from(tenant.rules.strict_priority)),
                priority.min(tenant.rules.priority),
            ),
        }
    }

    /// The tenant's share where others have work, too.
    pub fn weight(&self) -> u32 {
        self.tenant.as_ref().map_or(1, |tenant| u32::from(tenant.rules.weight))
    }

    /// Tokens of each choice, as far as the tenant may have them.
    pub fn answer_tokens(&self, wanted: u32, choices: u32) -> u32 {
        let most = self.tenant.as_ref().and_then(|tenant| tenant.answer_tokens(choices));
        wanted.min(most.unwrap_or(u32::MAX))
    }
}

/// What counts by tenant takes a guest for its tenant.
impl Deref for Guest {
    type Target = TenantId;

    fn deref(&self) -> &TenantId {
        &self.name
    }
}

impl From<TenantId> for Guest {
    /// A tenant that nothing is known of: its blocks are its own, and its turns are not counted.
    fn from(name: TenantId) -> Self {
        Self { scope: name.clone(), name, _seat: None }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::sequence::{ChainKey, Sequence};
    use baton_kv::hash::ChainRoot;
    use baton_proto::ids::SeqKey;

    fn gate(dir: &tempfile::TempDir, text: &str) -> Gate {
        let path = dir.path().join("tenants.toml");
        std::fs::write(&path, text).unwrap();
        Gate::open(&TenantsConfig { file: Some(path) }).unwrap()
    }

    /// A tenant with a digest that no key has.
    fn tenant(name: &str, lines: &str) -> String {
        let digest = format!("{:064x}", name.bytes().map(u64::from).sum::<u64>());
        format!("[tenants.{name}]\nkeys = [\"blake3:{digest}\"]\n{lines}\n")
    }

    #[test]
    fn no_word_of_a_router_gives_a_tenant_more_than_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let lines = "priority = 5\nstrict_priority = 1\nquota.answer_tokens = 100\nweight = 7";
        let admitted = gate(&dir, &tenant("acme", lines)).admit("acme").unwrap();
        assert_eq!(admitted.precedence(255, i32::MAX), (1, 5));
        assert_eq!(admitted.weight(), 7);
        assert_eq!(admitted.precedence(0, i32::MIN), (0, i32::MIN), "what is less stays");
        assert_eq!((admitted.answer_tokens(u32::MAX, 1), admitted.answer_tokens(7, 1)), (100, 7));
        assert_eq!((admitted.answer_tokens(90, 3), admitted.answer_tokens(90, 500)), (33, 1));
        let open = Gate::default().admit("anybody").unwrap();
        assert_eq!(open.precedence(255, i32::MAX), (255, i32::MAX));
        assert_eq!((open.answer_tokens(u32::MAX, 1), open.weight()), (u32::MAX, 1));
    }

    #[test]
    fn a_turn_counts_for_as_long_as_anything_of_it_lives() {
        let dir = tempfile::tempdir().unwrap();
        let gate = gate(&dir, &(tenant("acme", "quota.turns_per_worker = 2") + &tenant("b", "")));
        let one = gate.admit("acme").unwrap();
        let two = gate.admit("acme").unwrap();
        let refused = gate.admit("acme").unwrap_err();
        assert_eq!(refused, Refusal::Full { tenant: "acme".into(), limit: 2 });
        assert!(refused.message().contains("`quota.turns_per_worker`"), "{refused}");
        for _ in 0..100 {
            gate.admit("b").unwrap();
        }
        let clone = one.guest.clone();
        drop(one);
        assert!(gate.admit("acme").is_err());
        drop(clone);
        assert!(gate.admit("acme").is_ok());
        drop(two);
        assert_eq!(gate.turns(&TenantId("acme".into())), 0);
    }

    #[test]
    fn blocks_have_one_name_for_all_of_a_scope_and_another_for_everybody_else() {
        let dir = tempfile::tempdir().unwrap();
        let shared = "reuse = \"cluster\"";
        let text = tenant("a", shared) + &tenant("b", shared) + &tenant("c", "") + &tenant("d", "");
        let gate = gate(&dir, &text);
        let chain = |name: &str| {
            let chain_key = ChainKey {
                root: Arc::new(ChainRoot::new(&[1; 32], &[2; 32])),
                block_tokens: 16,
                tenant: gate.admit(name).unwrap().guest,
                public_blocks: 0,
            };
            Sequence::new(SeqKey(1), chain_key, (0..64).collect()).chain().to_vec()
        };
        assert_eq!(chain("a"), chain("b"));
        assert_ne!(chain("a")[0], chain("c")[0]);
        assert_ne!(chain("c")[0], chain("d")[0]);
    }

    #[test]
    fn a_tenant_that_the_file_does_not_have_is_refused_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let gate = gate(&dir, &tenant("acme", "reuse = \"cluster\""));
        let long = "\u{e9}".repeat(1000);
        for name in ["evil", "", "anonymous", "scope/cluster", &long] {
            let refused = gate.admit(name).unwrap_err();
            let message = refused.message();
            assert!(message.contains("hint") && message.contains("SIGHUP"), "{message}");
            assert!(message.len() < 400, "{message}");
            let status = tonic::Status::from(refused);
            assert_eq!(status.code(), tonic::Code::PermissionDenied);
        }
        let guest = gate.admit("acme").unwrap().guest;
        assert_eq!((&*guest.name.0, &*guest.scope.0), ("acme", "scope/cluster"));
        let reload = Reload::new();
        gate.register(&reload);
        std::fs::write(dir.path().join("tenants.toml"), tenant("evil", "")).unwrap();
        assert!(reload.run()[0].outcome.is_ok());
        assert!(gate.admit("evil").is_ok() && gate.admit("acme").is_err());
    }
}
