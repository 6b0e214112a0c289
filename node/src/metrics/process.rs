//! Figures of the process itself, read from `/proc` at each scrape.

use super::{Kind, Metrics};

/// Adds memory and open files. A figure that cannot be read is left out.
pub(super) fn register(metrics: &Metrics) {
    let add = |name, help, read: fn() -> Option<f64>| {
        metrics.sample(name, help, Kind::Gauge, move |samples| {
            if let Some(value) = read() {
                samples.push(&[], value);
            }
        });
    };
    add("process_resident_memory_bytes", "Resident memory", resident_bytes);
    add("process_open_fds", "Open files", open_fds);
    add("process_max_fds", "Limit of open files", max_fds);
}

fn resident_bytes() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some((kib * 1024) as f64)
}

fn open_fds() -> Option<f64> {
    // The listing itself has one open.
    Some((std::fs::read_dir("/proc/self/fd").ok()?.count() - 1) as f64)
}

fn max_fds() -> Option<f64> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.map(|limit| limit as f64)
}
