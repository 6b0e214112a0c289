//! The transports of a worker: what it serves its blocks by, and what it pulls others' blocks with.

use crate::blocks::Blocks;
use crate::config::{Common, TlsConfig, TransferConfig, VerbsConfig, VerbsMode};
use crate::device;
use crate::fabric::{FabricService, GrpcSignalling};
use crate::links::Links;
use crate::peers::Peers;
use baton_node::auth::{ClusterSecret, Purpose};
use baton_node::clock::Clock;
use baton_node::exit::{Exit, Failure};
use baton_node::identity::Identity;
use baton_transfer::tcp::{TlsFile, TlsFiles, TlsIdentity};
use baton_transfer::verbs::{Adapter, Server, Verbs, VerbsOptions};
use baton_transfer::{
    Counters, Endpoints, Local, ServeContext, ServeLimits, Token, Transport, shm, tcp,
};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Open transports.
pub(crate) struct DataPlane {
    pub(crate) links: Links,
    pub(crate) endpoints: Endpoints,
    pub(crate) counters: Counters,
    /// Answers peers that want blocks over verbs, where these are offered.
    pub(crate) fabric: Option<FabricService>,
    pub(crate) shutdown: CancellationToken,
}

/// What others know this daemon by.
#[derive(Clone, Copy)]
pub(crate) struct Known<'a> {
    pub(crate) identity: &'a Identity,
    /// Where its gRPC services listen.
    pub(crate) grpc: SocketAddr,
    pub(crate) peers: &'a Peers,
}

impl DataPlane {
    /// Opens what the configuration asks for. Call it inside a runtime.
    pub(crate) async fn open(
        common: &Common<'_>,
        blocks: &Blocks,
        known: Known<'_>,
        secret: &ClusterSecret,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, Failure> {
        let identity = known.identity;
        let token = Token::new(*secret.derive(Purpose::Transfer).bytes());
        let counters = Counters::default();
        let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let local = Local {
            arena: blocks.arena().clone(),
            token: token.clone(),
            counters: counters.clone(),
            tasks: tasks.clone(),
            shutdown: shutdown.clone(),
        };
        let lease_clock = Arc::clone(clock);
        let serve = ServeContext {
            arena: blocks.arena().clone(),
            pool: Arc::clone(blocks.pool()),
            identity: baton_transfer::Identity {
                worker: identity.worker,
                incarnation: identity.incarnation,
            },
            token,
            clock: Arc::new(move || lease_clock.now()),
            counters: counters.clone(),
            tasks,
            shutdown: shutdown.clone(),
        };
        let limits =
            ServeLimits { connections: common.transfer.connections, ..ServeLimits::default() };
        let sides = Sides { local, serve, limits };
        let (tcp, tcp_address) = sides.tcp(common.transfer).await?;
        let (shm, shm_path) = sides.shm(common.transfer, &identity.name).await?.unzip();
        let (verbs, fabric) = sides.verbs(&common.transfer.verbs, known.peers)?.unzip();
        let host = identity.host.clone();
        let endpoints = Endpoints {
            tcp: Some(tcp_address),
            shm: shm_path,
            host: host.clone(),
            verbs: fabric.is_some().then(|| fabric_uri(known.grpc, tcp_address)),
            sim: None,
        };
        let links = Links { tcp, shm, verbs, prefer: common.transfer.prefer, host };
        Ok(Self { links, endpoints, counters, fabric, shutdown })
    }
}

/// The pulling side of a transport.
type Link = Arc<dyn Transport>;

/// What both sides of every transport need.
struct Sides {
    local: Local,
    serve: ServeContext,
    limits: ServeLimits,
}

impl Sides {
    async fn tcp(&self, config: &TransferConfig) -> Result<(Link, SocketAddr), Failure> {
        let tls = tls_identity(&config.tls)?;
        let server =
            tcp::Server::with_tls(config.tcp_listen, self.serve.clone(), self.limits, tls.clone())
                .await
                .map_err(|error| unavailable("transfer.tcp_listen", &error))?;
        let link = tcp::Tcp::with_tls(self.local.clone(), tcp::TcpOptions::default(), tls);
        Ok((Arc::new(link), server.local_addr()))
    }

    async fn shm(
        &self,
        config: &TransferConfig,
        name: &str,
    ) -> Result<Option<(Link, PathBuf)>, Failure> {
        if config.shm_dir.as_os_str().is_empty() {
            return Ok(None);
        }
        let path = config.shm_dir.join(format!("{name}.sock"));
        let limits = ServeLimits { mapped_slots: config.shm_mapped_slots, ..self.limits };
        shm::Server::bind(&path, self.serve.clone(), limits)
            .await
            .map_err(|error| unavailable("transfer.shm_dir", &error))?;
        let options = shm::ShmOptions { threads: config.shm_threads, ..shm::ShmOptions::default() };
        let link = shm::Shm::new(self.local.clone(), options);
        Ok(Some((Arc::new(link), path)))
    }

