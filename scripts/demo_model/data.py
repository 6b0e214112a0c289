"""Dialogues as token ids, with a mark on what the model has to say itself."""

import json
from pathlib import Path

import grammar
import jinja2.sandbox
import numpy as np
from tokenizers import Tokenizer

CHUNK = 4096  # dialogues that are sorted by length together


def template():
    """The chat template, set up as transformers does it."""
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    env.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return env.from_string((Path(__file__).parent / "chat_template.jinja").read_text())


TEMPLATE = template()


def render(messages, tools, **variables):
    return TEMPLATE.render(messages=messages, tools=tools or None, **variables)


def text(seed):
    made = grammar.dialogue(seed)
    return render(made.messages, made.definitions())


class Encoder:
    def __init__(self, path):
        self.tokenizer = Tokenizer.from_file(str(path))
        self.start, self.end = map(self.tokenizer.token_to_id, ("<|im_start|>", "<|im_end|>"))
        self.think = self.tokenizer.token_to_id("<think>")
        self.role = self.ids("assistant\n")

    def ids(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def marked(self, ids):
        """Which ids are the assistant's own, its <|im_end|> included."""
        own = np.zeros(len(ids), dtype=bool)
        for at, token in enumerate(ids):
            begin = at + 1 + len(self.role)
            if token == self.start and ids[at + 1 : begin] == self.role:
                if ids[begin] == self.think:
                    begin += 2  # the template writes `<think>\n`
                own[begin : ids.index(self.end, begin) + 1] = True
        return own


def chunk(encoder, seed, index, batch_tokens):
    """Batches of one chunk: lists of (ids, own) of similar length, in random order."""
    first = index * CHUNK
    texts = [text(f"{seed} {i}") for i in range(first, first + CHUNK)]
    encoded = encoder.tokenizer.encode_batch(texts, add_special_tokens=False)
    rows = sorted((e.ids for e in encoded), key=len)
    rng = np.random.default_rng([seed, index])
    batches, batch = [], []
    for ids in rows:
        if batch and padded(len(ids)) * (len(batch) + 1) > batch_tokens:
            batches.append(batch)
            batch = []
        batch.append(ids)
    batches.append(batch)
    rng.shuffle(batches)
    return batches


def padded(length):
    return -(-(length - 1) // 32) * 32


def arrays(encoder, batch):
    """Inputs, targets and which targets count, padded on the right (attention is causal)."""
    width = padded(max(map(len, batch)))
    inputs = np.zeros((len(batch), width), dtype=np.int64)
    targets, own = inputs.copy(), np.zeros((len(batch), width), dtype=bool)
    real = own.copy()
    for row, ids in enumerate(batch):
        n = len(ids) - 1
        inputs[row, :n], targets[row, :n] = ids[:-1], ids[1:]
        own[row, :n] = encoder.marked(ids)[1:]
        real[row, :n] = True
    return inputs, targets, own, real
