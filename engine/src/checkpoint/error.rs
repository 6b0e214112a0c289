//! Why a checkpoint cannot be served. Each error is one line that names the file, the place in
//! it, what was expected and what was found.

use std::path::PathBuf;

/// Why a checkpoint cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The directory is not one.
    #[error("{}: not a directory; expected a Hugging Face checkpoint directory", dir.display())]
    NotADirectory {
        /// What was named.
        dir: PathBuf,
    },
    /// A file is not there.
    #[error("{}: no such file; {needed}", file.display())]
    MissingFile {
        /// The file.
        file: PathBuf,
        /// Who needs it.
        needed: String,
    },
    /// The system refuses the file.
    #[error("{}: cannot be read: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Not JSON.
    #[error("{}: not valid JSON: {source}", file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A field has a value that makes no sense.
    #[error("{}: `{field}`: expected {expected}, found {found}", file.display())]
    Field {
        /// The file.
        file: PathBuf,
        /// The field, with its parents.
        field: String,
        /// What it has to be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A model that this engine does not know.
    #[error(
        "{}: architecture {found} is not supported; supported are LlamaForCausalLM, \
         Qwen2ForCausalLM and Qwen3ForCausalLM",
        file.display()
    )]
    Architecture {
        /// The file.
        file: PathBuf,
        /// What `architectures` says.
        found: String,
    },
    /// A known model with a feature that this engine does not have.
    #[error("{}: `{field}`: {found} is not supported; supported: {supported}", file.display())]
    Unsupported {
        /// The file.
        file: PathBuf,
        /// The field that asks for it.
        field: String,
        /// What it says.
        found: String,
        /// What it may say.
        supported: String,
    },
    /// A safetensors file with a header that cannot be understood.
    #[error("{}: not a safetensors file: {problem}", file.display())]
    Header {
        /// The file.
        file: PathBuf,
        /// Why.
        problem: String,
    },
    /// A safetensors file that is shorter or longer than its header says.
    #[error(
        "{}: expected {expected} bytes, found {found}: {}",
        file.display(),
        lost(tensor.as_deref())
    )]
    Length {
        /// The file.
        file: PathBuf,
        /// The first tensor that is not there as a whole.
        tensor: Option<String>,
        /// The length by the header.
        expected: u64,
        /// The file's length.
        found: u64,
    },
    /// A tensor that the model needs is in no file.
    #[error("{}: tensor `{tensor}` is missing; expected shape {expected:?}", file.display())]
    MissingTensor {
        /// Where it should be.
        file: PathBuf,
        /// Its name.
        tensor: String,
        /// Its shape by the configuration.
        expected: Vec<usize>,
    },
    /// A tensor of another shape than the configuration says.
    #[error("{}: tensor `{tensor}`: expected shape {expected:?}, found {found:?}", file.display())]
    Shape {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape by the configuration.
        expected: Vec<usize>,
        /// Its shape in the file.
        found: Vec<usize>,
    },
    /// A tensor of a type that this engine does not read.
    #[error("{}: tensor `{tensor}`: expected BF16, F16 or F32, found {found}", file.display())]
    DType {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its type.
        found: String,
    },
}

fn lost(tensor: Option<&str>) -> String {
    match tensor {
        Some(tensor) => format!("the file is truncated, tensor `{tensor}` is cut off"),
        None => "there are bytes that belong to no tensor".to_owned(),
    }
}
