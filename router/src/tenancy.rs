//! Who a request is from, and what of its quota is taken.
//!
//! With a tenants file that follows from the key alone. Without one, every name is believed, as
//! trustworthy as whoever may reach the port.

use crate::error::{Invalid, TurnError};
use baton_node::Failure;
use baton_node::clock::{Clock, Monotonic};
use baton_node::config::{ConfigError, Threshold};
use baton_node::reload::Reload;
use baton_node::tenants::{Budgets, LiveTenants, Seat, Seats, Tenant, TenantsConfig};
use baton_proto::ids::TenantId;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// After so long it is worth asking for a place again.
const PLACE_AGAIN: Duration = Duration::from_secs(1);

/// The tenants, and what they have.
#[derive(Clone)]
pub(crate) struct Tenancy {
    file: Option<LiveTenants>,
    seats: Seats,
    budgets: Arc<Mutex<Budgets>>,
    clock: Arc<dyn Clock>,
}

/// Who a request is from.
#[derive(Clone, Debug)]
pub(crate) struct Visitor {
    pub(crate) name: TenantId,
    /// What the tenant may ask for, where a file says so.
    pub(crate) tenant: Option<Arc<Tenant>>,
}

/// A name that a request gives itself, and the field that it stands in.
pub(crate) type Named<'a> = Option<(&'static str, &'a str)>;

impl Tenancy {
    pub(crate) fn open(config: &TenantsConfig) -> Result<Self, ConfigError> {
        Ok(Self {
            file: config.open()?,
            seats: Seats::default(),
            budgets: Arc::default(),
            clock: Arc::new(Monotonic::process()),
        })
    }

    /// The file is read again with everything else.
    pub(crate) fn register(&self, reload: &Reload) {
        let Some(file) = self.file.clone() else { return };
        let budgets = self.budgets.clone();
        reload.register("tenants", move || {
            let news = file.reload().map_err(Failure::from)?;
            let current = file.current();
            lock(&budgets).retain(|tenant| current.named(&tenant.0).is_some());
            Ok(news)
        });
    }

    /// Who that is, from the values of `authorization` and `x-api-key`.
    pub(crate) fn identify<'a>(
        &self,
        authorization: impl IntoIterator<Item = &'a [u8]>,
        api_keys: impl IntoIterator<Item = &'a [u8]>,
        named: Named<'_>,
    ) -> Result<Visitor, TurnError> {
        let Some(file) = &self.file else {
            let name = named.map(|(_, name)| TenantId(Arc::from(name)));
            return Ok(Visitor { name: name.unwrap_or_else(TenantId::anonymous), tenant: None });
        };
        let tenants = file.current();
        let tenant = match key(authorization, api_keys)? {
            Some(key) => tenants
                .holder(key)
                .ok_or(TurnError::Unauthorized("the API key is not one of this server's"))?,
            None => tenants.anonymous().ok_or(TurnError::Unauthorized(
                "an API key is needed, as `Authorization: Bearer KEY` or as `x-api-key: KEY`",
            ))?,
        };
        match named {
            Some((param, name)) if *name != *tenant.name.0 => {
                let message = format!(
                    "Invalid '{param}': it names `{name}`, and that is not whose API key came with \
                     it. Leave '{param}' out; the key says who asks."
                );
                Err(Invalid::value(param, message).into())
            }
            _ => Ok(Visitor { name: tenant.name.clone(), tenant: Some(tenant.clone()) }),
        }
    }

    /// A place among the tenant's requests.
    pub(crate) fn seat(&self, visitor: &Visitor) -> Result<Option<Seat>, TurnError> {
        let Some(tenant) = &visitor.tenant else { return Ok(None) };
        let max = tenant.rules.quota.requests;
        let full = || exceeded(&tenant.name, "quota.requests", max, PLACE_AGAIN);
        self.seats.take(&tenant.name, max).map(Some).ok_or_else(full)
    }

    /// Takes a prompt of so many tokens from what its tenant has in a minute.
    pub(crate) fn charge(&self, name: &TenantId, tokens: usize) -> Result<(), TurnError> {
        let Some(file) = &self.file else { return Ok(()) };
        // Whoever is gone meanwhile keeps what was begun.
        let Some(tenant) = file.current().named(&name.0).cloned() else { return Ok(()) };
        let max = tenant.rules.quota.prompt_tokens_per_minute;
        let Threshold::At(per_minute) = max else { return Ok(()) };
        let spent = lock(&self.budgets).spend(name, tokens as u64, per_minute, self.clock.now());
        spent.map_err(|wait| exceeded(name, "quota.prompt_tokens_per_minute", max, wait))
    }
}

impl Visitor {
    /// Whose blocks it may find.
    pub(crate) fn scope(&self) -> TenantId {
        self.tenant.as_ref().map_or_else(|| self.name.clone(), |tenant| tenant.scope.clone())
    }
}

fn lock(budgets: &Mutex<Budgets>) -> MutexGuard<'_, Budgets> {
    budgets.lock().unwrap_or_else(PoisonError::into_inner)
}

fn exceeded(
    tenant: &TenantId,
    quota: &'static str,
    limit: Threshold<u32>,
    after: Duration,
) -> TurnError {
    let limit = limit.at().unwrap_or(u32::MAX);
    TurnError::Quota { tenant: tenant.clone(), quota, limit, after }
}

/// The one key of a request. What is sent is said back nowhere.
fn key<'a>(
    authorization: impl IntoIterator<Item = &'a [u8]>,
    api_keys: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Option<&'a [u8]>, TurnError> {
    let mut keys = api_keys.into_iter().map(Ok).chain(authorization.into_iter().map(bearer));
    let Some(key) = keys.next().transpose()? else { return Ok(None) };
    for other in keys {
        // Some clients send it both ways.
        if other? != key {
            return Err(TurnError::Unauthorized("two different API keys came with the request"));
        }
    }
    Ok(Some(key))
}

