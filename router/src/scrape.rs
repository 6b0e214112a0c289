//! `/metrics` of the whole cluster: the router's own figures, and every worker's with the worker's
//! name as a label, so that a dashboard needs one address.

use crate::cluster::Cluster;
use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use baton_node::metrics::{CONTENT_TYPE, Exposition, Metrics};
use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::sync::Arc;
use std::time::Duration;

/// A worker that takes longer is left out of this answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Figures of one worker, at most.
const TEXT_BYTES_MAX: usize = 4 << 20;

type Scraper = Client<HttpConnector, Empty<Bytes>>;

/// The route `/metrics`.
pub(crate) fn routes(cluster: Arc<Cluster>, own: Metrics) -> Router {
    let client: Scraper = Client::builder(TokioExecutor::new()).build_http();
    Router::new().route(
        "/metrics",
        get(move || {
            let (client, cluster, own) = (client.clone(), Arc::clone(&cluster), own.clone());
            async move { answer(&client, &cluster, &own).await }
        }),
    )
}

async fn answer(client: &Scraper, cluster: &Cluster, own: &Metrics) -> Response {
    let workers = cluster.workers();
    let texts = join_all(workers.iter().map(|(_, uri)| scrape(client, uri))).await;
    let mut all = Exposition::new();
    // The own text is in the format by construction.
    let _ = all.add(&own.render(), &[]);
    for ((name, uri), text) in workers.iter().zip(texts) {
        let added = text.map(|text| all.add(&text, &[("worker", name)]));
        if !matches!(added, Some(Ok(()))) {
            tracing::debug!(worker = name, uri, "no metrics from this worker");
        }
    }
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], all.to_string()).into_response()
}

async fn scrape(client: &Scraper, uri: &str) -> Option<String> {
    let uri = format!("{uri}/metrics").parse().ok()?;
    let fetch = async {
        let body = client.get(uri).await.ok()?.into_body();
        let bytes = Limited::new(body, TEXT_BYTES_MAX).collect().await.ok()?.to_bytes();
        String::from_utf8(bytes.to_vec()).ok()
    };
    tokio::time::timeout(PATIENCE, fetch).await.ok()?
}
