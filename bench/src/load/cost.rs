//! What a process has cost so far, as the kernel counts it (proc_pid_stat(5), proc_pid_status(5)).

use baton_node::exit::{Exit, Failure};
use std::time::Duration;

/// A moment of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Cost {
    /// Time on a processor, outside the kernel and inside.
    pub(super) user: Duration,
    pub(super) system: Duration,
    /// Memory that it has in use.
    pub(super) resident_bytes: u64,
}

impl Cost {
    /// Reads it.
    pub(super) fn of(pid: u32) -> Result<Self, Failure> {
        let read = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            std::fs::read_to_string(&path)
                .map_err(|error| Failure::new(Exit::Unavailable, format!("{path}: {error}")))
        };
        let unreadable = || Failure::new(Exit::Unavailable, format!("/proc/{pid}: unknown form"));
        parse(&read("stat")?, &read("status")?).ok_or_else(unreadable)
    }

    /// What came to it since an earlier moment.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
            resident_bytes: self.resident_bytes.saturating_sub(earlier.resident_bytes),
        }
    }
}

/// The kernel counts in hundredths of a second for its users, whatever it counts in itself.
const TICK: Duration = Duration::from_millis(10);

fn parse(stat: &str, status: &str) -> Option<Cost> {
    // The name may have blanks and brackets in it; the state is the first field behind it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let ticks = |at: usize| Some(TICK * fields.get(at)?.parse::<u32>().ok()?);
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = resident.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(Cost { user: ticks(11)?, system: ticks(12)?, resident_bytes: kib << 10 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_stand_behind_the_name_whatever_is_in_it() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 31 0 0 20 0 1 0 5 6 7";
        let cost = parse(stat, "Name:\ta\nVmRSS:\t    2048 kB\n");
        let (user, system) = (Duration::from_millis(2500), Duration::from_millis(310));
        assert_eq!(cost, Some(Cost { user, system, resident_bytes: 2 << 20 }));
        assert_eq!(parse("7 (a", ""), None);
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let error = Cost::of(u32::MAX).expect_err("no such process");
        assert!(error.to_string().contains("/proc/4294967295/stat"), "{error}");
        assert!(Cost::of(std::process::id()).is_ok());
    }
}
