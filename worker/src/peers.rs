//! gRPC connections to other daemons of the cluster.

use baton_node::auth::ClientAuth;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};

/// Peers connected at a time; beyond that the table is begun anew, which only costs handshakes.
const PEERS_MAX: usize = 1024;
/// A peer that does not answer the knock in that time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A frozen or vanished peer is noticed after these two: calls under way then fail.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection that shows that we are of the cluster.
pub type PeerChannel = InterceptedService<Channel, ClientAuth>;

/// Connections to other daemons, made when first used. Clones share them.
#[derive(Clone, Debug)]
pub struct Peers {
    channels: Arc<Mutex<BTreeMap<String, Channel>>>,
    auth: ClientAuth,
}

impl Peers {
    /// No connections yet.
    pub fn new(auth: ClientAuth) -> Self {
        Self { channels: Arc::default(), auth }
    }

    /// The connection to a daemon; call it inside a runtime.
    pub fn channel(&self, uri: &str) -> Result<PeerChannel, tonic::Status> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if channels.len() >= PEERS_MAX && !channels.contains_key(uri) {
            channels.clear();
        }
        let channel = if let Some(channel) = channels.get(uri) {
            channel.clone()
        } else {
            let channel = endpoint(uri)?.connect_lazy();
            channels.insert(uri.to_owned(), channel.clone());
            channel
        };
        Ok(InterceptedService::new(channel, self.auth.clone()))
    }
}

fn endpoint(uri: &str) -> Result<Endpoint, tonic::Status> {
    let endpoint = Endpoint::from_shared(uri.to_owned())
        .map_err(|_| tonic::Status::invalid_argument("the peer's address is no URI"))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT))
}
