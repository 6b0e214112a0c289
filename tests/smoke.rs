//! What a newcomer does first: start a cluster, ask it, stop it; and what happens when it is hurt.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod cluster;

use baton_bench::client::Client;
use cluster::{BATON, Cluster, DEMO, eventually, kill, metric, quiescent, status};
use serde_json::{Value, json};
use std::process::Command;

fn completion(prompt: &str, max_tokens: u32) -> Value {
    json!({"model": "witness", "prompt": prompt, "max_tokens": max_tokens, "ignore_eos": true, "seed": 7})
}

#[tokio::test]
async fn cluster_answers_and_ends_on_request() {
    let cluster = Cluster::start(&[]);
    let client = cluster.client();
    let models = client.get("/v1/models").await.unwrap();
    assert_eq!(models["data"][0]["id"], DEMO);
    let request = json!({
        "model": DEMO,
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 8,
        "temperature": 0,
        "stream": true,
    });
    let mut at_once = request.clone();
    at_once["stream"] = json!(false);
    let whole = client.post("/v1/chat/completions", &at_once).await.unwrap();
    let mut events = client.stream("/v1/chat/completions", &request).await.unwrap();
    let mut text = String::new();
    while let Some(event) = events.next().await.unwrap() {
        let event: Value = serde_json::from_str(&event).unwrap();
        text.push_str(event["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
    }
    assert_eq!(whole["choices"][0]["message"]["content"], text.as_str());
    for path in ["/health", "/live", "/ready"] {
        client.get_text(path).await.unwrap();
    }
    quiescent(&client).await;
    let children = cluster.children();
    assert_eq!(children.len(), 3, "{children:?}");
    assert_eq!(cluster.stop(), Some(0));
    for pid in children.values() {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "{pid} is still there");
    }
}

#[tokio::test]
async fn cluster_children_do_not_outlive_a_killed_parent() {
    let cluster = Cluster::start(&["--engine", "witness"]);
    let children = cluster.children();
    assert_eq!(children.len(), 3);
    kill(cluster.pid(), "KILL");
    eventually("the children are gone", async || {
        // A zombie without a reaper is gone as well: it runs nothing.
        children.values().all(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.rsplit(')').next().unwrap().trim().starts_with('Z')
        })
    })
    .await;
}

#[tokio::test]
async fn cluster_files_are_removed_at_its_end_or_by_the_next_cluster() {
    let alone = ["--engine", "witness", "--prefill", "0"];
    let dropped = Cluster::start(&alone);
    let folder = dropped.folder();
    assert!(folder.join("secret").exists());
    drop(dropped);
    assert!(!folder.exists(), "a cluster that is dropped takes its secret along");

    let killed = Cluster::start(&alone);
    let folder = killed.folder();
    kill(killed.pid(), "KILL");
    drop(killed);
    assert!(folder.join("secret").exists(), "nobody was there to remove it");
    let _next = Cluster::start(&alone);
    assert!(!folder.exists(), "the next one removes what a killed one left");
}

