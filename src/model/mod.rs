//! Which checkpoint a command uses: a directory, a Hugging Face name, or the one in the binary.

mod demo;
mod digest;
mod download;
mod hub;

use baton_node::exit::{Exit, Failure};
use std::path::{Path, PathBuf};

/// A checkpoint directory, and what the API calls the model.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Model {
    /// Absolute.
    pub(crate) dir: PathBuf,
    pub(crate) name: String,
}

impl Model {
    /// Writes the checkpoint that the binary carries below `scratch`.
    pub(crate) fn built_in(scratch: &Path) -> Result<Self, Failure> {
        Ok(Self { dir: demo::unpack(scratch)?, name: demo::NAME.to_owned() })
    }

    /// Finds `--model`'s checkpoint, downloading what is missing.
    pub(crate) fn find(wanted: &Path) -> Result<Self, Failure> {
        if wanted.is_dir() {
            return Self::of_dir(wanted);
        }
        // What looks like a path is none of the hub's business.
        match wanted.to_str().and_then(hub::Name::parse) {
            Some(name) if std::fs::symlink_metadata(wanted).is_err() => hub::resolve(&name),
            _ => Self::of_dir(wanted),
        }
    }

    fn of_dir(dir: &Path) -> Result<Self, Failure> {
        let shown = dir.display();
        let no_checkpoint = |why: String| {
            Failure::new(Exit::Config, format!("--model {shown}: {why}")).with_hint(
                "name a checkpoint directory in Hugging Face format, or a model there: ORG/NAME",
            )
        };
        let absolute =
            std::fs::canonicalize(dir).map_err(|error| no_checkpoint(error.to_string()))?;
        if !absolute.is_dir() {
            return Err(no_checkpoint("not a directory".to_owned()));
        }
        let name = absolute.file_name().map(|name| name.to_string_lossy().into_owned());
        Ok(Self { dir: absolute, name: name.unwrap_or_else(|| "model".to_owned()) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_directory_is_taken_as_it_is_and_named_after_itself() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("org/name");
        std::fs::create_dir_all(&dir).unwrap();
        let model = Model::find(&dir).unwrap();
        assert_eq!((model.name.as_str(), model.dir), ("name", dir.canonicalize().unwrap()));
    }

    #[test]
    fn what_is_neither_directory_nor_name_is_refused_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        for wanted in [file.as_path(), Path::new("./a/b"), Path::new("/a/b"), Path::new("name")] {
            let failure = Model::find(wanted).unwrap_err();
            assert!(failure.to_string().contains(&wanted.display().to_string()), "{failure}");
        }
    }
}
