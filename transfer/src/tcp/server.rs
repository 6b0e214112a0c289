//! The owner's side: a bounded number of connections, each with a task of its own.

use super::answer::serve;
use super::stream::Stream;
use super::tls::TlsIdentity;
use crate::guards::Guards;
use crate::serve::{Seat, Seats, ServeLimits, judge};
use crate::wire::{Hello, Welcome};
use crate::{Refused, ServeContext};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// How long to wait when no connection can be accepted, for want of descriptors usually.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listening data plane. It serves until its context's `shutdown`.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    address: SocketAddr,
}

impl Server {
    /// Starts to serve an arena at an address; port 0 picks one.
    pub async fn bind(
        address: SocketAddr,
        context: ServeContext,
        limits: ServeLimits,
    ) -> io::Result<Self> {
        Self::with_tls(address, context, limits, None).await
    }

    /// The same; with an identity, only over encrypted connections.
    pub async fn with_tls(
        address: SocketAddr,
        context: ServeContext,
        limits: ServeLimits,
        tls: Option<TlsIdentity>,
    ) -> io::Result<Self> {
        Self::guarded(address, context, limits, tls, Guards::default()).await
    }

    pub(crate) async fn guarded(
        address: SocketAddr,
        context: ServeContext,
        limits: ServeLimits,
        tls: Option<TlsIdentity>,
        guards: Guards,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let host = Arc::new(Host { context, limits, tls, guards });
        host.context.tasks.spawn(accept(listener, Arc::clone(&host)));
        Ok(Self { address })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

pub(super) struct Host {
    pub(super) context: ServeContext,
    pub(super) limits: ServeLimits,
    tls: Option<TlsIdentity>,
    pub(super) guards: Guards,
}

async fn accept(listener: TcpListener, host: Arc<Host>) {
    let seats = Seats::new(&host.limits);
    loop {
        let accepted = tokio::select! {
            () = host.context.shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        if let Some(seat) = seats.take() {
            host.context.tasks.spawn(connection(stream, Arc::clone(&host), seat));
        }
    }
}

async fn connection(socket: TcpStream, host: Arc<Host>, seat: Seat) {
    let outcome = async {
        socket.set_nodelay(true)?;
        let greeted = async {
            let mut stream = Stream::called(socket, host.tls.as_ref()).await?;
            greet(&mut stream, &seat, &host).await.map(|()| stream)
        };
        let mut stream = timeout(host.limits.hello, greeted).await??;
        serve(&mut stream, &host).await
    };
    if let Err(error) = outcome.await {
        tracing::debug!(%error, "a tcp peer left");
    }
}

/// Hears the hello and answers it.
async fn greet(stream: &mut Stream, seat: &Seat, host: &Host) -> io::Result<()> {
    let mut hello = [0; Hello::BYTES];
    stream.read_exact(&mut hello).await?;
    let judged = match (stream.is_direct(), &host.tls) {
        (true, Some(_)) => Err(Refused::Tls),
        _ => judge(&hello, seat, &host.context, host.guards),
    };
    match judged {
        Ok(welcome) => stream.write_all(&welcome.to_bytes()).await,
        Err(refused) => {
            stream.write_all(&Welcome::Declined(refused).to_bytes()).await?;
            // What a caller said beyond a hello must not keep it from hearing the answer, as the
            // reset would with which the system closes a connection that has bytes left.
            let _ = stream.read_now(&mut [0; 4096]);
            Err(io::Error::new(io::ErrorKind::PermissionDenied, refused))
        }
    }
}
