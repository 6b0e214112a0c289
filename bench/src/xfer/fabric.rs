//! RDMA between the two processes of a measurement: set up over gRPC, as daemons do it.

use baton_node::auth::{ClientAuth, ClusterSecret};
use baton_node::exit::{Exit, Failure};
use baton_proto::ids::{Incarnation, WorkerId};
use baton_proto::internal::fabric_server::FabricServer;
use baton_transfer::verbs::{Adapter, Server, Verbs, VerbsOptions};
use baton_transfer::{
    Identity, InFlight, Local, Peer, Pull, ServeContext, ServeLimits, Transport, TransportKind,
};
use baton_worker::fabric::{FabricService, GrpcSignalling};
use baton_worker::peers::Peers;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;

/// Who measures.
const CALLER: Identity = Identity { worker: WorkerId(2), incarnation: Incarnation(1) };

/// Serves an arena over RDMA; where connections are set up.
pub(super) async fn serve(
    ip: IpAddr,
    context: ServeContext,
    options: &VerbsOptions,
) -> Result<String, String> {
    let adapter = Adapter::open(&context.arena, options).map_err(|error| error.to_string())?;
    let listener = TcpListener::bind(SocketAddr::new(ip, 0)).await;
    let listener = listener.map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let (tasks, shutdown) = (context.tasks.clone(), context.shutdown.clone());
    let server = Arc::new(Server::new(context, adapter, ServeLimits::default()));
    let router = tonic::transport::Server::builder()
        .add_service(FabricServer::new(FabricService { server }))
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), shutdown.cancelled_owned());
    tasks.spawn(router);
    Ok(format!("http://{address}"))
}

/// The pulling side.
pub(super) fn pulling(local: &Local, options: &VerbsOptions) -> Result<Verbs, Failure> {
    let unavailable = |error: &dyn std::fmt::Display| {
        Failure::new(Exit::Unavailable, format!("--transport verbs: {error}"))
    };
    let adapter = Adapter::open(&local.arena, options).map_err(|error| unavailable(&error))?;
    // The target asks for none, as its help says; the calls carry one all the same.
    let secret = ClusterSecret::generate().map_err(|error| unavailable(&error))?;
    let signalling = GrpcSignalling { peers: Peers::new(ClientAuth::new(&secret)) };
    Ok(Verbs::new(local.clone(), CALLER, adapter, Arc::new(signalling)))
}

/// Verbs with the owner writing.
pub(super) struct ByWrite(pub(super) Verbs);

impl Transport for ByWrite {
    fn kind(&self) -> TransportKind {
        TransportKind::Verbs
    }

    fn pull(&self, peer: &Peer, pulls: Vec<Pull>, deadline: Duration) -> InFlight {
        self.0.pull_by_write(peer, pulls, deadline)
    }
}