fn bearer(value: &[u8]) -> Result<&[u8], TurnError> {
    const SCHEME: &[u8] = b"bearer ";
    match value.split_at_checked(SCHEME.len()) {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case(SCHEME) => Ok(key.trim_ascii()),
        _ => Err(TurnError::Unauthorized("`Authorization` is to be `Bearer` and an API key")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use baton_node::clock::Manual;
    use baton_node::scratch::Scratch;
    use baton_node::tenants::KeyDigest;

    const NONE: [&[u8]; 0] = [];

    fn open(lines: &str) -> (Tenancy, Manual, Scratch) {
        let folder = Scratch::new("tenancy").unwrap();
        let path = folder.path().join("tenants.toml");
        let key = KeyDigest::of(b"secret");
        std::fs::write(&path, format!("[tenants.acme]\nkeys = [\"{key}\"]\n{lines}\n")).unwrap();
        let mut tenancy = Tenancy::open(&TenantsConfig { file: Some(path) }).unwrap();
        let clock = Manual::new();
        tenancy.clock = Arc::new(clock.clone());
        (tenancy, clock, folder)
    }

    #[test]
    fn a_key_is_read_wherever_clients_put_it_and_never_said_back() {
        let (tenancy, ..) = open("");
        let ask = |bearers: &[&'static [u8]], keys: &[&'static [u8]]| {
            tenancy.identify(bearers.iter().copied(), keys.iter().copied(), None)
        };
        for (bearers, keys) in [
            (&[&b"Bearer secret"[..]][..], &[][..]),
            (&[b"bearer  secret "], &[]),
            (&[], &[&b"secret"[..]]),
            (&[b"Bearer secret"], &[b"secret"]),
        ] {
            assert_eq!(&*ask(bearers, keys).unwrap().name.0, "acme", "{bearers:?} {keys:?}");
        }
        for (bearers, keys) in [
            (&[][..], &[][..]),
            (&[&b"Bearer "[..]][..], &[]),
            (&[b"Bearer canary"], &[]),
            (&[b"Basic canary"], &[]),
            (&[b"secret"], &[]),
            (&[], &[&b"canary"[..]]),
            (&[b"Bearer canary"], &[b"secret"]),
            (&[b"Bearer secret", b"Bearer canary"], &[]),
        ] {
            let error = ask(bearers, keys).expect_err("no key of ours");
            assert!(matches!(error, TurnError::Unauthorized(_)), "{error:?}");
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }

    #[test]
    fn a_name_is_believed_only_where_nothing_else_is_known() {
        let (tenancy, ..) = open("");
        let with = |name| tenancy.identify(NONE, [&b"secret"[..]], Some(("x-baton-tenant", name)));
        assert_eq!(&*with("acme").unwrap().name.0, "acme");
        let TurnError::Invalid(invalid) = with("evil").expect_err("another one") else { panic!() };
        assert_eq!(invalid.param.as_deref(), Some("x-baton-tenant"));
        assert!(invalid.message.contains("`evil`"), "{}", invalid.message);
        let open = Tenancy::open(&TenantsConfig::default()).unwrap();
        let visitor = open.identify([&b"Basic x"[..]], NONE, Some(("tenant", "evil"))).unwrap();
        assert_eq!((&*visitor.name.0, &*visitor.scope().0), ("evil", "evil"));
        assert!(open.seat(&visitor).unwrap().is_none());
    }

    #[test]
    fn quotas_are_named_with_when_to_come_again() {
        let lines = "quota.requests = 2\nquota.prompt_tokens_per_minute = 60";
        let (tenancy, clock, _folder) = open(lines);
        let acme = tenancy.identify(NONE, [&b"secret"[..]], None).unwrap();
        let held = [tenancy.seat(&acme).unwrap(), tenancy.seat(&acme).unwrap()];
        let error = tenancy.seat(&acme).expect_err("a third");
        assert!(error.to_string().contains("`quota.requests`"), "{error}");
        assert_eq!(error.retry_after(), Some(PLACE_AGAIN));
        drop(held);
        assert!(tenancy.seat(&acme).unwrap().is_some());
        clock.advance(Duration::from_secs(1000));
        assert_eq!(tenancy.charge(&acme.name, 50), Ok(()));
        let error = tenancy.charge(&acme.name, 30).expect_err("more than a minute has");
        assert!(error.to_string().contains("`quota.prompt_tokens_per_minute`"), "{error}");
        assert_eq!(error.retry_after(), Some(Duration::from_secs(20)));
        clock.advance(Duration::from_secs(20));
        assert_eq!(tenancy.charge(&acme.name, 30), Ok(()));
    }

    #[test]
    fn who_is_gone_from_the_file_is_forgotten_with_what_was_counted() {
        let (tenancy, _clock, folder) = open("quota.prompt_tokens_per_minute = 60");
        let reload = Reload::new();
        tenancy.register(&reload);
        let acme = tenancy.identify(NONE, [&b"secret"[..]], None).unwrap();
        tenancy.charge(&acme.name, 50).unwrap();
        assert_eq!(lock(&tenancy.budgets).tenants(), 1);
        std::fs::write(folder.path().join("tenants.toml"), "[anonymous]\n").unwrap();
        assert!(reload.run()[0].outcome.is_ok());
        assert_eq!(lock(&tenancy.budgets).tenants(), 0);
        assert!(tenancy.identify(NONE, [&b"secret"[..]], None).is_err());
        assert_eq!(tenancy.charge(&acme.name, 1_000_000), Ok(()), "what was begun goes on");
    }
}
