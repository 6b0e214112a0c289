//! What a configuration's reader is told.

use std::net::SocketAddr;
use std::path::Path;

use serde::Deserialize;

use super::*;
use crate::{Exit, Failure};

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Daemon {
    name: String,
    listen: SocketAddr,
    drain_grace: Span,
    threshold: Threshold<u32>,
    pool: PoolPart,
    peers: Vec<Peer>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PoolPart {
    slots: u32,
    memory: ByteSize,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Peer {
    name: String,
    address: SocketAddr,
}

impl Default for Daemon {
    fn default() -> Self {
        Self {
            name: "decode-0".into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            drain_grace: Span::secs(10),
            threshold: Threshold::At(4),
            pool: PoolPart::default(),
            peers: Vec::new(),
        }
    }
}

impl Default for PoolPart {
    fn default() -> Self {
        Self { slots: 256, memory: ByteSize::mib(64) }
    }
}

fn read(text: &str) -> Result<Layered<Daemon>, ConfigError> {
    parse(Path::new("decode.toml"), text)
}

/// The one line that the reader of a wrong file sees.
fn complaint(text: &str) -> String {
    let error = read(text).err().expect("the text is wrong");
    let failure = Failure::from(error);
    assert_eq!(failure.exit(), Exit::Config);
    failure.to_string()
}

const GOOD: &str = r#"
name = "decode-7"
drain_grace = "2 m"
threshold = "inf"

[pool]
memory = "1 GB"

[[peers]]
name = "prefill-0"
address = "127.0.0.1:7001"
"#;

#[test]
fn a_file_speaks_over_the_defaults() {
    let config = read(GOOD).expect("a good file").into_value();
    assert_eq!(config.name, "decode-7");
    assert_eq!(config.drain_grace, Span::secs(120));
    assert_eq!(config.threshold, Threshold::Never);
    assert_eq!(config.pool, PoolPart { slots: 256, memory: ByteSize(1_000_000_000) });
    assert_eq!(config.peers.len(), 1);
}

#[test]
fn check_prints_every_value_with_its_origin() {
    let mut config = read(GOOD).expect("a good file");
    config.set("pool.slots", 512, "--slots").expect("a number");
    let expected = [
        r#"drain_grace = "2 m"                  # from decode.toml:3"#,
        r#"listen = "127.0.0.1:0"               # default"#,
        r#"name = "decode-7"                    # from decode.toml:2"#,
        r#"peers[0].address = "127.0.0.1:7001"  # from decode.toml:11"#,
        r#"peers[0].name = "prefill-0"          # from decode.toml:10"#,
        r#"pool.memory = "1 GB"                 # from decode.toml:7"#,
        "pool.slots = 512                     # from --slots",
        r#"threshold = "inf"                    # from decode.toml:4"#,
    ];
    let printed = config.to_string();
    assert_eq!(printed.lines().collect::<Vec<_>>(), expected);
    assert_eq!(config.value().pool.slots, 512);
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_known_one() {
    assert_eq!(
        complaint("[pool]\nslot = 3\n"),
        "decode.toml:2:1: unknown key `pool.slot`, did you mean `slots`?"
    );
    assert_eq!(
        complaint("[pool]\ncolour = 3\n"),
        "decode.toml:2:1: unknown key `pool.colour` (hint: known here: slots, memory)"
    );
    assert_eq!(
        complaint("[[peers]]\nname = \"a\"\nadress = \"127.0.0.1:1\"\n"),
        "decode.toml:3:1: unknown key `peers[0].adress`, did you mean `address`?"
    );
}

#[test]
fn a_wrong_value_is_named_with_what_was_expected() {
    assert_eq!(
        complaint("name = \"a\"\n[pool]\n  slots = \"many\"\n"),
        "decode.toml:3:11: `pool.slots`: expected u32, found string \"many\""
    );
    assert_eq!(
        complaint("[pool]\nslots = -1\n"),
        "decode.toml:2:9: `pool.slots`: expected u32, found integer `-1`"
    );
    assert_eq!(
        complaint("pool = { memory = 64 }\n"),
        "decode.toml:1:19: `pool.memory`: expected a size with its unit, such as \"64 MiB\" or \
         \"1 GB\", found integer `64`"
    );
    assert_eq!(
        complaint("drain_grace = \"10\""),
        "decode.toml:1:15: `drain_grace`: expected a duration with its unit, such as \"250 ms\", \
         \"10 s\" or \"2 m\", found string \"10\""
    );
    assert_eq!(
        complaint("listen = \"localhost\""),
        "decode.toml:1:10: `listen`: expected an address and a port, such as \"127.0.0.1:8000\", \
         found \"localhost\""
    );
    assert_eq!(
        complaint("[[peers]]\nname = \"a\"\n"),
        "decode.toml:1:1: `peers[0].address`: expected a value, found none"
    );
}

#[test]
fn what_is_not_toml_is_named_with_its_line() {
    let line = complaint("name = \"a\"\n\nlisten == 3\n");
    assert!(line.starts_with("decode.toml:3:"), "{line}");
    let line = complaint("name = \"a\"\nname = \"b\"\n");
    assert!(line.starts_with("decode.toml:2:1: duplicate key"), "{line}");
}

#[test]
fn a_flag_is_checked_like_a_line_of_the_file() {
    let mut config = read(GOOD).expect("a good file");
    let error = config.set("listen", "nowhere", "--listen").expect_err("not an address");
    assert_eq!(
        error.to_string(),
        "--listen: `listen`: expected an address and a port, such as \"127.0.0.1:8000\", found \
         \"nowhere\""
    );
    let error = config.set("pool.slot", 3, "--slots").expect_err("no such key");
    assert_eq!(error.to_string(), "--slots: unknown key `pool.slot`, did you mean `slots`?");
    // What was refused has changed nothing.
    assert_eq!(config.value(), read(GOOD).expect("a good file").value());
}

#[test]
fn a_value_that_makes_no_sense_is_refused_where_it_was_written() {
    let config = read(GOOD).expect("a good file");
    let error = config.refuse("pool.memory", "at least 2 GB", config.value().pool.memory);
    assert_eq!(
        error.to_string(),
        "decode.toml:7:1: `pool.memory`: expected at least 2 GB, found 1 GB"
    );
    let error = config.refuse("pool.slots", "more", 256);
    assert_eq!(error.to_string(), "default: `pool.slots`: expected more, found 256");
}

#[test]
fn a_missing_file_says_which_and_a_huge_one_is_not_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let missing = dir.path().join("none.toml");
    let failure = Failure::from(load::<Daemon>(Some(&missing)).err().expect("no file"));
    assert_eq!(failure.exit(), Exit::Config);
    assert!(failure.to_string().contains("none.toml"), "{failure}");

    let huge = dir.path().join("huge.toml");
    std::fs::write(&huge, "#".repeat(FILE_BYTES_MAX as usize + 1)).expect("written");
    let error = load::<Daemon>(Some(&huge)).err().expect("too large");
    assert!(matches!(error, ConfigError::TooLarge { .. }), "{error}");
}

#[test]
fn without_a_file_the_defaults_hold() {
    assert_eq!(load::<Daemon>(None).expect("defaults").value(), &Daemon::default());
}
