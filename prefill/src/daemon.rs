//! The prefill daemon, from its configuration to its last line.

use crate::config::PrefillConfig;
use crate::schedule::{Event, PrefillSchedule};
use crate::service::PrefillService;
use crate::shell::{Callers, PrefillShell};
use baton_node::exit::Failure;
use baton_proto::internal as pb;
use baton_proto::internal::prefill_server::PrefillServer;
use baton_worker::daemon::{Announce, Daemon, EVENTS_QUEUED, MESSAGE_BYTES_MAX};
use std::sync::Arc;
use tonic::service::Routes;

/// Runs a prefill worker until it is told to go; `reread` gives the configuration as it is when it
/// is asked.
pub fn run(
    config: &PrefillConfig,
    mut reread: impl FnMut() -> Result<PrefillConfig, Failure> + Send + 'static,
    announce: &Announce,
) -> Result<(), Failure> {
    let runtime = baton_worker::daemon::begin(&config.log)?;
    baton_worker::daemon::preflight(&config.common())?;
    // Then the weights: nothing is bound or promised before it is known what is served.
    let (engine, spec) = baton_worker::model::load(&config.common(), announce)?;
    let _inside = runtime.enter();
    let daemon = Daemon::open(
        pb::Role::Prefill,
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
    let callers = Callers::default();
    let shell = PrefillShell {
        callers: callers.clone(),
        links: grounds.links.clone(),
        events: events.clone(),
        clock: Arc::clone(&grounds.clock),
        tasks: daemon.tasks.clone(),
        runtime: runtime.handle().clone(),
    };
    let schedule = PrefillSchedule::new(grounds.blocks.clone(), config.schedule_limits());
    let service = PrefillService {
        callers: callers.clone(),
        events,
        spec,
        root: Arc::clone(&grounds.root),
        gate: daemon.gate.clone(),
        clock: Arc::clone(&grounds.clock),
        tasks: daemon.tasks.clone(),
        announcements_queued: config.limits.announcements_queued,
    };
    let computing = daemon.computing.clone();
    daemon.tasks.spawn("callers", async move {
        computing.cancelled().await;
        callers.close_all();
    });
    daemon.start_engine("prefill engine", schedule, engine, inbox, Box::new(shell))?;
    let prefill = PrefillServer::new(service).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let routes = Routes::new(daemon.guarded(prefill));
    runtime.block_on(daemon.serve_until_told_to_go(routes, announce))
}
