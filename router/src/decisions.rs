//! The record of decisions: for each turn its candidates, their features and probabilities, and
//! what came of it. It has sizes and times, and nothing of what was said. Policies can be compared
//! afterwards from it.

use crate::turn::Summary;
use baton_proto::ids::RequestId;

/// What came of a decision.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) request: RequestId,
    /// The session, and the one that it works for.
    pub(crate) session: Option<u64>,
    pub(crate) parent: Option<u64>,
    pub(crate) ending: Ending,
    /// With the reasons in it.
    pub(crate) summary: Summary,
}

/// How a turn ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// Every choice is complete.
    Answered,
    /// With an error.
    Failed,
    /// Nobody wanted it any more.
    Cancelled,
}

impl Ending {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}
