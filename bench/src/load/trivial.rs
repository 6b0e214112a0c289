//! `baton bench trivial-worker`: a model server that answers every chat with the same word. What is
//! measured before it is what stands before it.

use baton_node::exit::{Exit, Failure};
use bytes::Bytes;
use clap::Args;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

/// `baton bench trivial-worker`
#[derive(Debug, Args)]
pub(crate) struct TrivialArgs {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS")]
    listen: SocketAddr,
}

const ANSWER: &str = r#"{"id":"chatcmpl-0","object":"chat.completion","created":0,"model":"witness","choices":[{"index":0,"message":{"role":"assistant","content":"a"},"finish_reason":"length"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#;
/// What gateways ask a worker about itself before they send it anything.
const ABOUT: &str = r#"{"model_path":"witness","model_id":"witness","served_model_name":"witness","status":"ok","data":[{"id":"witness","object":"model"}]}"#;

/// Serves until it is killed.
pub(crate) fn main(args: &TrivialArgs) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(Exit::Unavailable, format!("{}: {error}", args.listen))
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(async {
        let listener = TcpListener::bind(args.listen).await.map_err(failed)?;
        let connections = TaskTracker::new();
        loop {
            let (connection, _) = listener.accept().await.map_err(failed)?;
            connection.set_nodelay(true).map_err(failed)?;
            let serving = http1::Builder::new()
                .serve_connection(TokioIo::new(connection), service_fn(answer));
            // A connection that breaks off is the client's to tell.
            connections.spawn(async move { serving.await.ok() });
        }
    })
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let is_chat = request.uri().path() == "/v1/chat/completions";
    // Read to its end, so that the connection can be used again.
    let _ = request.into_body().collect().await;
    let body = if is_chat { ANSWER } else { ABOUT };
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    let kind = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}
