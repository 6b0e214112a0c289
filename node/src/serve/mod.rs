//! Answering HTTP/1 and HTTP/2 on one port, with a bound on everything a peer can hold.
//!
//! The accept loop is our own because the ready-made ones leave out what a public port needs:
//! timers for a peer that says nothing, that says it slowly, or that does not listen. Which limit
//! applies when is decided in [`activity`]; this module binds and accepts.

mod activity;
mod body;
mod connection;

use std::borrow::Cow;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::{ByteSize, Span, Threshold};
use crate::limits::Budget;
use crate::{Exit, Hint, Tasks};

pub use body::BodyFault;

/// How a port is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServeConfig {
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Whether to listen without TLS where other machines can reach it.
    pub insecure_plaintext: bool,
    /// Connections at a time; further ones are told to come back.
    pub connections_max: u32,
    /// How long a new connection may say nothing.
    pub first_byte_timeout: Span,
    /// How long the head of a request may take from its first byte on.
    pub header_timeout: Span,
    /// How long a whole request body may take. `"inf"` where streams last.
    pub body_timeout: Threshold<Span>,
    /// How large a request body may be. `"inf"` where streams last.
    pub body_bytes_max: Threshold<ByteSize>,
    /// How long a connection may go without a request.
    pub idle_timeout: Span,
    /// How long a peer may leave our bytes unread.
    pub stall_timeout: Span,
}

impl Default for ServeConfig {
    /// For clients nobody knows.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            insecure_plaintext: false,
            connections_max: 1024,
            first_byte_timeout: Span::secs(10),
            header_timeout: Span::secs(10),
            body_timeout: Threshold::At(Span::secs(30)),
            body_bytes_max: Threshold::At(ByteSize::mib(16)),
            idle_timeout: Span::secs(75),
            stall_timeout: Span::secs(30),
        }
    }
}

impl ServeConfig {
    /// For the other daemons of the cluster, whose requests are streams without an end.
    pub fn internal() -> Self {
        Self {
            body_timeout: Threshold::Never,
            body_bytes_max: Threshold::Never,
            idle_timeout: Span::secs(600),
            ..Self::default()
        }
    }

    /// Reads a section in which `self` is what it does not say.
    pub fn section<'de, D: Deserializer<'de>>(self, section: D) -> Result<Self, D::Error> {
        let said = toml::Table::deserialize(section)?;
        let mut whole = toml::Table::try_from(self).map_err(D::Error::custom)?;
        whole.extend(said);
        Self::deserialize(whole).map_err(|error| D::Error::custom(error.message()))
    }

    /// Reads a section of a daemon that others of the cluster talk to.
    pub fn internal_section<'de, D: Deserializer<'de>>(section: D) -> Result<Self, D::Error> {
        Self::internal().section(section)
    }

    /// Adds what connections can hold at most to a budget, under `key`.
    #[must_use]
    pub fn budget(&self, key: &'static str, budget: Budget) -> Budget {
        budget.with(key, u64::from(self.connections_max), connection::BYTES_MAX)
    }
}

/// A port that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Other machines would reach it without TLS.
    #[error("{listen} is reachable from other machines, and there is no TLS")]
    Plaintext {
        /// The address.
        listen: SocketAddr,
    },
    /// Somebody else has it.
    #[error("{listen} is in use")]
    InUse {
        /// The address.
        listen: SocketAddr,
    },
    /// The system does not allow it.
    #[error("no permission to listen on {listen}")]
    Permission {
        /// The address.
        listen: SocketAddr,
    },
    /// Anything else.
    #[error("cannot listen on {listen}")]
    System {
        /// The address.
        listen: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

impl Hint for BindError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        Some(match self {
            Self::Plaintext { .. } => {
                "listen on 127.0.0.1, or write `insecure_plaintext = true` if the network is yours"
                    .into()
            }
            Self::InUse { .. } => {
                "another process listens there; take another port, or 0 for any free one".into()
            }
            Self::Permission { listen } if listen.port() < 1024 => {
                "ports below 1024 are for root; take a higher one".into()
            }
            Self::System { source, .. } if source.kind() == io::ErrorKind::AddrNotAvailable => {
                "no interface of this machine has the address".into()
            }
            Self::Permission { .. } | Self::System { .. } => return None,
        })
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Plaintext { .. } => Exit::Config,
            Self::InUse { .. } | Self::System { .. } => Exit::Unavailable,
            Self::Permission { .. } => Exit::Permission,
        }
    }
}