/// Where there is none; said before anything is started or read.
#[test]
fn a_missing_rdma_device_is_told_first() {
    let devices = std::fs::read_dir("/sys/class/infiniband");
    if devices.is_ok_and(|mut devices| devices.next().is_some()) {
        eprintln!("SKIPPED what is said without an RDMA device: there is one");
        return;
    }
    let said = |command: &mut Command| {
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(69), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let mut up = Command::new(BATON);
    let up = said(up.args(["up", "--listen", "127.0.0.1:0", "--transport", "verbs"]));
    assert!(up.contains("--transport verbs") && up.contains("--transport shm"), "{up}");
    assert!(!up.contains("decode-0"), "no worker was started: {up}");

    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("decode.toml");
    let text = "[model]\ndir = \"/nowhere\"\n[transfer]\nverbs.mode = \"required\"\n";
    std::fs::write(&config, text).unwrap();
    let decode = said(Command::new(BATON).arg("decode").arg("--config").arg(config));
    assert!(decode.contains("transfer.verbs.mode"), "before the weights are missed: {decode}");
}

#[tokio::test]
async fn cluster_moves_blocks_and_finds_them_again() {
    for transport in ["shm", "tcp"] {
        let cluster = Cluster::start(&["--engine", "witness", "--transport", transport]);
        let client = cluster.client();
        let prompt = "a long story that needs many blocks ".repeat(40);
        let cold = client.post("/v1/completions", &completion(&prompt, 8)).await.unwrap();
        let warm = client.post("/v1/completions", &completion(&prompt, 8)).await.unwrap();
        let cached =
            |answer: &Value| answer["usage"]["prompt_tokens_details"]["cached_tokens"].clone();
        assert_eq!(cached(&cold), 0);
        assert_eq!(cached(&warm), (prompt.len() - 1) / 64 * 64);
        let label = format!("transport=\"{transport}\"");
        let moved = metric(&client, "baton_transfer_blocks_total", &label).await;
        assert!(moved >= ((prompt.len() - 1) / 64) as f64, "{moved} blocks over {transport}");
        let copied = metric(&client, "baton_transfer_copied_bytes_total", "").await;
        assert_eq!(copied == 0.0, transport == "tcp", "{copied} bytes were copied on the way");
        quiescent(&client).await;
    }
}

/// Runs where `BATON_VERBS_DEVICE` names a device; `cargo xtask rdma` sees to that.
#[tokio::test]
async fn cluster_answers_over_verbs_what_it_answers_over_shared_memory() {
    if std::env::var_os("BATON_VERBS_DEVICE").is_none() {
        eprintln!("SKIPPED a cluster over verbs: BATON_VERBS_DEVICE names no RDMA device");
        return;
    }
    let content = "tell me of a block that travels from one worker to another ".repeat(4);
    let request = json!({
        "model": DEMO,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 12,
        "temperature": 0,
        "ignore_eos": true,
        "logprobs": true,
    });
    let mut answers = Vec::new();
    for transport in ["shm", "verbs"] {
        let always = ["--transport", transport, "--disaggregate-min-blocks", "0"];
        let cluster = Cluster::start(&always);
        let client = cluster.client();
        let answer = client.post("/v1/chat/completions", &request).await.unwrap();
        let label = format!("transport=\"{transport}\"");
        let moved = metric(&client, "baton_transfer_blocks_total", &label).await;
        assert!(moved > 0.0, "no block came over {transport}");
        quiescent(&client).await;
        assert_eq!(cluster.stop(), Some(0));
        // Token by token, with the exact probability of each.
        answers.push(answer["choices"].clone());
    }
    assert_eq!(answers[0], answers[1]);
}

/// Tokens that all engines have computed.
async fn computed(client: &Client) -> f64 {
    metric(client, "baton_engine_tokens_total", "").await
}

#[tokio::test]
async fn cluster_computes_the_history_of_agents_that_start_together_once() {
    const SHARED: u32 = 20_000;
    const OWN: u32 = 64;
    const AGENTS: u32 = 8;
    let cluster = Cluster::start(&["--engine", "witness", "--kv-memory", "64 MiB"]);
    let client = cluster.client();
    let ask = async |history: u32, agent: u32| {
        let shared = (0..SHARED).map(|at| 1 + (at * history) % 31_000);
        let own = (0..OWN).map(|at| 1 + at * (agent + 7));
        let prompt: Vec<u32> = shared.chain(own).collect();
        let body = json!({"model": "witness", "prompt": prompt, "max_tokens": 1});
        let answer = client.post("/v1/completions", &body).await.unwrap();
        assert_eq!(answer["usage"]["prompt_tokens"], SHARED + OWN);
    };
    ask(3, 0).await;
    let one = computed(&client).await;
    let together = (0..AGENTS).map(|agent| ask(5, agent));
    futures_util::future::join_all(together).await;
    let eight = computed(&client).await - one;
    assert!(eight <= 1.05 * one, "{eight} tokens for {AGENTS} agents, {one} for one");
    quiescent(&client).await;
}

#[tokio::test]
async fn cluster_survives_the_loss_of_its_only_prefill_worker() {
    let cluster = Cluster::start(&["--engine", "witness"]);
    let client = cluster.client();
    let prompt = "what a prefill worker would compute ".repeat(30);
    let before = client.post("/v1/completions", &completion(&prompt, 4)).await.unwrap();
    cluster.signal("prefill-0", "KILL");
    let other = "what only decode can compute now ".repeat(30);
    let after = client.post("/v1/completions", &completion(&other, 4)).await.unwrap();
    assert_eq!(after["usage"]["completion_tokens"], 4);
    let again = client.post("/v1/completions", &completion(&prompt, 4)).await.unwrap();
    assert_eq!(before["choices"], again["choices"]);
}

#[tokio::test]
async fn cluster_frees_everything_when_clients_leave() {
    let cluster = Cluster::start(&["--engine", "witness"]);
    let client = cluster.client();
    for (prompt, read) in [("short", 0), ("short", 3), (&*"long ".repeat(4000), 0)] {
        let mut request = completion(prompt, 100_000);
        request["stream"] = json!(true);
        let leaver = Client::new(cluster.url()).unwrap();
        let mut events = leaver.stream("/v1/completions", &request).await.unwrap();
        for _ in 0..read {
            events.next().await.unwrap();
        }
        drop(events);
        quiescent(&client).await;
    }
}

#[tokio::test]
async fn cluster_explains_where_a_request_would_go_and_starts_nothing() {
    let cluster = Cluster::start(&["--engine", "witness", "--decode", "2"]);
    let client = cluster.client();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("request.json");
    let explain = |arguments: &[&str]| {
        let command = Command::new(BATON)
            .args(["explain", "--url", cluster.url()])
            .arg(&file)
            .args(arguments)
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (command.status.code(), text(command.stdout), text(command.stderr))
    };
    let prompt = "a long story that needs many blocks ".repeat(40);
    let request = completion(&prompt, 8);
    std::fs::write(&file, request.to_string()).unwrap();
    // Who would decode, and how much of the prompt that one holds.
    let chosen = || {
        let (code, text, errors) = explain(&["--json"]);
        assert_eq!(code, Some(0), "{errors}");
        let decision: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        let candidates = decision["decode_candidates"].as_array().unwrap();
        assert_eq!((candidates.len(), &candidates[0]["worker"]), (2, &decision["decode"]));
        (decision["decode"].clone(), candidates[0]["held_tokens"].clone())
    };
    let (code, table, _) = explain(&[]);
    assert!(
        code == Some(0) && table.contains("decode-0 ") && table.contains("prefill-0 "),
        "{table}"
    );
    assert_eq!(chosen().1, 0);
    assert!(metric(&client, "baton_engine_steps_total", "").await == 0.0, "something was started");

    client.post("/v1/completions", &request).await.unwrap();
    quiescent(&client).await;
    let whole = (prompt.len() - 1) / 64 * 64;
    eventually("its blocks are known", async || chosen().1 == whole).await;
    let (host, _) = chosen();
    let headers = [("x-baton-explain", "1")];
    let answer = client.post_with("/v1/completions", &request, &headers).await.unwrap();
    assert_eq!(answer["nvext"]["explain"]["decode"], host, "{answer}");

    let (code, _, line) = explain(&["--policy", "round-robin"]);
    assert!(code != Some(0) && line.contains("placement.policy_header"), "{code:?} {line}");
    std::fs::write(&file, "[]").unwrap();
    let (code, _, line) = explain(&[]);
    assert!(code == Some(64) && line.contains("request.json"), "{code:?} {line}");
}

#[tokio::test]
async fn cluster_refuses_what_makes_no_sense_and_names_the_field() {
    let cluster = Cluster::start(&["--engine", "witness"]);
    let client = cluster.client();
    let with = |key: &str, value: Value| {
        let mut request = completion("hello", 4);
        request[key] = value;
        request
    };
    let cases = [
        (with("model", json!("nobody")), 404, "nobody"),
        (with("prompt", json!("")), 400, "prompt"),
        (with("prompt", json!([1, 2, 4_000_000])), 400, "vocabulary"),
        (with("max_tokens", json!("many")), 400, "max_tokens"),
        (with("max_tokens", json!(-1)), 400, "max_tokens"),
        (with("n", json!(1_000_000)), 400, "n"),
        (with("temperature", json!(-1)), 400, "temperature"),
        (with("stop", json!(vec!["x"; 1000])), 400, "stop"),
        (with("logit_bias", json!({"99999999": 1})), 400, "logit_bias"),
        (with("logprobs", json!(1000)), 400, "logprobs"),
        (with("prompt", json!("x".repeat(200_000))), 400, "context"),
    ];
    for (request, code, word) in cases {
        let (found, message) = status(client.post("/v1/completions", &request).await);
        assert_eq!(found, code, "{message}");
        assert!(message.contains(word), "`{message}` does not name `{word}`");
    }
    let chat = json!({"model": "witness", "messages": []});
    let (found, message) = status(client.post("/v1/chat/completions", &chat).await);
    assert!(found == 400 && message.contains("messages"), "{found} {message}");
    assert!(metric(&client, "baton_engine_steps_total", "").await == 0.0, "something was started");
    quiescent(&client).await;
}

/// Routers talk to workers over one stream that never ends.
#[test]
fn a_worker_that_is_told_where_to_listen_still_takes_streams_without_end() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("worker.toml");
    let text = "[model]\nengine = \"witness\"\n[serve]\nlisten = \"127.0.0.1:7200\"\n";
    std::fs::write(&config, text).unwrap();
    for daemon in ["prefill", "decode"] {
        let mut command = Command::new(BATON);
        let output = command.args([daemon, "--check", "--config"]).arg(&config).output().unwrap();
        let effective = String::from_utf8(output.stdout).unwrap();
        for line in [
            "serve.listen = \"127.0.0.1:7200\"",
            "serve.body_timeout = \"inf\"",
            "serve.body_bytes_max = \"inf\"",
            "serve.idle_timeout = \"10 m\"",
        ] {
            assert!(effective.contains(line), "{daemon}: {line}\n{effective}");
        }
    }
}

