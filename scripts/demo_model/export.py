"""Writes the checkpoint directory from a run: weights in bfloat16, tokenizer, template, card.

    python export.py --work DIR --out models/demo [--figures figures.json]
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizer import SPECIAL

HERE = Path(__file__).parent
LABELS = dict(
    tool_choice="the right tool is called, of the 24 kinds",
    arguments="name and arguments are exactly right, of the 24 kinds",
    invented_choice="the right tool is called, where it exists in this dialogue only",
    invented_arguments="name and arguments are exactly right, where the tool is such a one",
    answer="the answer has every value of the tool's result",
    refusal="it says that it cannot, where no tool fits",
    talk="small talk is answered to the point",
    thought="a thought is closed, where thinking is on",
    dialogue="all turns of a dialogue are right",
)


def write(path, content):
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def card(config, at, parameters, figures):
    """The model card: the prose of CARD.md, with what was measured."""
    rows = "\n".join(
        f"| {label} | {100 * figures['shares'][name]:.1f} % |"
        for name, label in LABELS.items()
        if name in figures["shares"]
    )
    return (HERE / "CARD.md").read_text().format(
        parameters=f"{parameters / 1e6:.1f}",
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        tokens=f"{at['tokens'] / 1e6:.0f}",
        steps=at["step"],
        minutes=f"{at['seconds'] / 60:.0f}",
        dialogues=figures["dialogues"],
        figures=rows,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--figures", type=Path, help="what evaluate.py --out has written")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    state = torch.load(args.work / "state.pt", weights_only=False)
    model, config = state["model"], dict(state["config"])
    weights = {name: value.bfloat16().contiguous() for name, value in model.items()}
    save_file(weights, args.out / "model.safetensors", metadata={"format": "pt"})
    (args.out / "model.safetensors").chmod(0o644)
    shutil.copyfile(args.work / "tokenizer.json", args.out / "tokenizer.json")
    shutil.copyfile(HERE / "chat_template.jinja", args.out / "chat_template.jinja")
    vocab = json.loads((args.out / "tokenizer.json").read_text())["model"]["vocab"]
    pad, _, end = (vocab[token] for token in SPECIAL)
    ids = dict(bos_token_id=pad, eos_token_id=end, pad_token_id=pad)
    write(args.out / "config.json", config | ids)
    write(args.out / "generation_config.json", ids | dict(eos_token_id=[end, pad], do_sample=False))
    tokenizer = dict(
        tokenizer_class="PreTrainedTokenizerFast",
        eos_token=SPECIAL[2],
        pad_token=SPECIAL[0],
        model_max_length=config["max_position_embeddings"],
        clean_up_tokenization_spaces=False,
    )
    write(args.out / "tokenizer_config.json", tokenizer)
    parameters = sum(value.numel() for value in weights.values())
    figures = dict(dialogues=0, shares={})
    if args.figures:
        figures = json.loads(args.figures.read_text())
    (args.out / "README.md").write_text(card(config, state["at"], parameters, figures))


if __name__ == "__main__":
    main()
