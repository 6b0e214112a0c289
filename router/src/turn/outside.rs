//! Asking an external policy about a turn, where one is to decide.

use super::moves::wanted;
use super::prepare::Prepared;
use crate::choose::external::{Fallback, Told, question};
use crate::choose::{PolicyName, Rules};
use crate::cluster::Explained;
use crate::placing::Placing;
use crate::policy_client::PolicyClient;
use crate::service::{self, Service};
use baton_proto::ids::WorkerId;
use baton_proto::policy::ChooseRequest;

/// What the external policy says about a turn; `None` where another one decides, or where there is
/// nobody to choose. The state of the cluster is not locked meanwhile.
pub(super) async fn consult(
    service: &Service,
    prepared: &Prepared,
    placing: Placing,
    tried: &[WorkerId],
) -> Option<Told> {
    if placing.policy != PolicyName::External {
        return None;
    }
    let silent = |acts, fallback| Some(Told { acts, answer: Err(fallback), took: None });
    let Some(client) = service.policy_client() else { return silent(true, Fallback::Off) };
    let call = match client.enter() {
        Ok(call) => call,
        Err(fallback) => return silent(client.acts(), fallback),
    };
    let wanted = wanted(service, prepared, placing, tried);
    let why = service.cluster().consult(&wanted, client.candidates_max())?;
    let request = request(prepared, &why, &wanted.rules, client);
    // On the heap, so that no other turn carries the place for it.
    let told = tokio::time::timeout_at(prepared.deadline, Box::pin(call.ask(request))).await;
    told.map_or_else(|_| silent(client.acts(), Fallback::Timeout), Some)
}

fn request(
    prepared: &Prepared,
    why: &Explained,
    rules: &Rules,
    client: &PolicyClient,
) -> ChooseRequest {
    let name = |worker| why.names.get(&worker).cloned().unwrap_or_default();
    let mut request = question(&why.explanation, rules, name);
    let (asked, hints) = (&prepared.request, &prepared.request.hints);
    request.request_id = asked.id.to_string();
    request.shadow = !client.acts();
    if let Some(turn) = &mut request.turn {
        turn.parent = service::parent_key(asked);
        turn.strict_priority = u32::from(hints.strict_priority);
        turn.priority = hints.priority;
        let millis = |within: std::time::Duration| within.as_millis();
        turn.wanted_within_ms =
            hints.wanted_within.map(|within| millis(within).try_into().unwrap_or(u32::MAX));
    }
    request
}

/// Counts what came of asking; `fallback` is why the answer does not count, if there is one.
pub(super) fn count(service: &Service, told: &Told, fallback: Option<Fallback>) {
    let fallback = fallback.or(told.answer.as_ref().err().copied());
    service.metrics().policy_call(fallback.map_or("answered", Fallback::as_str), told.took);
}