    fn verbs(
        &self,
        config: &VerbsConfig,
        peers: &Peers,
    ) -> Result<Option<(Link, FabricService)>, Failure> {
        if config.mode == VerbsMode::Off {
            return Ok(None);
        }
        let device = device::choice(config);
        let options = VerbsOptions { device, ..VerbsOptions::default() };
        let adapter = match Adapter::open(&self.local.arena, &options) {
            Ok(adapter) => adapter,
            Err(error) if config.mode == VerbsMode::Auto => {
                tracing::info!(%error, "no RDMA: blocks go by shared memory and tcp");
                return Ok(None);
            }
            Err(error) => return Err(device::required(error)),
        };
        let signalling = Arc::new(GrpcSignalling { peers: peers.clone() });
        let identity = self.serve.identity;
        let link = Verbs::new(self.local.clone(), identity, adapter.clone(), signalling);
        let server = Server::new(self.serve.clone(), adapter, self.limits);
        Ok(Some((Arc::new(link), FabricService { server: Arc::new(server) })))
    }
}

/// Refuses, before anything is loaded, what would be refused in [`DataPlane::open`]: files of TLS
/// that cannot be used, and a device that has to be there and is not.
pub(crate) fn preflight(config: &TransferConfig) -> Result<(), Failure> {
    tls_identity(&config.tls)?;
    if config.verbs.mode == VerbsMode::Required {
        device::find(&config.verbs).map_err(device::required)?;
    }
    Ok(())
}

/// Where peers reach the gRPC services: a listener on all addresses is reached where blocks are.
fn fabric_uri(grpc: SocketAddr, tcp: SocketAddr) -> String {
    let ip = if grpc.ip().is_unspecified() { tcp.ip() } else { grpc.ip() };
    format!("http://{}", SocketAddr::new(ip, grpc.port()))
}

/// What peers are shown over tcp, if certificates are configured.
fn tls_identity(config: &TlsConfig) -> Result<Option<TlsIdentity>, Failure> {
    if !config.is_on() {
        return Ok(None);
    }
    let TlsConfig { cert, key, ca } = config;
    TlsIdentity::load(TlsFiles { cert, key, ca }).map(Some).map_err(|error| {
        let name = match error.file() {
            TlsFile::Cert => "cert",
            TlsFile::Key => "key",
            TlsFile::Ca => "ca",
        };
        Failure::new(Exit::Config, format!("`transfer.tls.{name}`: {error}"))
    })
}

fn unavailable(key: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::Unavailable, format!("cannot serve blocks at `{key}`: {error}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn peers_are_told_an_address_that_they_can_reach() {
        let tcp = "10.0.0.7:7000".parse().unwrap();
        let uri = |grpc: &str| fabric_uri(grpc.parse().unwrap(), tcp);
        assert_eq!(uri("10.0.0.8:50051"), "http://10.0.0.8:50051");
        assert_eq!(uri("0.0.0.0:50051"), "http://10.0.0.7:50051");
        assert_eq!(uri("[::]:50051"), "http://10.0.0.7:50051");
    }

    /// What a start with these files ends with.
    fn refused(tls: TlsConfig) -> String {
        let transfer = TransferConfig { tls, ..TransferConfig::default() };
        let failure = preflight(&transfer).unwrap_err();
        assert_eq!(failure.exit(), Exit::Config);
        failure.to_string()
    }

    #[test]
    fn files_of_tls_that_cannot_be_used_end_the_start_and_are_named_by_their_key() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let made = || rcgen::generate_simple_self_signed(["worker".to_owned()]).unwrap();
        let (own, other) = (made(), made());
        let good = TlsConfig {
            cert: write("cert.pem", &own.cert.pem()),
            key: write("key.pem", &own.signing_key.serialize_pem()),
            ca: write("ca.pem", &other.cert.pem()),
        };
        let config = TransferConfig { tls: good.clone(), ..TransferConfig::default() };
        assert_eq!(preflight(&config), Ok(()));

        let missing = folder.path().join("missing.pem");
        let said = refused(TlsConfig { cert: missing.clone(), ..good.clone() });
        assert!(said.contains("`transfer.tls.cert`") && said.contains("missing.pem"), "{said}");
        let said = refused(TlsConfig { key: missing.clone(), ..good.clone() });
        assert!(said.contains("`transfer.tls.key`") && said.contains("missing.pem"), "{said}");
        let said = refused(TlsConfig { ca: missing, ..good.clone() });
        assert!(said.contains("`transfer.tls.ca`") && said.contains("missing.pem"), "{said}");
        // A key, but that of another certificate.
        let key = write("other.pem", &other.signing_key.serialize_pem());
        let said = refused(TlsConfig { key, ..good.clone() });
        assert!(said.contains("`transfer.tls.key`"), "{said}");
        let cert = write("empty.pem", "");
        let said = refused(TlsConfig { cert, ..good });
        assert!(said.contains("`transfer.tls.cert`"), "{said}");
    }
}
