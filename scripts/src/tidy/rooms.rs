//! The rooms of the house: which crate may see which, and where `unsafe` may be written.

use super::{File, Finding, Tree};
use crate::source::has_word;

/// The crates that a room may depend on. A room that is not listed is not allowed to exist.
const EDGES: [(&str, &[&str]); 14] = [
    ("proto", &[]),
    ("text", &["proto"]),
    ("kv", &["proto"]),
    ("arena", &[]),
    ("transfer", &["kv", "arena", "proto"]),
    ("kernels", &["arena"]),
    ("engine", &["kernels", "kv", "text", "arena", "proto"]),
    ("node", &["proto"]),
    ("worker", &WORKER),
    ("prefill", &DAEMON),
    ("decode", &DAEMON),
    ("router", &["kv", "text", "node", "proto"]),
    ("bench", &ANY),
    ("scripts", &[]),
];
const WORKER: [&str; 7] = ["engine", "transfer", "kv", "arena", "node", "proto", "text"];
const DAEMON: [&str; 8] = ["worker", "engine", "transfer", "kv", "arena", "node", "proto", "text"];
const ANY: [&str; 12] = [
    "proto", "text", "kv", "arena", "transfer", "kernels", "engine", "node", "worker", "prefill",
    "decode", "router",
];

const UNSAFE_ROOMS: [&str; 3] = ["arena", "transfer", "kernels"];
/// The index asks for memory ahead, which no safe function of the standard library does.
const UNSAFE_FILE: &str = "kv/src/index/prefetch.rs";

/// Dependencies between rooms follow the picture in docs/ARCHITECTURE.md.
pub(super) fn edges(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.files.iter().filter(|file| file.path.ends_with("/Cargo.toml")) {
        let room = file.room();
        let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == room) else {
            let advice = "is no room of the house: add it to the edges, here and in the docs";
            found.push(file.finding(1, format!("`{room}` {advice}")));
            continue;
        };
        for (line, dependency) in dependencies(file) {
            let Some(target) = dependency.strip_prefix("baton-") else { continue };
            // What fuzzes a room sees the room itself.
            if !allowed.contains(&target) && target != room {
                let message = format!(
                    "`{room}` must not depend on `{target}`: move what is needed to a room that \
                     both may see"
                );
                found.push(file.finding(line, message));
            }
        }
    }
    found
}

/// The keys of the manifest's [dependencies] and [build-dependencies], with their lines.
pub(super) fn dependencies(file: &File) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut table = "";
    for (at, line) in file.text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            table = line.trim_matches(['[', ']']);
            let own = table.strip_prefix("dependencies.");
            found.extend(own.map(|name| (at + 1, name.to_owned())));
        } else if table.ends_with("dependencies") && !table.ends_with("dev-dependencies") {
            let name: String =
                line.chars().take_while(|c| c.is_alphanumeric() || "-_".contains(*c)).collect();
            if !name.is_empty() {
                found.push((at + 1, name));
            }
        }
    }
    found
}

/// `unsafe` is written in three rooms only, and in one file of a fourth.
pub(super) fn unsafe_code(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    let outside = |file: &&File| !UNSAFE_ROOMS.contains(&file.room()) && file.path != UNSAFE_FILE;
    for file in tree.rust().filter(outside) {
        for (line, code) in file.source().numbered() {
            if has_word(&code, "unsafe") {
                let message = "`unsafe` outside arena, transfer and kernels: \
                               let one of them offer a safe function";
                found.push(file.finding(line, message));
            }
        }
    }
    found
}

/// The compiler refuses `unsafe` everywhere else, with its own better eyes.
pub(super) fn forbids(tree: &Tree) -> Vec<Finding> {
    tree.rust()
        .filter(|file| is_crate_root(&file.path) && !UNSAFE_ROOMS.contains(&file.room()))
        .filter(|file| !file.text.lines().any(|line| line == "#![forbid(unsafe_code)]"))
        .filter(|file| !is_denying_root(file))
        .map(|file| file.finding(1, "add `#![forbid(unsafe_code)]` below the crate's doc"))
        .collect()
}

