//! What the two processes of a measurement say to each other: a line of JSON each way. It is no
//! part of the system; a cluster says these things over gRPC.

use baton_node::exit::{Exit, Failure};
use baton_proto::block::BlockDescriptor;
use baton_proto::ids::{Generation, GroupId, Incarnation, LeaseId, SlotId, WorkerId};
use baton_transfer::{Endpoints, Peer};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Raised whenever a message changes.
const VERSION: u32 = 2;
/// A publication of the largest arena has about 40 bytes for each block.
const LINE_MAX: u64 = 64 << 20;
/// How long the target holds blocks for a caller that says nothing.
pub(super) const SILENCE: Duration = Duration::from_mins(10);

/// What the pulling side asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Ask {
    /// Blocks of one size, in place of those before.
    Publish { version: u32, block_bytes: u64, blocks: u32, verbs: bool },
    /// The processor time used so far.
    Cpu,
}

/// What the target answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Answer {
    /// Blocks are there.
    Published(Box<Published>),
    /// Seconds of processor time.
    Cpu(f64),
    /// No, and why.
    Refused(String),
}

/// Where blocks can be pulled, and which.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Published {
    pub(super) worker: u32,
    pub(super) incarnation: u64,
    pub(super) token: [u8; 32],
    pub(super) host: String,
    pub(super) tcp: Option<SocketAddr>,
    pub(super) shm: Option<PathBuf>,
    /// Where RDMA is set up, if that was asked for.
    pub(super) verbs: Option<String>,
    /// Plain sockets, without frames.
    pub(super) raw: SocketAddr,
    pub(super) lease: u64,
    pub(super) lease_ms: u32,
    pub(super) block_bytes: u32,
    /// Slot, generation and checksum of each; its identity follows from its place here.
    pub(super) blocks: Vec<(u32, u64, u32)>,
}

impl Published {
    /// Whom to pull from.
    pub(super) fn peer(&self) -> Peer {
        Peer {
            worker: WorkerId(self.worker),
            incarnation: Incarnation(self.incarnation),
            endpoints: Endpoints {
                tcp: self.tcp,
                shm: self.shm.clone(),
                host: self.host.clone(),
                verbs: self.verbs.clone(),
                ..Endpoints::default()
            },
        }
    }

    /// The blocks, by their tags.
    pub(super) fn descriptors(&self) -> Vec<BlockDescriptor> {
        let describe =
            |(tag, &(slot, generation, crc)): (usize, &(u32, u64, u32))| BlockDescriptor {
                owner: WorkerId(self.worker),
                incarnation: Incarnation(self.incarnation),
                lease: LeaseId(self.lease),
                lease_remaining_ms: self.lease_ms,
                slot: SlotId(slot),
                generation: Generation(generation),
                hash: super::store::hash(tag as u64),
                group: GroupId(0),
                len: self.block_bytes,
                crc,
            };
        self.blocks.iter().enumerate().map(describe).collect()
    }
}

/// Either end of the connection.
pub(super) struct Channel {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Channel {
    pub(super) fn new(stream: TcpStream) -> Self {
        // Without it a small message may wait for an acknowledgement; the rest works all the same.
        let _ = stream.set_nodelay(true);
        let (reader, writer) = stream.into_split();
        Self { reader: BufReader::new(reader), writer }
    }

    /// The next message; `None` when the other side has gone.
    pub(super) async fn receive<T: DeserializeOwned>(&mut self) -> std::io::Result<Option<T>> {
        let mut line = String::new();
        (&mut self.reader).take(LINE_MAX).read_line(&mut line).await?;
        if line.is_empty() {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&line)?))
    }

    pub(super) async fn send<T: Serialize>(&mut self, message: &T) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.writer.write_all(&line).await
    }

    async fn ask(&mut self, ask: &Ask) -> Result<Answer, Failure> {
        let broken = |what: &str| {
            let message = format!("the target does not answer: {what}");
            Failure::new(Exit::Unavailable, message)
        };
        let answer = async {
            self.send(ask).await?;
            self.receive().await
        };
        match answer.await {
            Ok(Some(Answer::Refused(why))) => Err(Failure::new(Exit::Unavailable, why)),
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(broken("it has gone")),
            Err(error) => Err(broken(&error.to_string())),
        }
    }

    /// Has blocks published.
    pub(super) async fn publish(
        &mut self,
        block_bytes: u64,
        blocks: u32,
        verbs: bool,
    ) -> Result<Published, Failure> {
        let ask = Ask::Publish { version: VERSION, block_bytes, blocks, verbs };
        match self.ask(&ask).await? {
            Answer::Published(published) if published.blocks.len() == blocks as usize => {
                Ok(*published)
            }
            _ => Err(other_release()),
        }
    }

    /// Seconds of processor time that the target has used.
    pub(super) async fn cpu(&mut self) -> Result<f64, Failure> {
        match self.ask(&Ask::Cpu).await? {
            Answer::Cpu(seconds) => Ok(seconds),
            _ => Err(other_release()),
        }
    }
}

/// Whether a caller speaks this release's language.
pub(super) fn understood(version: u32) -> bool {
    version == VERSION
}

fn other_release() -> Failure {
    Failure::new(Exit::Unavailable, "the target answered something else than was asked")
        .with_hint("run the same release on both sides")
}
