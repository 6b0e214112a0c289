//! Which engine a worker runs, and the model that it serves.

use crate::config::{Common, EngineKind};
use crate::daemon::Announce;
use baton_engine::api::{Engine, ModelSpec};
use baton_engine::checkpoint::Checkpoint;
use baton_engine::cpu::{CpuEngine, CpuOptions, LoadError};
use baton_engine::scripted::Scripted;
use baton_engine::witness::{LatencyModel, Witness, WitnessSpec};
use baton_node::exit::{Exit, Failure};

/// Loads what the configuration names.
pub fn load(
    common: &Common<'_>,
    announce: &Announce,
) -> Result<(Box<dyn Engine>, ModelSpec), Failure> {
    let engine = match common.model.engine {
        EngineKind::Witness => witness(common)?,
        EngineKind::Auto | EngineKind::Cpu => cpu(common, announce)?,
        EngineKind::Scripted => scripted(common)?,
    };
    let spec = engine.spec().clone();
    Ok((engine, spec))
}

fn latency(common: &Common<'_>) -> LatencyModel {
    LatencyModel {
        step: common.model.step_latency.0,
        prefill_token: common.model.prefill_token_latency.0,
        decode_sequence: common.model.decode_token_latency.0,
    }
}

/// The witness's shape as the configuration has it.
pub fn witness_spec(common: &Common<'_>) -> WitnessSpec {
    let model = common.model;
    let mut spec = WitnessSpec::small();
    if !model.name.is_empty() {
        spec.name.clone_from(&model.name);
    }
    if model.context_tokens > 0 {
        spec.context = model.context_tokens;
    }
    spec.block_tokens = model.block_tokens;
    spec.batch_tokens_max = common.batch_tokens;
    spec.latency = latency(common);
    spec
}

fn witness(common: &Common<'_>) -> Result<Box<dyn Engine>, Failure> {
    let witness = Witness::new(witness_spec(common))
        .map_err(|error| Failure::new(Exit::Config, error.to_string()))?;
    Ok(Box::new(witness))
}

fn scripted(common: &Common<'_>) -> Result<Box<dyn Engine>, Failure> {
    let model = common.model;
    let engine = Scripted::load(witness_spec(common), &model.dir, &model.script)
        .map_err(|error| Failure::new(Exit::Config, error.to_string()))?;
    Ok(Box::new(engine))
}

fn cpu(common: &Common<'_>, announce: &Announce) -> Result<Box<dyn Engine>, Failure> {
    let model = common.model;
    let checkpoint = Checkpoint::open(&model.dir)
        .map_err(|error| Failure::new(Exit::Config, error.to_string()))?;
    let mut options = CpuOptions::new();
    options.name = (!model.name.is_empty()).then(|| model.name.clone());
    options.block_tokens = model.block_tokens;
    options.batch_tokens_max = common.batch_tokens;
    options.context_tokens = (model.context_tokens > 0).then_some(model.context_tokens);
    if model.threads > 0 {
        options.threads = model.threads;
    }
    let engine = CpuEngine::load(&checkpoint, &options, &|progress| {
        announce.progress(progress.done, progress.total);
    });
    let engine = engine.map_err(|error| match error {
        LoadError::Threads { .. } => Failure::new(Exit::Unavailable, error.to_string()),
        _ => Failure::new(Exit::Config, error.to_string()),
    })?;
    Ok(Box::new(engine))
}
