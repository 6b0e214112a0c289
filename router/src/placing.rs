//! What a client may say about where its turn goes: headers of HTTP, metadata of gRPC.

use crate::choose::PolicyName;
use crate::config::PlacementConfig;
use crate::error::{Invalid, clip};

/// Names the policy that places this request, where the configuration allows it.
pub(crate) const POLICY_HEADER: &str = "x-baton-policy";
/// Asks for the reasons of the decision.
pub(crate) const EXPLAIN_HEADER: &str = "x-baton-explain";

/// How a turn is placed, beside what its request says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Placing {
    pub(crate) policy: PolicyName,
    pub(crate) explain: Explain,
}

/// Whether the reasons of a decision are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Explain {
    #[default]
    Off,
    /// With the answer.
    WithAnswer,
    /// Instead of the answer: nothing is started.
    DryRun,
}

impl Placing {
    /// From the values of the two headers.
    pub(crate) fn read<'a>(
        config: &PlacementConfig,
        policies: impl IntoIterator<Item = &'a [u8]>,
        explains: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self, Invalid> {
        let policy = match once(POLICY_HEADER, policies)? {
            None => config.policy,
            Some(_) if !config.policy_header => {
                return Err(not_allowed(POLICY_HEADER, "placement.policy_header"));
            }
            Some(name) => named(config, name)?,
        };
        let explain = match once(EXPLAIN_HEADER, explains)? {
            None | Some("0") => Explain::Off,
            Some(_) if !config.explain_header => {
                return Err(not_allowed(EXPLAIN_HEADER, "placement.explain_header"));
            }
            Some("1") => Explain::WithAnswer,
            Some("dry-run") => Explain::DryRun,
            Some(_) => return Err(refuse(EXPLAIN_HEADER, "expected 0, 1 or dry-run")),
        };
        Ok(Self { policy, explain })
    }
}

/// The policy of that name.
fn named(config: &PlacementConfig, name: &str) -> Result<PolicyName, Invalid> {
    let policy = name.parse().map_err(|_| {
        let (name, known) = (clip(name), PolicyName::list());
        refuse(POLICY_HEADER, &format!("`{name}` is no policy; expected one of {known}"))
    })?;
    if policy == PolicyName::External && config.external.uri.is_none() {
        let why =
            "this router has no policy called `external`: its `placement.external.uri` is not set";
        return Err(refuse(POLICY_HEADER, why));
    }
    Ok(policy)
}

/// The one value of a header.
fn once<'a>(
    header: &str,
    values: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Option<&'a str>, Invalid> {
    let mut values = values.into_iter();
    let value = values.next().map(std::str::from_utf8).transpose();
    let value = value.map_err(|_| refuse(header, "expected ASCII characters"))?;
    if values.next().is_some() {
        return Err(refuse(header, "expected it once"));
    }
    Ok(value)
}

pub(crate) fn refuse(header: &str, why: &str) -> Invalid {
    Invalid::value(header, format!("Invalid header '{header}': {why}."))
}

fn not_allowed(header: &str, key: &str) -> Invalid {
    let message =
        format!("The header '{header}' is not allowed here; this router's `{key}` is false.");
    Invalid { param: Some(header.to_owned()), code: "header_not_allowed", message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<'a>(policy: &[&'a str], explain: &[&'a str]) -> Result<Placing, Invalid> {
        let config = PlacementConfig { policy_header: true, ..PlacementConfig::default() };
        let bytes = |value: &&'a str| value.as_bytes();
        Placing::read(&config, policy.iter().map(bytes), explain.iter().map(bytes))
    }

    #[test]
    fn every_policy_can_be_named_and_every_kind_of_reason_asked_for() {
        assert_eq!(read(&[], &[]), Ok(Placing::default()));
        for policy in PolicyName::ALL {
            assert_eq!(read(&[policy.as_str()], &[]).map(|placing| placing.policy), Ok(policy));
        }
        for (text, explain) in
            [("0", Explain::Off), ("1", Explain::WithAnswer), ("dry-run", Explain::DryRun)]
        {
            assert_eq!(read(&[], &[text]).map(|placing| placing.explain), Ok(explain));
        }
    }

    #[test]
    fn an_external_policy_can_be_named_where_one_is_configured() {
        let refused = read(&["external"], &[]).expect_err("none is configured");
        assert!(refused.message.contains("placement.external.uri"), "{}", refused.message);
        let mut config = PlacementConfig { policy_header: true, ..PlacementConfig::default() };
        config.external.uri = Some("http://127.0.0.1:7400".to_owned());
        let named: [&[u8]; 1] = [b"external"];
        let placing = Placing::read(&config, named, []);
        assert_eq!(placing.map(|placing| placing.policy), Ok(PolicyName::External));
    }

    #[test]
    fn what_nobody_knows_is_refused_with_the_header_and_what_is_known() {
        let long = "x".repeat(1 << 20);
        for (policy, explain, header, word) in [
            (vec!["random"], vec![], POLICY_HEADER, "round-robin"),
            (vec![&*long], vec![], POLICY_HEADER, "kv-aware"),
            (vec!["kv-aware", "kv-aware"], vec![], POLICY_HEADER, "once"),
            (vec![], vec!["yes"], EXPLAIN_HEADER, "dry-run"),
        ] {
            let refused = read(&policy, &explain).expect_err("refused");
            assert_eq!(refused.param.as_deref(), Some(header));
            let message = refused.message;
            assert!(message.contains(header) && message.contains(word), "{message:.300}");
            assert!(message.len() < 400, "a long name is not said back whole");
        }
    }

    #[test]
    fn what_the_configuration_forbids_is_refused_with_its_key() {
        let config = PlacementConfig { explain_header: false, ..PlacementConfig::default() };
        let named: [&[u8]; 1] = [b"kv-aware"];
        let policy = Placing::read(&config, named, []).expect_err("forbidden");
        assert!(policy.message.contains("placement.policy_header"), "{}", policy.message);
        let asked: [&[u8]; 1] = [b"1"];
        let explain = Placing::read(&config, [], asked).expect_err("forbidden");
        assert!(explain.message.contains("placement.explain_header"), "{}", explain.message);
    }
}
