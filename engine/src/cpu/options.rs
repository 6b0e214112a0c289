//! How a checkpoint is to be run.

use crate::checkpoint::ModelConfig;
use baton_kernels::{Isa, PART, RopeSpeeds};

/// How a checkpoint is to be run.
#[derive(Clone, Debug)]
pub struct CpuOptions {
    /// The model's name in the API; the directory's own where there is none.
    pub name: Option<String>,
    /// Threads that compute, the caller's included. Does not change results.
    pub threads: usize,
    /// Tokens per block, a power of two, `16..=256`. Does not change results.
    pub block_tokens: u32,
    /// Most positions in one step; activations are allocated for that many. Does not change
    /// results.
    pub batch_tokens_max: u32,
    /// Longest sequence; the checkpoint's own limit where there is none.
    pub context_tokens: Option<u32>,
    /// The instruction set; the best there is where none is named. Does not change results.
    pub isa: Option<Isa>,
    /// How exactly rotary speeds are held. Changes results. Where nothing is said, single
    /// precision, but for the few checkpoints that are known to have been measured otherwise.
    pub rope_speeds: Option<RopeSpeeds>,
}

impl CpuOptions {
    /// One thread per core that this process may use, blocks of 64 tokens, 512 positions in a
    /// step.
    pub fn new() -> Self {
        Self {
            name: None,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            block_tokens: 64,
            batch_tokens_max: 512,
            context_tokens: None,
            isa: None,
            rope_speeds: None,
        }
    }

    /// Refuses what cannot work; gives the context limit.
    pub(super) fn check(&self, config: &ModelConfig) -> Result<u32, LoadError> {
        let refuse = |option, expected: &str, found: u64| {
            Err(LoadError::Option { option, expected: expected.to_owned(), found })
        };
        let Self { threads, block_tokens, batch_tokens_max, .. } = *self;
        if !block_tokens.is_power_of_two() || !(16..=PART as u32).contains(&block_tokens) {
            return refuse("block_tokens", "a power of two in 16..=256", block_tokens.into());
        }
        if !(1..=1024).contains(&threads) {
            return refuse("threads", "1..=1024", threads as u64);
        }
        if !(1..=1 << 16).contains(&batch_tokens_max) {
            return refuse("batch_tokens_max", "1..=65536", batch_tokens_max.into());
        }
        let limit = config.context as u32;
        let context = self.context_tokens.unwrap_or(limit);
        if !(1..=limit).contains(&context) {
            let expected = format!("1..={limit}, the checkpoint's limit");
            return refuse("context_tokens", &expected, context.into());
        }
        Ok(context)
    }
}

impl Default for CpuOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// Why an engine cannot run a checkpoint that is all right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// An option that cannot work.
    #[error("engine option `{option}`: expected {expected}, found {found}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What it may be.
        expected: String,
        /// What it is.
        found: u64,
    },
    /// The system refuses threads.
    #[error("cannot start {count} kernel threads: {source}; ask for fewer threads")]
    Threads {
        /// As many as were asked for.
        count: usize,
        /// The system's reason.
        source: std::io::Error,
    },
}
