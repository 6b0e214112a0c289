//! The owner's side: hands out the arena and a pin board, and watches over who has them.

use super::boards::{Boards, Gate, Place};
use super::{fd, life};
use crate::ServeContext;
use crate::guards::Guards;
use crate::serve::{Seat, Seats, ServeLimits, judge};
use crate::wire::{Hello, Welcome};
use baton_arena::Board;
use baton_kv::pool;
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

/// How often a reader's pins are counted while it is connected, and looked for once it is not.
const AUDIT: Duration = Duration::from_millis(100);

/// How often a reader that was told to pin nothing more may be seen with too many pins before its
/// board is looked at no longer. One that keeps the rules can be, while it still turns over what it
/// began to map before it was told, and not as often.
const STRIKES: u32 = 10;

/// A socket that hands out an arena. It serves until its context's `shutdown`. Slots that readers
/// have mapped are kept from the context's pool.
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
        let boards = Boards::default();
        let gate = Gate::new(context.arena.clone(), boards.clone(), guards);
        pool::lock(&context.pool).add_gate(Box::new(gate));
        let host = Arc::new(Host { context, limits, guards, boards });
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
    boards: Boards,
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
    host.boards.end();
    let _ = fs::remove_file(path);
}

/// Hands out the arena, then waits for the end of either side.
async fn connection(mut stream: UnixStream, host: Arc<Host>, seat: Seat) {
    // Before the hello: as long as the caller waits for an answer it is there, and is who it is.
    let caller = match life::of_peer(&stream) {
        Ok(caller) => caller,
        // Without it nobody could say when its pins are void. It comes again, or another way.
        Err(error) => return tracing::warn!(%error, "a shm peer was turned away"),
    };
    let greeting = tokio::select! {
        () = host.context.shutdown.cancelled() => return,
        greeting = timeout(host.limits.hello, greet(&mut stream, &seat, &host)) => greeting,
    };
    let welcome = match greeting {
        Ok(Ok(welcome)) => welcome,
        Ok(Err(error)) => return tracing::debug!(%error, "a shm peer was turned away"),
        Err(late) => return tracing::debug!(%late, "a shm peer said nothing"),
    };
    let arena = &host.context.arena;
    // One reader alone shall not be able to keep everything from being reused.
    let limit = host.limits.mapped_slots.min(arena.slots().div_ceil(4));
    let board = match Board::create(arena.slots(), limit) {
        Ok(board) => board,
        Err(error) => return tracing::warn!(%error, "no pin board for a shm peer"),
    };
    // It is looked at before anybody can write on it. After the end nobody would look.
    let Some(place) = host.boards.add(board) else { return };
    let fds = [arena.fd(), place.board().fd()];
    match timeout(host.limits.hello, fd::send(&stream, &welcome.to_bytes(), fds)).await {
        Ok(Ok(())) => watch(stream, place, caller, &host).await,
        failed => {
            tracing::debug!(?failed, "a shm peer was not answered");
            see_off(stream, place, caller, &host).await;
        }
    }
}

/// Waits for the end of a connection whose caller has the arena and a board, or for that of the
/// caller: what it has left behind may keep the connection.
async fn watch(mut stream: UnixStream, place: Place, caller: Option<life::Life>, host: &Host) {
    let mut unexpected = [0; 1];
    loop {
        tokio::select! {
            () = host.context.shutdown.cancelled() => break,
            // A peer has nothing more to say: this is its end, or it breaks the protocol.
            _ = stream.read(&mut unexpected) => break,
            () = tokio::time::sleep(AUDIT) => {}
        }
        if caller.as_ref().is_some_and(life::Life::has_ended) {
            break;
        }
        if place.board().exceeds_limit() {
            let limit = place.board().limit();
            tracing::warn!(limit, "a shm peer maps more slots than it may: its connection ends");
            break;
        }
    }
    // Whoever is there learns that it has to come again.
    let _ = stream.shutdown().await;
    see_off(stream, place, caller, host).await;
}

/// The connection has ended; what the reader has mapped it may still be reading, until it lets go
/// or is dead. That holds also for one that was suspected of pinning too much: only where more than
/// it may stays pinned on the closed board is it looked at no longer.
async fn see_off(stream: UnixStream, place: Place, caller: Option<life::Life>, host: &Host) {
    place.board().close();
    let has_ended = || match &caller {
        Some(caller) => caller.has_ended(),
        // The system does not tell about processes: the end of the connection, on the caller's
        // side, has to stand for that of the caller.
        None => !matches!(
            stream.try_read(&mut [0; 1]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock
        ),
    };
    let mut strikes = 0;
    while !has_ended() {
        let (pinned, limit) = (place.board().pinned(), place.board().limit());
        strikes += u32::from(pinned > limit);
        if strikes == STRIKES {
            tracing::warn!(pinned, limit, "a shm peer maps more slots than it may: cut off");
        }
        if pinned == 0 || strikes == STRIKES {
            break;
        }
        tokio::select! {
            // What it has pinned stays pinned: the pool may live on.
            () = host.context.shutdown.cancelled() => return,
            () = tokio::time::sleep(AUDIT) => {}
        }
    }
    place.leave();
}

/// Hears the hello; the answer to a caller who may come in.
async fn greet(stream: &mut UnixStream, seat: &Seat, host: &Host) -> io::Result<Welcome> {
    let mut hello = [0; Hello::BYTES];
    stream.read_exact(&mut hello).await?;
    match judge(&hello, seat, &host.context, host.guards) {
        Ok(welcome) => Ok(welcome),
        Err(refused) => {
            stream.write_all(&Welcome::Declined(refused).to_bytes()).await?;
            Err(io::Error::new(io::ErrorKind::PermissionDenied, refused))
        }
    }
}
