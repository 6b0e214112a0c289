#!/usr/bin/env python3
r"""Makes a tiny checkpoint with golden outputs, in the format of tests/models.

Random bfloat16 weights in the Hugging Face format and what the transformers library computes from
them in float32. Norms and biases are moved away from their initial values, so that forgetting one
shows. Neither the build nor the tests need this script; it makes further fixtures:

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 transformers==5.23.0
    venv/bin/python scripts/make_tiny_checkpoints.py qwen2 --out tests/models/tiny-qwen2

With `outputs` in the place of a family it makes no checkpoint: it computes the cases of an existing
checkpoint's golden.json again, or cases of its own where there is none, and writes them to a file:

    venv/bin/python scripts/make_tiny_checkpoints.py outputs \
        --tokenizer tests/models/tiny-llama --out engine/tests/loaded/tiny-llama.json
    venv/bin/python scripts/make_tiny_checkpoints.py outputs \
        --tokenizer models/demo --out models/demo/golden.json

`golden.json` holds, per case: text and ids of the prompt, the eight largest logits at its last
position, the prompt's mean log-probability, and 48 greedy ids (pure argmax, no end at eos) where
the best and the second logit were never closer than MIN_GAP, so that a right implementation in
float32 cannot miss.
"""

import argparse
import json
import random
import shutil
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

GREEDY = 48
MIN_GAP = 0.02
LENGTHS = [1, 40, 150, 600, 6000]
WORDS = (
    "the agent reads a file and then for each line in self.lines: return None if not found else "
    "value import os def main(args): while True try except print list files under tmp call tool "
    "result 1 2 3 0x7f {} [] () -> == != <= # comment \n \n\n \t    "
).split(" ")


def config(family, tokenizer):
    common = dict(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32768,
        rms_norm_eps=1e-6,
        bos_token_id=0,
        eos_token_id=tokenizer.eos_token_id,
        # Large enough for logits that are several units apart.
        initializer_range=0.2,
    )
    if family == "llama":
        scaling = dict(
            rope_type="llama3",
            rope_theta=500000.0,
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=8192,
        )
        return transformers.LlamaConfig(**common, rope_parameters=scaling)
    theta = dict(rope_type="default", rope_theta=1000000.0)
    if family == "qwen2":
        return transformers.Qwen2Config(**common, rope_parameters=theta, tie_word_embeddings=True)
    return transformers.Qwen3Config(
        **common, rope_parameters=theta, head_dim=32, tie_word_embeddings=True
    )


def make_model(family, tokenizer, seed):
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config(family, tokenizer))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.copy_(1 + 0.25 * torch.randn_like(parameter))
            elif name.endswith("bias"):
                parameter.copy_(0.25 * torch.randn_like(parameter))
    return model.to(torch.bfloat16)


def load(folder):
    # Golden outputs come from the checkpoint as the library loads it. A model in memory that is
    # cast to bfloat16 and back is not the same: the cast rounds the rotary speeds too, which no
    # file holds.
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def golden(model, tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    out = model(torch.tensor([ids]), use_cache=True)
    logits, cache = out.logits[0], out.past_key_values
    mean = None
    if len(ids) > 1:
        logprobs = torch.log_softmax(logits[:-1].double(), -1)
        mean = logprobs.gather(1, torch.tensor(ids[1:]).unsqueeze(1)).mean().item()
    top = torch.topk(logits[-1], 8)
    greedy, gap, last = [], float("inf"), logits[-1]
    for _ in range(GREEDY):
        best = torch.topk(last, 2)
        gap = min(gap, (best.values[0] - best.values[1]).item())
        greedy.append(best.indices[0].item())
        out = model(torch.tensor([greedy[-1:]]), past_key_values=cache, use_cache=True)
        last, cache = out.logits[0, -1], out.past_key_values
    return dict(
        text=text,
        input_ids=ids,
        last_logits_top8=[[i, round(v, 5)] for i, v in zip(top.indices.tolist(), top.values.tolist())],
        mean_logprob_of_prompt=None if mean is None else round(mean, 6),
        greedy_48=greedy if gap >= MIN_GAP else None,
        greedy_min_gap=round(gap, 5),
    )


def random_text(rng, length):
    text = ""
    while len(text) < length:
        text += rng.choice(WORDS) + " "
    return text[:length]


def cases(model, tokenizer, seed):
    for length in LENGTHS:
        # Try texts until one has no near-tie on its way; the last one tried is kept anyway.
        for attempt in range(40):
            rng = random.Random(f"{seed} {length} {attempt}")
            case = golden(model, tokenizer, random_text(rng, length))
            if case["greedy_48"] is not None:
                break
        print(f"{length} characters: {len(case['input_ids'])} ids, gap {case['greedy_min_gap']}")
        yield case


def chat(tokenizer):
    call = {"type": "function", "function": {"name": "ls", "arguments": {"path": "/"}}}
    messages = [
        {"role": "system", "content": "You are terse."},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello", "tool_calls": [call]},
        {"role": "tool", "content": "a b"},
    ]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return dict(messages=messages, rendered=rendered)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("family", choices=["llama", "qwen2", "qwen3", "outputs"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    tokenizer_default = Path(__file__).parent.parent / "tests/models/tiny-qwen3"
    parser.add_argument("--tokenizer", type=Path, default=tokenizer_default)
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    outputs = dict(
        made_with=f"transformers {transformers.__version__}, float32 arithmetic on the bfloat16 weights"
    )
    known = args.tokenizer / "golden.json"
    if args.family == "outputs" and known.exists():
        texts = [case["text"] for case in json.loads(known.read_text())["cases"]]
        model = load(args.tokenizer)
        outputs["cases"] = [golden(model, tokenizer, text) for text in texts]
        if args.out.resolve() == known.resolve():
            outputs["chat"] = chat(tokenizer)
        args.out.write_text(json.dumps(outputs, indent=1) + "\n")
        return
    folder = args.tokenizer
    if args.family != "outputs":
        folder = args.out
        make_model(args.family, tokenizer, args.seed).save_pretrained(folder)
    outputs["cases"] = list(cases(load(folder), tokenizer, args.seed))
    outputs["chat"] = chat(tokenizer)
    if args.family == "outputs":
        args.out.write_text(json.dumps(outputs, indent=1) + "\n")
        return
    for name in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]:
        shutil.copyfile(args.tokenizer / name, args.out / name)
    (args.out / "golden.json").write_text(json.dumps(outputs, indent=1) + "\n")


if __name__ == "__main__":
    main()
