"""Qwen3 in plain torch: parameters have the names that Hugging Face checkpoints use."""

import torch
from torch import nn
from torch.nn import functional as F

CONFIG = dict(
    architectures=["Qwen3ForCausalLM"],
    model_type="qwen3",
    vocab_size=4096,
    hidden_size=256,
    intermediate_size=640,
    num_hidden_layers=5,
    num_attention_heads=4,
    num_key_value_heads=4,
    head_dim=64,
    hidden_act="silu",
    max_position_embeddings=4096,
    rms_norm_eps=1e-6,
    rope_theta=10000.0,
    tie_word_embeddings=True,
    attention_bias=False,
    attention_dropout=0.0,
    initializer_range=0.02,
    use_cache=True,
    dtype="bfloat16",
)


class Norm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x):
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * self.weight).to(x.dtype)


def rotate(x, cos, sin):
    first, second = x.chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


def attend(q, k, v):
    """Causal attention. On CPU, and at these sizes, this is twice as fast as torch's own."""
    scores = q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)
    if q.shape[2] > 1:
        future = torch.full(scores.shape[-2:], float("-inf"), dtype=scores.dtype).triu(1)
        scores = scores + future
    return scores.softmax(-1) @ v


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.kv_heads = c["num_attention_heads"], c["num_key_value_heads"]
        self.dim, hidden = c["head_dim"], c["hidden_size"]
        linear = lambda i, o: nn.Linear(i, o, bias=False)
        self.q_proj = linear(hidden, self.heads * self.dim)
        self.k_proj = linear(hidden, self.kv_heads * self.dim)
        self.v_proj = linear(hidden, self.kv_heads * self.dim)
        self.o_proj = linear(self.heads * self.dim, hidden)
        self.q_norm = Norm(self.dim, c["rms_norm_eps"])
        self.k_norm = Norm(self.dim, c["rms_norm_eps"])

    def forward(self, x, cos, sin, past):
        b, t, _ = x.shape
        split = lambda y, heads: y.view(b, t, heads, self.dim)
        q = self.q_norm(split(self.q_proj(x), self.heads)).transpose(1, 2)
        k = self.k_norm(split(self.k_proj(x), self.kv_heads)).transpose(1, 2)
        v = split(self.v_proj(x), self.kv_heads).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if past is not None:
            k, v = past.extend(self, k, v)
        if self.heads != self.kv_heads:
            k = k.repeat_interleave(self.heads // self.kv_heads, 1)
            v = v.repeat_interleave(self.heads // self.kv_heads, 1)
        y = attend(q, k, v)
        return self.o_proj(y.transpose(1, 2).reshape(b, t, -1))


class FeedForward(nn.Module):
    def __init__(self, c):
        super().__init__()
        hidden, inner = c["hidden_size"], c["intermediate_size"]
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.self_attn, self.mlp = Attention(c), FeedForward(c)
        self.input_layernorm = Norm(c["hidden_size"], c["rms_norm_eps"])
        self.post_attention_layernorm = Norm(c["hidden_size"], c["rms_norm_eps"])

    def forward(self, x, cos, sin, past):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, past)
        return x + self.mlp(self.post_attention_layernorm(x))


class Past:
    """Keys and values of one sequence (for greedy decoding)."""

    def __init__(self):
        self.held, self.length = {}, 0

    def extend(self, layer, k, v):
        if layer in self.held:
            k, v = (torch.cat(pair, 2) for pair in zip(self.held[layer], (k, v)))
        self.held[layer] = k, v
        return k, v


class Qwen3(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.config = c
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.model.layers = nn.ModuleList(Layer(c) for _ in range(c["num_hidden_layers"]))
        self.model.norm = Norm(c["hidden_size"], c["rms_norm_eps"])
        speeds = c["rope_theta"] ** -(torch.arange(0, c["head_dim"], 2) / c["head_dim"])
        angles = torch.outer(torch.arange(c["max_position_embeddings"]).float(), speeds)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        self.initialise()

    def initialise(self):
        depth = (2 * self.config["num_hidden_layers"]) ** -0.5
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                spread = 0.02 if "embed" in name else parameter.shape[1] ** -0.5
                last = "o_proj" in name or "down_proj" in name
                nn.init.normal_(parameter, std=spread * (depth if last else 1))

    def hidden(self, ids, past=None):
        at = past.length if past else 0
        cos, sin = self.cos[at : at + ids.shape[1]], self.sin[at : at + ids.shape[1]]
        x = self.model.embed_tokens(ids)
        for layer in self.model.layers:
            x = layer(x, cos, sin, past)
        if past:
            past.length += ids.shape[1]
        return self.model.norm(x)

    def logits(self, hidden):
        return F.linear(hidden, self.model.embed_tokens.weight)

    @torch.no_grad()
    def greedy(self, ids, end, limit=160):
        """The ids that follow, without `end`."""
        past, out = Past(), []
        given = torch.tensor([ids])
        while len(out) < limit:
            token = self.logits(self.hidden(given, past)[:, -1]).argmax(-1).item()
            if token == end:
                break
            out.append(token)
            given = torch.tensor([[token]])
        return out
