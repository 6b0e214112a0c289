//! A running guest: its process, the sockets to it, and how it ends.

use super::arguments::Arguments;
use super::machine::{CONSOLE, Machine, PORTS};
use super::report::{Line, Outcome, Prefixed, Tail};
use super::{Event, OFF_MAX, own_folder};
use crate::failure::Failure;
use crate::process::Running;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The folder of one run, under a short name since paths of sockets are short. Dropping it removes it.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new() -> io::Result<Self> {
        let folder = own_folder(Path::new("/tmp"), "baton-vm.");
        std::fs::create_dir(&folder)?;
        Ok(Self(folder))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// One guest from its start to its end. Dropping it kills it.
pub(super) struct Guest {
    node: usize,
    folder: PathBuf,
    running: Running,
    readers: Vec<JoinHandle<()>>,
    /// The way back on the status port, once the guest is connected.
    status: Arc<Mutex<Option<UnixStream>>>,
    console: Arc<Mutex<Tail>>,
    ready: bool,
    exited: Option<(u8, Instant)>,
    /// Its process has ended and all it said has been read.
    gone: bool,
    outcome: Option<Outcome>,
}

impl Guest {
    pub(super) fn start(
        machine: &Machine,
        arguments: &Arguments,
        tell: SyncSender<Event>,
    ) -> Result<Self, Failure> {
        let (node, folder) = (machine.node, &machine.folder);
        std::fs::create_dir(folder)?;
        let directory = std::env::current_dir()?;
        std::fs::write(folder.join("guest.sh"), machine.script(arguments, &directory))?;
        let prefix = machine.pair.then_some(node);
        let console = Arc::new(Mutex::new(Tail::default()));
        let status = Arc::new(Mutex::new(None));
        let listen = |name: &str| UnixListener::bind(folder.join(name));
        let [stdout, stderr, port] = PORTS;
        let readers = vec![
            copy(listen(stdout)?, io::stdout(), Prefixed::new(prefix)),
            copy(listen(stderr)?, io::stderr(), Prefixed::new(prefix)),
            watch_status(listen(port)?, node, Arc::clone(&status), tell),
            keep(listen(CONSOLE)?, Arc::clone(&console)),
        ];
        let words = machine.command();
        let child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| Failure::new(format!("cannot run {}: {error}", words[0])))?;
        Ok(Self {
            node,
            folder: folder.clone(),
            running: Running::new(child),
            readers,
            status,
            console,
            ready: false,
            exited: None,
            gone: false,
            outcome: None,
        })
    }

    pub(super) fn ready(&mut self) {
        self.ready = true;
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }

    /// Lets the command begin.
    pub(super) fn go(&self) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(status) = status.as_mut() {
            // A guest that is gone is seen by its process.
            let _ = status.write_all(b"go\n");
        }
    }

    pub(super) fn exited(&mut self, status: u8, now: Instant) {
        self.exited.get_or_insert((status, now));
    }

    pub(super) fn is_over(&self) -> bool {
        self.outcome.is_some()
    }

    /// Sees whether the guest has ended or has had its time.
    pub(super) fn look(
        &mut self,
        now: Instant,
        started: Instant,
        arguments: &Arguments,
    ) -> io::Result<()> {
        if self.outcome.is_some() {
            return Ok(());
        }
        let node = self.node;
        let ended = self.running.wait(Duration::ZERO)?.is_some();
        // Its last words may still be on their way to the queue that is read between two looks.
        let silent = self.gone;
        if ended {
            self.release_readers();
            self.gone = self.readers.iter().all(JoinHandle::is_finished);
        }
        let took = now.duration_since(started);
        let console = String::new();
        self.outcome = match self.exited {
            Some((status, at)) if ended || now.duration_since(at) > OFF_MAX => {
                Some(Outcome::Exited(status))
            }
            None if silent => Some(Outcome::Died { node, console }),
            None if !ended && !self.ready && took > arguments.boot_timeout => {
                Some(Outcome::NotBooted { node, after: took, console })
            }
            None if took > arguments.timeout => Some(Outcome::TimedOut { node, after: took }),
            Some(_) | None => None,
        };
        Ok(())
    }

    /// A reader to whom the guest never came waits for somebody to come and go.
    fn release_readers(&self) {
        for name in PORTS.iter().chain(&[CONSOLE]) {
            // Refused where the guest did come.
            let _ = UnixStream::connect(self.folder.join(name));
        }
    }

    /// Ends the guest, shows the rest of its output, and says how it went.
    pub(super) fn finish(self) -> Outcome {
        self.release_readers();
        drop(self.running);
        for reader in self.readers {
            let _ = reader.join();
        }
        let tail = self.console.lock().unwrap_or_else(PoisonError::into_inner).text();
        match self.outcome.unwrap_or(Outcome::Died { node: self.node, console: String::new() }) {
            Outcome::Died { node, .. } => Outcome::Died { node, console: tail },
            Outcome::NotBooted { node, after, .. } => {
                Outcome::NotBooted { node, after, console: tail }
            }
            other => other,
        }
    }
}

/// Hands each piece of what comes from the first caller to `each`, to the end.
fn read(listener: UnixListener, mut each: impl FnMut(&[u8])) {
    let Ok((mut stream, _)) = listener.accept() else { return };
    drop(listener);
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        each(&bytes[..count]);
    }
}

/// Shows a guest's output as it comes.
fn copy(
    listener: UnixListener,
    mut to: impl Write + Send + 'static,
    mut lines: Prefixed,
) -> JoinHandle<()> {
    thread::spawn(move || {
        // A reader of ours that went away must not stop the guest.
        read(listener, |bytes| {
            let _ = to.write_all(&lines.push(bytes)).and_then(|()| to.flush());
        });
        let _ = to.write_all(&lines.end()).and_then(|()| to.flush());
    })
}

/// Keeps the end of a guest's console.
fn keep(listener: UnixListener, console: Arc<Mutex<Tail>>) -> JoinHandle<()> {
    thread::spawn(move || {
        read(listener, |bytes| console.lock().unwrap_or_else(PoisonError::into_inner).push(bytes));
    })
}

/// Turns the lines of the status port into events.
fn watch_status(
    listener: UnixListener,
    node: usize,
    back: Arc<Mutex<Option<UnixStream>>>,
    tell: SyncSender<Event>,
) -> JoinHandle<()> {
    thread::spawn(move || {
        let Ok((stream, _)) = listener.accept() else { return };
        drop(listener);
        *back.lock().unwrap_or_else(PoisonError::into_inner) = stream.try_clone().ok();
        // The longest line has eight bytes; more comes only from a command that found the port.
        let mut lines = BufReader::new(stream.take(1 << 20));
        let mut line = String::new();
        while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
            let event = match Line::parse(&line) {
                Some(Line::Ready) => Some(Event::Ready(node)),
                Some(Line::Exit(status)) => Some(Event::Exited(node, status)),
                None => None,
            };
            if event.is_some_and(|event| tell.send(event).is_err()) {
                return;
            }
            line.clear();
        }
    })
}
