//! What can go wrong, by operation.

use baton_proto::ids::TokenId;
use std::path::PathBuf;

/// A checkpoint directory's text files are not usable.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file is missing or cannot be read.
    #[error("cannot read {}: {source}{}", path.display(), if *path_is_needed { " (needed: a Hugging Face checkpoint directory has it)" } else { "" })]
    Read {
        /// The file.
        path: PathBuf,
        /// Whether nothing works without it.
        path_is_needed: bool,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is larger than any real one.
    #[error("{} has {bytes} bytes, more than the {limit} that are accepted", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A file is not what its name says.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// tokenizer.json asks for something that cannot be done piece by piece.
    #[error("{}: {what} is not supported (supported: ByteLevel, Metaspace, Fuse, ByteFallback, Replace of a string, Strip, and sequences of them)", path.display())]
    Decoder {
        /// The file.
        path: PathBuf,
        /// What is not supported.
        what: String,
    },
    /// The chat template does not compile.
    #[error("{}: chat template {name:?}, line {line}: {reason}", path.display())]
    Template {
        /// The file it came from.
        path: PathBuf,
        /// Which one, where there are several.
        name: String,
        /// The line in it, from 1; 0 where unknown.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

/// A conversation could not be rendered.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RenderError {
    /// The checkpoint has no chat template that fits.
    #[error("the model has no chat template{hint}; send a prompt of text or token ids instead")]
    NoTemplate {
        /// What it has.
        hint: String,
    },
    /// The template itself refused the conversation (`raise_exception`).
    #[error("the model's chat template refuses this conversation: {message}")]
    Refused {
        /// The template's words.
        message: String,
    },
    /// JSON of the client that does not parse.
    #[error("{field} is not usable: {reason}")]
    Argument {
        /// `tools[3]`, `messages[2].tool_calls[0].arguments`, ...
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A picture, for a model that cannot see.
    #[error("the model takes no images")]
    Image {
        /// Where it stands in what the client sent.
        field: String,
    },
    /// The template failed on this conversation.
    #[error("the chat template failed in line {line}: {message}")]
    Failed {
        /// The template engine's words.
        message: String,
        /// The line of the template, from 1; 0 where unknown.
        line: usize,
    },
    /// The template did not come to an end within the work it is granted.
    #[error("the chat template was stopped after {fuel} steps")]
    OutOfFuel {
        /// The limit.
        fuel: u64,
    },
    /// The rendering, or the conversation before it, is too long.
    #[error("the rendered conversation would be longer than {limit} bytes")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
}

/// Text could not be made token ids, or ids are not the model's.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EncodeError {
    /// The text is too long.
    #[error("the text has {bytes} bytes, more than the {limit} that are accepted")]
    TooLong {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// An id is not in the vocabulary.
    #[error("token id {id} at index {index} is not in the model's vocabulary of {vocab_size}")]
    UnknownId {
        /// Position in the list of ids.
        index: usize,
        /// The id.
        id: TokenId,
        /// Ids are below that.
        vocab_size: u32,
    },
    /// The tokenizer gave up.
    #[error("the tokenizer failed on this text: {reason}")]
    Tokenizer {
        /// Its words.
        reason: String,
    },
}

/// A prompt of any kind could not be made token ids.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PromptError {
    /// The conversation could not be rendered.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// The text or ids are not usable.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}
