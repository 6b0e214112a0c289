//! The decode daemon, from its configuration to its last line.

use crate::config::DecodeConfig;
use crate::event::Event;
use crate::prefill_call::PrefillCaller;
use crate::schedule::DecodeSchedule;
use crate::service::DecodeService;
use crate::shell::{DecodeShell, Routers};
use crate::wire::Served;
use baton_node::exit::Failure;
use baton_proto::internal as pb;
use baton_proto::internal::decode_server::DecodeServer;
use baton_worker::daemon::{Announce, Daemon, EVENTS_QUEUED, MESSAGE_BYTES_MAX};
use std::collections::BTreeMap;
use std::sync::Arc;
use tonic::service::Routes;

/// Runs a decode worker until it is told to go; `reread` gives the configuration as it is when it
/// is asked.
pub fn run(
    config: &DecodeConfig,
    mut reread: impl FnMut() -> Result<DecodeConfig, Failure> + Send + 'static,
    announce: &Announce,
) -> Result<(), Failure> {
    let runtime = baton_worker::daemon::begin(&config.log)?;
    baton_worker::daemon::preflight(&config.common())?;
    // Then the weights: nothing is bound or promised before it is known what is served.
    let (engine, spec) = baton_worker::model::load(&config.common(), announce)?;
    let _inside = runtime.enter();
    let daemon = Daemon::open(
        pb::Role::Decode,
        &config.common(),
        &spec,
        &config.cluster.secret_file,
        &config.serve,
        config.drain_grace.0,
    )?;
    let (events, inbox) = flume::bounded(EVENTS_QUEUED);
    let order = move || Ok(reread()?.switches.queue);
    daemon.switch_order(config.switches.queue, order, &events, Event::Order)?;
    let grounds = &daemon.grounds;
    let routers = Routers::default();
    let shell = DecodeShell {
        routers: routers.clone(),
        links: grounds.links.clone(),
        caller: Arc::new(PrefillCaller {
            peers: grounds.peers.clone(),
            own_endpoints: grounds.description.endpoints.clone().unwrap_or_default(),
            clock: Arc::clone(&grounds.clock),
        }),
        events: events.clone(),
        clock: Arc::clone(&grounds.clock),
        tasks: daemon.tasks.clone(),
        runtime: runtime.handle().clone(),
        calls: BTreeMap::new(),
    };
    let schedule = DecodeSchedule::new(grounds.blocks.clone(), config.schedule_limits());
    let service = DecodeService {
        routers,
        events,
        served: Served { spec, root: Arc::clone(&grounds.root), gate: daemon.gate.clone() },
        clock: Arc::clone(&grounds.clock),
        tasks: daemon.tasks.clone(),
        frames_queued: config.limits.frames_queued,
        computing: daemon.computing.clone(),
    };
    daemon.start_engine("decode engine", schedule, engine, inbox, Box::new(shell))?;
    let decode = DecodeServer::new(service).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let routes = Routes::new(daemon.guarded(decode));
    runtime.block_on(daemon.serve_until_told_to_go(routes, announce))
}
