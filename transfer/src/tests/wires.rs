//! What differs between the transports, all of it: how each is served, pulled from and missed.
//! Another transport joins the suite by an arm in each of these and a line in `on_all`.

use super::fabric::{self, Exchange};
use super::*;
use crate::shm::ShmOptions;
use crate::sim::{Fabric, Faults, Link, NodeId, SimOptions, SimTransport};
use crate::tcp::{TcpOptions, TlsIdentity};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicU32;

/// Where owners of the simulated network are.
pub(super) const NODE: NodeId = 1;

/// Where an owner is served, kept over its runs.
#[derive(Clone)]
pub(crate) struct Place {
    pub(super) kind: TransportKind,
    pub(super) tcp: SocketAddr,
    pub(super) shm: PathBuf,
    /// What owner and puller show to each other over tcp, if anything.
    pub(super) tls: [Option<TlsIdentity>; 2],
    /// Removed with the last handle.
    _dir: Arc<tempfile::TempDir>,
    sim: Option<Arc<Network>>,
    pub(super) verbs: Arc<Exchange>,
}

/// A simulated network, until the last handle on its place is dropped.
pub(crate) struct Network {
    pub(super) fabric: Fabric,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    pullers: AtomicU32,
}

impl Drop for Network {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// A link on which nothing is lost, though packets overtake each other and some come twice.
pub(super) fn sound() -> Link {
    Link {
        delay: Duration::from_millis(1),
        jitter: Duration::from_millis(1),
        bandwidth: Some(1_000_000_000),
        duplicate_ppm: 10_000,
        reorder: true,
        ..Link::default()
    }
}

impl Place {
    pub(super) fn new(kind: TransportKind) -> Self {
        let late = Duration::from_millis(3);
        Self::rough(kind, 1, sound(), Faults { late, ..Faults::default() })
    }

    /// A place whose network does what this says, if it is simulated.
    pub(super) fn rough(kind: TransportKind, seed: u64, link: Link, faults: Faults) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let shm = dir.path().join("arena.sock");
        let sim = (kind == TransportKind::Sim).then(|| {
            let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
            let fabric = Fabric::new(seed, link, faults, &tasks, shutdown.clone());
            Arc::new(Network { fabric, tasks, shutdown, pullers: AtomicU32::new(100) })
        });
        let tcp = "127.0.0.1:0".parse().unwrap();
        Self { kind, tcp, shm, tls: [None, None], _dir: dir, sim, verbs: Arc::default() }
    }

    pub(super) fn fabric(&self) -> &Fabric {
        &self.sim.as_ref().expect("a simulated place").fabric
    }

    pub(super) fn endpoints(&self) -> Endpoints {
        match self.kind {
            TransportKind::Shm => Endpoints { shm: Some(self.shm.clone()), ..Endpoints::default() },
            TransportKind::Tcp => Endpoints { tcp: Some(self.tcp), ..Endpoints::default() },
            TransportKind::Sim => Endpoints { sim: Some(NODE), ..Endpoints::default() },
            TransportKind::Verbs => verbs_at(fabric::HERE),
        }
    }

    /// Endpoints at which nobody is.
    pub(super) fn nowhere(kind: TransportKind) -> Endpoints {
        match kind {
            // Port 1 of the loopback net: refused at once.
            TransportKind::Tcp => {
                Endpoints { tcp: Some("127.0.0.1:1".parse().unwrap()), ..Endpoints::default() }
            }
            TransportKind::Shm => {
                Endpoints { shm: Some("/nowhere.sock".into()), ..Endpoints::default() }
            }
            TransportKind::Sim => Endpoints { sim: Some(NodeId::MAX), ..Endpoints::default() },
            TransportKind::Verbs => verbs_at(fabric::NOWHERE),
        }
    }

    /// Endpoints at which a connection is taken and nothing is said: the system does so for a
    /// process that is stopped.
    pub(super) fn frozen(&self) -> (Endpoints, Box<dyn std::any::Any + Send>) {
        match self.kind {
            TransportKind::Tcp => {
                let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                let tcp = Some(listener.local_addr().unwrap());
                (Endpoints { tcp, ..Endpoints::default() }, Box::new(listener))
            }
            TransportKind::Shm => {
                let path = self.shm.with_extension("frozen");
                let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
                (Endpoints { shm: Some(path), ..Endpoints::default() }, Box::new(listener))
            }
            TransportKind::Sim => {
                self.fabric().freeze(NODE);
                (self.endpoints(), Box::new(()))
            }
            TransportKind::Verbs => (verbs_at(fabric::FROZEN), Box::new(())),
        }
    }

