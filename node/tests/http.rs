//! Serving over real sockets: the connection cap, HTTP/2 with gRPC beside JSON, slow peers.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use baton_node::config::Span;
use baton_node::serve::{ServeConfig, bind};
use baton_node::{Drain, Tasks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// No test waits this long unless it is about to fail.
const PATIENCE: Duration = Duration::from_secs(20);

fn start(router: Router, config: &ServeConfig) -> (SocketAddr, Tasks) {
    let tasks = Tasks::new(&Drain::new(PATIENCE), 64);
    let listener = bind(config).unwrap();
    let address = listener.local_addr();
    listener.serve(router, &tasks).unwrap();
    (address, tasks)
}

fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("the event never came")
}

/// Sends a text and returns what comes until the server closes.
async fn exchange(stream: &mut TcpStream, text: &str) -> String {
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    within(stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8(answer).unwrap()
}

const CLOSING: &str = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn connections_beyond_the_cap_are_told_so_and_let_in_later() {
    let config = ServeConfig { connections_max: 1, ..ServeConfig::default() };
    let (address, tasks) = start(hello(), &config);
    let mut first = TcpStream::connect(address).await.unwrap();
    first.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut head = [0; 15];
    within(first.read_exact(&mut head)).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");

    let mut second = TcpStream::connect(address).await.unwrap();
    let answer = exchange(&mut second, CLOSING).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1"), "{answer}");

    drop((first, second));
    // Room returns when the server has seen the end of both.
    within(async {
        while tasks.names() != [("accept", 1)] {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let answer = exchange(&mut TcpStream::connect(address).await.unwrap(), CLOSING).await;
    assert!(answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn slow_and_silent_peers_are_cut_on_real_sockets_too() {
    let config = ServeConfig {
        first_byte_timeout: Span::millis(50),
        header_timeout: Span::millis(50),
        ..ServeConfig::default()
    };
    let (address, _tasks) = start(hello(), &config);
    for said in ["", "GET / HT", "PRI * HT"] {
        let mut peer = TcpStream::connect(address).await.unwrap();
        assert_eq!(exchange(&mut peer, said).await, "", "{said}");
    }
}

#[tokio::test]
async fn grpc_and_json_share_a_port_and_grpc_ends_with_the_drain() {
    use tonic_health::pb::health_client::HealthClient;
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("baton.v1.Inference", tonic_health::ServingStatus::Serving).await;
    let grpc = tonic::service::Routes::new(health).into_axum_router();
    let (address, tasks) = start(hello().merge(grpc), &ServeConfig::internal());

    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut client = HealthClient::new(within(endpoint.connect()).await.unwrap());
    let request = || HealthCheckRequest { service: "baton.v1.Inference".into() };
    let answer = within(client.check(request())).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);
    let mut watch = within(client.watch(request())).await.unwrap().into_inner();
    within(watch.message()).await.unwrap().expect("the first state");

    let answer = exchange(&mut TcpStream::connect(address).await.unwrap(), CLOSING).await;
    assert!(answer.ends_with("hello"), "{answer}");

    // An endless stream does not end on its own: the drain waits for it, and drops it at the end.
    tasks.drain().trigger(baton_node::drain::Cause::Requested);
    tasks.drain().force();
    let drained = within(tasks.drain().conclude(&tasks)).await;
    assert_eq!(drained.stuck, []);
    assert_eq!(tasks.running(), 0);
    let ended = within(watch.message()).await;
    assert!(matches!(ended, Err(_) | Ok(None)), "{ended:?}");
}
