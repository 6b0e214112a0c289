//! Refusals in the words of this interface, whose conversation stands in `input`.

use crate::error::TurnError;
use axum::response::{IntoResponse, Response};

/// What the inside of the house calls a conversation.
const INSIDE: &str = "messages";
/// What a client of this interface has called it.
const INPUT: &str = "input";

/// The answer to a request that is refused.
pub(in crate::api) fn refusal(error: &TurnError) -> Response {
    let mut error = error.clone();
    match &mut error {
        TurnError::ContextTooLong { param, .. } | TurnError::TextTooLong { param, .. }
            if *param == INSIDE =>
        {
            *param = INPUT;
        }
        TurnError::Invalid(invalid) if invalid.param.as_deref() == Some(INSIDE) => {
            invalid.param = Some(INPUT.to_owned());
            invalid.message = invalid.message.replacen(INSIDE, INPUT, 1);
        }
        _ => {}
    }
    error.into_response()
}