/// A bound port that nobody answers on yet.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    local: SocketAddr,
    config: ServeConfig,
}

/// Connections that wait in the kernel for the accept loop.
const BACKLOG: i32 = 1024;

/// Binds the port of a configuration.
pub fn bind(config: &ServeConfig) -> Result<Listener, BindError> {
    let listen = config.listen;
    if !listen.ip().is_loopback() && !config.insecure_plaintext {
        return Err(BindError::Plaintext { listen });
    }
    let bound = || -> io::Result<(TcpListener, SocketAddr)> {
        let socket = Socket::new(Domain::for_address(listen), Type::STREAM, Some(Protocol::TCP))?;
        // A restarted daemon takes its port back although old connections linger.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&listen.into())?;
        socket.listen(BACKLOG)?;
        let socket = TcpListener::from(socket);
        let local = socket.local_addr()?;
        Ok((socket, local))
    };
    let (socket, local) = bound().map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { listen },
        io::ErrorKind::PermissionDenied => BindError::Permission { listen },
        _ => BindError::System { listen, source },
    })?;
    Ok(Listener { socket, local, config: *config })
}

impl Listener {
    /// The address with the port that was taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Answers with `router` until the drain begins: then nobody is accepted any more, idle
    /// connections close, and requests in flight are finished. Must be called inside a runtime.
    ///
    /// Handlers find the peer's address as axum's `ConnectInfo<SocketAddr>`. The size of bodies
    /// is bounded here; axum's own default bound is switched off.
    pub fn serve(self, router: Router, tasks: &Tasks) -> io::Result<()> {
        let socket = tokio::net::TcpListener::from_std(self.socket)?;
        let router = router.layer(axum::extract::DefaultBodyLimit::disable());
        let server = Server {
            router,
            tasks: tasks.clone(),
            connections: Arc::new(Semaphore::new(self.config.connections_max as usize)),
            farewells: Arc::new(Semaphore::new(FAREWELLS_MAX)),
            config: self.config,
        };
        tasks.spawn_vital("accept", async move {
            let drain = server.tasks.drain().clone();
            tokio::select! {
                () = drain.draining() => {}
                () = server.accept(&socket) => {}
            }
        });
        Ok(())
    }
}

/// How many refused connections are told so at a time; further ones are closed without a word.
const FAREWELLS_MAX: usize = 64;

/// What a refused connection is told.
const FAREWELL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n\
    connection: close\r\ncontent-length: 0\r\n\r\n";

/// How long a refused peer may take to hear it.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the loop waits when the system is out of files or memory.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

struct Server {
    router: Router,
    tasks: Tasks,
    connections: Arc<Semaphore>,
    farewells: Arc<Semaphore>,
    config: ServeConfig,
}

impl Server {
    async fn accept(&self, socket: &tokio::net::TcpListener) {
        loop {
            match socket.accept().await {
                Ok((stream, peer)) => self.admit(stream, peer),
                // The peer gave up while it waited; the next one has not.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr) {
        let Ok(permit) = Arc::clone(&self.connections).try_acquire_owned() else {
            return self.refuse(stream);
        };
        // Tokens are small and somebody waits for each.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        let (router, tasks, config) = (self.router.clone(), self.tasks.clone(), self.config);
        self.tasks.spawn("connection", async move {
            connection::serve(stream, peer, router, &tasks, &config).await;
            drop(permit);
        });
    }

    fn refuse(&self, stream: TcpStream) {
        if let Ok(permit) = Arc::clone(&self.farewells).try_acquire_owned() {
            self.tasks.spawn("farewell", async move {
                let _ = tokio::time::timeout(FAREWELL_TIMEOUT, farewell(stream, permit)).await;
            });
        }
    }
}

/// Tells a peer that it was refused. What it sent is read first: closing with unread bytes would
/// reset the connection, and the peer would never see the answer.
async fn farewell(mut stream: TcpStream, _permit: OwnedSemaphorePermit) -> io::Result<()> {
    stream.write_all(FAREWELL).await?;
    stream.shutdown().await?;
    let mut unread = [0; 1024];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests;
