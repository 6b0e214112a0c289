//! Conversations that go on and are rewritten on the way, through real templates: with the ids of
//! earlier segments kept, a rendering's ids are those from scratch.
//!
//! `BATON_SEED` replays a run, `BATON_LONG` makes twenty times as many turns.

mod common;

use baton_proto::ids::TokenId;
use baton_proto::ir::{Chat, Content, JsonText, Message, Part, Prompt, Role, ToolCall};
use baton_text::TextModel;
use common::{Chance, DEEPSEEK, LLAMA, QWEN, Spec, gpt2, metaspace, model, sequence};
use serde_json::json;
use std::collections::HashMap;
use std::path::PathBuf;

/// Everything stands where the client put it, system messages as well.
const IN_PLACE: &str = r"{% for t in tools or [] %}{{ t | tojson }}{% endfor %}
{%- for m in messages -%}
<|im_start|>{{ m.role }}
{{ m.content }}{{ m.reasoning_content or '' }}{% for c in m.tool_calls or [] %}{{ c | tojson }}{% endfor %}<|im_end|>
{% endfor %}";

/// The markers of all these templates.
const MARKERS: [&str; 16] = [
    "<|im_start|>",
    "<|im_end|>",
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[TOOL_CALLS]",
    "[AVAILABLE_TOOLS]",
];

const TEXTS: [&str; 14] = [
    "",
    "some words",
    "it's\n\n\nof words  ",
    "  \n",
    "e\u{301}\u{301}",
    "\u{301}word",
    "漢字かな 漢 字",
    "1234567 12",
    "<|im_end|>\n<|im_start|>system\nword",
    "<|im_",
    "</think>",
    "[INST] word [/INST]",
    "\r\n;\n",
    "{\"a\": [1, \"x\"]}",
];

fn text(chance: &mut Chance) -> String {
    let mut text: String = (0..chance.below(4)).map(|_| TEXTS[chance.below(TEXTS.len())]).collect();
    if chance.below(6) == 0 {
        let words = TEXTS[chance.below(4)];
        text.push_str(&format!(" and so on\n{words}").repeat(chance.below(700)));
    }
    text
}

fn message(chance: &mut Chance, role: Role) -> Message {
    let mut parts = Vec::new();
    match role {
        Role::Assistant => {
            if chance.below(2) == 0 {
                parts.push(Content::Reasoning(text(chance)).into());
            }
            parts.push(Part::text(text(chance)));
            if chance.below(3) == 0 {
                let arguments = JsonText(json!({"q": text(chance)}).to_string());
                let (id, name) = ("call_1234".to_owned(), "look".to_owned());
                parts.push(Content::ToolCall(ToolCall { id, name, arguments }).into());
            }
        }
        Role::Tool => {
            let (call_id, text) = (Some("call_1234".into()), text(chance));
            parts.push(Content::ToolResult { call_id, text, is_error: false }.into());
        }
        _ => parts.push(Part::text(text(chance))),
    }
    Message { role, parts, name: None }
}

/// What happens between two turns.
fn change(chat: &mut Chat, chance: &mut Chance) {
    let at = chance.below(chat.messages.len());
    let role = [Role::User, Role::Assistant, Role::Tool][chance.below(3)];
    match chance.below(16) {
        0 => chat.messages[0] = message(chance, Role::System),
        1 => chat.messages[at] = message(chance, role),
        2 => chat.messages.insert(at, message(chance, Role::System)),
        3 => chat.messages.truncate(at.max(1)),
        4 => {
            let tool = json!({"type": "function", "function": {"name": "look", "description": text(chance)}});
            chat.tools.push(JsonText(tool.to_string()).into());
        }
        5 => chat.tools.clear(),
        6 => chat.add_generation_prompt = !chat.add_generation_prompt,
        // A question, its answer, and perhaps a tool in between.
        _ => {
            for role in [Role::User, Role::Assistant] {
                chat.messages.push(message(chance, role));
                if chance.below(3) == 0 {
                    chat.messages.push(message(chance, Role::Tool));
                }
            }
        }
    }
    if chat.messages.len() > 40 {
        chat.messages.truncate(1);
        chat.tools.clear();
    }
}

fn template(name: &str) -> String {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/templates");
    std::fs::read_to_string(dir.join(name)).expect("the template is there")
}

fn follow(name: &str, model: &TextModel, chance: &mut Chance) {
    let mut known: HashMap<String, Vec<TokenId>> = HashMap::new();
    let mut chat = Chat {
        messages: vec![message(chance, Role::User)],
        add_generation_prompt: true,
        ..Chat::default()
    };
    let (mut renderings, mut reused, mut tokens) = (0, 0, 0);
    for _ in 0..common::times(100, 2000) {
        let before = chat.clone();
        change(&mut chat, chance);
        // Some templates refuse some orders of roles; then it did not happen.
        let Ok(rendered) = model.render(&chat) else {
            chat = before;
            continue;
        };
        renderings += 1;
        let mut ids: Vec<TokenId> = Vec::new();
        for segment in model.segments(&rendered, 0).expect("segments") {
            let segment = segment.text;
            if let Some(known) = known.get(segment) {
                reused += known.len();
                ids.extend_from_slice(known);
            } else {
                let new = model.encode_rendered(segment).expect("ids");
                ids.extend_from_slice(&new);
                known.insert(segment.to_owned(), new);
            }
        }
        let scratch = model.prompt_ids(&Prompt::Chat(chat.clone())).expect("ids");
        assert!(ids == scratch, "{name}: other ids for {rendered:?}");
        tokens += ids.len();
    }
    assert!(renderings > 20, "{name}: {renderings} renderings");
    assert!(reused * 3 > tokens, "{name}: {reused} of {tokens} tokens were known");
}

#[test]
fn rewritten_histories_have_the_ids_from_scratch() {
    let marker = |content: &&str| {
        json!({"content": content, "special": true, "normalized": false,
               "lstrip": false, "rstrip": false, "single_word": false})
    };
    let added: Vec<_> = MARKERS.iter().map(marker).collect();
    let mut chance = Chance::from_environment();
    for (name, template, pre_tokenizer) in [
        ("qwen 3", template("qwen3.jinja"), sequence(&[QWEN])),
        ("qwen 2.5", template("qwen25.jinja"), sequence(&[QWEN])),
        ("llama 3.1", template("llama31.jinja"), sequence(&[LLAMA])),
        ("mistral", template("mistral.jinja"), metaspace("first", true)),
        ("mistral, always", template("mistral.jinja"), metaspace("always", false)),
        ("in place, gpt-2", IN_PLACE.to_owned(), gpt2()),
        ("in place, deepseek", IN_PLACE.to_owned(), sequence(&DEEPSEEK)),
        ("in place, metaspace", IN_PLACE.to_owned(), metaspace("first", true)),
    ] {
        let spec = Spec { pre_tokenizer, template, added: added.clone(), ..Spec::default() };
        follow(name, &model(&spec), &mut chance);
    }
}
