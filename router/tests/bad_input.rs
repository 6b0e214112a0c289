//! What no client should send, in every JSON dialect: each gets an error in its own shape that names the
//! field or the limit, nothing is started for it, and the router goes on.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use baton_node::config::{ByteSize, Span, Threshold};
use baton_proto::internal::finished::Reason;
use common::raw::{Said, head};
use common::stage::{CHAT, MESSAGES, RESPONSES, with};
use common::worker::FakeWorker;
use common::{House, within};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const TEXT: &str = "/v1/completions";
const COUNT: &str = "/v1/messages/count_tokens";
const TOKENIZE: &str = "/tokenize";
const ALL: [&str; 6] = [CHAT, TEXT, MESSAGES, COUNT, RESPONSES, TOKENIZE];

/// The least that a dialect takes.
fn least(path: &str) -> Value {
    let messages = json!([{"role": "user", "content": "hi"}]);
    match path {
        CHAT | COUNT => json!({"model": "tiny", "messages": messages}),
        MESSAGES => json!({"model": "tiny", "messages": messages, "max_tokens": 2048}),
        RESPONSES => json!({"model": "tiny", "input": "hi"}),
        _ => json!({"model": "tiny", "prompt": "hi"}),
    }
}

fn is_anthropics(path: &str) -> bool {
    path.starts_with(MESSAGES)
}

/// The error has the dialect's shape, this status and type, and its message these words.
#[track_caller]
fn expect(path: &str, said: &Said, (status, kind): (u16, &str), words: &str) {
    assert_eq!(said.status, status, "{path} {words}: {}", said.body);
    let error = &said.body["error"];
    assert_eq!(error["type"], kind, "{path} {words}: {}", said.body);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(words), "{path}: {words:?} is not in {message:?}");
    assert!(message.len() < 500, "{path}: what was sent is not said back: {message:.200}");
    if is_anthropics(path) {
        assert_eq!(said.body["type"], "error", "{path}");
        assert!(said.body["request_id"].as_str().unwrap().starts_with("req_"), "{path}");
    } else {
        assert!(error["code"].is_string(), "{path}: {error}");
        let fields = error.as_object().unwrap();
        assert!(fields.contains_key("param"), "{path}: {error}");
    }
}

const INVALID: (u16, &str) = (400, "invalid_request_error");

/// What a body gets that is good, where nobody computes.
fn is_taken(said: &Said) -> bool {
    let error = &said.body["error"];
    (said.status, &error["code"]) == (503, &json!("no_worker"))
        || (said.status, &error["type"]) == (529, &json!("overloaded_error"))
}

#[tokio::test]
async fn what_is_no_json_is_refused_with_the_place() {
    let house = House::start(&[], |_| {});
    let deep = |open: &str, close: &str| open.repeat(10_000) + &close.repeat(10_000);
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"".into(), "line 1 column 0"),
        (b"{".into(), "line 1 column 1"),
        (b"{\"model\": }".into(), "line 1 column 11"),
        (b"{} x".into(), "trailing characters"),
        (b"{'model': 'tiny'}".into(), "line 1 column 2"),
        (b"{\"model\": \"a\0b\"}".into(), "control character"),
        (b"{\"model\": \"\xff\"}".into(), "unicode"),
        (b"{\"model\": \"\\ud8\"}".into(), "escape"),
        (b"{\"seed\": 1e999}".into(), "number out of range"),
        (b"{\"model\": NaN}".into(), "line 1 column"),
        (deep("[", "]").into(), "recursion limit"),
        (format!("{{\"tools\": {}}}", deep("[", "]")).into(), "recursion limit"),
        (
            format!("{{\"metadata\": {}1{}}}", "{\"a\":".repeat(10_000), "}".repeat(10_000)).into(),
            "recursion limit",
        ),
        (b"[1]".into(), "must be a JSON object"),
        (b"null".into(), "must be a JSON object"),
        (b"\"model\"".into(), "must be a JSON object"),
    ];
    for path in ALL {
        for (body, words) in &cases {
            expect(path, &house.post_bytes(path, body).await, INVALID, words);
        }
        assert!(is_taken(&house.post_bytes(path, least(path).to_string().as_bytes()).await));
    }
}

