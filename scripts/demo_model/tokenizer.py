"""The tokenizer: byte-level BPE that cuts a value the same way wherever it stands.

A model copies a value token by token, so what follows a space, a quote or a slash must fall into
the same tokens. Digits and punctuation stand alone, and words are merged without their leading
space; only whole words of the grammar's own sentences get a token that includes it, by merges
that come after all others.
"""

import collections
import json
import re
from pathlib import Path

import asks
import chain_asks
import phrasing
import talk
import tools
import values
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TAGS = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
TAGS += ["<think>", "</think>", "<tools>", "</tools>"]
# Short words that are worth a merge with their space; others would cut the heads off values.
SHORT = "I is in of to it at".split()
GLUE = r"""(?: ["{\[]|["{}\[\]:,])+"""
OTHERS = r"\p{N}|\s|[^\s\p{L}\p{N}]"
TRAINING = rf"{GLUE}|\p{{L}}+|{OTHERS}"
FINAL = rf"{GLUE}| ?\p{{L}}+|{OTHERS}"


def splitter(pattern):
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])


def own_words():
    """Words of the grammar's sentences that are no one's value."""
    modules = (asks, chain_asks, phrasing, talk, tools)
    sources = "".join(Path(module.__file__).read_text() for module in modules)
    listed = [v for v in vars(values).values() if isinstance(v, list)]
    taken = {word for values_ in listed for value in values_ for word in value.split()}
    return {w for w in re.findall(r"[A-Za-z]+", sources) if len(w) > 2 or w in SHORT} - taken


def train(texts, size):
    """The content of tokenizer.json."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = splitter(TRAINING)
    tokenizer.decoder = decoders.ByteLevel()
    words = own_words()
    texts = list(texts)
    counts = collections.Counter(
        word for text in texts for word in re.findall(r" ([A-Za-z]+)", text) if word in words
    )
    spaced = [word for word, count in counts.most_common() if count >= 20]
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(spaced),
        special_tokens=SPECIAL + TAGS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    content = json.loads(tokenizer.to_str())
    for token in content["added_tokens"]:
        token["special"] = token["content"] in SPECIAL
    vocab, merges = content["model"]["vocab"], content["model"]["merges"]
    for word in spaced:
        if word in vocab:
            vocab[f"Ġ{word}"] = len(vocab)
            merges.append(["Ġ", word])
    content["pre_tokenizer"] = json.loads(final_splitter())
    return content


def final_splitter():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = splitter(FINAL)
    return json.dumps(json.loads(tokenizer.to_str())["pre_tokenizer"])
