//! A scripted engine from files: the checkpoint's tokenizer reads the script.

use super::{Script, ScriptError, Scripted};
use crate::checkpoint::{CheckpointError, ModelConfig};
use crate::witness::WitnessSpec;
use baton_text::TextModel;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest script file.
const SCRIPT_BYTES_MAX: u64 = 64 << 20;

impl Scripted {
    /// Plays the script in `script`. Texts are those of the checkpoint in `dir`, whose vocabulary,
    /// context and end tokens the engine takes on; its weights are not read.
    pub fn load(
        mut spec: WitnessSpec,
        dir: &Path,
        script: &Path,
    ) -> Result<Self, ScriptedLoadError> {
        let config = ModelConfig::read(dir)?;
        let text = Arc::new(TextModel::load(dir)?);
        spec.vocab = config.vocab as u32;
        spec.context = config.context as u32;
        spec.eos = config.eos;
        let read = |source| ScriptedLoadError::Read { path: script.into(), source };
        let size = std::fs::metadata(script).map_err(read)?.len();
        if size > SCRIPT_BYTES_MAX {
            return Err(ScriptedLoadError::TooLarge { path: script.into(), size });
        }
        let lines = std::fs::read_to_string(script).map_err(read)?;
        let script = Script::parse(&lines, |say| text.encode(say, false))?;
        let decode = move |ids: &[u32]| {
            let mut pieces = text.detokenizer_with_special();
            let mut whole: String = ids.iter().map(|id| pieces.push(*id)).collect();
            whole.push_str(&pieces.finish());
            whole
        };
        Ok(Self::new(spec, script, Box::new(decode))?)
    }
}

/// A scripted engine that cannot be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScriptedLoadError {
    /// The checkpoint's configuration.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The checkpoint's tokenizer.
    #[error(transparent)]
    Text(#[from] baton_text::LoadError),
    /// The script's lines.
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// The script's file.
    #[error("cannot read the script {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The script's file.
    #[error("the script {} has {size} bytes; 64 MiB are the limit", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
}
