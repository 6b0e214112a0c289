//! `cargo xtask gen`: the generated code of `proto`, from its .proto files, without protoc.

use crate::failure::Failure;
use prost::Message;
use std::error::Error;
use std::path::Path;

/// Where the generated files live.
const GENERATED: &str = "proto/src/gen";

/// Compiles every .proto file into `proto/src/gen`, and the descriptor set that reflection serves.
pub(crate) fn write(root: &Path) -> Result<(), Box<dyn Error>> {
    compile(root, &root.join(GENERATED))
}

/// Says which generated files are not what the .proto files ask for.
pub(crate) fn check(root: &Path) -> Result<(), Box<dyn Error>> {
    let fresh = root.join("target/gen-check");
    compile(root, &fresh)?;
    for entry in std::fs::read_dir(&fresh)? {
        let name = entry?.file_name();
        let committed = root.join(GENERATED).join(&name);
        if std::fs::read(&committed).ok() != Some(std::fs::read(fresh.join(&name))?) {
            let path = Path::new(GENERATED).join(&name);
            let message = format!("{} is stale: run gen and commit it", path.display());
            return Err(Failure::new(message).into());
        }
    }
    Ok(())
}

fn compile(root: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    let include = root.join("proto/proto");
    let public = include.join("baton/v1/inference.proto");
    let internal = include.join("baton/internal/v1/worker.proto");
    let fabric = include.join("baton/internal/v1/fabric.proto");
    let policy = include.join("baton/policy/v1/policy.proto");
    std::fs::create_dir_all(out)?;
    let descriptors = protox::compile([&public, &internal, &fabric, &policy], [&include])?;
    tonic_prost_build::configure()
        .out_dir(out)
        // Remote keys are capabilities; `proto` prints windows without them.
        .skip_debug(["baton.internal.v1.Window"])
        .compile_fds(descriptors)?;
    let reflected = protox::compile([&public], [&include])?;
    std::fs::write(out.join("baton.v1.fds"), reflected.encode_to_vec())?;
    Ok(())
}
