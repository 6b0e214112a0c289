//! `config.json` and `generation_config.json`: what a model is like.

use super::CheckpointError;
use super::fields::{Fields, brief, read_json};
use baton_kernels::RopeScaling;
use baton_proto::ids::TokenId;
use serde_json::Value;
use std::path::Path;

/// Rotary angles are exact enough up to here, and no supported model goes beyond.
const CONTEXT_MAX: u64 = 1 << 20;

/// The families of models that are supported. They differ in details alone, and the details are
/// fields of [`ModelConfig`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Architecture {
    /// Llama 2, 3.x.
    Llama,
    /// Qwen2, Qwen2.5: biases on the projections to queries, keys and values.
    Qwen2,
    /// Qwen3: norms on queries and keys.
    Qwen3,
}

/// What a model is like.
#[derive(Clone, PartialEq, Debug)]
pub struct ModelConfig {
    /// The family.
    pub architecture: Architecture,
    /// Token ids are `0..vocab`.
    pub vocab: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward part.
    pub intermediate: usize,
    /// Layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key-value heads; divide the query heads.
    pub kv_heads: usize,
    /// Elements per head; even.
    pub head_dim: usize,
    /// Epsilon of the norms.
    pub norm_eps: f32,
    /// Base of the rotary speeds.
    pub rope_theta: f32,
    /// How the rotary speeds are scaled.
    pub rope_scaling: RopeScaling,
    /// Biases on queries, keys and values.
    pub qkv_bias: bool,
    /// A bias on the attention's output.
    pub output_bias: bool,
    /// Biases in the feed-forward part.
    pub mlp_bias: bool,
    /// Norms on every head of queries and keys.
    pub qk_norm: bool,
    /// The output projection is the embedding.
    pub tied: bool,
    /// Longest sequence.
    pub context: usize,
    /// End tokens, ascending.
    pub eos: Vec<TokenId>,
}

impl ModelConfig {
    /// Reads a checkpoint directory's configuration.
    pub fn read(dir: &Path) -> Result<Self, CheckpointError> {
        if !dir.is_dir() {
            return Err(CheckpointError::NotADirectory { dir: dir.to_owned() });
        }
        let file = dir.join("config.json");
        let map = read_json(&file)?.ok_or_else(|| CheckpointError::MissingFile {
            file: file.clone(),
            needed: "every checkpoint has one".to_owned(),
        })?;
        let fields = Fields::new(&file, &map);
        let mut config = Self::from_fields(&fields)?;
        let generation_file = dir.join("generation_config.json");
        let generation = read_json(&generation_file)?;
        let generation = generation.as_ref().map(|map| Fields::new(&generation_file, map));
        // What generation is configured with goes first: it names all end tokens of a chat model.
        config.eos = match generation.as_ref().filter(|g| g.get("eos_token_id").is_some()) {
            Some(generation) => eos(generation, config.vocab)?,
            None => eos(&fields, config.vocab)?,
        };
        Ok(config)
    }

    fn from_fields(fields: &Fields<'_>) -> Result<Self, CheckpointError> {
        let architecture = architecture(fields)?;
        refuse_what_is_missing(fields)?;
        let heads = fields.required("num_attention_heads", 1..=4096)?;
        let kv_heads = fields.number("num_key_value_heads", 1..=4096)?.unwrap_or(heads);
        if !heads.is_multiple_of(kv_heads) {
            let expected = format!("a divisor of num_attention_heads = {heads}");
            return Err(fields.wrong("num_key_value_heads", &expected, kv_heads.to_string()));
        }
        let hidden = fields.required("hidden_size", 1..=1 << 17)?;
        let layers = fields.required("num_hidden_layers", 1..=1024)?;
        refuse_sliding_windows(fields, layers)?;
        let attention_bias = fields.flag("attention_bias")?;
        let (rope_theta, rope_scaling) = rope(fields)?;
        Ok(Self {
            architecture,
            vocab: fields.required("vocab_size", 1..=1 << 24)?,
            hidden,
            intermediate: fields.required("intermediate_size", 1..=1 << 20)?,
            layers,
            heads,
            kv_heads,
            head_dim: head_dim(fields, hidden, heads)?,
            norm_eps: fields.float("rms_norm_eps", 0.0)?.unwrap_or(1e-6),
            rope_theta,
            rope_scaling,
            qkv_bias: architecture == Architecture::Qwen2 || attention_bias,
            output_bias: architecture != Architecture::Qwen2 && attention_bias,
            mlp_bias: architecture == Architecture::Llama && fields.flag("mlp_bias")?,
            qk_norm: architecture == Architecture::Qwen3,
            tied: fields.flag("tie_word_embeddings")?,
            context: fields.required("max_position_embeddings", 1..=CONTEXT_MAX)?,
            eos: Vec::new(),
        })
    }