#[tokio::test]
async fn strange_characters_in_strings_are_characters_like_others() {
    let house = House::start(&[], |_| {});
    for path in ALL {
        let strange = json!({"model": "ti\u{0}ny\u{7f}\u{ffff}"});
        let said = house.post_bytes(path, with(least(path), &strange).to_string().as_bytes()).await;
        // The name is looked up, and not found.
        let kind = if is_anthropics(path) { "not_found_error" } else { "invalid_request_error" };
        expect(path, &said, (404, kind), "ti\u{0}ny");
        let text = "nul \0, half an emoji \u{fffd}, \u{202e}, \u{1f468}\u{200d}\u{1f469}";
        let body = least(path).to_string().replace("hi", &json!(text).to_string().replace('"', ""));
        assert!(is_taken(&house.post_bytes(path, body.as_bytes()).await), "{path} {body}");
        // A half of a surrogate pair.
        let body = least(path).to_string().replace("hi", "cut \\ud83d");
        assert!(is_taken(&house.post_bytes(path, body.as_bytes()).await), "{path} {body}");
    }
}

#[tokio::test]
async fn of_equal_keys_the_last_one_counts() {
    let house = House::start(&[], |_| {});
    for path in ALL {
        let body = least(path).to_string();
        let last = body.replacen('{', "{\"model\": 5,", 1);
        assert!(is_taken(&house.post_bytes(path, last.as_bytes()).await), "{path}");
        let first = body[..body.len() - 1].to_owned() + ", \"model\": 5}";
        expect(path, &house.post_bytes(path, first.as_bytes()).await, INVALID, "'model'");
    }
}

