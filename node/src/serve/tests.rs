//! What strangers, slow peers and many peers get.
//!
//! Connections are pipes in memory and time is virtual, so that a limit of ten seconds is tested
//! exactly and at once. What only a real socket has is tested in `tests/http.rs`.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::StatusCode;
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::*;
use crate::Drain;
use crate::drain::Cause;

const PEER: &str = "127.0.0.1:5000";
/// In virtual time: longer than any limit, so that a limit that is missing fails the test.
const PATIENCE: Duration = Duration::from_hours(48);
const HELLO: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// A connection to a router, and the tasks behind it.
fn connect(router: Router, config: ServeConfig) -> (DuplexStream, Tasks) {
    let tasks = Tasks::new(&Drain::new(Duration::from_mins(1)), 64);
    (connect_to(&tasks, router, config), tasks)
}

fn connect_to(tasks: &Tasks, router: Router, config: ServeConfig) -> DuplexStream {
    let (client, server) = duplex(1 << 10);
    let peer: SocketAddr = PEER.parse().expect("an address");
    let behind = tasks.clone();
    tasks.spawn("connection", async move {
        connection::serve(server, peer, router, &behind, &config).await;
    });
    client
}

fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

async fn within<T>(event: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, event).await.expect("the event never came")
}

/// Reads one answer with a body that is a known text.
async fn read_until(client: &mut DuplexStream, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        let byte = within(client.read_u8()).await;
        text.push(char::from(byte.unwrap_or_else(|_| panic!("{end} is not in: {text}"))));
    }
    text
}

/// What comes until the server closes.
async fn read_all(client: &mut DuplexStream) -> String {
    let mut bytes = Vec::new();
    // A pipe whose other end was dropped may say so as an error.
    let _ = within(client.read_to_end(&mut bytes)).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test(start_paused = true)]
