//! Requests as they stand on the wire, for what no well-behaved client sends.

use super::{House, within};
use serde_json::Value;
use std::fmt::Write;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer as it came, head and body.
#[derive(Debug)]
pub struct Said {
    pub status: u16,
    pub head: String,
    pub body: Value,
}

/// A request with a body of this length behind it.
pub fn head(path: &str, headers: &[(&str, &str)], length: usize) -> String {
    let mut head = format!("POST {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n");
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head + &format!("content-length: {length}\r\n\r\n")
}

/// A request for JSON.
pub fn request(path: &str, body: &[u8]) -> Vec<u8> {
    let head = head(path, &[("content-type", "application/json")], body.len());
    [head.as_bytes(), body].concat()
}

impl House {
    pub async fn connect(&self) -> TcpStream {
        within(TcpStream::connect(self.address)).await.expect("the router listens")
    }

    /// Sends these bytes and reads all that comes until the router closes; nothing, if it says nothing.
    pub async fn exchange(&self, bytes: &[u8]) -> Option<Said> {
        let (mut reads, mut writes) = self.connect().await.into_split();
        let mut answer = Vec::new();
        let (sent, read) =
            within(async { tokio::join!(writes.write_all(bytes), reads.read_to_end(&mut answer)) })
                .await;
        // Many clients read nothing any more when they cannot send.
        sent.expect("all can be sent");
        read.expect("the whole answer can be read");
        let text = String::from_utf8(answer).expect("text");
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let body = serde_json::from_str(body).unwrap_or(Value::String(body.to_owned()));
        Some(Said { status, head: head.to_owned(), body })
    }

    /// The answer to this body in JSON's name.
    pub async fn post_bytes(&self, path: &str, body: &[u8]) -> Said {
        self.exchange(&request(path, body)).await.expect("an answer")
    }
}
