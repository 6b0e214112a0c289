//! Who a process is: its worker id from its name, this run of it, and the machine it runs on.

use std::borrow::Cow;
use std::io;

use baton_proto::ids::{Incarnation, WorkerId};

use crate::{Exit, Hint};

/// The longest name of a worker.
pub const NAME_CHARS_MAX: usize = 63;

/// One run of one daemon.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The name in the configuration.
    pub name: String,
    /// What the name is on the wire.
    pub worker: WorkerId,
    /// This run of it.
    pub incarnation: Incarnation,
    /// The machine, as far as shared memory reaches; see [`host_id`].
    pub host: String,
}

/// A process that cannot be named.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The name could not be printed in a metric or a log.
    #[error("`{name}` is no name for a worker")]
    Name {
        /// The name.
        name: String,
    },
    /// Two names are one on the wire.
    #[error("the workers `{first}` and `{second}` have the same id")]
    Clash {
        /// One of the names.
        first: String,
        /// The other; equal to the first if a name was given twice.
        second: String,
    },
    /// The system has no random numbers.
    #[error("no random numbers: {0}")]
    Entropy(getrandom::Error),
    /// The system does not say what it is.
    #[error("cannot read which machine this is")]
    Host(#[source] io::Error),
}

impl Hint for IdentityError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Name { .. } => {
                Some("1 to 63 of the characters a-z, A-Z, 0-9, `-`, `_` and `.`".into())
            }
            Self::Clash { .. } => Some("rename one of them".into()),
            Self::Entropy(_) | Self::Host(_) => None,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Name { .. } | Self::Clash { .. } => Exit::Config,
            Self::Entropy(_) | Self::Host(_) => Exit::Unavailable,
        }
    }
}

impl Identity {
    /// The identity of a daemon that starts now under `name`.
    pub fn take(name: &str) -> Result<Self, IdentityError> {
        Ok(Self {
            name: name.into(),
            worker: worker_id(name)?,
            incarnation: draw_incarnation()?,
            host: host_id()?,
        })
    }
}

/// The id of the worker of that name: the first 32 bits of BLAKE3 of the name, little-endian.
pub fn worker_id(name: &str) -> Result<WorkerId, IdentityError> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.chars().all(good) {
        return Err(IdentityError::Name { name: name.into() });
    }
    let hash = blake3::hash(name.as_bytes());
    let [a, b, c, d, ..] = *hash.as_bytes();
    Ok(WorkerId(u32::from_le_bytes([a, b, c, d])))
}

/// The ids of all workers of a configuration. With 32 bits, two names out of a few hundred are
/// one in less than one of ten thousand clusters; that one is refused here.
pub fn worker_ids<'a>(
    names: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<WorkerId>, IdentityError> {
    let mut taken: Vec<(WorkerId, &str)> = Vec::new();
    for name in names {
        let id = worker_id(name)?;
        if let Some((_, first)) = taken.iter().find(|(other, _)| *other == id) {
            return Err(IdentityError::Clash { first: (*first).into(), second: name.into() });
        }
        taken.push((id, name));
    }
    Ok(taken.into_iter().map(|(id, _)| id).collect())
}

/// A number for this run that no other run has had. Never zero, which stands for "unknown" on the
/// wire.
pub fn draw_incarnation() -> Result<Incarnation, IdentityError> {
    loop {
        let drawn = getrandom::u64().map_err(IdentityError::Entropy)?;
        if drawn != 0 {
            return Ok(Incarnation(drawn));
        }
    }
}

/// Names the machine and this boot of it. Two processes with the same value can share memory by
/// passing descriptors; the host name is covered because containers on one kernel see one boot id
/// but not each other's sockets.
pub fn host_id() -> Result<String, IdentityError> {
    let read = |file| std::fs::read_to_string(file).map_err(IdentityError::Host);
    let boot = read("/proc/sys/kernel/random/boot_id")?;
    let name = read("/proc/sys/kernel/hostname")?;
    let mut hash = blake3::Hasher::new();
    hash.update(boot.trim().as_bytes()).update(&[0]).update(name.trim().as_bytes());
    Ok(hash.finalize().to_hex()[..16].to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_same_id_for_ever() {
        // Part of the wire format: this number was written down, not computed here.
        assert_eq!(worker_id("decode-0").expect("a name"), WorkerId(1_250_327_173));
        assert_ne!(worker_id("decode-0").expect("a name"), worker_id("decode-1").expect("a name"));
    }

    #[test]
    fn names_that_metrics_and_logs_could_not_print_are_refused() {
        for wrong in ["", "a b", "a\nb", "ä", "a/b", &"x".repeat(NAME_CHARS_MAX + 1)] {
            assert!(matches!(worker_id(wrong), Err(IdentityError::Name { .. })), "{wrong}");
        }
        worker_id(&"x".repeat(NAME_CHARS_MAX)).expect("the longest name");
    }

    #[test]
    fn two_workers_of_one_name_are_refused() {
        assert_eq!(worker_ids(["a", "b"]).expect("distinct").len(), 2);
        let clash = worker_ids(["a", "b", "a"]).expect_err("twice");
        assert_eq!(clash.to_string(), "the workers `a` and `a` have the same id");
    }

    #[test]
    fn each_run_is_another_incarnation_on_the_same_host() {
        let (first, second) = (Identity::take("a"), Identity::take("a"));
        let (first, second) = (first.expect("named"), second.expect("named"));
        assert_ne!(first.incarnation, second.incarnation);
        assert_eq!((first.worker, &first.host), (second.worker, &second.host));
        assert_eq!(first.host.len(), 16);
    }
}