#[test]
fn wrong_configurations_and_checkpoints_exit_with_64() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("decode.toml");
    let check = |text: &str| {
        std::fs::write(&config, text).unwrap();
        let output = Command::new(BATON)
            .args(["decode", "--check", "--config"])
            .arg(&config)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (text, word) in [
        ("nmae = \"x\"", "nmae"),
        ("[kv]\nmemory = 5", "memory"),
        ("[kv]\nmemory = \"5 parsec\"", "memory"),
        ("[model]\nengine = \"witness\"\nblock_tokens = 48", "block_tokens"),
        ("[model]\nengine = \"abacus\"", "engine"),
        ("[model]\nengine = \"cpu\"", "model.dir"),
        (
            "[model]\nengine = \"witness\"\n[transfer]\ntcp_listen = \"0.0.0.0:0\"",
            "transfer.tcp_listen",
        ),
    ] {
        let (code, line) = check(text);
        assert_eq!(code, Some(64), "{text}: {line}");
        assert!(line.contains(word) && line.lines().count() == 1, "{text}: {line}");
    }
    let (code, _) = check("[model]\nengine = \"witness\"");
    assert_eq!(code, Some(0));
    // That nobody reads the line changes nothing.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(BATON);
    let unread = command.args(["decode", "--config", "no-such-file"]).stderr(writer);
    assert_eq!(unread.status().unwrap().code(), Some(64));

    let broken = dir.path().join("model");
    std::fs::create_dir(&broken).unwrap();
    for file in std::fs::read_dir("tests/models/tiny-qwen3").unwrap().flatten() {
        std::fs::copy(file.path(), broken.join(file.file_name())).unwrap();
    }
    let weights = broken.join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    let output = Command::new(BATON)
        .args(["run", "--prompt", "x", "--model"])
        .arg(&broken)
        .output()
        .unwrap();
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{line}");
    assert!(line.contains("model.safetensors") && line.lines().count() == 1, "{line}");
}

