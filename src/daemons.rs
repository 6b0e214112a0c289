//! `baton router|prefill|decode`: load the file, check it, run.

use crate::cli::DaemonArgs;
use baton_decode::config::DecodeConfig;
use baton_node::config::{ConfigError, Layered, load};
use baton_node::exit::{Exit, Failure};
use baton_prefill::config::PrefillConfig;
use baton_router::config::Config as RouterConfig;
use baton_worker::daemon::Announce;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Runs a prefill worker.
pub(crate) fn prefill(args: &DaemonArgs) -> Result<(), Failure> {
    let Some(config) = prepare::<PrefillConfig>(args, PrefillConfig::check)? else { return Ok(()) };
    let reread = reread(args, PrefillConfig::check);
    baton_prefill::daemon::run(&config, reread, &Announce::new(args.announce))
}

/// Runs a decode worker.
pub(crate) fn decode(args: &DaemonArgs) -> Result<(), Failure> {
    let Some(config) = prepare::<DecodeConfig>(args, DecodeConfig::check)? else { return Ok(()) };
    let reread = reread(args, DecodeConfig::check);
    baton_decode::daemon::run(&config, reread, &Announce::new(args.announce))
}

/// Runs a router.
pub(crate) fn router(args: &DaemonArgs) -> Result<(), Failure> {
    let Some(config) = prepare::<RouterConfig>(args, baton_router::config::check)? else {
        return Ok(());
    };
    let runtime = baton_worker::daemon::begin(&config.log)?;
    let announce = Announce::new(args.announce);
    let reread = reread(args, baton_router::config::check);
    let ready = |address| announce.ready(&format!("http://{address}"));
    runtime.block_on(baton_router::run(config, reread, ready))
}

/// Loads and checks a file; `None` where `--check` was all that was wanted.
fn prepare<T>(
    args: &DaemonArgs,
    check: impl FnOnce(&Layered<T>) -> Result<(), ConfigError>,
) -> Result<Option<T>, Failure>
where
    T: Default + Serialize + DeserializeOwned,
{
    if let Some(parent) = args.parent {
        baton_node::drain::die_with_parent(parent)
            .map_err(|orphan| Failure::new(Exit::Runtime, orphan.to_string()))?;
    }
    let config = load::<T>(args.config.as_deref())?;
    check(&config)?;
    if args.check {
        print!("{config}");
        return Ok(None);
    }
    Ok(Some(config.into_value()))
}

/// The same file as it is when it is asked for again.
fn reread<T>(
    args: &DaemonArgs,
    check: fn(&Layered<T>) -> Result<(), ConfigError>,
) -> impl FnMut() -> Result<T, Failure> + Send + 'static
where
    T: Default + Serialize + DeserializeOwned + 'static,
{
    let path = args.config.clone();
    move || {
        let config = load::<T>(path.as_deref())?;
        check(&config)?;
        Ok(config.into_value())
    }
}
