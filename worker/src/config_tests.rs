//! Which values are refused, and what is said of those that are taken and worth a word.

use super::*;
use baton_node::config::parse;
use std::path::Path;

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct File {
    transfer: TransferConfig,
}

fn checked(lines: &str) -> Result<(), ConfigError> {
    let config = parse::<File>(Path::new("w.toml"), &format!("[transfer]\n{lines}\n"))?;
    check_transfer(&config, &config.value().transfer, false)
}

#[test]
fn values_out_of_range_are_refused_with_key_and_range() {
    let refused = [
        ("connections = 0", "transfer.connections", "1 to 65536"),
        ("connections = 65537", "transfer.connections", "1 to 65536"),
        // As many as no semaphore counts.
        ("connections = 4611686018427387904", "transfer.connections", "1 to 65536"),
        ("verbs.gid_index = 256", "transfer.verbs.gid_index", "0 to 255"),
        ("verbs.gid_index = 32767", "transfer.verbs.gid_index", "0 to 255"),
        ("verbs.gid_index = -2", "transfer.verbs.gid_index", "-1"),
        ("prefer = \"verbs\"", "transfer.prefer", "transfer.verbs.mode"),
        ("prefer = \"verbs\"\nverbs.mode = \"off\"", "transfer.prefer", "transfer.verbs.mode"),
    ];
    for (lines, key, range) in refused {
        let error = checked(lines).expect_err(lines).to_string();
        assert!(error.contains(key) && error.contains(range), "{lines}: {error}");
    }
    for lines in [
        "connections = 1",
        "connections = 65536",
        "verbs.gid_index = -1",
        "verbs.gid_index = 0",
        "verbs.gid_index = 255",
        "prefer = \"verbs\"\nverbs.mode = \"auto\"",
        "prefer = \"verbs\"\nverbs.mode = \"required\"",
    ] {
        checked(lines).unwrap();
    }
}

fn said(listen: &str, transfer: &TransferConfig) -> Vec<String> {
    let (model, kv) = (ModelConfig::default(), KvConfig::default());
    cautions(&Common {
        name: "w",
        model: &model,
        kv: &kv,
        transfer,
        tenants: &TenantsConfig::default(),
        listen: listen.parse().unwrap(),
        insecure_plaintext: true,
        batch_tokens: 512,
    })
}

#[test]
fn blocks_that_other_machines_are_told_of_and_cannot_reach_are_worth_a_warning() {
    let (mut transfer, none) = (TransferConfig::default(), Vec::<String>::new());
    assert_eq!(said("127.0.0.1:50051", &transfer), none);
    for listen in ["0.0.0.0:50051", "[::]:50051", "10.0.0.7:50051"] {
        let warned = said(listen, &transfer);
        assert_eq!(warned.len(), 1, "{warned:?}");
        assert!(warned[0].contains("transfer.tcp_listen") && warned[0].contains("127.0.0.1"));
    }
    transfer.tcp_listen = "10.0.0.7:7000".parse().unwrap();
    assert_eq!(said("0.0.0.0:50051", &transfer), none);
}

#[test]
fn tls_beside_rdma_that_is_set_up_in_the_clear_is_worth_a_warning() {
    let mut transfer = TransferConfig {
        tcp_listen: "10.0.0.7:7000".parse().unwrap(),
        tls: TlsConfig { cert: "c".into(), key: "k".into(), ca: "a".into() },
        ..TransferConfig::default()
    };
    let none = Vec::<String>::new();
    assert_eq!(said("0.0.0.0:50051", &transfer), none, "without RDMA");
    transfer.verbs.mode = VerbsMode::Auto;
    assert_eq!(said("127.0.0.1:50051", &transfer), none, "on one host");
    let warned = said("0.0.0.0:50051", &transfer);
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].contains("transfer.tls") && warned[0].contains("transfer.verbs.mode"));
    transfer.tls = TlsConfig::default();
    assert_eq!(said("0.0.0.0:50051", &transfer), none, "nobody expects encryption");
}
