"""What subagents that start together on one history compute, against what one of them would.

    pip install openai
    python bench/fan_out.py --baton target/release/baton

Starts several prefill and decode processes with the witness engine, which takes the time that a
large model would. In every round eight requests with 20,000 shared tokens and 64 of their own are
sent at once, then one alone with another history; what all workers computed is read from the
router's metrics. The last line is one JSON object.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys

import openai

from witness_cluster import Cluster, first_token_s, words

SHARED, OWN, ANSWER = 20_000, 64, 8


async def ask(client, prompt):
    return await first_token_s(client, prompt=prompt, max_tokens=ANSWER)


async def together(cluster, client, rng, count):
    """What so many computed, and the longest time to a first token."""
    shared = words(rng, SHARED)
    before = cluster.computed_tokens()
    firsts = await asyncio.gather(*(ask(client, shared + words(rng, OWN)) for _ in range(count)))
    # The first token of an answer comes with the prompt's last position.
    return cluster.computed_tokens() - before - count * (ANSWER - 1), max(firsts)


async def measure(args, cluster):
    client = openai.AsyncOpenAI(base_url=f"{cluster.urls[0]}/v1", api_key="none")
    rng = random.Random(1)
    await ask(client, "hello")
    found = {args.agents: [], 1: []}
    for at in range(args.rounds):
        for count, rows in found.items():
            rows.append(await together(cluster, client, rng, count))
        print(f"round {at + 1} of {args.rounds}", end="\r", file=sys.stderr, flush=True)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--baton", default="target/release/baton", help="the program")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--agents", type=int, default=8, help="that start together")
    parser.add_argument("--workers", type=int, default=3, help="of each kind")
    parser.add_argument("--fan-out", default="on", choices=["on", "shadow", "off"])
    args = parser.parse_args()
    extra = f'[switches]\nfan_out = "{args.fan_out}"'
    count = dict(prefill=args.workers, decode=args.workers)
    with Cluster(args.baton, 25_000, 100, router_extra=extra, **count) as cluster:
        found = asyncio.run(measure(args, cluster))
    rows = {}
    for count, measured in found.items():
        tokens = statistics.median(tokens for tokens, _ in measured)
        ttft = statistics.median(first for _, first in measured)
        rows[count] = dict(computed_tokens=tokens, worst_ttft_s=ttft)
        print(f"{count} at once: {tokens:.0f} tokens computed, the last first token after {ttft:.2f} s")
    ratio = rows[args.agents]["computed_tokens"] / rows[1]["computed_tokens"]
    print(f"{ratio:.3f} x what one computes (goal 1.05)")
    print(json.dumps(dict(ratio=ratio, rows=rows)))


if __name__ == "__main__":
    main()
