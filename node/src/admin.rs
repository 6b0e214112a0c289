//! What every daemon answers about itself: is it alive, is it ready, what are its figures.
//!
//! `/live` says that the process answers; `/ready` that it takes work, with the reason if not;
//! `/metrics` is for Prometheus.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::sync::watch;

use crate::drain::Drain;
use crate::metrics::Metrics;

/// Whether a daemon takes work. Clones share it.
#[derive(Clone, Debug)]
pub struct Health {
    state: Arc<watch::Sender<State>>,
    drain: Drain,
}

/// What a daemon is doing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    /// Not ready yet, and at what (`loading weights, 40 %`).
    Starting(Cow<'static, str>),
    /// Takes work.
    Ready,
    /// Runs, but something it needs is missing.
    Degraded(Cow<'static, str>),
    /// Finishes what it has.
    Draining,
}

impl Health {
    /// A daemon that has just started.
    pub fn new(drain: &Drain) -> Self {
        let (state, _) = watch::channel(State::Starting("starting".into()));
        Self { state: Arc::new(state), drain: drain.clone() }
    }

    /// Says what the daemon is doing.
    pub fn set(&self, state: State) {
        self.state.send_replace(state);
    }

    /// What the daemon is doing. From the beginning of the drain on that is [`State::Draining`],
    /// whatever was said.
    pub fn state(&self) -> State {
        if self.drain.is_draining() { State::Draining } else { self.state.borrow().clone() }
    }

    /// Waits until the daemon takes work; at once if it does.
    pub async fn ready(&self) {
        let mut states = self.state.subscribe();
        // The sender lives in `self`, so the wait cannot fail.
        let _ = states.wait_for(|state| *state == State::Ready).await;
    }

    fn answer(&self) -> (StatusCode, String) {
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        match self.state() {
            State::Ready => (StatusCode::OK, "ready\n".into()),
            State::Starting(what) => (unavailable, format!("starting: {what}\n")),
            State::Degraded(what) => (unavailable, format!("degraded: {what}\n")),
            State::Draining => (unavailable, "draining\n".into()),
        }
    }
}

/// The routes `/live`, `/ready` and `/metrics`.
pub fn routes(health: &Health, metrics: &Metrics) -> Router {
    let metrics = metrics.clone();
    health_routes(health).route("/metrics", get(move || async move { metrics.respond() }))
}

/// The routes `/live` and `/ready`, for a daemon whose metrics are more than its own.
pub fn health_routes(health: &Health) -> Router {
    let health = health.clone();
    Router::new()
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(move || async move { health.answer().into_response() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::Cause;
    use axum::body::Body;
    use http_body_util::BodyExt;
    use std::time::Duration;
    use tower::ServiceExt;

    async fn ask(health: &Health, path: &str) -> (u16, String) {
        let request = axum::http::Request::get(path).body(Body::empty()).expect("a request");
        let answer = routes(health, &Metrics::new()).oneshot(request).await.expect("infallible");
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn readiness_follows_what_the_daemon_says_until_it_drains() {
        let drain = Drain::new(Duration::from_secs(1));
        let health = Health::new(&drain);
        assert_eq!(ask(&health, "/ready").await, (503, "starting: starting\n".into()));
        assert_eq!(ask(&health, "/live").await, (200, "live\n".into()));
        health.set(State::Ready);
        health.ready().await;
        assert_eq!(ask(&health, "/ready").await, (200, "ready\n".into()));
        health.set(State::Degraded("no prefill worker".into()));
        assert_eq!(ask(&health, "/ready").await.0, 503);
        health.set(State::Ready);
        drain.trigger(Cause::Requested);
        assert_eq!(ask(&health, "/ready").await, (503, "draining\n".into()));
        assert_eq!(ask(&health, "/live").await.0, 200);
    }

    #[tokio::test]
    async fn metrics_are_served_as_text() {
        let health = Health::new(&Drain::new(Duration::from_secs(1)));
        let (status, text) = ask(&health, "/metrics").await;
        assert_eq!(status, 200);
        assert!(text.contains("baton_process_open_fds") && text.ends_with("# EOF\n"), "{text}");
    }
}
