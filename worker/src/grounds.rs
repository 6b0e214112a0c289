//! What a worker daemon stands on once its model is loaded: memory, blocks, transports, and how
//! others find them.

use crate::blocks::Blocks;
use crate::config::{Common, EngineKind};
use crate::data_plane::{DataPlane, Known};
use crate::fabric::FabricService;
use crate::links::Links;
use crate::peers::Peers;
use baton_arena::{Arena, ArenaOptions};
use baton_engine::api::ModelSpec;
use baton_kv::hash::{ChainRoot, domain_digest};
use baton_kv::pool::PoolConfig;
use baton_node::auth::{ClientAuth, ClusterSecret};
use baton_node::clock::{Clock, Monotonic};
use baton_node::exit::{Exit, Failure};
use baton_node::identity::Identity;
use baton_proto::internal as pb;
use baton_transfer::Counters;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Memory, blocks, transports.
pub struct Grounds {
    /// Who this is.
    pub identity: Identity,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// The blocks.
    pub blocks: Blocks,
    /// Who brings blocks.
    pub links: Links,
    /// Connections to other daemons.
    pub peers: Peers,
    /// The root of the hash chain.
    pub root: Arc<ChainRoot>,
    /// What routers are told.
    pub description: pb::WorkerDescription,
    /// What the transports have moved.
    pub counters: Counters,
    /// Answers peers that want blocks over verbs, where these are offered.
    pub fabric: Option<FabricService>,
    /// Ends the transports; they serve until the very end, because peers may still pull.
    pub shutdown: CancellationToken,
}

impl Grounds {
    /// Takes memory, opens the data plane. `grpc` is where this daemon listens. Call it inside a
    /// runtime.
    pub async fn open(
        role: pb::Role,
        common: &Common<'_>,
        spec: &ModelSpec,
        secret: &ClusterSecret,
        grpc: SocketAddr,
    ) -> Result<Self, Failure> {
        let identity = Identity::take(common.name)?;
        let clock: Arc<dyn Clock> = Arc::new(Monotonic::process());
        let blocks = take_memory(common, spec, &identity)?;
        let domain = domain_digest(
            &spec.weights_digest,
            &spec.kv_format,
            spec.block_tokens,
            &spec.numerics_class,
        );
        let root = Arc::new(ChainRoot::new(secret.expose(), &domain));
        let peers = Peers::new(ClientAuth::new(secret));
        let known = Known { identity: &identity, grpc, peers: &peers };
        let plane = DataPlane::open(common, &blocks, known, secret, &clock).await?;
        let description = pb::WorkerDescription {
            worker: identity.worker.0,
            name: identity.name.clone(),
            role: role as i32,
            incarnation: identity.incarnation.0,
            model: Some(describe_model(spec, &domain, text_digest(common)?)),
            slots: blocks.arena().slots(),
            endpoints: Some(pb::Endpoints::from(&plane.endpoints)),
        };
        Ok(Self {
            identity,
            clock,
            blocks,
            links: plane.links,
            peers,
            root,
            description,
            counters: plane.counters,
            fabric: plane.fabric,
            shutdown: plane.shutdown,
        })
    }
}

fn describe_model(
    spec: &ModelSpec,
    domain: &[u8; 32],
    text_digest: Vec<u8>,
) -> pb::ModelDescription {
    pb::ModelDescription {
        name: spec.name.clone(),
        vocab_size: spec.vocab_size,
        context_tokens: spec.context_tokens,
        block_tokens: spec.block_tokens,
        domain: domain.to_vec(),
        eos: spec.eos.clone(),
        text_digest,
    }
}

/// The digest of the tokenizer that belongs to the weights, so that a router with another one is
/// noticed; empty where the engine reads no checkpoint, or the checkpoint has no such file.
fn text_digest(common: &Common<'_>) -> Result<Vec<u8>, Failure> {
    let model = common.model;
    if model.engine == EngineKind::Witness || model.dir.as_os_str().is_empty() {
        return Ok(Vec::new());
    }
    digest_file(&model.dir.join("tokenizer.json"))
}

fn digest_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let digest = std::fs::File::open(path).and_then(|file| {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(file)?;
        Ok(hasher.finalize().as_bytes().to_vec())
    });
    match digest {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        digest => digest.map_err(|error| {
            Failure::new(Exit::Config, format!("cannot read {}: {error}", path.display()))
        }),
    }
}

/// As many slots as the configured memory holds.
fn take_memory(
    common: &Common<'_>,
    spec: &ModelSpec,
    identity: &Identity,
) -> Result<Blocks, Failure> {
    let memory = common.kv.memory;
    let slots = memory.bytes() / spec.block_bytes;
    let slots = u32::try_from(slots).unwrap_or(u32::MAX);
    if slots < 2 {
        let message = format!(
            "`kv.memory` = {memory} holds {slots} blocks of {} bytes; at least 2 are needed",
            spec.block_bytes
        );
        return Err(Failure::new(Exit::Config, message).with_hint("raise `kv.memory`"));
    }
    let options = ArenaOptions { slots, slot_bytes: spec.block_bytes, name: "baton-kv" };
    let arena = Arena::create(options).map_err(|error| {
        Failure::new(Exit::Unavailable, format!("no memory for `kv.memory` = {memory}: {error}"))
            .with_hint("lower `kv.memory`, or free memory on this machine")
    })?;
    let config =
        PoolConfig { slots, events_kept: common.kv.events_kept, leases_max: common.kv.leases };
    Ok(Blocks::new(arena, config, identity.worker, identity.incarnation))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_tokenizer_is_known_by_its_bytes_and_a_missing_one_is_none() {
        let path = std::env::temp_dir().join(format!("baton-digest-{}.json", std::process::id()));
        std::fs::write(&path, b"{}").unwrap();
        let digest = digest_file(&path);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(digest.unwrap(), blake3::hash(b"{}").as_bytes());
        assert_eq!(digest_file(&path).unwrap(), Vec::<u8>::new());
    }
}