#[test]
fn a_port_in_use_is_one_line_and_code_69() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = Command::new(BATON)
        .args(["up", "--engine", "witness", "--listen", &address])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(69), "{text}");
    assert!(text.contains(&address), "{text}");
}

#[test]
fn memory_that_is_not_there_is_one_line_and_code_69() {
    let output = Command::new(BATON)
        .args(["up", "--engine", "witness", "--listen", "127.0.0.1:0", "--kv-memory", "64 TiB"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(69), "{text}");
    assert!(text.contains("kv.memory") && text.contains("64 TiB"), "{text}");
}

#[tokio::test]
async fn cluster_switches_features_while_it_runs_and_keeps_them_where_the_file_is_wrong() {
    let (cluster, log) = Cluster::start_logging("warn", &["--engine", "witness"]);
    let client = cluster.client();
    let files = ["router-0", "prefill-0", "decode-0"];
    let path = |name: &str| cluster.folder().join(format!("{name}.toml"));
    let before = files.map(|name| std::fs::read_to_string(path(name)).unwrap());
    let say = |switches: [&str; 3]| {
        for ((name, before), switches) in files.iter().zip(&before).zip(switches) {
            std::fs::write(path(name), format!("{before}\n[switches]\n{switches}\n")).unwrap();
            cluster.signal(name, "HUP");
        }
    };
    let state = async |feature: &str| {
        let capabilities = client.get("/v1/capabilities").await.unwrap();
        capabilities["switches"][feature].as_str().unwrap().to_owned()
    };
    assert_eq!(state("kv_aware").await, "on");
    say(["kv_aware = \"off\"\nhints = \"shadow\"", "queue = \"off\"", "queue = \"shadow\""]);
    eventually("switched off", async || state("kv_aware").await == "off").await;
    assert_eq!((state("hints").await, state("fan_out").await), ("shadow".into(), "on".into()));
    say(["kv_aware = \"maybe\"", "queue = 1", "que = \"on\""]);
    // The wrong files change nothing; the next right one counts.
    say(["fan_out = \"off\"", "", ""]);
    eventually("switched again", async || state("fan_out").await == "off").await;
    assert_eq!(state("kv_aware").await, "on");
    let answer = client.post("/v1/completions", &completion("after all that", 8)).await.unwrap();
    assert_eq!(answer["usage"]["completion_tokens"], 8);
    assert_eq!(cluster.stop(), Some(0));
    let log = log.join().unwrap();
    assert!(log.contains("switches stay as they were") && log.contains("kv_aware"), "{log}");
}

#[tokio::test]
async fn cluster_plays_a_script() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("script.jsonl");
    let call =
        "<tool_call>\n{\"name\": \"ls\", \"arguments\": {\"z\": 1, \"a\": [2]}}\n</tool_call>";
    let lines = [
        // Their result first: it comes with the words that led to the call.
        json!({"when": "two files", "say": "There are two."}),
        json!({"when": "list it", "say": format!("I look.\n{call}")}),
        json!({"when": "weather", "say": "It rains.\nBring an umbrella \u{2602}."}),
        json!({"say": "I have nothing to say."}),
    ];
    std::fs::write(&script, lines.map(|line| line.to_string()).join("\n")).unwrap();
    let args = ["--engine", "scripted", "--disaggregate-min-blocks", "0", "--script"];
    let mut args = args.to_vec();
    args.push(script.to_str().unwrap());
    let cluster = Cluster::start(&args);
    let client = cluster.client();
    let say = async |words: String| {
        let request = json!({
            "model": DEMO,
            "messages": [{"role": "user", "content": words}],
            "max_tokens": 200,
        });
        let answer = client.post("/v1/chat/completions", &request).await.unwrap();
        let choice = &answer["choices"][0];
        assert_eq!(choice["finish_reason"], "stop");
        choice["message"]["content"].as_str().unwrap().to_owned()
    };
    let long = "tell me more about it ".repeat(30);
    assert_eq!(
        say("how is the weather?".to_owned()).await,
        "It rains.\nBring an umbrella \u{2602}."
    );
    assert_eq!(say(long).await, "I have nothing to say.");

    // A loop with a tool, in the other dialect.
    let mut messages = vec![json!({"role": "user", "content": "list it"})];
    let turn = async |messages: &[Value]| {
        let request = json!({
            "model": DEMO, "messages": messages, "max_tokens": 100,
            "tools": [{"name": "ls", "input_schema": {"type": "object"}}],
        });
        client.post("/v1/messages", &request).await.unwrap()
    };
    let called = turn(&messages).await;
    assert_eq!(called["stop_reason"], "tool_use", "{called}");
    assert_eq!(called["content"][0], json!({"type": "text", "text": "I look."}));
    // In the order in which the model has written it.
    assert_eq!(called["content"][1]["input"].to_string(), r#"{"z":1,"a":[2]}"#);
    let id = &called["content"][1]["id"];
    let result = json!({"type": "tool_result", "tool_use_id": id, "content": "two files"});
    messages.push(json!({"role": "assistant", "content": called["content"]}));
    messages.push(json!({"role": "user", "content": [result]}));
    let answered = turn(&messages).await;
    assert_eq!(answered["content"], json!([{"type": "text", "text": "There are two."}]));
    assert_eq!(answered["stop_reason"], "end_turn");
}

#[tokio::test]
async fn cluster_logs_show_neither_prompts_nor_secrets() {
    let (cluster, log) = Cluster::start_logging("trace", &["--disaggregate-min-blocks", "0"]);
    let client = cluster.client();
    let canary = "xylophone-canary-4711";
    let request = json!({
        "model": DEMO,
        "prompt": format!("{canary} ").repeat(40),
        "max_tokens": 4,
    });
    client.post("/v1/completions", &request).await.unwrap();
    let bad = json!({"model": DEMO, "prompt": {"canary": canary}});
    assert_eq!(status(client.post("/v1/completions", &bad).await).0, 400);
    let secret = cluster.secret();
    assert_eq!(secret.len(), 64);
    assert_eq!(cluster.stop(), Some(0));
    let log = log.join().unwrap();
    assert!(log.contains("listening"), "the log is not there: {log}");
    assert!(!log.contains(canary), "a prompt stands in the log");
    assert!(!log.contains(&secret), "the secret stands in the log");
}
