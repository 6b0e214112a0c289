//! A streamed answer, read with as little work as it can be: what a client library does for each piece
//! would be taken from the core that the client shares with the workers.

use super::{failure, unavailable};
use crate::client::Client;
use baton_node::exit::Failure;
use serde_json::Value;
use std::io;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Bytes that are read at a time: some twenty events.
const READ_BYTES: usize = 4 << 10;
/// Largest head of an answer.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// What ends a head, and a body in chunks.
const HEAD_END: &[u8] = b"\r\n\r\n";
const BODY_END: &[u8] = b"\r\n0\r\n\r\n";

/// An answer with status 200, from the end of its head on.
pub(super) struct Feed {
    socket: TcpStream,
    /// What has been read beyond the head.
    rest: Vec<u8>,
    /// The last bytes, as many as end a body.
    tail: Vec<u8>,
}

impl Feed {
    /// Posts JSON on a connection of its own.
    pub(super) async fn open(client: &Client, path: &str, body: &Value) -> Result<Self, Failure> {
        let (authority, head) = client.head(path).map_err(|error| failure(&error))?;
        let broken = |error: io::Error| unavailable(&format_args!("{authority}: {error}"));
        let mut socket = TcpStream::connect(&authority).await.map_err(broken)?;
        let body = body.to_string();
        let length = body.len();
        let request = format!("{head}content-length: {length}\r\nconnection: close\r\n\r\n{body}");
        socket.write_all(request.as_bytes()).await.map_err(broken)?;
        let mut feed = Self { socket, rest: Vec::new(), tail: Vec::new() };
        feed.read_head().await?;
        Ok(feed)
    }

    async fn read_head(&mut self) -> Result<(), Failure> {
        let mut head = Vec::new();
        let end = loop {
            let end = head.windows(HEAD_END.len()).position(|window| window == HEAD_END);
            if let Some(end) = end {
                break end + HEAD_END.len();
            }
            let read = self.read(|bytes| head.extend_from_slice(bytes)).await?;
            if read == 0 || head.len() > HEAD_BYTES_MAX {
                return Err(unavailable(&"the answer has no head"));
            }
        };
        self.rest = head.split_off(end);
        let status = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        if status != b"HTTP/1.1 200 OK" {
            let said = String::from_utf8_lossy(status);
            return Err(unavailable(&format_args!("the server says {said}")));
        }
        Ok(())
    }

    /// Shows the next bytes of the body, with what is between its chunks; false at its end.
    pub(super) async fn next(&mut self, mut show: impl FnMut(&[u8])) -> Result<bool, Failure> {
        if !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            self.note_tail(&rest);
            show(&rest);
            return Ok(true);
        }
        let mut tail = std::mem::take(&mut self.tail);
        let read = self.read(|bytes| {
            keep_tail(&mut tail, bytes);
            show(bytes);
        });
        let read = read.await?;
        self.tail = tail;
        if read == 0 && self.tail != BODY_END {
            return Err(unavailable(&"it ended in the middle"));
        }
        Ok(read > 0)
    }

    fn note_tail(&mut self, bytes: &[u8]) {
        keep_tail(&mut self.tail, bytes);
    }

    /// Shows what there is; how much that was, and zero at the end.
    async fn read(&self, mut show: impl FnMut(&[u8])) -> Result<usize, Failure> {
        loop {
            self.socket.readable().await.map_err(|error| unavailable(&error))?;
            // Not kept across the wait: a thousand of them would not fit the caches.
            let mut buffer = [0; READ_BYTES];
            match self.socket.try_read(&mut buffer) {
                Ok(read) => {
                    show(&buffer[..read]);
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(unavailable(&error)),
            }
        }
    }
}

fn keep_tail(tail: &mut Vec<u8>, bytes: &[u8]) {
    tail.extend_from_slice(&bytes[bytes.len().saturating_sub(BODY_END.len())..]);
    let surplus = tail.len().saturating_sub(BODY_END.len());
    tail.drain(..surplus);
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    /// What is shown of an answer that comes in these pieces; an error if that is one.
    async fn shown(pieces: &'static [&'static [u8]]) -> Result<Vec<u8>, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let serve = async move {
            let (mut socket, _) = listener.accept().await.expect("a client");
            socket.set_nodelay(true).expect("a socket");
            let _ = socket.read(&mut [0; 4096]).await.expect("a request");
            for piece in pieces {
                socket.write_all(piece).await.expect("a reader");
                tokio::task::yield_now().await;
            }
        };
        let client = Client::new(&url).expect("an address");
        let read = async {
            let mut feed = Feed::open(&client, "/", &Value::Null).await?;
            let mut all = Vec::new();
            while feed.next(|bytes| all.extend_from_slice(bytes)).await? {}
            Ok(all)
        };
        tokio::join!(read, serve).0
    }

    #[tokio::test]
    async fn a_body_is_shown_to_its_end_however_it_is_cut() {
        let pieces: &[&[u8]] = &[b"HTTP/1.1 200 OK\r\na: b\r\n\r", b"\n1\r\nx\r\n0", b"\r\n\r\n"];
        assert_eq!(shown(pieces).await.ok().as_deref(), Some(&b"1\r\nx\r\n0\r\n\r\n"[..]));
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_or_refuses_is_a_failure() {
        let cut = shown(&[b"HTTP/1.1 200 OK\r\n\r\n1\r\nx\r\n"]).await.expect_err("cut");
        assert!(cut.to_string().contains("in the middle"), "{cut}");
        let refused = shown(&[b"HTTP/1.1 429 Too Many Requests\r\n\r\n"]).await.expect_err("429");
        assert!(refused.to_string().contains("429"), "{refused}");
        assert!(shown(&[b"nonsense"]).await.is_err());
    }
}
