//! The words, and which of them this release acts on.

use super::Hint;

/// The version of the vocabulary.
pub(crate) const VERSION: i64 = 1;

/// What is said about hints that are understood and not acted on yet.
pub(crate) const UNSERVED: [(&str, &str); 4] = [
    ("tool_eta_ms", "this router does not plan for the time after a tool call"),
    ("retain", "blocks leave when memory is needed, the least recently used first"),
    ("session.final", "a session's blocks leave like all others"),
    ("latency_sensitivity", "deprecated; use priority"),
];

/// The hints that are acted on.
pub(crate) const SERVED: [(&str, Hint); 7] = [
    ("strict_priority", Hint::StrictPriority),
    ("priority", Hint::Priority),
    ("osl", Hint::Osl),
    ("deadline_ms", Hint::DeadlineMs),
    ("speculative_prefill", Hint::SpeculativePrefill),
    ("session.id", Hint::Session),
    ("session.parent", Hint::Parent),
];

/// Why that word of the vocabulary does nothing.
pub(crate) fn unserved(name: &str) -> &'static str {
    UNSERVED.iter().find(|(unserved, _)| *unserved == name).map_or("not served", |(_, why)| why)
}
