//! How much a model shall think: a word that switches thinking on or off and that templates may read.

use super::common::{self, TemplateArgs};
use super::fields::Object;
use crate::error::Invalid;
use baton_proto::ir::JsonText;
use serde_json::json;

/// Not at all, and then more and more.
pub(super) const EFFORTS: [&str; 6] = ["none", "minimal", "low", "medium", "high", "xhigh"];

/// As templates of models know it that can think more or less.
const VARIABLE: &str = "reasoning_effort";

/// Whether the model shall think, which nobody says without an effort, and the variables for the
/// template that the body has, with the effort unless they name it themselves.
pub(super) fn read(
    body: Object<'_>,
    effort: Option<&str>,
) -> Result<(Option<bool>, TemplateArgs), Invalid> {
    let mut args = common::template_args(body)?;
    let Some(effort) = effort else { return Ok((None, args)) };
    if args.iter().all(|(name, _)| name != VARIABLE) {
        args.push((VARIABLE.to_owned(), JsonText(json!(effort).to_string())));
    }
    Ok((Some(effort != EFFORTS[0]), args))
}
