//! Checkpoint directories, good in all published forms and bad in many ways.

#![allow(clippy::unwrap_used)]

mod common;

use baton_engine::checkpoint::Checkpoint;
use baton_engine::cpu::{CpuEngine, CpuOptions};
use baton_kernels::{DType, Matrix, RopeSpeeds};
use common::{Rig, golden, model};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// A copy that can be damaged.
fn copy(name: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    for file in ["config.json", "generation_config.json", "model.safetensors"] {
        fs::copy(model(name).join(file), dir.path().join(file)).unwrap();
    }
    dir
}

fn edit(file: &Path, change: impl FnOnce(&mut Value)) {
    let mut json = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    change(&mut json);
    fs::write(file, json.to_string()).unwrap();
}

/// A tensor that a test may change: name, type, shape, bytes.
type Owned = (String, Dtype, Vec<usize>, Vec<u8>);

fn read_tensors(dir: &Path) -> Vec<Owned> {
    let bytes = fs::read(dir.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let own = |(name, view): (String, TensorView<'_>)| {
        (name, view.dtype(), view.shape().to_vec(), view.data().to_vec())
    };
    tensors.tensors().into_iter().map(own).collect()
}

fn write_tensors<'a>(file: &Path, tensors: impl IntoIterator<Item = &'a Owned>) {
    let view = |(name, dtype, shape, data): &'a Owned| {
        (name.clone(), TensorView::new(*dtype, shape.clone(), data).unwrap())
    };
    serialize_to_file(tensors.into_iter().map(view), None, file).unwrap();
}

