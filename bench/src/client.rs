//! A small HTTP client for OpenAI-compatible servers: JSON in, JSON or server-sent events out.

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// Largest answer that is not a stream, and largest event of one.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The environment variable with the key that a server wants, where it wants one.
pub const KEY_VARIABLE: &str = "BATON_API_KEY";

/// A server, and connections to it.
#[derive(Clone, Debug)]
pub struct Client {
    pool: Pool<HttpConnector, Full<Bytes>>,
    base: String,
    /// What goes with every request; marked sensitive, so that nobody prints it.
    key: Option<HeaderValue>,
}

/// A call that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The address is no address.
    #[error("`{url}` is no URL of the form http://host:port")]
    Url {
        /// What was given.
        url: String,
    },
    /// The key is none. It is not repeated.
    #[error("{KEY_VARIABLE} has characters that no key has")]
    Key,
    /// Nobody answers, or the answer broke off.
    #[error("{url}: {problem}")]
    Transport {
        /// Who was called.
        url: String,
        /// What happened.
        problem: String,
    },
    /// The server refused.
    #[error("the server says {status}: {message}")]
    Status {
        /// HTTP status.
        status: StatusCode,
        /// The error's message, or the body.
        message: String,
    },
    /// The answer is not JSON.
    #[error("the answer is not JSON: {0}")]
    Json(#[from] serde_json::Error),
}

fn bearer(key: &str) -> Result<HeaderValue, ClientError> {
    let value = HeaderValue::try_from(format!("Bearer {}", key.trim()));
    let mut value = value.map_err(|_| ClientError::Key)?;
    value.set_sensitive(true);
    Ok(value)
}

