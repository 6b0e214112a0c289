//! How a checkpoint's style is found.

use super::super::style::{Format, Reasoning, Style};

const TEMPLATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../text/tests/fixtures/templates/");

fn detect(file: &str, tokens: &[&str]) -> Style {
    let template = std::fs::read_to_string(format!("{TEMPLATES}{file}.jinja")).expect("a template");
    let id_of = |text: &str| tokens.iter().position(|token| *token == text).map(|id| id as u32);
    Style::detect(&template, id_of, None, None)
}

#[test]
fn known_templates_are_recognised() {
    for (file, format, reasoning) in [
        ("qwen25", "hermes", Reasoning::None),
        ("qwen3", "hermes", Reasoning::Think),
        ("llama31", "llama3", Reasoning::None),
        ("mistral", "mistral", Reasoning::None),
        ("typed", "plain", Reasoning::None),
    ] {
        let style = detect(file, &[]);
        assert_eq!((style.format().name(), style.reasoning()), (format, reasoning), "{file}");
    }
}

#[test]
fn markers_that_are_tokens_are_known_by_their_ids() {
    let style = detect("qwen3", &["<|im_end|>", "<tool_call>", "</think>"]);
    assert_eq!(style.marker(0), None);
    assert_eq!(style.marker(1), Some("<tool_call>"));
    assert_eq!(style.marker(2), Some("</think>"));
}

#[test]
fn reasoning_is_open_where_the_prompt_ends_with_its_tag() {
    let style = detect("qwen3", &[]);
    assert!(style.opens_reasoning("<|im_start|>assistant\n<think>\n"));
    assert!(!style.opens_reasoning("<|im_start|>assistant\n<think>\n\n</think>\n\n"));
    assert!(!style.opens_reasoning("say <think><|im_end|>\n<|im_start|>assistant\n"));
    assert!(!detect("qwen25", &[]).opens_reasoning("<think>\n"));
}

#[test]
fn it_is_known_between_which_words_reasoning_stands() {
    let sections = detect("qwen3", &[]).sections().expect("it reasons");
    assert_eq!((sections.open, sections.close), (vec!["<think>"], vec!["</think>"]));
    assert_eq!((sections.end, sections.newline), (vec!["</think>"], true));
    assert_eq!((sections.calls, sections.opens_anywhere), (&["<tool_call>"][..], false));
    assert!(detect("qwen25", &[]).sections().is_none());
    let inline = Style::detect("<think></think>", |_| None, None, None).sections();
    assert!(!inline.expect("it reasons").newline);
    let harmony = Style::detect("<|channel|><|message|>", |_| None, None, None).sections();
    let harmony = harmony.expect("it reasons");
    assert_eq!(harmony.open, ["<|channel|>", "analysis"]);
    // Of any other channel, a call as well as the answer.
    assert_eq!(harmony.end, ["<|end|>", "<|start|>", "assistant", "<|channel|>"]);
    assert!(harmony.opens_anywhere);
}

#[test]
fn what_is_named_overrides_what_is_found() {
    let plain = Format::named("plain");
    let style = Style::detect("<tool_call></think>", |_| None, plain, Some(Reasoning::None));
    assert_eq!((style.format().name(), style.reasoning()), ("plain", Reasoning::None));
    assert_eq!(Format::named("nonsense"), None);
    for format in Format::all() {
        assert_eq!(Format::named(format.name()), Some(format));
    }
    for reasoning in [Reasoning::None, Reasoning::Think, Reasoning::Brackets] {
        assert_eq!(Reasoning::named(reasoning.name()), Some(reasoning));
    }
}
