//! The checkpoints of the repository: ids and renderings are those that transformers gives.

use baton_proto::ir::{Chat, Content, JsonText, Message, Part, Prompt, Role, ToolCall};
use baton_text::{EncodeError, PromptError, TextModel};
use serde_json::Value as Json;
use std::path::PathBuf;
use std::sync::Arc;

fn checkpoint(name: &str) -> (Arc<TextModel>, Json) {
    let models = if name == "demo" { "../models" } else { "../tests/models" };
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(models).join(name);
    let golden = std::fs::read(dir.join("golden.json")).expect("golden.json");
    let model = TextModel::load(&dir).expect("the checkpoint loads");
    (Arc::new(model), serde_json::from_slice(&golden).expect("golden.json is JSON"))
}

fn chat(messages: &Json) -> Chat {
    let message = |m: &Json| {
        let role = match m["role"].as_str().expect("role") {
            "system" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "tool" => Role::Tool,
            other => panic!("role {other}"),
        };
        let text = m["content"].as_str().expect("content").to_owned();
        let call = |call: &Json| -> Part {
            Content::ToolCall(ToolCall {
                id: String::new(),
                name: call["function"]["name"].as_str().expect("name").to_owned(),
                arguments: JsonText(call["function"]["arguments"].to_string()),
            })
            .into()
        };
        let mut parts = match role {
            Role::Tool => vec![Content::ToolResult { call_id: None, text, is_error: false }.into()],
            _ => vec![Part::text(text)],
        };
        parts.extend(m["tool_calls"].as_array().into_iter().flatten().map(call));
        Message { role, parts, name: None }
    };
    Chat {
        messages: messages.as_array().expect("messages").iter().map(message).collect(),
        add_generation_prompt: true,
        ..Chat::default()
    }
}

fn agrees(name: &str) {
    let (model, golden) = checkpoint(name);
    let cases = golden["cases"].as_array().expect("cases");
    assert!(cases.len() >= 3, "golden.json has cases");
    for case in cases {
        let text = case["text"].as_str().expect("text");
        let expected: Vec<u32> =
            serde_json::from_value(case["input_ids"].clone()).expect("input_ids");
        let ids = model.prompt_ids(&Prompt::Text(text.to_owned())).expect("ids");
        assert_eq!(ids, expected, "{text:?}");

        let mut detokenizer = model.detokenizer_with_special();
        let mut back: String = ids.iter().map(|id| detokenizer.push(*id)).collect();
        back.push_str(&detokenizer.finish());
        assert_eq!(back, text);
    }
    let chat = chat(&golden["chat"]["messages"]);
    let rendered = model.render(&chat).expect("rendering");
    assert_eq!(rendered, golden["chat"]["rendered"].as_str().expect("rendered"));

    let ids = model.prompt_ids(&Prompt::Chat(chat)).expect("ids");
    let mut detokenizer = model.detokenizer_with_special();
    let mut back: String = ids.iter().map(|id| detokenizer.push(*id)).collect();
    back.push_str(&detokenizer.finish());
    assert_eq!(back, rendered);
    assert!(ids.iter().filter(|id| model.is_special(**id)).count() > 8, "markers are one id each");
}

#[test]
fn tiny_llama_agrees_with_transformers() {
    agrees("tiny-llama");
}

#[test]
fn tiny_qwen3_agrees_with_transformers() {
    agrees("tiny-qwen3");
}

#[test]
fn the_demo_model_agrees_with_transformers() {
    agrees("demo");
}

#[test]
fn special_tokens_in_text_are_recognised_only_where_asked() {
    let (model, _) = checkpoint("tiny-llama");
    let marker = model.token_id("<|im_end|>").expect("the token");
    assert_eq!(model.encode("<|im_end|>", true), Ok(vec![marker]));
    assert_eq!(model.encode_rendered("<|im_end|>"), Ok(vec![marker]));
    let literal = model.encode("<|im_end|>", false).expect("ids");
    assert!(literal.len() > 1 && !literal.contains(&marker));
    assert_eq!(model.token_text(marker).as_deref(), Some("<|im_end|>"));
}

#[test]
fn foreign_ids_are_named() {
    let (model, _) = checkpoint("tiny-llama");
    let vocab_size = model.vocab_size();
    assert_eq!(vocab_size, 4096);
    let error =
        model.prompt_ids(&Prompt::Tokens(vec![0, 4095, 4096])).expect_err("4096 is not an id");
    let expected = EncodeError::UnknownId { index: 2, id: 4096, vocab_size };
    assert_eq!(error, PromptError::Encode(expected));
    assert_eq!(model.token_text(4096), None);
}