impl Client {
    /// A client of the server at `http://host:port`, with the key from the environment if that has
    /// one.
    pub fn new(url: &str) -> Result<Self, ClientError> {
        let base = url.trim_end_matches('/').to_owned();
        let fits = base.parse::<Uri>().is_ok_and(|uri| uri.scheme_str() == Some("http"));
        if !fits {
            return Err(ClientError::Url { url: url.to_owned() });
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let key = match std::env::var(KEY_VARIABLE) {
            Ok(key) => Some(bearer(&key)?),
            Err(_) => None,
        };
        Ok(Self { pool: Pool::builder(TokioExecutor::new()).build(connector), base, key })
    }

    /// Where the server is.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Gets a document as text.
    pub async fn get_text(&self, path: &str) -> Result<String, ClientError> {
        let body = self.send(path, None, &[]).await?;
        let bytes = self.collect(body).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Gets a JSON document.
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        let body = self.send(path, None, &[]).await?;
        Ok(serde_json::from_slice(&self.collect(body).await?)?)
    }

    /// Posts JSON and gets JSON.
    pub async fn post(&self, path: &str, request: &Value) -> Result<Value, ClientError> {
        self.post_with(path, request, &[]).await
    }

    /// The same with further headers, as name and value.
    pub async fn post_with(
        &self,
        path: &str,
        request: &Value,
        headers: &[(&str, &str)],
    ) -> Result<Value, ClientError> {
        let body = self.send(path, Some(request), headers).await?;
        Ok(serde_json::from_slice(&self.collect(body).await?)?)
    }

    /// Posts JSON and gets server-sent events.
    pub async fn stream(&self, path: &str, request: &Value) -> Result<Events, ClientError> {
        let body = self.send(path, Some(request), &[]).await?;
        Ok(Events { body, buffer: BytesMut::new(), url: self.base.clone() })
    }

    /// Where to connect to, and the beginning of a head that posts JSON there, for those who write
    /// it themselves.
    pub(crate) fn head(&self, path: &str) -> Result<(String, String), ClientError> {
        let url = || ClientError::Url { url: self.base.clone() };
        let uri: Uri = self.base.parse().map_err(|_| url())?;
        let host = uri.host().ok_or_else(url)?;
        let authority = format!("{host}:{}", uri.port_u16().unwrap_or(80));
        let path = format!("{}{path}", uri.path().trim_end_matches('/'));
        let mut head = format!(
            "POST {path} HTTP/1.1\r\nhost: {authority}\r\ncontent-type: application/json\r\n"
        );
        if let Some(key) = &self.key {
            let key = key.to_str().map_err(|_| ClientError::Key)?;
            head = format!("{head}authorization: {key}\r\n");
        }
        Ok((authority, head))
    }

    async fn send(
        &self,
        path: &str,
        request: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Result<Incoming, ClientError> {
        let uri = format!("{}{path}", self.base);
        let mut builder = Request::builder().uri(&uri);
        if let Some(key) = &self.key {
            builder = builder.header(header::AUTHORIZATION, key);
        }
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        let request = match request {
            None => builder.body(Full::default()),
            Some(json) => builder
                .method("POST")
                .header(header::CONTENT_TYPE, "application/json")
                .body(Full::from(json.to_string())),
        };
        let request = request.map_err(|_| ClientError::Url { url: uri })?;
        let answer = self.pool.request(request).await.map_err(|error| self.broken(&error))?;
        let status = answer.status();
        let body = answer.into_body();
        if status.is_success() {
            return Ok(body);
        }
        let bytes = self.collect(body).await?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let message = serde_json::from_str::<Value>(&text)
            .ok()
            .and_then(|json| json["error"]["message"].as_str().map(str::to_owned))
            .unwrap_or(text);
        Err(ClientError::Status { status, message })
    }

    async fn collect(&self, body: Incoming) -> Result<Bytes, ClientError> {
        let limited = Limited::new(body, ANSWER_BYTES_MAX);
        let collected = limited.collect().await.map_err(|error| ClientError::Transport {
            url: self.base.clone(),
            problem: error.to_string(),
        })?;
        Ok(collected.to_bytes())
    }

    fn broken(&self, error: &dyn std::error::Error) -> ClientError {
        let mut problem = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            problem = inner.to_string();
            cause = inner.source();
        }
        ClientError::Transport { url: self.base.clone(), problem }
    }
}

/// The events of one stream.
#[derive(Debug)]
pub struct Events {
    body: Incoming,
    buffer: BytesMut,
    url: String,
}

impl Events {
    /// The data of the next event; `None` after the last one or after `[DONE]`.
    pub async fn next(&mut self) -> Result<Option<String>, ClientError> {
        loop {
            while let Some(end) = find(&self.buffer, b"\n\n") {
                let event = self.buffer.split_to(end + 2);
                match data_of(&event) {
                    Some(data) if data == "[DONE]" => return Ok(None),
                    Some(data) => return Ok(Some(data)),
                    None => {}
                }
            }
            if self.buffer.len() > ANSWER_BYTES_MAX {
                return Err(self.broken("an event of more than 64 MiB"));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(self.broken(&error.to_string())),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.buffer.extend_from_slice(&bytes);
                    }
                }
            }
        }
    }

    fn broken(&self, problem: &str) -> ClientError {
        ClientError::Transport { url: self.url.clone(), problem: problem.to_owned() }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// The joined data lines of an event; `None` for a comment.
fn data_of(event: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(event);
    let lines = text.lines().filter_map(|line| line.strip_prefix("data:"));
    let data: Vec<&str> = lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
    (!data.is_empty()).then(|| data.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_lines_are_joined_and_comments_have_none() {
        assert_eq!(data_of(b"data: {\"a\":1}\n\n").as_deref(), Some("{\"a\":1}"));
        assert_eq!(data_of(b"event: x\ndata: a\ndata:b\n\n").as_deref(), Some("a\nb"));
        assert_eq!(data_of(b": keep-alive\n\n"), None);
    }

    #[test]
    fn only_plain_http_is_spoken() {
        for bad in ["", "localhost:1", "https://localhost:1", "ftp://x"] {
            assert!(Client::new(bad).is_err(), "{bad}");
        }
        assert_eq!(
            Client::new("http://127.0.0.1:1/").map(|c| c.base).ok().as_deref(),
            Some("http://127.0.0.1:1")
        );
    }
}
