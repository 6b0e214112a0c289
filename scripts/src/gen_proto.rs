//! `cargo xtask gen`: the generated code of `proto`, from its .proto files, without protoc.

use prost::Message;
use std::path::Path;

/// Compiles every .proto file into `proto/src/gen`, and the descriptor set that reflection serves.
pub(crate) fn run(root: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let include = root.join("proto/proto");
    let public = include.join("baton/v1/inference.proto");
    let internal = include.join("baton/internal/v1/worker.proto");
    let out = root.join("proto/src/gen");
    std::fs::create_dir_all(&out)?;
    let descriptors = protox::compile([&public, &internal], [&include])?;
    tonic_prost_build::configure().out_dir(&out).compile_fds(descriptors)?;
    let reflected = protox::compile([&public], [&include])?;
    std::fs::write(out.join("baton.v1.fds"), reflected.encode_to_vec())?;
    Ok(())
}
