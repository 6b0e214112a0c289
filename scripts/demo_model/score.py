"""The evaluation without a server: greedy decoding in torch, in float32, on bfloat16 weights."""

import copy

import data
import grammar
import torch
from checks import Figures, judge, parse


@torch.no_grad()
def rounded(model):
    """A copy with the weights as the checkpoint holds them."""
    held = copy.deepcopy(model)
    for parameter in held.parameters():
        parameter.copy_(parameter.bfloat16())
    return held.eval()


def score(model, encoder, dialogues, first=0, wrong=None):
    """Shares of right turns; wrong ones are told to `wrong(check, text)`.

    What went before a turn is always as it should have been.
    """
    model, figures = rounded(model), Figures()
    for seed in range(first, first + dialogues):
        made = grammar.dialogue(seed, evaluation=True)
        whole = True
        for at, check in made.checks.items():
            prompt = data.render(
                made.messages[:at],
                made.definitions(),
                add_generation_prompt=True,
                enable_thinking=made.thinking,
            )
            out = model.greedy(encoder.ids(prompt), encoder.end)
            text = encoder.tokenizer.decode(out, skip_special_tokens=False)
            right = True
            for name, good in judge(check, *parse(text)):
                figures.add(name, good)
                right = right and good
            if made.thinking:
                figures.add("thought", "</think>" in text)
            if not right and wrong:
                wrong(check, text)
            whole = whole and right
        figures.add("dialogue", whole)
    return figures.shares()
