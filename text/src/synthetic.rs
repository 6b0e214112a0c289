//! Text for engines that have no checkpoint: every id is readable, every text has ids.

use crate::files::{TemplateSource, TokenizerConfig};
use crate::model::Limits;
use crate::pieces::Pieces;
use crate::template::Templates;
use baton_proto::ids::TokenId;
use std::path::PathBuf;

const TEMPLATE: &str = r"
{%- for tool in tools or [] %}
{{ 'tool ' ~ tool | tojson }}
{% endfor %}
{% for message in messages %}
{{ message.role ~ ': ' ~ message.content }}
{% for call in message.tool_calls or [] %}
{{ ' call ' ~ call.function | tojson }}
{% endfor %}
{% endfor %}
{% if add_generation_prompt %}assistant:{% endif %}";

pub(crate) fn pieces(vocab_size: u32) -> Pieces {
    let ids: Vec<TokenId> = (0..vocab_size).collect();
    Pieces::synthetic(ids.into_iter().map(|id| format!(" t{id}")))
}

pub(crate) fn token_id(token: &str) -> Option<TokenId> {
    token.strip_prefix(" t")?.parse().ok()
}

pub(crate) fn encode(text: &str, vocab_size: u32) -> Vec<TokenId> {
    text.bytes().map(|byte| u32::from(byte) % vocab_size.max(1)).collect()
}

pub(crate) fn templates(limits: Limits) -> Templates {
    let template = TemplateSource {
        name: "default".to_owned(),
        source: TEMPLATE.to_owned(),
        path: PathBuf::from("(built in)"),
    };
    let config = TokenizerConfig { templates: vec![template], ..TokenizerConfig::default() };
    Templates::new(config, limits).expect("the built-in template compiles")
}