    /// Everything that decides what is computed from the weights, as a text that stays the same
    /// when this type changes.
    pub(super) fn canonical(&self) -> String {
        let rope = match self.rope_scaling {
            RopeScaling::None => "none".to_owned(),
            RopeScaling::Linear { factor } => format!("linear {factor}"),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                format!("llama3 {factor} {low_freq_factor} {high_freq_factor} {original_context}")
            }
        };
        format!(
            "decoder v1\nvocab {}\nhidden {}\nintermediate {}\nlayers {}\nheads {}\nkv_heads {}\n\
             head_dim {}\nnorm_eps {}\nrope_theta {}\nrope_scaling {rope}\nqk_norm {}\ntied {}\n",
            self.vocab,
            self.hidden,
            self.intermediate,
            self.layers,
            self.heads,
            self.kv_heads,
            self.head_dim,
            self.norm_eps,
            self.rope_theta,
            self.qk_norm,
            self.tied,
        )
    }
}

fn architecture(fields: &Fields<'_>) -> Result<Architecture, CheckpointError> {
    let list = fields.get("architectures");
    let unknown = |found: String| CheckpointError::Architecture { file: fields.file(), found };
    match list.and_then(|list| list.get(0)).and_then(Value::as_str) {
        Some("LlamaForCausalLM") => Ok(Architecture::Llama),
        Some("Qwen2ForCausalLM") => Ok(Architecture::Qwen2),
        Some("Qwen3ForCausalLM") => Ok(Architecture::Qwen3),
        Some(name) => Err(unknown(name.chars().take(80).collect())),
        None => Err(unknown(list.map_or_else(|| "(none named)".to_owned(), brief))),
    }
}

/// Features that change the mathematics and are not there.
fn refuse_what_is_missing(fields: &Fields<'_>) -> Result<(), CheckpointError> {
    for field in ["quantization_config", "compression_config"] {
        if let Some(value) = fields.get(field) {
            let method = value.get("quant_method").map_or_else(|| brief(value), brief);
            return Err(fields.unsupported(field, method, "weights in BF16, F16 or F32"));
        }
    }
    if let Some(act) = fields.text("hidden_act")?.filter(|act| !matches!(*act, "silu" | "swish")) {
        return Err(fields.unsupported("hidden_act", act.to_owned(), "silu"));
    }
    if let Some(factor) = fields.float("partial_rotary_factor", 0.0)?.filter(|f| *f < 1.0) {
        return Err(fields.unsupported("partial_rotary_factor", factor.to_string(), "1"));
    }
    Ok(())
}

/// A window that some layer really has.
fn refuse_sliding_windows(fields: &Fields<'_>, layers: usize) -> Result<(), CheckpointError> {
    if let Some(types) = fields.get("layer_types") {
        let all_full = types
            .as_array()
            .is_some_and(|types| types.iter().all(|t| t.as_str() == Some("full_attention")));
        if !all_full {
            return Err(fields.unsupported("layer_types", brief(types), "full_attention alone"));
        }
        return Ok(());
    }
    let window = fields.number("sliding_window", 0..=u64::MAX)?;
    let first = fields.number("max_window_layers", 0..=u64::MAX)?.unwrap_or(0);
    match window {
        Some(window) if fields.flag("use_sliding_window")? && first < layers => {
            Err(fields.unsupported("sliding_window", window.to_string(), "full attention"))
        }
        _ => Ok(()),
    }
}

