//! Whatever is remembered, forgotten or mistaken for something else by its hash: ids and hashes are
//! those of a prompt that is prepared from scratch. `BATON_SEED` replays a run, `BATON_LONG` makes
//! forty times as many turns.

#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::seeded_tests::{Draws, rounds};
use baton_kv::hash::ChainRoot;
use baton_proto::internal::ModelDescription;
use std::path::PathBuf;

const BLOCK_TOKENS: usize = 16;

fn qwen() -> TextModel {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/models/tiny-qwen3");
    TextModel::load(&dir).unwrap()
}

fn model(domain: u8) -> Model {
    let description = ModelDescription {
        block_tokens: BLOCK_TOKENS as u32,
        domain: vec![domain; 32],
        ..ModelDescription::default()
    };
    Model { description, root: ChainRoot::new(&[1; 32], &[domain; 32]) }
}

fn tenant(name: &str) -> TenantId {
    TenantId(Arc::from(name))
}

fn salt(tenant: &TenantId) -> Salt<'_> {
    Salt { tenant, public_blocks: 0 }
}

/// Prepares a prompt and compares everything with doing it from scratch.
fn check(
    prompts: &Prompts,
    text: &TextModel,
    model: &Model,
    tenant: &TenantId,
    prompt: &str,
) -> Encoded {
    let mut encoded = prompts.encode(text, model, tenant, prompt).unwrap();
    assert!(encoded.ids == text.encode_rendered(prompt).unwrap(), "other ids");
    let chain = encoded.chain(model, &salt(tenant));
    prompts.keep(model, tenant, prompt.to_owned(), &encoded, &chain);
    assert!(chain == model.root.chain(&salt(tenant), BLOCK_TOKENS, &encoded.ids), "another chain");
    encoded
}

fn message(draws: &mut Draws) -> String {
    const PIECES: [&str; 10] =
        ["a word", " it's", "\n", "  ", "<|im_", "漢字", "e\u{301}", "12345", ".\n\n", "<think>"];
    let role = ["system", "user", "assistant"][draws.place(3)];
    let words: String = (0..draws.place(60)).map(|_| PIECES[draws.place(10)]).collect();
    let long =
        if draws.place(4) == 0 { " and so on".repeat(draws.place(600)) } else { String::new() };
    format!("<|im_start|>{role}\n{words}{long}<|im_end|>\n")
}

/// What happens to a history.
fn change(draws: &mut Draws, messages: &mut Vec<String>) {
    let at = draws.place(messages.len());
    match draws.place(10) {
        0 => messages[at] = message(draws),
        1 => messages[0] = messages[0].replacen('\n', "\n!", 1),
        2 => drop(messages.remove(at)),
        3 => messages.insert(at, message(draws)),
        4 => messages.truncate(at),
        _ => messages.push(message(draws)),
    }
    if messages.is_empty() || messages.len() > 40 {
        *messages = vec![message(draws)];
    }
}

#[test]
fn a_prompt_is_what_it_is_from_scratch() {
    let mut draws = Draws::announced_or(3);
    let text = qwen();
    let models = [model(1), model(2)];
    let tenants = [tenant("acme"), tenant("evil")];
    // Plenty of room; little; and hashes of so few bits that they mean nothing.
    for (bytes_max, mask) in [(64 << 20, u64::MAX), (60_000, u64::MAX), (1 << 20, 3), (0, 0)] {
        let prompts = Prompts { mask, ..Prompts::new(bytes_max) };
        let mut histories = vec![vec![message(&mut draws)]; 4];
        let (mut reused, mut tokens, mut extended) = (0, 0, 0);
        for _ in 0..rounds(200) {
            let history = draws.place(histories.len());
            change(&mut draws, &mut histories[history]);
            let prompt = histories[history].concat() + "<|im_start|>assistant\n";
            // Models change rarely.
            let model = &models[usize::from(draws.place(20) == 0)];
            let encoded = check(&prompts, &text, model, &tenants[draws.place(2)], &prompt);
            reused += encoded.reused;
            tokens += encoded.ids.len();
            extended += usize::from(encoded.extended.is_some());
        }
        assert!(bytes_max < 1 << 20 || extended > 5, "{extended} prompts extend another");
        assert_eq!(reused > 0, bytes_max > 0, "{reused} of {tokens} tokens with {bytes_max} bytes");
        assert!(bytes_max < 64 << 20 || reused * 10 > tokens * 8, "{reused} of {tokens}");
    }
}

