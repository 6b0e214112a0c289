//! What the machine can give, compared with what the configuration promises - before anything
//! starts, because a daemon that runs out of memory takes its neighbours with it.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::ByteSize;
use crate::{Exit, Hint};

/// Raises the limit of open files to what the process may set, and returns it. Every connection
/// is a file; the soft limit of most systems (1024) is meant for programs that use `select`.
pub fn raise_fd_limit() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised)?;
    }
    // Without a limit at all the kernel's own is in force.
    Ok(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
}

/// The memory that this process may still take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Memory {
    /// What the system, and the control group if there is one, could give now.
    pub available: u64,
    /// All there is, or what the control group limits it to.
    pub total: u64,
}

/// The memory that this process may still take.
pub fn memory() -> io::Result<Memory> {
    memory_at(Path::new("/"))
}

/// As [`memory`], with the system's files below `root`.
fn memory_at(root: &Path) -> io::Result<Memory> {
    let text = std::fs::read_to_string(root.join("proc/meminfo"))?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
        let missing = || io::Error::other(format!("/proc/meminfo has no `{name}`"));
        kib.map(|kib| kib * 1024).ok_or_else(missing)
    };
    let mut memory = Memory { available: field("MemAvailable")?, total: field("MemTotal")? };
    for (limit, used) in CGROUP_FILES {
        let read = |file: &str| {
            let text = std::fs::read_to_string(root.join("sys/fs/cgroup").join(file)).ok()?;
            text.trim().parse::<u64>().ok()
        };
        // An absent file means no such control group; `max` does not parse and means no limit.
        if let (Some(limit), Some(used)) = (read(limit), read(used)) {
            memory.total = memory.total.min(limit);
            memory.available = memory.available.min(limit.saturating_sub(used));
        }
    }
    Ok(memory)
}

/// Limit and use in version 2 of the control groups, then in version 1.
const CGROUP_FILES: [(&str, &str); 2] = [
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
];

/// Everything a daemon may ever hold, summed from its configured bounds.
#[derive(Clone, Debug, Default)]
pub struct Budget {
    parts: Vec<(&'static str, u64)>,
}

/// The configured bounds do not fit the machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LimitsError {
    /// The sum is more than there is.
    #[error(
        "the configured bounds add up to {}, but {} of memory are available: {parts}",
        Rounded(*needed), Rounded(*available)
    )]
    Memory {
        /// The sum in bytes.
        needed: u64,
        /// What there is, in bytes.
        available: u64,
        /// The parts, largest first.
        parts: Budget,
    },
    /// The system does not say what it has.
    #[error("cannot read how much memory there is")]
    Unknown(#[source] io::Error),
}

impl Hint for LimitsError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Memory { parts, .. } => {
                let (largest, _) = parts.sorted().first().copied()?;
                Some(format!("lower `{largest}`").into())
            }
            Self::Unknown(_) => None,
        }
    }

    fn exit(&self) -> Exit {
        Exit::Unavailable
    }
}

impl Budget {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a bound under the key that configures it: `each` bytes, `count` times.
    #[must_use]
    pub fn with(mut self, key: &'static str, count: u64, each: ByteSize) -> Self {
        self.parts.push((key, count.saturating_mul(each.0)));
        self
    }

    /// The sum in bytes.
    pub fn total(&self) -> u64 {
        self.parts.iter().fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes))
    }

    /// Compares the sum with what the machine can give now.
    pub fn check(&self) -> Result<Memory, LimitsError> {
        let memory = memory().map_err(LimitsError::Unknown)?;
        self.check_against(memory)
    }

    /// Compares the sum with a machine.
    pub fn check_against(&self, memory: Memory) -> Result<Memory, LimitsError> {
        let (needed, available) = (self.total(), memory.available);
        if needed > available {
            return Err(LimitsError::Memory { needed, available, parts: self.clone() });
        }
        Ok(memory)
    }

    fn sorted(&self) -> Vec<(&'static str, u64)> {
        let mut parts = self.parts.clone();
        parts.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        parts
    }
}

impl fmt::Display for Budget {
    /// Largest first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, bytes)) in self.sorted().into_iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}`{key}` {}", Rounded(bytes))?;
        }
        Ok(())
    }
}

/// A size for people: three digits are enough to see what is too large.
struct Rounded(u64);

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const STEPS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        match STEPS.iter().find(|(_, size)| self.0 >= *size) {
            Some((unit, size)) => write!(f, "{:.1} {unit}", self.0 as f64 / *size as f64),
            None => write!(f, "{} B", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Failure;

    #[test]
    fn a_budget_beyond_the_machine_is_refused_with_its_largest_part() {
        let budget = Budget::new().with("http.connections_max", 1024, ByteSize::mib(1)).with(
            "pool.memory",
            1,
            ByteSize::mib(7 << 10),
        );
        let memory = |gib: u64| Memory { available: gib << 30, total: gib << 30 };
        budget.check_against(memory(8)).expect("fits exactly");
        let error = budget.check_against(memory(4)).expect_err("too much");
        let failure = Failure::from(error);
        assert_eq!(failure.exit(), Exit::Unavailable);
        assert_eq!(
            failure.to_string(),
            "the configured bounds add up to 8.0 GiB, but 4.0 GiB of memory are available: \
             `pool.memory` 7.0 GiB, `http.connections_max` 1.0 GiB (hint: lower `pool.memory`)"
        );
    }

    #[test]
    fn absurd_bounds_do_not_wrap_around() {
        let budget =
            Budget::new().with("a", u64::MAX, ByteSize::mib(1)).with("b", 1, ByteSize(u64::MAX));
        assert_eq!(budget.total(), u64::MAX);
        budget.check().expect_err("no machine has that");
    }

    /// A root with the given files.
    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        root
    }

    const MEMINFO: (&str, &str) =
        ("proc/meminfo", "MemTotal:       8388608 kB\nMemAvailable:    4194304 kB\n");

    #[test]
    fn the_control_group_counts_where_it_is_tighter() {
        let seen = |files: &[(&str, &str)]| memory_at(machine(files).path()).expect("readable");
        let free = Memory { available: 4 << 30, total: 8 << 30 };
        assert_eq!(seen(&[MEMINFO]), free);
        let unlimited = ("sys/fs/cgroup/memory.max", "max\n");
        assert_eq!(seen(&[MEMINFO, unlimited, ("sys/fs/cgroup/memory.current", "1\n")]), free);
        let tight = Memory { available: 1 << 30, total: 2 << 30 };
        for (limit, used) in CGROUP_FILES {
            let limit = (&*format!("sys/fs/cgroup/{limit}"), "2147483648\n");
            let used = (&*format!("sys/fs/cgroup/{used}"), "1073741824\n");
            assert_eq!(seen(&[MEMINFO, limit, used]), tight);
        }
    }

    #[test]
    fn this_machine_says_what_it_has() {
        let memory = memory().expect("Linux");
        assert!(memory.available > 0 && memory.available <= memory.total);
    }

    #[test]
    fn the_file_limit_is_raised_to_the_hard_one() {
        let raised = raise_fd_limit().expect("always allowed");
        assert_eq!(Some(raised), getrlimit(Resource::Nofile).maximum.or(Some(u64::MAX)));
    }
}
