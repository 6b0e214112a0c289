"""Trains the demo model on dialogues that are written while it learns.

    python train.py --work DIR

`DIR` gets tokenizer.json, log.jsonl and state.pt, from which the same command goes on after an
interruption. A run of the same seed on the same machine sees the same batches.
"""

import argparse
import ctypes
import json
import os
import time
from pathlib import Path

import data
import numpy as np
import tokenizer
import torch
from model import CONFIG, Qwen3
from score import score
from torch.nn import functional as F

VOCAB = 4096
# The allocator keeps what batches of many shapes leave behind, gigabytes, unless asked.
LIBC = ctypes.CDLL(None)
TOKENIZER_TEXTS = 12000


class Muon(torch.optim.Optimizer):
    """Momentum whose updates are made orthogonal (Jordan et al., 2024), for matrices."""

    def __init__(self, parameters, lr, momentum=0.95, weight_decay=0.05):
        super().__init__(parameters, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                update = orthogonal(p.grad.lerp(state["momentum"], group["momentum"]))
                scale = max(1, p.shape[0] / p.shape[1]) ** 0.5
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * scale)


def orthogonal(matrix):
    """The nearest orthogonal matrix, about, by a quintic Newton-Schulz iteration."""
    x = matrix / (matrix.norm() + 1e-7)
    wide = x.shape[0] > x.shape[1]
    x = (x.T if wide else x).bfloat16()
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
    return (x.T if wide else x).float()


def optimizers(model, args):
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.dim() != 2 or "embed" in n]
    adam = dict(betas=(0.9, 0.98), weight_decay=0.0)
    if args.optimizer == "adamw":
        adam["weight_decay"] = 0.05
        groups = [dict(params=matrices), dict(params=rest, weight_decay=0.0)]
        return [torch.optim.AdamW(groups, lr=args.adam_lr, **adam)]
    return [Muon(matrices, lr=args.lr), torch.optim.AdamW(rest, lr=args.adam_lr, **adam)]


def rate(done):
    """Warm-up, a plateau, and a linear way down over the second half; `done` is in 0..1."""
    return min(1, done / 0.01 + 0.02, max(0.0, (1 - done) / 0.5))


def loss_of(model, batch, rest):
    """Cross-entropy of the assistant's own tokens, and with less weight of all others."""
    inputs, targets, own, real = (torch.from_numpy(a) for a in batch)
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.hidden(inputs)
        total = loss = cross_entropy(model, hidden, targets, own)
        if rest:
            total = loss + rest * cross_entropy(model, hidden, targets, real & ~own)
    return total, loss.item()


def cross_entropy(model, hidden, targets, counted):
    """The mean where `counted`. Rows come in multiples of 256, so that few shapes occur."""
    rows = counted.flatten().nonzero().squeeze(1)
    rows = F.pad(rows, (0, -len(rows) % 256), value=0)
    wanted = targets.flatten()[rows]
    wanted[counted.sum() :] = -100
    logits = model.logits(hidden.flatten(0, 1)[rows]).float()
    return F.cross_entropy(logits, wanted, ignore_index=-100)


class Run:
    def __init__(self, args):
        self.args, self.work = args, args.work
        self.work.mkdir(parents=True, exist_ok=True)
        path = self.work / "tokenizer.json"
        if not path.exists():
            texts = (data.text(f"tokenizer {i}") for i in range(TOKENIZER_TEXTS))
            content = tokenizer.train(texts, VOCAB)
            path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n")
        self.encoder = data.Encoder(path)
        torch.manual_seed(args.seed)
        config = dict(CONFIG, vocab_size=self.encoder.tokenizer.get_vocab_size())
        for part in args.config:
            name, value = part.split("=")
            config[name] = int(value)
        self.model = Qwen3(config)
        self.optimizers = optimizers(self.model, args)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["full_lr"] = group["lr"]
        self.at = dict(chunk=0, batch=0, step=0, tokens=0, seconds=0.0)
        self.state_file = self.work / "state.pt"
        if self.state_file.exists():
            self.resume()

    def resume(self):
        state = torch.load(self.state_file, weights_only=False)
        self.at = state["at"]
        self.model.load_state_dict(state["model"])
        for optimizer, held in zip(self.optimizers, state["optimizers"]):
            optimizer.load_state_dict(held)
        print("resumed", self.at, flush=True)

    def save(self):
        state = dict(
            at=self.at,
            config=self.model.config,
            model=self.model.state_dict(),
            optimizers=[o.state_dict() for o in self.optimizers],
        )
        new = self.state_file.with_suffix(".new")
        torch.save(state, new)
        os.replace(new, self.state_file)

    def log(self, **fields):
        fields = {k: round(v, 4) if isinstance(v, float) else v for k, v in fields.items()}
        line = json.dumps(dict(self.at, seconds=round(self.at["seconds"]), **fields))
        print(line, flush=True)
        with open(self.work / "log.jsonl", "a") as file:
            file.write(line + "\n")

    def batches(self):
        while True:
            chunk = data.chunk(self.encoder, self.args.seed, self.at["chunk"], self.args.batch)
            while self.at["batch"] < len(chunk):
                batch = chunk[self.at["batch"]]
                self.at["batch"] += 1
                yield data.arrays(self.encoder, batch)
            self.at["chunk"] += 1
            self.at["batch"] = 0

    def step(self, batch):
        factor = rate(self.at["tokens"] / self.args.tokens)
        total, loss = loss_of(self.model, batch, self.args.rest)
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["full_lr"] * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.at["tokens"] += int(batch[3].sum())
        self.at["step"] += 1
        return loss

    def train(self):
        args, losses, saved = self.args, [], time.monotonic()
        count = sum(p.numel() for p in self.model.parameters())
        print(f"{count} parameters, pid {os.getpid()}", flush=True)
        cpu, shown = time.process_time(), self.at["tokens"]
        wall = time.monotonic()
        for batch in self.batches():
            losses.append(self.step(batch))
            # Processor time of all threads; a stopped or crowded process does not count.
            spent, cpu = time.process_time() - cpu, time.process_time()
            self.at["seconds"] += spent / torch.get_num_threads()
            done = self.at["tokens"] >= args.tokens
            if self.at["step"] % args.show == 0 or done:
                speed = (self.at["tokens"] - shown) / (time.monotonic() - wall)
                self.log(loss=float(np.mean(losses)), tokens_per_s=round(speed))
                LIBC.malloc_trim(0)
                losses, shown, wall = [], self.at["tokens"], time.monotonic()
            if self.at["step"] % args.evaluate == 0 or done:
                held = time.monotonic()
                self.log(score=score(self.model, self.encoder, args.dialogues))
                wall += time.monotonic() - held
                cpu = time.process_time()
            if time.monotonic() - saved > 180 or done:
                self.save()
                saved = time.monotonic()
            if done:
                return


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tokens", type=float, default=24e6, help="length of the whole run")
    parser.add_argument("--batch", type=int, default=8192, help="tokens in a step")
    parser.add_argument("--lr", type=float, default=0.02, help="of the matrices")
    parser.add_argument("--adam-lr", type=float, default=0.003, help="of everything else")
    parser.add_argument("--optimizer", choices=["muon", "adamw"], default="muon")
    parser.add_argument("--rest", type=float, default=0.0, help="weight of what others say")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--show", type=int, default=20, help="steps between lines of the log")
    parser.add_argument("--evaluate", type=int, default=600, help="steps between evaluations")
    parser.add_argument("--dialogues", type=int, default=50, help="dialogues in an evaluation")
    parser.add_argument("--config", nargs="*", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    Run(args).train()


if __name__ == "__main__":
    main()
