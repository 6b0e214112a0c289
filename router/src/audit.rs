//! The audit record: what was granted to whom, and what came of it, for each turn that was placed
//! and each next prompt that was, or was not, prepared for. It has no content and no key; of a
//! session it has a hash.

use crate::service;
use crate::turn::Prepared;
use baton_proto::ids::{RequestId, TenantId};

/// One line of it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) request: RequestId,
    pub(crate) tenant: TenantId,
    /// Whose blocks could be found.
    pub(crate) scope: TenantId,
    pub(crate) session: Option<u64>,
    /// The tenant's limits that changed something.
    pub(crate) limited: Vec<&'static str>,
    /// Who decoded.
    pub(crate) decode: Option<String>,
    /// Who computed the prompt, where that was another one.
    pub(crate) prefill_worker: Option<u32>,
    pub(crate) outcome: &'static str,
}

/// What was decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Who computes a turn.
    Placement,
    /// Whether the prompt after it is computed ahead.
    Speculation,
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Placement => "placement",
            Self::Speculation => "speculation",
        }
    }
}

impl Entry {
    /// About a request, with no worker named.
    pub(crate) fn new(kind: Kind, of: &Prepared, outcome: &'static str) -> Self {
        let request = &of.request;
        Self {
            kind,
            request: request.id,
            tenant: request.tenant.clone(),
            scope: request.scope.clone(),
            session: service::session_key(request),
            limited: request.hints.limited.clone(),
            decode: None,
            prefill_worker: None,
            outcome,
        }
    }
}
