//! The owner's side: hands out the arena, and keeps the socket open as a sign of life.

use super::fd;
use crate::ServeContext;
use crate::guards::Guards;
use crate::serve::{Seat, Seats, ServeLimits, judge};
use crate::wire::{Hello, Welcome};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

/// How long to wait when no connection can be accepted, for want of descriptors usually.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A socket that hands out an arena. It serves until its context's `shutdown`.
#[derive(Clone, Debug)]
pub struct Server {
    path: PathBuf,
}

impl Server {
    /// Starts to hand out an arena at a path, which only this user can then connect to. What an
    /// earlier process left there is replaced, unless somebody still listens. Best placed in a
    /// directory that only this user can enter.
    pub async fn bind(path: &Path, context: ServeContext, limits: ServeLimits) -> io::Result<Self> {
        Self::guarded(path, context, limits, Guards::default()).await
    }

    pub(crate) async fn guarded(
        path: &Path,
        context: ServeContext,
        limits: ServeLimits,
        guards: Guards,
    ) -> io::Result<Self> {
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if UnixStream::connect(path).await.is_ok() {
                    return Err(error);
                }
                fs::remove_file(path)?;
                UnixListener::bind(path)?
            }
            bound => bound?,
        };
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        let host = Arc::new(Host { context, limits, guards });
        let path = path.to_owned();
        host.context.tasks.spawn(accept(listener, path.clone(), Arc::clone(&host)));
        Ok(Self { path })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

struct Host {
    context: ServeContext,
    limits: ServeLimits,
    guards: Guards,
}

async fn accept(listener: UnixListener, path: PathBuf, host: Arc<Host>) {
    let seats = Seats::new(&host.limits);
    loop {
        let accepted = tokio::select! {
            () = host.context.shutdown.cancelled() => break,
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
    let _ = fs::remove_file(path);
}

/// Hands out the arena, then waits for the end of either side.
async fn connection(mut stream: UnixStream, host: Arc<Host>, seat: Seat) {
    match timeout(host.limits.hello, greet(&mut stream, &seat, &host)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return tracing::debug!(%error, "a shm peer was turned away"),
        Err(late) => return tracing::debug!(%late, "a shm peer said nothing"),
    }
    let mut unexpected = [0; 1];
    tokio::select! {
        () = host.context.shutdown.cancelled() => {}
        // A peer has nothing more to say: this is its end, or it breaks the protocol.
        _ = stream.read(&mut unexpected) => {}
    }
}

/// Hears the hello and answers it.
async fn greet(stream: &mut UnixStream, seat: &Seat, host: &Host) -> io::Result<()> {
    let mut hello = [0; Hello::BYTES];
    stream.read_exact(&mut hello).await?;
    match judge(&hello, seat, &host.context, host.guards) {
        Ok(welcome) => fd::send(stream, &welcome.to_bytes(), host.context.arena.fd()).await,
        Err(refused) => {
            stream.write_all(&Welcome::Declined(refused).to_bytes()).await?;
            Err(io::Error::new(io::ErrorKind::PermissionDenied, refused))
        }
    }
}