/// The checkpoint's tensors in two files with an index.
fn shard(dir: &Path) {
    let tensors = read_tensors(dir);
    fs::remove_file(dir.join("model.safetensors")).unwrap();
    let name = |i: usize| format!("model-{:05}-of-00002.safetensors", 1 + i % 2);
    for shard in 0..2 {
        let part = tensors.iter().enumerate().filter(|(i, _)| i % 2 == shard).map(|(_, t)| t);
        write_tensors(&dir.join(name(shard)), part);
    }
    let map: serde_json::Map<String, Value> =
        tensors.iter().enumerate().map(|(i, t)| (t.0.clone(), json!(name(i)))).collect();
    let index = json!({ "metadata": {}, "weight_map": map });
    fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

fn options() -> CpuOptions {
    CpuOptions { threads: 1, block_tokens: 16, ..CpuOptions::new() }
}

#[test]
fn shards_are_the_same_model() {
    let dir = copy("tiny-qwen3");
    shard(dir.path());
    let case = &golden(&model("tiny-qwen3"))[1];
    let (mut one, mut two) =
        (Rig::new(&model("tiny-qwen3"), &options()), Rig::new(dir.path(), &options()));
    assert_eq!(one.alone(&case.prompt, 64, 8), two.alone(&case.prompt, 64, 8));
    let (one, two) = (baton_engine::api::Engine::spec(&one.engine).clone(), two.engine);
    assert_eq!(one.weights_digest, baton_engine::api::Engine::spec(&two).weights_digest);
}

/// Every bfloat16 is a float, so the wider checkpoint is the same function; half precision is not
/// wide enough, but close.
#[test]
fn weights_are_read_in_three_types() {
    let case = &golden(&model("tiny-llama"))[2];
    // The same weights in another type have another digest, by which no one would know them.
    let options = CpuOptions { rope_speeds: Some(RopeSpeeds::F32), ..options() };
    let mut stored = Rig::new(&model("tiny-llama"), &options);
    let stored = stored.alone(&case.prompt, 64, 8);
    for dtype in [Dtype::F32, Dtype::F16] {
        let dir = copy("tiny-llama");
        let mut tensors = read_tensors(dir.path());
        for (_, was, shape, data) in &mut tensors {
            let len = shape.iter().product();
            let wide = Matrix::new(data, DType::Bf16, 1, len).unwrap().to_f32();
            (*was, *data) = match dtype {
                Dtype::F32 => (dtype, wide.iter().flat_map(|x| x.to_le_bytes()).collect()),
                _ => (dtype, wide.iter().flat_map(|x| half(*x).to_le_bytes()).collect()),
            };
        }
        write_tensors(&dir.path().join("model.safetensors"), &tensors);
        let mut rig = Rig::new(dir.path(), &options);
        let seen = rig.alone(&case.prompt, 64, 8);
        if dtype == Dtype::F32 {
            assert_eq!(seen, stored);
        } else {
            for ((_, a), (_, b)) in seen.raw_top.iter().zip(&stored.raw_top) {
                assert!((a - b).abs() < 0.05, "{a} {b}");
            }
        }
    }
}

/// The nearest half of a number in half's normal range, ties away from zero; 0 below it.
fn half(x: f32) -> u16 {
    let bits = x.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let magnitude = (bits & 0x7fff_ffff) + 0x1000;
    if magnitude < 0x3880_0000 { sign } else { sign | ((magnitude - 0x3800_0000) >> 13) as u16 }
}

#[test]
fn the_digest_covers_weights_and_what_interprets_them() {
    let digest = |dir: &Path| Checkpoint::open(dir).unwrap().digest(2, &|_| ());
    let first = digest(&model("tiny-qwen3"));
    let dir = copy("tiny-qwen3");
    assert_eq!(digest(dir.path()), first);
    edit(&dir.path().join("config.json"), |c| c["rope_parameters"]["rope_theta"] = json!(1e4));
    assert_ne!(digest(dir.path()), first);
    let dir = copy("tiny-qwen3");
    let mut bytes = fs::read(dir.path().join("model.safetensors")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
    assert_ne!(digest(dir.path()), first);
}

#[test]
fn progress_ends_with_every_byte() {
    let most = std::sync::Mutex::new((0, 0));
    Checkpoint::open(&model("tiny-qwen3")).unwrap().digest(2, &|progress| {
        let mut most = most.lock().unwrap();
        *most = (progress.done.max(most.0), progress.total);
    });
    let (done, total) = most.into_inner().unwrap();
    assert_eq!(done, total);
    assert!(total > 2_500_000 && total < 3_000_000, "{total}");
}

#[test]
fn older_spellings_say_the_same() {
    let dir = copy("tiny-llama");
    edit(&dir.path().join("config.json"), |config| {
        let mut rope = config.as_object_mut().unwrap().remove("rope_parameters").unwrap();
        config["rope_theta"] = rope.as_object_mut().unwrap().remove("rope_theta").unwrap();
        rope["type"] = rope.as_object_mut().unwrap().remove("rope_type").unwrap();
        config["rope_scaling"] = rope;
        config["torch_dtype"] = json!("bfloat16");
        config["eos_token_id"] = json!([5, 2, 5]);
    });
    let newer = Checkpoint::open(&model("tiny-llama")).unwrap();
    let mut older = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(older.config(), newer.config());
    assert_eq!(older.config().eos, [2], "generation_config.json goes first");
    fs::remove_file(dir.path().join("generation_config.json")).unwrap();
    older = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(older.config().eos, [2, 5]);
}

/// Damage to `tiny-qwen3`, and what the one line has to say.
type Bad = (fn(&Path), &'static [&'static str]);

fn config(dir: &Path, change: impl FnOnce(&mut Value)) {
    edit(&dir.join("config.json"), change);
}

fn tensor(dir: &Path, name: &str, change: impl FnOnce(&mut Owned)) {
    let mut tensors = read_tensors(dir);
    change(tensors.iter_mut().find(|t| t.0 == name).unwrap());
    write_tensors(&dir.join("model.safetensors"), &tensors);
}

fn truncate(dir: &Path, length: u64) {
    let file = fs::File::options().write(true).open(dir.join("model.safetensors")).unwrap();
    file.set_len(length).unwrap();
}

const BAD_CONFIGS: &[Bad] = &[
    (|d| fs::remove_file(d.join("config.json")).unwrap(), &["config.json: no such file"]),
    (
        |d| fs::write(d.join("config.json"), "{\"a\": tru").unwrap(),
        &["config.json: not valid JSON", "line 1"],
    ),
    (|d| fs::write(d.join("config.json"), "[1]").unwrap(), &["expected an object, found [1]"]),
    (
        |d| config(d, |c| c["architectures"] = json!(["MixtralForCausalLM"])),
        &["MixtralForCausalLM is not supported", "Qwen3ForCausalLM"],
    ),
    (|d| config(d, |c| c["architectures"] = Value::Null), &["architecture (none named)"]),
    (
        |d| config(d, |c| c["num_key_value_heads"] = json!(3)),
        &["`num_key_value_heads`: expected a divisor of num_attention_heads = 8, found 3"],
    ),
    (
        |d| {
            config(d, |c| {
                c["head_dim"] = Value::Null;
                c["hidden_size"] = json!(100);
            });
        },
        &["`hidden_size`: expected a multiple of num_attention_heads = 8", "found 100"],
    ),
    (|d| config(d, |c| c["head_dim"] = json!(31)), &["`head_dim`: expected an even number"]),
    (|d| config(d, |c| c["vocab_size"] = json!("4096")), &["`vocab_size`", "found \"4096\""]),
    (|d| config(d, |c| c["num_hidden_layers"] = json!(1u64 << 40)), &["`num_hidden_layers`"]),
    (|d| config(d, |c| c["intermediate_size"] = Value::Null), &["`intermediate_size`", "nothing"]),
    (|d| config(d, |c| c["rms_norm_eps"] = json!(-1)), &["`rms_norm_eps`", "found -1"]),
    (|d| config(d, |c| c["tie_word_embeddings"] = json!("no")), &["expected true or false"]),
    (
        |d| config(d, |c| c["quantization_config"] = json!({"quant_method": "fp8"})),
        &["`quantization_config`: \"fp8\" is not supported"],
    ),
    (
        |d| config(d, |c| c["layer_types"][1] = json!("sliding_attention")),
        &["`layer_types`", "is not supported"],
    ),
    (
        |d| {
            config(d, |c| {
                c.as_object_mut().unwrap().remove("layer_types");
                c["use_sliding_window"] = json!(true);
                c["sliding_window"] = json!(4096);
                c["max_window_layers"] = json!(2);
            });
        },
        &["`sliding_window`: 4096 is not supported"],
    ),
    (
        |d| config(d, |c| c["rope_parameters"] = json!({"rope_type": "yarn", "factor": 4.0})),
        &["`rope_parameters.rope_type`: yarn is not supported; supported: default, linear"],
    ),
    (
        |d| config(d, |c| c["rope_parameters"] = json!({"rope_type": "llama3"})),
        &["`rope_parameters.low_freq_factor`", "found nothing"],
    ),
    (|d| config(d, |c| c["hidden_act"] = json!("gelu")), &["`hidden_act`: gelu is not supported"]),
    (
        |d| edit(&d.join("generation_config.json"), |c| c["eos_token_id"] = json!([2, 4096])),
        &["generation_config.json: `eos_token_id`: expected token ids below", "found 4096"],
    ),
];

const BAD_WEIGHTS: &[Bad] = &[
    (
        |d| fs::remove_file(d.join("model.safetensors")).unwrap(),
        &["model.safetensors: no such file; expected it or model.safetensors.index.json"],
    ),
    (
        |d| truncate(d, 2_000_000),
        &["expected 2891320 bytes, found 2000000", "truncated, tensor `model.layers.2."],
    ),
    (|d| truncate(d, 100), &["not a safetensors file", "but the file has 100"]),
    (|d| truncate(d, 3), &["expected at least 8 bytes, found 3"]),
    (|d| truncate(d, 0), &["model.safetensors: "]),
    (
        |d| fs::write(d.join("model.safetensors"), [0xff; 64]).unwrap(),
        &["model.safetensors: not a safetensors file"],
    ),
    (|d| truncate(d, 2_891_321), &["found 2891321", "belong to no tensor"]),
    (
        |d| tensor(d, "model.layers.1.mlp.up_proj.weight", |t| t.2 = vec![128, 384]),
        &[
            "tensor `model.layers.1.mlp.up_proj.weight`: expected shape [384, 128], found [128, 384]",
        ],
    ),
    (
        |d| tensor(d, "model.norm.weight", |t| t.2 = vec![1, 128]),
        &["tensor `model.norm.weight`: expected shape [128], found [1, 128]"],
    ),
    (
        |d| tensor(d, "model.layers.3.self_attn.k_norm.weight", |t| t.1 = Dtype::I16),
        &["`model.layers.3.self_attn.k_norm.weight`: expected BF16, F16 or F32, found I16"],
    ),
    (
        |d| tensor(d, "model.layers.0.self_attn.q_norm.weight", |t| t.0.push('x')),
        &["tensor `model.layers.0.self_attn.q_norm.weight` is missing; expected shape [32]"],
    ),
    (
        |d| config(d, |c| c["tie_word_embeddings"] = json!(false)),
        &["tensor `lm_head.weight` is missing; expected shape [4096, 128]"],
    ),
    (
        |d| {
            shard(d);
            fs::remove_file(d.join("model-00002-of-00002.safetensors")).unwrap();
        },
        &["model-00002-of-00002.safetensors: no such file; tensor `"],
    ),
    (
        |d| {
            shard(d);
            let index = d.join("model.safetensors.index.json");
            edit(&index, |i| i["weight_map"]["model.norm.weight"] = json!("../x.safetensors"));
        },
        &["`weight_map.model.norm.weight`: expected the name of a file in the directory"],
    ),
    (
        |d| {
            shard(d);
            edit(&d.join("model.safetensors.index.json"), |i| i["weight_map"] = json!([]));
        },
        &["index.json: `weight_map`: expected an object"],
    ),
    (
        |d| {
            shard(d);
            edit(&d.join("model.safetensors.index.json"), |i| {
                i["weight_map"].as_object_mut().unwrap().remove("model.norm.weight");
            });
        },
        &["index.json: tensor `model.norm.weight` is missing"],
    ),
];

#[test]
fn bad_checkpoints_are_refused_in_one_line() {
    for (case, (damage, expected)) in BAD_CONFIGS.iter().chain(BAD_WEIGHTS).enumerate() {
        let dir = copy("tiny-qwen3");
        damage(dir.path());
        let line = match Checkpoint::open(dir.path()) {
            Ok(_) => panic!("case {case} was accepted; expected {expected:?}"),
            Err(error) => error.to_string(),
        };
        for part in *expected {
            assert!(line.contains(part), "case {case}: {line:?} does not say {part:?}");
        }
        assert!(!line.contains('\n'), "case {case}: {line:?}");
        assert!(line.starts_with(dir.path().to_str().unwrap()), "case {case}: {line:?}");
    }
    let nowhere = Checkpoint::open(Path::new("no/such/dir")).err().unwrap().to_string();
    assert!(nowhere.contains("no/such/dir: not a directory"), "{nowhere}");
}

#[test]
fn options_that_cannot_work_are_refused() {
    let checkpoint = Checkpoint::open(&model("tiny-qwen3")).unwrap();
    let refused = |options: CpuOptions| {
        CpuEngine::load(&checkpoint, &options, &|_| ()).err().unwrap().to_string()
    };
    let line = refused(CpuOptions { block_tokens: 48, ..options() });
    assert_eq!(line, "engine option `block_tokens`: expected a power of two in 16..=256, found 48");
    for bad in [
        CpuOptions { block_tokens: 8, ..options() },
        CpuOptions { block_tokens: 512, ..options() },
        CpuOptions { threads: 0, ..options() },
        CpuOptions { batch_tokens_max: 0, ..options() },
        CpuOptions { context_tokens: Some(32_769), ..options() },
    ] {
        assert!(refused(bad).contains("expected"));
    }
}