    /// Starts to serve.
    pub(super) async fn serve(
        &mut self,
        context: ServeContext,
        limits: ServeLimits,
        guards: Guards,
    ) {
        match self.kind {
            TransportKind::Shm => {
                shm::Server::guarded(&self.shm, context, limits, guards).await.unwrap();
            }
            TransportKind::Tcp => {
                let server =
                    tcp::Server::guarded(self.tcp, context, limits, self.tls[0].clone(), guards)
                        .await
                        .unwrap();
                self.tcp = server.local_addr();
            }
            TransportKind::Sim => {
                sim::Server::guarded(self.fabric(), NODE, context, limits, guards).unwrap();
            }
            TransportKind::Verbs => {
                self.verbs.serve(context, limits, guards, &fabric::options());
            }
        }
    }

    /// The pulling side: several connections even for small pulls, and little patience.
    pub(super) fn transport(&self, local: Local, guards: Guards) -> Box<dyn Transport> {
        let back_off = BackOff { first: Duration::from_millis(5), last: Duration::from_millis(50) };
        match self.kind {
            TransportKind::Shm => {
                let options = ShmOptions { back_off, ..ShmOptions::default() };
                Box::new(shm::Shm::guarded(local, options, guards))
            }
            TransportKind::Tcp => {
                let options = TcpOptions {
                    bytes_per_connection: 1 << 20,
                    window_bytes: 512 << 10,
                    part_bytes: 100_000,
                    back_off,
                    ..TcpOptions::default()
                };
                Box::new(tcp::Tcp::guarded(local, options, self.tls[1].clone(), guards))
            }
            TransportKind::Sim => {
                let network = self.sim.as_ref().unwrap();
                let node = network.pullers.fetch_add(1, Ordering::Relaxed);
                let options = SimOptions {
                    window: 4,
                    retry: Duration::from_millis(20),
                    connect: Duration::from_millis(500),
                    back_off,
                    ..SimOptions::default()
                };
                Box::new(SimTransport::guarded(local, &network.fabric, node, options, guards))
            }
            TransportKind::Verbs => {
                fabric::boxed(self.verbs.transport(local, guards, &fabric::options()))
            }
        }
    }

    /// Ends what the place itself has started.
    pub(super) async fn finish(self) {
        if let Some(network) = self.sim {
            network.shutdown.cancel();
            network.tasks.close();
            tokio::time::timeout(SOON, network.tasks.wait()).await.expect("the network ends");
        }
    }
}

fn verbs_at(uri: &str) -> Endpoints {
    Endpoints { verbs: Some(uri.to_owned()), ..Endpoints::default() }
}

/// Runs a case where its transport lives: sockets and threads in real time, the simulated network
/// alone on a thread whose clock stands still while there is something to do. Verbs need a device,
/// and are left out where there is none.
pub(super) fn run(kind: TransportKind, case: impl Future<Output = ()>) {
    if kind == TransportKind::Verbs {
        assert_found_by_filter();
        if fabric::device().is_none() {
            return;
        }
    }
    let mut builder = if kind == TransportKind::Sim {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.start_paused(true);
        builder
    } else {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2);
        builder
    };
    builder.enable_all().build().unwrap().block_on(case);
}

/// Where there is a device, `cargo xtask rdma` runs the tests whose names contain "verbs": another
/// one would never run. Seen everywhere, so that it is not the missing device that hides it.
fn assert_found_by_filter() {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("main");
    assert!(name == "main" || name.contains("verbs"), "{name}: put \"verbs\" into its name");
}

#[test]
#[should_panic(expected = "into its name")]
fn a_name_that_the_filter_would_miss_is_refused() {
    run(TransportKind::Verbs, async {});
}

/// Runs cases over some transports: `on!([shm Shm, tcp Tcp] case case ...)`.
macro_rules! on {
    ([$($module:ident $kind:ident),*] $cases:tt) => {
        $(mod $module {
            use super::*;
            crate::tests::wires::on!(@cases $kind $cases);
        })*
    };
    (@cases $kind:ident { $($name:ident)* }) => {
        $(#[test]
        fn $name() {
            crate::tests::wires::run(TransportKind::$kind, super::$name(TransportKind::$kind));
        })*
    };
}
pub(crate) use on;

/// Runs cases over every transport.
macro_rules! on_all {
    ($($name:ident)*) => {
        crate::tests::wires::on!([on_shm Shm, on_tcp Tcp, on_sim Sim, on_verbs Verbs] { $($name)* });
        mod on_verbs_by_write {
            use super::*;
            $(#[test]
            fn $name() {
                let kind = TransportKind::Verbs;
                crate::tests::fabric::by_write(|| {
                    crate::tests::wires::run(kind, super::$name(kind));
                });
            })*
        }
    };
}
pub(crate) use on_all;

/// Runs cases over those transports that use the machine: real threads, files and sockets.
macro_rules! on_real {
    ($($name:ident)*) => {
        crate::tests::wires::on!([on_shm Shm, on_tcp Tcp] { $($name)* });
    };
}
pub(crate) use on_real;
