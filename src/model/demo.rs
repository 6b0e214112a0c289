//! The demo model, which the binary carries so that the first command needs nothing.

use baton_node::exit::{Exit, Failure};
use std::path::{Path, PathBuf};

/// Its name in the API.
pub(crate) const NAME: &str = "baton-demo";

macro_rules! files {
    ($($file:literal),* $(,)?) => {
        [$(($file, include_bytes!(concat!("../../models/demo/", $file)).as_slice())),*]
    };
}

const FILES: [(&str, &[u8]); 6] = files![
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
];

/// Writes the checkpoint into a directory of its own below `dir`.
pub(crate) fn unpack(dir: &Path) -> Result<PathBuf, Failure> {
    let model = dir.join(NAME);
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(&model)?;
        FILES.iter().try_for_each(|(file, bytes)| std::fs::write(model.join(file), bytes))
    };
    write().map_err(|error| {
        let message = format!("cannot unpack the model to {}: {error}", model.display());
        Failure::new(Exit::Unavailable, message).with_hint("set TMPDIR to a writable directory")
    })?;
    Ok(model)
}
