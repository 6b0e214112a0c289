//! Which tensors a model has. The supported families share one graph; see
//! [`crate::checkpoint::ModelConfig`] for what tells them apart.

use crate::checkpoint::ModelConfig;

/// A tensor's name and shape by the configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TensorSpec {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
}

/// The parts of a decoder, with something (a description, a tensor) in the place of each tensor.
#[derive(Clone, Debug)]
pub(crate) struct Model<T> {
    pub(crate) embedding: T,
    pub(crate) layers: Vec<Layer<T>>,
    pub(crate) norm: T,
    /// `None`: the embedding is the head.
    pub(crate) head: Option<T>,
}

/// One layer.
#[derive(Clone, Debug)]
pub(crate) struct Layer<T> {
    pub(crate) attention_norm: T,
    pub(crate) q: Linear<T>,
    pub(crate) k: Linear<T>,
    pub(crate) v: Linear<T>,
    /// Norms per head of queries and of keys.
    pub(crate) q_norm: Option<T>,
    pub(crate) k_norm: Option<T>,
    pub(crate) o: Linear<T>,
    pub(crate) mlp_norm: T,
    pub(crate) gate: Linear<T>,
    pub(crate) up: Linear<T>,
    pub(crate) down: Linear<T>,
}

/// A projection.
#[derive(Clone, Debug)]
pub(crate) struct Linear<T> {
    pub(crate) weight: T,
    pub(crate) bias: Option<T>,
}

impl Model<TensorSpec> {
    /// The tensors of a model by its configuration.
    pub(crate) fn describe(config: &ModelConfig) -> Self {
        let c = config;
        let embedding = vec![c.vocab, c.hidden];
        Self {
            embedding: spec("model.embed_tokens.weight", &embedding),
            layers: (0..c.layers).map(|i| describe_layer(c, i)).collect(),
            norm: spec("model.norm.weight", &[c.hidden]),
            head: (!c.tied).then(|| spec("lm_head.weight", &embedding)),
        }
    }
}

fn describe_layer(c: &ModelConfig, index: usize) -> Layer<TensorSpec> {
    let vector = |part: &str, len| spec(&format!("model.layers.{index}.{part}.weight"), &[len]);
    let linear = |part: &str, out: usize, input: usize, bias: bool| {
        let name = format!("model.layers.{index}.{part}");
        Linear {
            weight: spec(&format!("{name}.weight"), &[out, input]),
            bias: bias.then(|| spec(&format!("{name}.bias"), &[out])),
        }
    };
    let (q, kv) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
    Layer {
        attention_norm: vector("input_layernorm", c.hidden),
        q: linear("self_attn.q_proj", q, c.hidden, c.qkv_bias),
        k: linear("self_attn.k_proj", kv, c.hidden, c.qkv_bias),
        v: linear("self_attn.v_proj", kv, c.hidden, c.qkv_bias),
        q_norm: c.qk_norm.then(|| vector("self_attn.q_norm", c.head_dim)),
        k_norm: c.qk_norm.then(|| vector("self_attn.k_norm", c.head_dim)),
        o: linear("self_attn.o_proj", c.hidden, q, c.output_bias),
        mlp_norm: vector("post_attention_layernorm", c.hidden),
        gate: linear("mlp.gate_proj", c.intermediate, c.hidden, c.mlp_bias),
        up: linear("mlp.up_proj", c.intermediate, c.hidden, c.mlp_bias),
        down: linear("mlp.down_proj", c.hidden, c.intermediate, c.mlp_bias),
    }
}

fn spec(name: &str, shape: &[usize]) -> TensorSpec {
    TensorSpec { name: name.to_owned(), shape: shape.to_vec() }
}

impl<T> Model<T> {
    /// The same model with every tensor replaced.
    pub(crate) fn try_map<U, E>(self, f: &mut dyn FnMut(T) -> Result<U, E>) -> Result<Model<U>, E> {
        Ok(Model {
            embedding: f(self.embedding)?,
            layers: self.layers.into_iter().map(|l| l.try_map(f)).collect::<Result<_, _>>()?,
            norm: f(self.norm)?,
            head: self.head.map(&mut *f).transpose()?,
        })
    }

    /// Visits every tensor.
    pub(crate) fn for_each<'a>(&'a self, f: &mut dyn FnMut(&'a T)) {
        f(&self.embedding);
        for layer in &self.layers {
            layer.for_each(f);
        }
        f(&self.norm);
        self.head.iter().for_each(f);
    }
}

impl<T> Layer<T> {
    fn try_map<U, E>(self, f: &mut dyn FnMut(T) -> Result<U, E>) -> Result<Layer<U>, E> {
        Ok(Layer {
            attention_norm: f(self.attention_norm)?,
            q: self.q.try_map(f)?,
            k: self.k.try_map(f)?,
            v: self.v.try_map(f)?,
            q_norm: self.q_norm.map(&mut *f).transpose()?,
            k_norm: self.k_norm.map(&mut *f).transpose()?,
            o: self.o.try_map(f)?,
            mlp_norm: f(self.mlp_norm)?,
            gate: self.gate.try_map(f)?,
            up: self.up.try_map(f)?,
            down: self.down.try_map(f)?,
        })
    }

    fn for_each<'a>(&'a self, f: &mut dyn FnMut(&'a T)) {
        f(&self.attention_norm);
        for linear in [&self.q, &self.k, &self.v, &self.o, &self.gate, &self.up, &self.down] {
            f(&linear.weight);
            linear.bias.iter().for_each(&mut *f);
        }
        self.q_norm.iter().chain(&self.k_norm).for_each(&mut *f);
        f(&self.mlp_norm);
    }
}

impl<T> Linear<T> {
    fn try_map<U, E>(self, f: &mut dyn FnMut(T) -> Result<U, E>) -> Result<Linear<U>, E> {
        Ok(Linear { weight: f(self.weight)?, bias: self.bias.map(f).transpose()? })
    }
}
