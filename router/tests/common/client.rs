//! A small HTTP client: JSON in, JSON or server-sent events out.

use super::{House, within};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// A whole answer.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

/// A stream of events that is being read.
pub struct Events {
    body: Incoming,
    buffer: String,
    _client: Client<HttpConnector, Full<Bytes>>,
}

impl House {
    pub async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, String::new()).await
    }

    /// The future keeps nothing of `body`, so that it may be a temporary.
    pub fn post<'a>(
        &'a self,
        path: &'a str,
        body: &Value,
    ) -> impl Future<Output = Answer> + use<'a> {
        self.ask(Method::POST, path, body.to_string())
    }

    /// The same on behalf of a tenant.
    pub async fn post_as(&self, path: &str, body: &Value, tenant: &'static str) -> Answer {
        let mut request = self.request(Method::POST, path, body.to_string());
        request.headers_mut().insert("x-baton-tenant", http::HeaderValue::from_static(tenant));
        self.send(request).await
    }

    /// The same with a header, as often as there are values.
    pub async fn post_with(
        &self,
        path: &str,
        body: &Value,
        name: &'static str,
        values: &[&[u8]],
    ) -> Answer {
        let mut request = self.request(Method::POST, path, body.to_string());
        for value in values {
            let value = http::HeaderValue::from_bytes(value).unwrap();
            request.headers_mut().append(name, value);
        }
        self.send(request).await
    }

    /// The same with several headers.
    pub async fn post_said(
        &self,
        path: &str,
        body: &Value,
        headers: &[(&'static str, &str)],
    ) -> Answer {
        let mut request = self.request(Method::POST, path, body.to_string());
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        self.send(request).await
    }

    pub async fn ask(&self, method: Method, path: &str, body: String) -> Answer {
        self.send(self.request(method, path, body)).await
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let client = client();
        let response = within(client.request(request)).await.expect("an answer");
        let (head, body) = response.into_parts();
        let body = within(body.collect()).await.expect("a body").to_bytes();
        let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
        let body = serde_json::from_slice(&body).unwrap_or_else(|_| text());
        Answer { status: head.status, headers: head.headers, body }
    }

    /// Waits until the router knows of so many blocks of a worker.
    pub async fn knows(&self, worker: &str, blocks: usize) {
        let line = format!("baton_index_blocks{{worker=\"{worker}\"}} {blocks}");
        within(async { while !self.shows(&line).await {} }).await;
    }

    /// Whether this line is among the router's metrics.
    pub async fn shows(&self, line: &str) -> bool {
        let metrics = self.get("/metrics").await.body;
        metrics.as_str().unwrap().lines().any(|found| found == line)
    }

    /// Begins a stream; returns when its head is there.
    pub async fn stream(&self, path: &str, body: &Value) -> Events {
        self.begin(self.request(Method::POST, path, body.to_string())).await
    }

    /// The same with a header.
    pub async fn stream_with(
        &self,
        path: &str,
        body: &Value,
        name: &'static str,
        value: &'static [u8],
    ) -> Events {
        let mut request = self.request(Method::POST, path, body.to_string());
        request.headers_mut().insert(name, http::HeaderValue::from_bytes(value).unwrap());
        self.begin(request).await
    }

    async fn begin(&self, request: Request<Full<Bytes>>) -> Events {
        let client = client();
        let response = within(client.request(request)).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Events { body: response.into_body(), buffer: String::new(), _client: client }
    }

    fn request(&self, method: Method, path: &str, body: String) -> Request<Full<Bytes>> {
        let uri = format!("http://{}{path}", self.address);
        let request = Request::builder().method(method).uri(uri);
        request.header("content-type", "application/json").body(Full::from(body)).unwrap()
    }
}

fn client() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

impl Events {
    /// The next event or comment as it stands on the wire; `None` at the end.
    pub async fn raw(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.find("\n\n") {
                let event = self.buffer[..end].to_owned();
                self.buffer.drain(..end + 2);
                return Some(event);
            }
            let frame = within(self.body.frame()).await?.expect("a piece");
            if let Ok(data) = frame.into_data() {
                self.buffer.push_str(std::str::from_utf8(&data).expect("text"));
            }
        }
    }

    /// The data of the next event.
    pub async fn next(&mut self) -> Option<Value> {
        let event = self.raw().await?;
        let data = event.strip_prefix("data: ").expect("an event").to_owned();
        Some(serde_json::from_str(&data).unwrap_or(Value::String(data)))
    }

    /// All events that are left, one a line, without what differs from run to run.
    pub async fn rest(mut self) -> String {
        let mut lines = Vec::new();
        while let Some(event) = self.raw().await {
            lines.push(steady(&event));
        }
        lines.join("\n")
    }
}

/// An id or a time has so many digits at least.
const VALUE_MIN: usize = 8;

/// The text with the request's id and time replaced.
pub fn steady(text: &str) -> String {
    let mut text = text.to_owned();
    for (marker, is_value) in [
        ("msg_", (|c: char| c.is_ascii_hexdigit()) as fn(char) -> bool),
        ("req_", |c: char| c.is_ascii_hexdigit()),
        ("resp_", |c: char| c.is_ascii_hexdigit()),
        ("\"rs_", |c: char| c.is_ascii_hexdigit()),
        ("fc_", |c: char| c.is_ascii_hexdigit()),
        ("ctc_", |c: char| c.is_ascii_hexdigit()),
        ("\"created_at\":", |c: char| c.is_ascii_digit()),
        ("toolu_", |c: char| c.is_ascii_hexdigit()),
        ("call_", |c: char| c.is_ascii_hexdigit()),
        ("cmpl-", |c: char| c.is_ascii_hexdigit()),
        ("\"created\":", |c: char| c.is_ascii_digit()),
    ] {
        let mut from = 0;
        while let Some(at) = text[from..].find(marker) {
            let start = from + at + marker.len();
            let len = text[start..].find(|c: char| !is_value(c)).unwrap_or(text.len() - start);
            // A shorter one is a word that begins like this.
            if len >= VALUE_MIN {
                text.replace_range(start..start + len, "0");
            }
            from = start + 1;
        }
    }
    text
}
