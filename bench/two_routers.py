"""Whether priorities hold across routers: the tail of urgent requests with one router and with two.

    pip install openai
    python bench/two_routers.py --baton target/release/baton

One prefill and one decode process with the witness engine are offered more than they can compute:
one request in five is urgent, the others wait. Rounds with one router and with two, between which
requests alternate, take turns. The last line is one JSON object.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import time

import openai

from witness_cluster import Cluster, first_token_s, words

PROMPT, ANSWER, URGENT = 1000, 4, 10


async def ask(client, prompt, priority, times):
    """Appends the seconds to the first token."""
    intent = {"intent": {"priority": priority}}
    times.append(
        await first_token_s(client, prompt=prompt, max_tokens=ANSWER, extra_body=intent)
    )


async def load(urls, args, rng):
    """The times of urgent and of ordinary requests under an open loop of arrivals."""
    clients = [openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") for url in urls]
    for client in clients:
        await ask(client, "hello", 0, [])
    found, tasks = {0: [], URGENT: []}, []
    at = time.perf_counter()
    for number in range(int(args.per_s * args.seconds)):
        at += rng.expovariate(args.per_s)
        await asyncio.sleep(max(0.0, at - time.perf_counter()))
        priority = URGENT if rng.random() < 0.2 else 0
        ask_one = ask(clients[number % len(clients)], words(rng, PROMPT), priority, found[priority])
        tasks.append(asyncio.create_task(ask_one))
    await asyncio.gather(*tasks)
    return found


def p99(times):
    return statistics.quantiles(times, n=100)[98]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--baton", default="target/release/baton", help="the program")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30.0, help="of load in a round")
    parser.add_argument("--per-s", type=float, default=20.0, help="arrivals")
    args = parser.parse_args()
    found = {1: {0: [], URGENT: []}, 2: {0: [], URGENT: []}}
    for at in range(args.rounds):
        for routers, rows in found.items():
            with Cluster(args.baton, 5_000, 50, routers=routers) as cluster:
                # The same arrivals for both.
                for priority, times in asyncio.run(
                    load(cluster.urls, args, random.Random(at))
                ).items():
                    rows[priority].extend(times)
        print(f"round {at + 1} of {args.rounds}", end="\r", file=sys.stderr, flush=True)
    rows = {}
    for routers, measured in found.items():
        urgent, others = measured[URGENT], measured[0]
        rows[routers] = dict(
            urgent_p50_s=statistics.median(urgent),
            urgent_p99_s=p99(urgent),
            others_p50_s=statistics.median(others),
            urgent=len(urgent),
        )
        print(
            f"{routers} router(s): urgent p50 {statistics.median(urgent):.3f} s, p99 {p99(urgent):.3f} s "
            f"({len(urgent)} requests); others p50 {statistics.median(others):.3f} s"
        )
    ratio = rows[2]["urgent_p99_s"] / rows[1]["urgent_p99_s"]
    print(f"two routers: {ratio:.2f} x the p99 of one (goal 1.2)")
    print(json.dumps(dict(ratio=ratio, rows=rows)))


if __name__ == "__main__":
    main()
