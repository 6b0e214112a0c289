//! Checkpoints whose reference outputs need something that their files do not say, by the digest
//! of their weights.
//!
//! Both entries are small reference models that were cast to bfloat16 as a whole in memory, their
//! rotary speeds with the weights, before their reference outputs were computed. The cast speeds
//! are not part of a checkpoint, so that nothing in the files tells it.

use baton_kernels::RopeSpeeds;

/// Digests in hexadecimal (see `digest`), each with the name of its model.
const CAST_AS_A_WHOLE: [(&str, &str); 2] = [
    ("tiny-llama", "5a77a878218a278010148d42b36d265905e1d7b861efb564a6775036dd9bbd79"),
    ("tiny-qwen3", "1eb5fa2dc81d91ac6ff74bc9dd651b61c00e12fe59acc79f6822770890a0d64c"),
];

/// How exactly the checkpoint with this digest wants its rotary speeds.
pub(crate) fn rope_speeds(digest: &[u8; 32]) -> RopeSpeeds {
    let digest = blake3::Hash::from_bytes(*digest).to_hex();
    let cast = CAST_AS_A_WHOLE.iter().any(|(_, known)| *known == digest.as_str());
    if cast { RopeSpeeds::Bf16 } else { RopeSpeeds::F32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use std::path::Path;

    #[test]
    fn the_reference_models_are_recognised_by_their_weights() {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models");
        for (name, known) in CAST_AS_A_WHOLE {
            let checkpoint = Checkpoint::open(&models.join(name)).expect("a fixture");
            let digest = checkpoint.digest(1, &|_| {});
            assert_eq!(blake3::Hash::from_bytes(digest).to_hex().as_str(), known, "{name}");
            assert_eq!(rope_speeds(&digest), RopeSpeeds::Bf16);
        }
        assert_eq!(rope_speeds(&[0; 32]), RopeSpeeds::F32);
    }
}
