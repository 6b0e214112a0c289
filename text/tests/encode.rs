//! What a prompt is in ids, and which checkpoint directories are refused.

use baton_proto::ir::Prompt;
use baton_text::{Detokenizer, LoadError, StopStrings, TextModel};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

/// One token per letter, `<s>` (3) and `</s>` (4), and a post-processor.
fn tokenizer(post_processor: &Json) -> Json {
    let token = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false,
               "rstrip": false, "normalized": false, "special": true})
    };
    json!({
        "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null,
                    "pad_id": 0, "pad_type_id": 0, "pad_token": "a"},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2}, "merges": []},
        "added_tokens": [token(3, "<s>"), token(4, "</s>")],
        "decoder": {"type": "Fuse"},
        "post_processor": post_processor,
    })
}

/// Puts these special tokens around the text.
fn around(before: &[&str], after: &[&str]) -> Json {
    let special = |t: &&str| json!({"SpecialToken": {"id": t, "type_id": 0}});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let single: Vec<Json> =
        before.iter().map(special).chain([text]).chain(after.iter().map(special)).collect();
    json!({
        "type": "TemplateProcessing", "single": single, "pair": [],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [3], "tokens": ["<s>"]},
                           "</s>": {"id": "</s>", "ids": [4], "tokens": ["</s>"]}},
    })
}

fn directory(tokenizer: &str, config: &Json) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("tokenizer.json"), tokenizer).expect("written");
    std::fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).expect("written");
    dir
}

fn model(post_processor: &Json, config: &Json) -> TextModel {
    let dir = directory(&tokenizer(post_processor).to_string(), config);
    TextModel::load(dir.path()).expect("the model loads")
}

fn prompt(model: &TextModel, text: &str) -> Vec<u32> {
    model.prompt_ids(&Prompt::Text(text.to_owned())).expect("ids")
}

#[test]
fn bos_is_added_once_and_eos_never() {
    let model = model(&around(&["<s>"], &["</s>"]), &json!({"bos_token": "<s>"}));
    assert_eq!(prompt(&model, "abc"), [3, 0, 1, 2]);
    assert_eq!(prompt(&model, "<s>abc"), [3, 0, 1, 2]);
    assert_eq!(prompt(&model, ""), [3]);
    assert_eq!(prompt(&model, "a<s>b</s>"), [3, 0, 3, 1, 4]);
    assert_eq!(model.encode_rendered("a"), Ok(vec![0]));
    assert_eq!(model.encode_rendered("<s>a"), Ok(vec![3, 0]));
    // Without special tokens the letters of `<s>` are not in this vocabulary.
    assert_eq!(model.encode("<s>a", false), Ok(vec![0]));
}

#[test]
fn the_configuration_may_overrule_the_post_processor() {
    let config = |add: Json| json!({"bos_token": {"content": "<s>"}, "add_bos_token": add});
    let with = around(&["<s>"], &[]);
    let without = around(&[], &[]);
    assert_eq!(prompt(&model(&with, &config(json!(false))), "a"), [0]);
    assert_eq!(prompt(&model(&with, &config(json!(true))), "a"), [3, 0]);
    assert_eq!(prompt(&model(&with, &config(json!(null))), "a"), [3, 0]);
    assert_eq!(prompt(&model(&without, &config(json!(true))), "a"), [3, 0]);
    assert_eq!(prompt(&model(&without, &config(json!(null))), "a"), [0]);
    assert_eq!(prompt(&model(&Json::Null, &json!({})), "a"), [0]);
}

#[test]
fn prompts_are_never_cut_or_filled() {
    let model = model(&Json::Null, &json!({}));
    assert_eq!(prompt(&model, "abcabc"), [0, 1, 2, 0, 1, 2]);
    assert_eq!(prompt(&model, "a"), [0]);
}

#[test]
fn what_is_wrong_with_a_directory_is_said_with_the_file() {
    let load = |text: &str| {
        let dir = directory(text, &json!({}));
        TextModel::load(dir.path()).expect_err("the directory is refused")
    };
    let empty = tempfile::tempdir().expect("a temporary directory");
    let missing = TextModel::load(empty.path()).expect_err("nothing is there");
    assert!(matches!(missing, LoadError::Read { .. }));
    assert!(missing.to_string().contains("tokenizer.json"), "{missing}");
    assert!(matches!(load("{"), LoadError::Malformed { .. }));

    let mut unsupported = tokenizer(&Json::Null);
    unsupported["decoder"] = json!({"type": "WordPiece", "prefix": "##", "cleanup": true});
    let error = load(&unsupported.to_string());
    assert!(matches!(&error, LoadError::Decoder { what, .. } if what.contains("WordPiece")));

    let mut absurd = tokenizer(&Json::Null);
    absurd["model"]["vocab"]["z"] = json!(u32::MAX);
    assert!(load(&absurd.to_string()).to_string().contains("too large"));

    let text = tokenizer(&Json::Null).to_string();
    let dir = directory(&text, &json!({"chat_template": 7}));
    let error = TextModel::load(dir.path()).expect_err("7 is not a template").to_string();
    assert!(error.contains("tokenizer_config.json") && error.contains("chat_template"), "{error}");
}

#[test]
fn everything_may_cross_threads() {
    fn crosses<T: Send + Sync + 'static>() {}
    crosses::<TextModel>();
    crosses::<Detokenizer>();
    crosses::<StopStrings>();
}