fn head_dim(fields: &Fields<'_>, hidden: usize, heads: usize) -> Result<usize, CheckpointError> {
    let dim = match fields.number("head_dim", 2..=1024)? {
        Some(dim) => dim,
        None if hidden.is_multiple_of(heads) => hidden / heads,
        None => {
            let expected = format!("a multiple of num_attention_heads = {heads}, or a head_dim");
            return Err(fields.wrong("hidden_size", &expected, hidden.to_string()));
        }
    };
    if dim == 0 || !dim.is_multiple_of(2) {
        return Err(fields.wrong("head_dim", "an even number", dim.to_string()));
    }
    Ok(dim)
}

/// Base and scaling of the rotary embedding, in both forms: `rope_parameters`, and `rope_theta`
/// with `rope_scaling`.
fn rope(fields: &Fields<'_>) -> Result<(f32, RopeScaling), CheckpointError> {
    let parameters = match fields.object("rope_parameters")? {
        Some(parameters) => Some(parameters),
        None => fields.object("rope_scaling")?,
    };
    let mut theta = fields.float("rope_theta", 1.0)?;
    let Some(parameters) = parameters else {
        return Ok((theta.unwrap_or(10_000.0), RopeScaling::None));
    };
    theta = parameters.float("rope_theta", 1.0)?.or(theta);
    if let Some(factor) = parameters.float("partial_rotary_factor", 0.0)?.filter(|f| *f < 1.0) {
        return Err(parameters.unsupported("partial_rotary_factor", factor.to_string(), "1"));
    }
    let field = if parameters.get("rope_type").is_some() { "rope_type" } else { "type" };
    let scaling = match parameters.text(field)? {
        None | Some("default") => RopeScaling::None,
        Some("linear") => RopeScaling::Linear { factor: parameters.required_float("factor", 1.0)? },
        Some("llama3") => llama3(&parameters)?,
        Some(other) => {
            let supported = "default, linear and llama3";
            return Err(parameters.unsupported(field, other.to_owned(), supported));
        }
    };
    Ok((theta.unwrap_or(10_000.0), scaling))
}

fn llama3(parameters: &Fields<'_>) -> Result<RopeScaling, CheckpointError> {
    let low = parameters.required_float("low_freq_factor", f32::MIN_POSITIVE)?;
    let high = parameters.required_float("high_freq_factor", low)?;
    if high <= low {
        let expected = format!("more than low_freq_factor = {low}");
        return Err(parameters.wrong("high_freq_factor", &expected, high.to_string()));
    }
    let field = "original_max_position_embeddings";
    Ok(RopeScaling::Llama3 {
        factor: parameters.required_float("factor", 1.0)?,
        low_freq_factor: low,
        high_freq_factor: high,
        original_context: parameters.required(field, 1..=CONTEXT_MAX)? as u32,
    })
}

/// End tokens: a number or a list of numbers.
fn eos(fields: &Fields<'_>, vocab: usize) -> Result<Vec<TokenId>, CheckpointError> {
    let Some(value) = fields.get("eos_token_id") else { return Ok(Vec::new()) };
    let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    let mut eos = Vec::with_capacity(values.len().min(vocab));
    for value in values {
        let Some(id) = value.as_u64().filter(|id| *id < vocab as u64) else {
            let expected = format!("token ids below vocab_size = {vocab}");
            return Err(fields.wrong("eos_token_id", &expected, brief(value)));
        };
        eos.push(id as TokenId);
    }
    eos.sort_unstable();
    eos.dedup();
    Ok(eos)
}
