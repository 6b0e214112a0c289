//! Streams over HTTP/2 whose reader leaves no room.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use baton_node::config::Span;
use common::stage::{CHAT, Stage};
use common::within;
use common::worker::{admitted, first_tokens, tokens};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const HEADERS: u8 = 1;
const DATA: u8 = 0;
const SETTINGS: u8 = 4;

/// A frame of stream 1, or of the connection (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = [0, (payload.len() >> 8) as u8, payload.len() as u8];
    let stream = [0, 0, 0, u8::from(kind != SETTINGS)];
    [&length[..], &[kind, flags], &stream, payload].concat()
}

/// A POST by a client that will take no byte of the answer's body.
fn post_with_a_closed_window(path: &str, body: &Value) -> Vec<u8> {
    // SETTINGS_INITIAL_WINDOW_SIZE = 0.
    let settings = [0, 4, 0, 0, 0, 0];
    // POST, http, a path, an authority and a content type, by the static table (RFC 7541, appendix A).
    let kind = b"application/json";
    let mut headers = vec![0x83, 0x86, 0x04, path.len() as u8];
    headers.extend(path.as_bytes());
    headers.extend([0x01, 1, b'h', 0x0f, 0x10, kind.len() as u8]);
    headers.extend(kind);
    let (end_headers, end_stream) = (4, 1);
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(SETTINGS, 0, &settings),
        frame(HEADERS, end_headers, &headers),
        frame(DATA, end_stream, body.to_string().as_bytes()),
    ]
    .concat()
}

/// With a head, which the connection gets before there is room, and without.
#[tokio::test]
async fn a_reader_whose_window_never_opens_is_cut() {
    let chat = json!({"messages": [{"role": "user", "content": "hi"}]});
    let text = json!({"prompt": [1, 2, 3]});
    for (path, mut body) in [(CHAT, chat), ("/v1/completions", text)] {
        let stage = Stage::open_with(|c| c.timeouts.slow_reader = Span::millis(100)).await;
        for (field, value) in [("model", json!("tiny")), ("stream", json!(true))] {
            body[field] = value;
        }
        let (mut reads, mut writes) = stage.house.connect().await.into_split();
        writes.write_all(&post_with_a_closed_window(path, &body)).await.unwrap();
        let submit = stage.worker.submitted().await;
        stage.worker.say(&submit, 0, [admitted(), first_tokens(&[20]), tokens(&[21])]).await;
        // What belongs to the connection is read all the time.
        let mut frames = [0; 4096];
        let connection =
            async { while reads.read(&mut frames).await.is_ok_and(|read| read > 0) {} };
        let cut = async {
            tokio::select! {
                cancel = stage.worker.cancelled() => cancel,
                () = connection => panic!("the connection ended first"),
            }
        };
        assert_eq!(within(cut).await.request_id, submit.request_id, "{path}");
    }
}
