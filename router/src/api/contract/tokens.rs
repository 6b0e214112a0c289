//! `POST /tokenize` and `POST /detokenize`.

use super::chat::CONVERSATION;
use super::shared::MODEL;
use super::{Body, But, Field, Kind, supported};

pub(in crate::api) const TOKENIZE: Body =
    Body { path: "/tokenize", fields: &[ASKED, CONVERSATION], names_unknown: false };

pub(in crate::api) const DETOKENIZE: Body =
    Body { path: "/detokenize", fields: &[IDS], names_unknown: false };

const ASKED: &[Field] = &[
    MODEL,
    supported("prompt", Kind::Schema("Prompt"), "text, or an array of token ids"),
    supported("messages", Kind::Schema("ChatMessages"), "a conversation instead of a `prompt`"),
    supported("return_token_strs", Kind::Boolean, "what each id reads"),
    supported("add_special_tokens", Kind::Boolean, "a prompt is tokenised as the model gets it")
        .refused(But::Is("true")),
];

const IDS: &[Field] =
    &[MODEL, supported("tokens", Kind::Schema("TokenIds"), "token ids").required()];
