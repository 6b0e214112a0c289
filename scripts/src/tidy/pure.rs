//! What is deliberately absent: clocks, sockets and chance in the pure cores, JSON inside the
//! house.

use super::rooms::dependencies;
use super::{File, Finding, Tree};
use crate::source::has_word;

/// What a pure core must not name, and what to do instead.
const BANNED: [(&str, &str); 13] = [
    ("Instant", "take `now` as a Duration"),
    ("SystemTime", "take `now` as a Duration"),
    ("std::net", "return an action and let the daemon do the I/O"),
    ("TcpStream", "return an action and let the daemon do the I/O"),
    ("UdpSocket", "return an action and let the daemon do the I/O"),
    ("std::fs", "return an action and let the daemon do the I/O"),
    ("std::thread", "return an action and let the daemon run it"),
    ("std::process", "return an action and let the daemon run it"),
    ("std::env", "take the value from the caller's config"),
    ("tokio", "keep the runtime in the daemon"),
    ("rand", "take the random bits from the caller"),
    ("getrandom", "take the random bits from the caller"),
    ("thread_rng", "take the random bits from the caller"),
];

/// kv, proto, every schedule and the router's choice: a function of their inputs, so that a
/// simulator can run them and a seed can replay them.
pub(super) fn cores(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust().filter(|file| is_core(file)) {
        for (line, code) in file.source().shipped() {
            for (word, advice) in BANNED {
                if has_word(&code, word) {
                    found.push(file.finding(line, format!("`{word}` in a pure core: {advice}")));
                }
            }
        }
    }
    found
}

fn is_core(file: &File) -> bool {
    let path = file.path.as_str();
    let inside =
        ["kv/src/", "proto/src/", "router/src/choose/"].iter().any(|p| path.starts_with(p));
    let schedule = path.ends_with("/schedule.rs") || path.contains("/schedule/");
    !file.is_test() && (inside || schedule || path == "router/src/choose.rs")
}

/// The crates that are pure as a whole cannot even link what they must not use.
pub(super) fn core_manifests(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    let pure = |path: &str| path == "kv/Cargo.toml" || path == "proto/Cargo.toml";
    for file in tree.files.iter().filter(|file| pure(&file.path)) {
        for (line, name) in dependencies(file) {
            if matches!(name.as_str(), "tokio" | "rand" | "getrandom" | "rustix" | "socket2") {
                let room = file.room();
                found.push(file.finding(line, format!("`{room}` is pure: do without `{name}`")));
            }
        }
    }
    found
}

/// The internal request cannot be serialised: no client dialect can leak into the house by way of
/// a derive.
pub(super) fn internal_request(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    let path =
        |file: &&File| file.path == "proto/src/ir.rs" || file.path.starts_with("proto/src/ir/");
    for file in tree.rust().filter(path) {
        for (line, code) in file.source().numbered() {
            if ["serde", "serde_json", "Serialize", "Deserialize"]
                .iter()
                .any(|w| has_word(&code, w))
            {
                let message = "serde in the internal request: \
                               translate from the dialect's own type in router/src/api";
                found.push(file.finding(line, message));
            }
        }
    }
    found
}

/// Client JSON lives in one folder of one crate.
pub(super) fn router_json(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    let inside = |file: &&File| {
        file.path.starts_with("router/src/")
            && !file.path.starts_with("router/src/api/")
            && file.path != "router/src/api.rs"
            && !file.is_test()
    };
    for file in tree.rust().filter(inside) {
        for (line, code) in file.source().shipped() {
            if has_word(&code, "serde_json") {
                found
                    .push(file.finding(line, "`serde_json` outside router/src/api: move it there"));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::sample::faults;
    use super::*;

    #[test]
    fn clocks_sockets_and_chance_are_found_in_pure_cores() {
        for (word, _) in BANNED {
            let text =
                format!("//! Instant\nuse x::{word};\n#[cfg(test)]\nmod t {{ use {word}; }}\n");
            let cores_found = faults(
                cores,
                &[
                    ("kv/src/pool.rs", &text),
                    ("prefill/src/schedule.rs", &text),
                    ("router/src/choose/cost.rs", &text),
                    ("router/src/serve.rs", &text),
                    ("kv/tests/pool.rs", &text),
                    ("kv/src/pool_tests.rs", &text),
                ],
            );
            let expected =
                ["kv/src/pool.rs:2", "prefill/src/schedule.rs:2", "router/src/choose/cost.rs:2"];
            assert_eq!(cores_found, expected, "{word}");
        }
    }

    #[test]
    fn a_runtime_among_the_dependencies_of_a_pure_crate_is_found() {
        let text = "[dependencies]\nblake3 = \"1\"\ntokio.workspace = true\n[dev-dependencies]\nrand = \"1\"\n";
        let files = [("kv/Cargo.toml", text), ("node/Cargo.toml", text)];
        assert_eq!(faults(core_manifests, &files), ["kv/Cargo.toml:3"]);
    }

    #[test]
    fn serde_in_the_internal_request_is_found() {
        let text = "/// Not serde.\n#[derive(Debug, serde::Serialize)]\nstruct A;\n";
        let files = [("proto/src/ir.rs", text), ("proto/src/ids.rs", text)];
        assert_eq!(faults(internal_request, &files), ["proto/src/ir.rs:2"]);
    }

    #[test]
    fn json_outside_the_routers_api_is_found() {
        let text = "use serde_json::Value;\n#[cfg(test)]\nmod tests { use serde_json::json; }\n";
        let files = [
            ("router/src/turn.rs", text),
            ("router/src/api/chat.rs", text),
            ("text/src/template.rs", text),
        ];
        assert_eq!(faults(router_json, &files), ["router/src/turn.rs:1"]);
    }
}