#[tokio::test]
async fn bodies_of_another_kind_are_a_415_that_names_the_header() {
    let house = House::start(&[], |_| {});
    let json = "application/json";
    for path in ALL {
        let body = least(path).to_string();
        let ask = async |headers: &[(&str, &str)], body: &[u8]| {
            let bytes = [head(path, headers, body.len()).as_bytes(), body].concat();
            house.exchange(&bytes).await.unwrap()
        };
        let media = (415, "invalid_request_error");
        for kind in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
            "",
            "json",
            "application/json2",
        ] {
            let said = ask(&[("content-type", kind)], body.as_bytes()).await;
            expect(path, &said, media, "'content-type': expected application/json");
        }
        // Four gigabytes of zeroes begin like this.
        let bomb = b"\x1f\x8b\x08\0\0\0\0\0\x02\x03\xec\xc1\x01\x01\0\0\0\x80\x90";
        for encoding in ["gzip", "br", "zstd", "deflate", "identity, gzip"] {
            let said = ask(&[("content-type", json), ("content-encoding", encoding)], bomb).await;
            expect(
                path,
                &said,
                media,
                "'content-encoding': expected a body that is not compressed",
            );
        }
        // Without its header it is no JSON.
        expect(path, &ask(&[("content-type", json)], bomb).await, INVALID, "not valid JSON");
        for headers in [
            &[][..],
            &[("content-type", "application/json; charset=utf-8")],
            &[("content-type", "Application/JSON"), ("content-encoding", "identity")],
            &[("content-type", "application/vnd.x+json")],
        ] {
            assert!(is_taken(&ask(headers, body.as_bytes()).await), "{path} {headers:?}");
        }
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_a_413_that_its_client_can_read() {
    let limit = ByteSize::mib(1);
    let house = House::start(&[], |config| {
        config.serve.body_bytes_max = Threshold::At(limit);
        config.limits.bodies_bytes_max = limit;
    });
    let padded = |path: &str, bytes: usize| {
        let body = least(path).to_string();
        body + &" ".repeat(bytes)
    };
    for path in ALL {
        let kind = if is_anthropics(path) { "request_too_large" } else { "invalid_request_error" };
        // The client sends all of it before it reads.
        let said = house.post_bytes(path, padded(path, 8 << 20).as_bytes()).await;
        expect(path, &said, (413, kind), "larger");
        // Its memory has been given back: one of the largest size fits again.
        let size = limit.bytes() - least(path).to_string().len();
        assert!(is_taken(&house.post_bytes(path, padded(path, size).as_bytes()).await), "{path}");
        let said = house.post_bytes(path, padded(path, size + 1).as_bytes()).await;
        expect(path, &said, (413, kind), "larger");
    }
    let house = House::start(&[], |_| {});
    let said = house.post_bytes(CHAT, padded(CHAT, 100_000_000).as_bytes()).await;
    expect(CHAT, &said, (413, "invalid_request_error"), "larger");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_a_408_and_a_head_that_does_not_is_cut() {
    let house = House::start(&[], |config| {
        config.serve.body_timeout = Threshold::At(Span::millis(30));
        config.serve.header_timeout = Span::millis(30);
        config.limits.requests_max = 1;
    });
    for path in ALL {
        let body = least(path).to_string();
        let head = head(path, &[("content-type", "application/json")], body.len());
        let mut drips = house.connect().await;
        let mut answer = String::new();
        within(async {
            drips.write_all(head.as_bytes()).await.unwrap();
            drips.write_all(&body.as_bytes()[..5]).await.unwrap();
            drips.read_to_string(&mut answer).await.unwrap();
        })
        .await;
        let (head_said, said) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head_said.starts_with("HTTP/1.1 408"), "{head_said}");
        let said =
            Said { status: 408, head: String::new(), body: serde_json::from_str(said).unwrap() };
        expect(path, &said, (408, "invalid_request_error"), "did not arrive in time");
        // The place is free again.
        assert!(is_taken(&house.post_bytes(path, body.as_bytes()).await), "{path}");
        let mut drips = house.connect().await;
        within(async {
            drips.write_all(&head.as_bytes()[..head.len() / 2]).await.unwrap();
            assert_eq!(drips.read_to_end(&mut Vec::new()).await.unwrap(), 0, "{path}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_template_without_an_end_costs_its_steps_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let demo = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo");
    for name in ["config.json", "tokenizer.json"] {
        std::fs::copy(demo.join(name), dir.path().join(name)).unwrap();
    }
    let endless = "{% for m in messages %}{{ m.content }}{% if m.content == 'loop' %}{% for x in range(9999) \
                   %}{% for x in range(9999) %}{% endfor %}{% endfor %}{% endif %}{% endfor %}";
    std::fs::write(dir.path().join("chat_template.jinja"), endless).unwrap();
    let vocab = baton_text::TextModel::load(dir.path()).unwrap().vocab_size();
    let worker = FakeWorker::start_with("d1", |description| {
        description.model.as_mut().unwrap().vocab_size = vocab;
    })
    .await;
    let house = House::open_with(&[&worker], |config| {
        config.model.synthetic_vocab = None;
        config.model.dir = Some(dir.path().to_owned());
        config.limits.requests_max = 1;
        config.limits.text_threads = 1;
    })
    .await;
    for path in [CHAT, MESSAGES, COUNT, RESPONSES] {
        let body = least(path).to_string();
        let said = house.post_bytes(path, body.replace("hi", "loop").as_bytes()).await;
        expect(path, &said, INVALID, "the chat template was stopped after");
        let field = if path == RESPONSES { "'input'" } else { "'messages'" };
        expect(path, &said, INVALID, field);
        if path != COUNT {
            let (said, _) = tokio::join!(
                house.post_bytes(path, body.as_bytes()),
                worker.play(&[4], Reason::Length)
            );
            assert_eq!(said.status, 200, "{path} {}", said.body);
        }
    }
    assert!(worker.heard_nothing());
}