#[test]
fn a_turn_costs_what_is_new_in_it() {
    let (text, model, tenant) = (qwen(), model(1), tenant("acme"));
    let prompts = Prompts::new(16 << 20);
    let turn = |n: usize| format!("<|im_start|>user\nturn {n} has these words<|im_end|>\n");
    let history: String = (0..200).map(turn).collect();
    // In the first prompt only the ends of messages, two tokens each, are alike.
    assert_eq!(check(&prompts, &text, &model, &tenant, &history).reused, 2 * 199);
    let new = turn(1000);
    let encoded = check(&prompts, &text, &model, &tenant, &(history.clone() + &new));
    let new = text.encode_rendered("<|im_start|>user\nturn 1000 has these words").unwrap().len();
    assert_eq!(encoded.ids.len() - encoded.reused, new);
    assert!(encoded.extended.is_some(), "it was found as a whole");
    // A beginning that has changed costs itself alone.
    let other = history.replacen("turn 0", "turn 00", 1);
    let encoded = check(&prompts, &text, &model, &tenant, &other);
    assert!(encoded.ids.len() - encoded.reused < 20, "{} reused", encoded.reused);
}

/// Two prompts that are alike up to the middle of a marker: where it begins is no place to go on.
#[test]
fn a_marker_that_only_begins_alike_is_none() {
    let (text, model, tenant) = (qwen(), model(1), tenant("acme"));
    let prompts = Prompts::new(16 << 20);
    let history = "<|im_start|>user\nsome words<|im_end|>\n".repeat(200) + "a word  ";
    check(&prompts, &text, &model, &tenant, &(history.clone() + "<|im_start|>"));
    let encoded = check(&prompts, &text, &model, &tenant, &(history + "<|im_ more words"));
    assert!(encoded.extended.is_some() && encoded.reused > 1000, "{} reused", encoded.reused);
}

/// Equal words hash differently for another model: what is kept for one is not the other's.
#[test]
fn models_share_ids_and_no_hashes() {
    let (text, tenant) = (qwen(), tenant("acme"));
    let prompts = Prompts::new(16 << 20);
    let prompt = "<|im_start|>user\nsome words<|im_end|>\n".repeat(200);
    for domain in [1, 2, 1] {
        check(&prompts, &text, &model(domain), &tenant, &prompt);
    }
}

#[test]
fn tenants_learn_nothing_from_each_other() {
    let (text, model) = (qwen(), model(1));
    let prompts = Prompts::new(16 << 20);
    let prompt = "<|im_start|>user\nthe secret plan<|im_end|>";
    let words = (0..1000).map(|n| format!("word {n} of ")).collect::<Vec<_>>().concat();
    // Too short to be kept as a whole, and not.
    for prompt in [prompt, &format!("{prompt}{words}<|im_end|>")] {
        for name in ["acme", "evil"] {
            let tenant = tenant(name);
            let first = check(&prompts, &text, &model, &tenant, prompt);
            // The other prompt of the same tenant begins with the same words.
            assert!(first.reused < 100 && first.extended.is_none(), "{name}: {}", first.reused);
            let again = check(&prompts, &text, &model, &tenant, prompt);
            assert_eq!(again.reused, again.ids.len(), "{name}");
        }
    }
}

/// Plain text gets a beginning, and the chain knows of it.
#[test]
fn a_beginning_of_text_shifts_the_chain() {
    let dir = tempfile::tempdir().unwrap();
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/models/tiny-qwen3");
    std::fs::copy(source.join("tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    let config = r#"{"bos_token": "<|endoftext|>", "add_bos_token": true}"#;
    std::fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
    let (text, model, tenant) = (TextModel::load(dir.path()).unwrap(), model(1), tenant("acme"));
    let prompts = Prompts::new(16 << 20);
    let rendered = "<|im_start|>user\nsome words of a long conversation<|im_end|>\n".repeat(200);
    for _ in 0..2 {
        let mut with = check(&prompts, &text, &model, &tenant, &rendered);
        let bare = with.ids.len();
        assert!(with.add_prefix(&text));
        assert_eq!(with.ids, text.encode(&rendered, true).unwrap());
        assert_eq!(with.ids.len(), bare + 1);
        let chain = with.chain(&model, &salt(&tenant));
        assert_eq!(chain, model.root.chain(&salt(&tenant), BLOCK_TOKENS, &with.ids));
    }
}

#[test]
fn debug_output_shows_no_word_of_a_prompt() {
    let prompts = Prompts::new(16 << 20);
    let prompt = "canary-4711<|im_end|>".repeat(500);
    check(&prompts, &qwen(), &model(1), &tenant("acme"), &prompt);
    let shown = format!("{prompts:?}");
    assert!(!shown.contains("canary") && shown.contains("10500 bytes"), "{shown}");
}