async fn a_request_is_answered_and_the_connection_kept() {
    let router = Router::new().route(
        "/",
        get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { format!("{peer}!") }),
    );
    let (mut client, _tasks) = connect(router, ServeConfig::default());
    for _ in 0..2 {
        client.write_all(HELLO).await.expect("open");
        let answer = read_until(&mut client, "!").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("127.0.0.1:5000!"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_whole_however_its_first_bytes_come() {
    // It begins as HTTP/2 does, too.
    let request = b"PRI / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello";
    let echo =
        |method: axum::http::Method, body: String| async move { format!("{method} {body}!") };
    for cut in 0..request.len() {
        let (mut client, _tasks) = connect(Router::new().fallback(echo), ServeConfig::default());
        let (first, rest) = request.split_at(cut);
        client.write_all(first).await.expect("open");
        // Time moves when nobody has anything to do.
        tokio::time::sleep(Duration::from_millis(1)).await;
        client.write_all(rest).await.expect("open");
        let answer = read_until(&mut client, "!").await;
        assert!(answer.ends_with("\r\n\r\nPRI hello!"), "{cut}: {answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_cut() {
    let config = ServeConfig { first_byte_timeout: Span::secs(7), ..ServeConfig::default() };
    let (mut client, tasks) = connect(hello(), config);
    let began = Instant::now();
    assert_eq!(read_all(&mut client).await, "");
    assert_eq!(began.elapsed(), Duration::from_secs(7));
    within(tasks.idle()).await;
}

/// Sends `byte`s of a head one per second until the server cuts, and says when that was.
async fn drip(config: ServeConfig, head: &[u8]) -> Duration {
    let (client, _tasks) = connect(hello(), config);
    let (mut reads, mut writes) = tokio::io::split(client);
    let began = Instant::now();
    let mut answer = [0; 16];
    for byte in head.iter().chain(std::iter::repeat(&b'a')) {
        if writes.write_all(&[*byte]).await.is_err() {
            break;
        }
        let waited = tokio::time::timeout(Duration::from_secs(1), reads.read(&mut answer)).await;
        match waited {
            Err(_) => assert!(began.elapsed() < Duration::from_mins(2), "never cut"),
            Ok(read) => {
                assert_eq!(read.unwrap_or(0), 0, "answered an unfinished request");
                break;
            }
        }
    }
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_dripped_head_is_cut_however_it_begins() {
    let config = ServeConfig { header_timeout: Span::secs(10), ..ServeConfig::default() };
    // The second begins as HTTP/2 does: the time in which the two cannot be told apart counts.
    for head in [&b"GET / HTTP/1.1\r\nx: "[..], b"PRI * HTTP/2.0\r\n\r\nS"] {
        assert_eq!(drip(config, head).await, Duration::from_secs(10), "{head:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_lives_longer_than_a_slow_head_and_not_for_ever() {
    let config = ServeConfig { idle_timeout: Span::secs(75), ..ServeConfig::default() };
    let (mut client, _tasks) = connect(hello(), config);
    client.write_all(HELLO).await.expect("open");
    read_until(&mut client, "hello").await;
    let began = Instant::now();
    assert_eq!(read_all(&mut client).await, "");
    assert_eq!(began.elapsed(), Duration::from_secs(75));
}

#[tokio::test(start_paused = true)]
async fn an_idle_http2_connection_is_cut_as_well() {
    let config = ServeConfig { idle_timeout: Span::secs(15), ..ServeConfig::default() };
    let (mut client, tasks) = connect(hello(), config);
    // The preface with empty settings, and then nothing.
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("open");
    let began = Instant::now();
    read_all(&mut client).await;
    let limit = config.idle_timeout.0 + config.header_timeout.0;
    assert!(began.elapsed() >= config.idle_timeout.0 && began.elapsed() <= limit);
    within(tasks.idle()).await;
}

#[tokio::test(start_paused = true)]
async fn a_long_answer_is_not_idleness() {
    let slow = || async {
        tokio::time::sleep(Duration::from_hours(1)).await;
        "done"
    };
    let router = Router::new().route("/", get(slow));
    let (mut client, _tasks) = connect(router, ServeConfig::default());
    client.write_all(HELLO).await.expect("open");
    let answer = read_until(&mut client, "done").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_is_cut() {
    let endless = || async {
        let chunk = || Some((Ok::<_, std::io::Error>(vec![b'x'; 1 << 10]), ()));
        Body::from_stream(futures_util::stream::unfold((), move |()| async move { chunk() }))
    };
    let router = Router::new().route("/", get(endless));
    let config = ServeConfig { stall_timeout: Span::secs(20), ..ServeConfig::default() };
    let (mut client, tasks) = connect(router, config);
    let began = Instant::now();
    client.write_all(HELLO).await.expect("open");
    within(tasks.idle()).await;
    assert_eq!(began.elapsed(), Duration::from_secs(20));
}

/// Answers with what was wrong with the body.
async fn measure(body: Body) -> (StatusCode, String) {
    match axum::body::to_bytes(body, usize::MAX).await {
        Ok(bytes) => (StatusCode::OK, format!("{} bytes.", bytes.len())),
        Err(error) => match BodyFault::find(&error) {
            Some(BodyFault::TooLarge) => (StatusCode::PAYLOAD_TOO_LARGE, "too large.".into()),
            Some(BodyFault::TooSlow) => (StatusCode::REQUEST_TIMEOUT, "too slow.".into()),
            None => (StatusCode::BAD_REQUEST, "broken.".into()),
        },
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_is_bounded_in_bytes() {
    let config =
        ServeConfig { body_bytes_max: Threshold::At(ByteSize(8)), ..ServeConfig::default() };
    for (body, expected) in [("12345678", "8 bytes."), ("123456789", "too large.")] {
        let (mut client, _tasks) = connect(Router::new().route("/", post(measure)), config);
        let length = body.len();
        let request =
            format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{body}");
        client.write_all(request.as_bytes()).await.expect("open");
        let answer = read_until(&mut client, ".").await;
        let answer = answer + &read_until(&mut client, expected).await;
        assert!(answer.ends_with(expected), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_is_bounded_in_time_and_internal_streams_are_not() {
    let head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n12";
    let (mut client, _tasks) =
        connect(Router::new().route("/", post(measure)), ServeConfig::default());
    let began = Instant::now();
    client.write_all(head).await.expect("open");
    read_until(&mut client, "too slow.").await;
    assert_eq!(began.elapsed(), Duration::from_secs(30));

    let (mut client, _tasks) =
        connect(Router::new().route("/", post(measure)), ServeConfig::internal());
    client.write_all(head).await.expect("open");
    tokio::time::sleep(Duration::from_hours(10)).await;
    client.write_all(b"34").await.expect("still open");
    read_until(&mut client, "4 bytes.").await;
}

#[tokio::test(start_paused = true)]
async fn a_head_that_is_too_large_is_refused() {
    let (mut client, _tasks) = connect(hello(), ServeConfig::default());
    let header = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(32 << 10));
    // The server may close before it has read all of it.
    let (mut reads, mut writes) = tokio::io::split(&mut client);
    let (_, answer) = tokio::join!(writes.write_all(header.as_bytes()), async {
        let mut answer = vec![0; 64];
        let read = reads.read(&mut answer).await.unwrap_or(0);
        String::from_utf8_lossy(&answer[..read]).into_owned()
    });
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_panic_costs_one_request() {
    async fn clumsy() -> &'static str {
        panic!("on purpose")
    }
    let (mut client, tasks) = connect(hello().route("/panic", get(clumsy)), ServeConfig::default());
    client.write_all(b"GET /panic HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("open");
    let answer = read_until(&mut client, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
    client.write_all(HELLO).await.expect("still open");
    read_until(&mut client, "hello").await;
    assert_eq!(tasks.panics(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_takes_its_request_along() {
    struct Tell(Option<oneshot::Sender<()>>);
    impl Drop for Tell {
        fn drop(&mut self) {
            let _ = self.0.take().expect("once").send(());
        }
    }
    let (gone, left) = oneshot::channel();
    let (began, mut begins) = mpsc::channel(1);
    let tell = Arc::new(std::sync::Mutex::new(Some(Tell(Some(gone)))));
    let handler = move || async move {
        let _tell = tell.lock().expect("not poisoned").take();
        began.send(()).await.expect("the test listens");
        std::future::pending::<()>().await;
    };
    let (mut client, _tasks) =
        connect(Router::new().route("/", get(handler)), ServeConfig::default());
    client.write_all(HELLO).await.expect("open");
    begins.recv().await.expect("the handler runs");
    let closed = Instant::now();
    drop(client);
    within(left).await.expect("the handler is dropped");
    assert_eq!(closed.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_drain_finishes_requests_and_closes_the_rest_at_once() {
    let (answer, answers) = oneshot::channel::<()>();
    let (began, mut begins) = mpsc::channel(1);
    let answers = Arc::new(std::sync::Mutex::new(Some(answers)));
    let busy = move || async move {
        let answers = answers.lock().expect("not poisoned").take().expect("one request");
        began.send(()).await.expect("the test listens");
        answers.await.expect("the test answers");
        "done"
    };
    let router = hello().route("/busy", get(busy));
    let (mut working, tasks) = connect(router.clone(), ServeConfig::default());
    let mut idle = connect_to(&tasks, router.clone(), ServeConfig::default());
    let mut fresh = connect_to(&tasks, router, ServeConfig::default());
    working.write_all(b"GET /busy HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("open");
    begins.recv().await.expect("the handler runs");
    idle.write_all(HELLO).await.expect("open");
    read_until(&mut idle, "hello").await;

    let began = Instant::now();
    tasks.drain().trigger(Cause::Requested);
    assert_eq!(read_all(&mut idle).await + &read_all(&mut fresh).await, "");
    answer.send(()).expect("the handler waits");
    assert!(read_all(&mut working).await.ends_with("done"));
    assert!(tasks.drain().conclude(&tasks).await.is_graceful());
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[test]
fn other_machines_are_not_let_in_without_tls_unless_that_was_written_down() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let listen = address.parse().expect("an address");
        let config = ServeConfig { listen, ..ServeConfig::default() };
        let error = bind(&config).expect_err("reachable from outside");
        assert!(matches!(error, BindError::Plaintext { .. }), "{error}");
        assert_eq!(error.exit(), Exit::Config);
    }
    let listen = "0.0.0.0:0".parse().expect("an address");
    let config = ServeConfig { listen, insecure_plaintext: true, ..ServeConfig::default() };
    assert_ne!(bind(&config).expect("allowed").local_addr().port(), 0);
}

#[test]
fn a_port_in_use_is_named_with_a_hint() {
    let first = bind(&ServeConfig::default()).expect("any port");
    let config = ServeConfig { listen: first.local_addr(), ..ServeConfig::default() };
    let failure = crate::Failure::from(bind(&config).expect_err("in use"));
    assert_eq!(failure.exit(), Exit::Unavailable);
    let line = failure.to_string();
    assert!(line.starts_with(&format!("{} is in use (hint: ", first.local_addr())), "{line}");
}

#[test]
fn an_address_of_another_machine_is_unavailable() {
    let listen = "192.0.2.1:0".parse().expect("an address");
    let config = ServeConfig { listen, insecure_plaintext: true, ..ServeConfig::default() };
    let failure = crate::Failure::from(bind(&config).expect_err("not ours"));
    assert_eq!(failure.exit(), Exit::Unavailable);
    assert!(failure.to_string().contains("no interface of this machine"), "{failure}");
}
