//! Hugging Face checkpoint directories, as they are published.
//!
//! [`Checkpoint::open`] reads the configuration, maps the weights and verifies every tensor's type
//! and shape, so that nothing about the files can go wrong later. What a directory needs:
//! `config.json` and `model.safetensors` or `model.safetensors.index.json` with its shards;
//! `generation_config.json` is read where it is there.

mod config;
mod digest;
mod error;
mod fields;
pub(crate) mod quirks;
mod tensors;

pub use config::{Architecture, ModelConfig};
pub use digest::Progress;
pub use error::CheckpointError;

use crate::models::Model;
use std::path::{Path, PathBuf};
pub(crate) use tensors::{Tensor, Tensors};

/// A verified checkpoint, its weights mapped.
///
/// The files must not be changed while they are mapped; see [`baton_kernels::map_file`].
pub struct Checkpoint {
    dir: PathBuf,
    config: ModelConfig,
    tensors: Tensors,
    model: Model<Tensor>,
}

impl Checkpoint {
    /// Opens a directory and verifies all of it.
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        let config = ModelConfig::read(dir)?;
        let (tensors, model) = Tensors::open(dir, Model::describe(&config))?;
        Ok(Self { dir: dir.to_owned(), config, tensors, model })
    }

    /// What the model is like.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The directory's own name: the model's name where nobody gives another.
    pub fn name(&self) -> String {
        let dir = self.dir.canonicalize().unwrap_or_else(|_| self.dir.clone());
        dir.file_name().map_or_else(|| "model".to_owned(), |n| n.to_string_lossy().into_owned())
    }

    /// BLAKE3 over what the weights are and what interprets them. The same weights give the same
    /// digest, however they are cut into files. All bytes are read, on `threads` threads.
    pub fn digest(&self, threads: usize, progress: &(dyn Fn(Progress) + Sync)) -> [u8; 32] {
        digest::digest(&self.config, &self.tensors, &self.model, threads, progress)
    }

    pub(crate) fn weights(&self) -> (Tensors, Model<Tensor>) {
        (self.tensors.clone(), self.model.clone())
    }
}
