//! RDMA set-up over gRPC: the `Fabric` service of a worker, and the calls to those of others.

use crate::peers::{PeerChannel, Peers};
use baton_node::auth::ServerAuth;
use baton_proto::internal as pb;
use baton_proto::internal::fabric_client::FabricClient;
use baton_proto::internal::fabric_server::{Fabric, FabricServer};
use baton_transfer::Refused;
use baton_transfer::verbs::{Call, Server, SignalError, Signalling};
use std::io;
use std::sync::Arc;
use tonic::service::interceptor::InterceptedService;
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

/// The service as daemons offer it: to those who have the cluster's token.
pub(crate) fn guarded<F: Fabric>(
    fabric: F,
    auth: &ServerAuth,
) -> InterceptedService<FabricServer<F>, ServerAuth> {
    InterceptedService::new(FabricServer::new(fabric), auth.clone())
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
    use baton_node::auth::{ClientAuth, ClusterSecret};
    use baton_node::drain::Drain;
    use baton_node::serve::{self, ServeConfig};
    use baton_node::task::Tasks;
    use std::time::Duration;
    use tonic::service::Routes;

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

    /// Answers everybody who gets here.
    struct Open;

    #[tonic::async_trait]
    impl Fabric for Open {
        async fn pair(
            &self,
            _: Request<pb::PairRequest>,
        ) -> Result<Response<pb::PairReply>, Status> {
            Ok(Response::new(pb::PairReply::default()))
        }

        async fn open(
            &self,
            _: Request<pb::OpenRequest>,
        ) -> Result<Response<pb::OpenReply>, Status> {
            Ok(Response::new(pb::OpenReply::default()))
        }

        async fn push(
            &self,
            _: Request<pb::PushRequest>,
        ) -> Result<Response<pb::PushReply>, Status> {
            Ok(Response::new(pb::PushReply::default()))
        }

        async fn close(
            &self,
            _: Request<pb::CloseRequest>,
        ) -> Result<Response<pb::CloseReply>, Status> {
            Ok(Response::new(pb::CloseReply::default()))
        }
    }

    /// Over a socket and through the routes of a daemon: its own secret opens, another does not.
    #[tokio::test]
    async fn a_wrong_cluster_secret_gets_no_queue_pairs_and_no_windows() {
        let [right, wrong] = [(); 2].map(|()| ClusterSecret::generate().unwrap());
        let tasks = Tasks::new(&Drain::new(Duration::ZERO), 64);
        let listener = serve::bind(&ServeConfig::internal()).unwrap();
        let uri = format!("http://{}", listener.local_addr());
        let fabric = guarded(Open, &ServerAuth::new(&right));
        listener.serve(Routes::new(fabric).into_axum_router(), &tasks).unwrap();
        let calls = |secret| GrpcSignalling { peers: Peers::new(ClientAuth::new(secret)) };
        assert!(calls(&right).pair(&uri, pb::PairRequest::default()).await.is_ok());

        let (calls, refused) = (calls(&wrong), SignalError::Refused(Refused::Token));
        let answers = [
            calls.pair(&uri, pb::PairRequest::default()).await.map(drop),
            calls.open(&uri, pb::OpenRequest::default()).await.map(drop),
            calls.push(&uri, pb::PushRequest::default()).await.map(drop),
            calls.close(&uri, pb::CloseRequest::default()).await.map(drop),
        ];
        for answer in answers {
            assert_eq!(answer, Err(refused.clone()));
        }
    }
}
