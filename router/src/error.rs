//! Why a request is refused or ends early, in no client's dialect. `api` and `grpc` translate.

use baton_proto::ids::TenantId;
use std::time::Duration;

/// A request that cannot be served as it was written. Nothing was started for it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Invalid {
    /// The field at fault, as the client wrote it: `messages[1].content`.
    pub(crate) param: Option<String>,
    /// For programs: `invalid_type`, `missing_required_parameter`, ...
    pub(crate) code: &'static str,
    /// For people.
    pub(crate) message: String,
}

impl Invalid {
    /// A value of the right type that is not acceptable.
    pub(crate) fn value(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), code: "invalid_value", message: message.into() }
    }

    /// Something that this server does not do (yet), refused rather than ignored.
    pub(crate) fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), code: "unsupported_value", message: message.into() }
    }

    /// A value of the wrong JSON type.
    pub(crate) fn kind(param: impl Into<String>, expected: &str, got: &str) -> Self {
        let param = param.into();
        let message = format!("Invalid type for '{param}': expected {expected}, but got {got}.");
        Self { param: Some(param), code: "invalid_type", message }
    }

    /// A field that must be there.
    pub(crate) fn missing(param: impl Into<String>) -> Self {
        let param = param.into();
        let message = format!("Missing required parameter: '{param}'.");
        Self { param: Some(param), code: "missing_required_parameter", message }
    }
}

/// Why a turn does not begin, or ends before its answer does.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum TurnError {
    /// The client's mistake.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Nobody whom this router serves; why, without what was sent.
    #[error("Not authorised: {0}.")]
    Unauthorized(&'static str),
    /// The tenant has what it may have.
    #[error(
        "The tenant `{tenant}` has reached its quota: `{quota}` is {limit}. Retry later.",
        tenant = tenant.0
    )]
    Quota {
        /// Whose quota it is.
        tenant: TenantId,
        /// Its key in the tenants file.
        quota: &'static str,
        /// What it is.
        limit: u32,
        /// When there may be room.
        after: Duration,
    },
    /// No such model here.
    #[error("The model `{0}` does not exist; GET /v1/models lists what is served.")]
    UnknownModel(String),
    /// The prompt leaves no room for an answer.
    #[error(
        "This model's maximum context length is {context} tokens. However, the prompt has {prompt} tokens. \
         Please reduce its length."
    )]
    ContextTooLong {
        /// Tokens of the rendered prompt.
        prompt: usize,
        /// The model's limit.
        context: u32,
        /// The field that holds the prompt.
        param: &'static str,
    },
    /// The prompt's text is so long that its tokens need not be counted.
    #[error(
        "This model's maximum context length is {context} tokens. However, the prompt's text of {bytes} bytes \
         cannot have fewer. Please reduce its length."
    )]
    TextTooLong {
        /// Bytes of the rendered prompt.
        bytes: usize,
        /// It cannot have fewer tokens.
        tokens_min: usize,
        /// The model's limit in tokens.
        context: u32,
        /// The field that holds the prompt.
        param: &'static str,
    },
    /// The body is larger than the limit.
    #[error("The request body is larger than this server accepts.")]
    BodyTooLarge,
    /// The body did not arrive in time.
    #[error("The request body did not arrive in time.")]
    BodyTooSlow,
    /// The body ended before its end.
    #[error("The request body could not be read: {0}.")]
    BodyBroken(String),
    /// More work than this router or the workers take.
    #[error("The service is overloaded: {0}. Retry later.")]
    Overloaded(String),
    /// No decode worker is attached.
    #[error("No decode worker is available. Retry later.")]
    NoWorker,
    /// The daemon is going down.
    #[error("The service is shutting down. Retry elsewhere.")]
    Draining,
    /// The deadline passed.
    #[error("The request's deadline passed.")]
    Deadline,
    /// The worker was lost, and the turn could not be moved.
    #[error("The worker of this request was lost: {0}.")]
    WorkerLost(String),
    /// The client did not read its stream for too long.
    #[error("The stream was not read fast enough.")]
    SlowReader,
    /// A defect of this service.
    #[error("Internal error: {0}.")]
    Internal(String),
}

/// The longest name of a tenant or session, and the longest quotation of a client's text.
pub(crate) const NAME_BYTES_MAX: usize = 128;

/// The beginning of a client's text, short enough for messages and bookkeeping.
pub(crate) fn clip(text: &str) -> &str {
    &text[..text.floor_char_boundary(NAME_BYTES_MAX)]
}

impl TurnError {
    /// That model is not served here; of a long name only the beginning is said back.
    pub(crate) fn unknown_model(name: &str) -> Self {
        Self::UnknownModel(clip(name).to_owned())
    }

    /// How long a client should wait before it tries again, where that makes sense.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overloaded(_)
            | Self::NoWorker
            | Self::Draining
            | Self::Deadline
            | Self::WorkerLost(_) => Some(Duration::from_secs(1)),
            Self::Quota { after, .. } => Some(*after),
            _ => None,
        }
    }
}
