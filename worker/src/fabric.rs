//! RDMA set-up over gRPC: the `Fabric` service of a worker, and the calls to those of others.

use crate::peers::{PeerChannel, Peers};
use baton_proto::internal as pb;
use baton_proto::internal::fabric_client::FabricClient;
use baton_proto::internal::fabric_server::Fabric;
use baton_transfer::Refused;
use baton_transfer::verbs::{Call, Server, SignalError, Signalling};
use std::io;
use std::sync::Arc;
use tonic::{Code, Request, Response, Status};

/// Answers peers that want blocks over verbs. Whoever gets here belongs to the cluster: the
/// interceptor in front has seen the bearer token.
#[derive(Clone)]
pub struct FabricService {
    /// Pairs queue pairs and opens windows.
    pub server: Arc<Server>,
}

#[tonic::async_trait]
impl Fabric for FabricService {
    async fn pair(
        &self,
        request: Request<pb::PairRequest>,
    ) -> Result<Response<pb::PairReply>, Status> {
        Ok(Response::new(self.server.pair(request.into_inner()).await))
    }

    async fn open(
        &self,
        request: Request<pb::OpenRequest>,
    ) -> Result<Response<pb::OpenReply>, Status> {
        Ok(Response::new(self.server.open(request.into_inner()).await))
    }

    async fn push(
        &self,
        request: Request<pb::PushRequest>,
    ) -> Result<Response<pb::PushReply>, Status> {
        Ok(Response::new(self.server.push(request.into_inner()).await))
    }

    async fn close(
        &self,
        request: Request<pb::CloseRequest>,
    ) -> Result<Response<pb::CloseReply>, Status> {
        Ok(Response::new(self.server.close(request.into_inner()).await))
    }
}

/// Calls the `Fabric` services of peers, over the connections that the daemon has to them anyway.
#[derive(Clone, Debug)]
pub struct GrpcSignalling {
    /// Those connections.
    pub peers: Peers,
}

impl GrpcSignalling {
    fn call<T, F>(&self, uri: &str, method: impl FnOnce(FabricClient<PeerChannel>) -> F) -> Call<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<Response<T>, Status>> + Send + 'static,
    {
        let address = uri.to_owned();
        let called = self.peers.channel(uri).map(|channel| method(FabricClient::new(channel)));
        Box::pin(async move {
            let answered = match called {
                Ok(call) => call.await,
                Err(status) => Err(status),
            };
            answered.map(Response::into_inner).map_err(|status| failed(&status, address))
        })
    }
}

impl Signalling for GrpcSignalling {
    fn pair(&self, uri: &str, request: pb::PairRequest) -> Call<pb::PairReply> {
        self.call(uri, |mut peer| async move { peer.pair(request).await })
    }

    fn open(&self, uri: &str, request: pb::OpenRequest) -> Call<pb::OpenReply> {
        self.call(uri, |mut peer| async move { peer.open(request).await })
    }

    fn push(&self, uri: &str, request: pb::PushRequest) -> Call<pb::PushReply> {
        self.call(uri, |mut peer| async move { peer.push(request).await })
    }

    fn close(&self, uri: &str, request: pb::CloseRequest) -> Call<pb::CloseReply> {
        self.call(uri, |mut peer| async move { peer.close(request).await })
    }
}

/// What gRPC says of a failed call, in the words of the data plane.
fn failed(status: &Status, address: String) -> SignalError {
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => SignalError::Refused(Refused::Token),
        Code::ResourceExhausted => SignalError::Refused(Refused::Busy),
        Code::Unimplemented => SignalError::Protocol { what: "the peer does not serve `Fabric`" },
        Code::InvalidArgument => SignalError::Protocol { what: "the peer refused a message" },
        Code::DeadlineExceeded => {
            SignalError::Unreachable { address, kind: io::ErrorKind::TimedOut }
        }
        _ => SignalError::Unreachable { address, kind: io::ErrorKind::NotConnected },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn every_failure_of_a_call_is_named() {
        let named = |code| failed(&Status::new(code, ""), "a".into());
        assert_eq!(named(Code::Unauthenticated), SignalError::Refused(Refused::Token));
        assert_eq!(named(Code::ResourceExhausted), SignalError::Refused(Refused::Busy));
        assert!(matches!(named(Code::Unimplemented), SignalError::Protocol { .. }));
        let kind = io::ErrorKind::NotConnected;
        assert_eq!(
            named(Code::Unavailable),
            SignalError::Unreachable { address: "a".into(), kind }
        );
    }
}
