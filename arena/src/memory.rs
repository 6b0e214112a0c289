//! How much memory this process could still get: the machine's and its control group's view.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes that could still be allocated; `None` where the system does not say.
pub(crate) fn available() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| meminfo(&text));
    let group = fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| group_left(&text));
    match (machine, group) {
        (Some(machine), Some(group)) => Some(machine.min(group)),
        (one, other) => one.or(other),
    }
}

/// `MemAvailable` in bytes.
fn meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// What the control group leaves, in either version. A group in a container may be named by its
/// path outside, so the mount's root is asked too.
fn group_left(cgroups: &str) -> Option<u64> {
    cgroups.lines().flat_map(group_files).filter_map(|(limit, usage)| left(&limit, &usage)).min()
}

/// Files with limit and usage that one line of `/proc/self/cgroup` may mean.
fn group_files(line: &str) -> Vec<(PathBuf, PathBuf)> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
        return Vec::new();
    };
    let (root, limit, usage) = if controllers.is_empty() {
        ("/sys/fs/cgroup", "memory.max", "memory.current")
    } else if controllers.split(',').any(|c| c == "memory") {
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes")
    } else {
        return Vec::new();
    };
    let own = Path::new(root).join(path.trim_start_matches('/'));
    [own, PathBuf::from(root)].into_iter().map(|dir| (dir.join(limit), dir.join(usage))).collect()
}

fn left(limit: &Path, usage: &Path) -> Option<u64> {
    // "max" in version 2, an absurdly large number in version 1: no limit.
    let limit: u64 = fs::read_to_string(limit).ok()?.trim().parse().ok()?;
    let usage: u64 = fs::read_to_string(usage).ok()?.trim().parse().ok()?;
    Some(limit.saturating_sub(usage))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_machine_says_how_much_is_available() {
        let text = "MemTotal:       24684084 kB\nMemAvailable:   1024 kB\nBuffers: 1 kB\n";
        assert_eq!(meminfo(text), Some(1 << 20));
        assert_eq!(meminfo("MemTotal: 1 kB"), None);
        assert_eq!(meminfo("MemAvailable: many kB"), None);
        assert!(available().unwrap() > 0);
    }

    #[test]
    fn both_kinds_of_groups_are_understood() {
        let v2 = group_files("0::/a/b");
        assert_eq!(v2[0].0, Path::new("/sys/fs/cgroup/a/b/memory.max"));
        let v1 = group_files("4:cpu,memory:/c");
        assert_eq!(v1[0].1, Path::new("/sys/fs/cgroup/memory/c/memory.usage_in_bytes"));
        assert!(group_files("3:cpuset:/").is_empty());
        assert!(group_files("nonsense").is_empty());
    }

    #[test]
    fn a_group_leaves_its_limit_less_its_usage() {
        let dir = tempfile::tempdir().unwrap();
        let (limit, usage) = (dir.path().join("limit"), dir.path().join("usage"));
        fs::write(&limit, "1000\n").unwrap();
        fs::write(&usage, "400\n").unwrap();
        assert_eq!(left(&limit, &usage), Some(600));
        fs::write(&usage, "4000\n").unwrap();
        assert_eq!(left(&limit, &usage), Some(0));
        fs::write(&limit, "max\n").unwrap();
        assert_eq!(left(&limit, &usage), None);
    }
}