/// Whether it is the root above the one file with `unsafe`, and allows it there alone.
fn is_denying_root(file: &File) -> bool {
    let root = UNSAFE_FILE.split_once("/src/").map(|(room, _)| format!("{room}/src/lib.rs"));
    let denies = || file.text.lines().any(|line| line == "#![deny(unsafe_code)]");
    root.as_ref() == Some(&file.path) && denies()
}

fn is_crate_root(path: &str) -> bool {
    let in_crate = path.split_once('/').map_or("", |(_, rest)| rest);
    path == "src/main.rs" || matches!(in_crate, "src/lib.rs" | "src/main.rs")
}

#[cfg(test)]
mod tests {
    use super::super::sample::faults;
    use super::*;

    #[test]
    fn a_forbidden_edge_is_found_where_it_is_declared() {
        let manifest = "[package]\nname = \"baton-router\"\n[dependencies]\nbaton-kv.workspace = true\n\
                        baton-engine = { path = \"../engine\" }\n[dev-dependencies]\nbaton-worker = \"1\"\n";
        assert_eq!(faults(edges, &[("router/Cargo.toml", manifest)]), ["router/Cargo.toml:5"]);
        let table = "[dependencies.baton-engine]\npath = \"../engine\"\n";
        assert_eq!(faults(edges, &[("kv/Cargo.toml", table)]), ["kv/Cargo.toml:1"]);
        assert!(faults(edges, &[("prefill/Cargo.toml", manifest)]).is_empty());
        let fuzz = "[dependencies]\nbaton-router = { path = \"..\" }\nbaton-engine = \"1\"\n";
        assert_eq!(
            faults(edges, &[("router/fuzz/Cargo.toml", fuzz)]),
            ["router/fuzz/Cargo.toml:3"]
        );
    }

    #[test]
    fn a_room_that_nobody_planned_is_found() {
        assert_eq!(faults(edges, &[("cellar/Cargo.toml", "")]), ["cellar/Cargo.toml:1"]);
    }

    #[test]
    fn the_router_never_sees_the_engine() {
        let reach = |room: &str| EDGES.iter().find(|(name, _)| *name == room).map(|(_, to)| *to);
        let mut seen = vec!["router"];
        let mut at = 0;
        while at < seen.len() {
            seen.extend(reach(seen[at]).unwrap_or_default());
            at += 1;
        }
        assert!(!seen.iter().any(|room| ["transfer", "kernels", "engine"].contains(room)));
    }

    #[test]
    fn unsafe_is_found_outside_its_rooms_and_not_in_words_or_comments() {
        let text = "// unsafe\n#![forbid(unsafe_code)]\nlet x = unsafe { y };\n";
        let mut files = vec![("kv/src/pool.rs", text), ("src/main.rs", text)];
        files.extend([("arena/src/map.rs", text), (UNSAFE_FILE, text)]);
        assert_eq!(faults(unsafe_code, &files), ["kv/src/pool.rs:3", "src/main.rs:3"]);
    }

    #[test]
    fn a_crate_root_that_does_not_forbid_unsafe_is_found() {
        let bare = "//! A crate.\n";
        let good = "//! A crate.\n#![forbid(unsafe_code)]\n";
        let denying = "//! A crate.\n#![deny(unsafe_code)]\n";
        let files = [
            ("kv/src/lib.rs", bare),
            ("text/src/lib.rs", good),
            ("proto/src/lib.rs", denying),
            ("arena/src/lib.rs", bare),
            ("src/main.rs", bare),
            ("kv/src/pool.rs", bare),
        ];
        let found = ["kv/src/lib.rs:1", "proto/src/lib.rs:1", "src/main.rs:1"];
        assert_eq!(faults(forbids, &files), found);
        assert_eq!(faults(forbids, &[("kv/src/lib.rs", denying)]), [""; 0]);
    }
}
