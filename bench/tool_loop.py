"""What computing ahead buys a tool loop: TTFT after a tool's result, with the hint and without.

    pip install openai
    python bench/tool_loop.py --baton target/release/baton

Starts one router, one prefill and one decode process with the witness engine, which takes the time
that a large model would. Every round is a new conversation with a long history: a turn, a tool that
takes its time, and the turn with its result, of which the time to the first token is measured by the
official client. Rounds with the hint and without alternate. The last line is one JSON object.
"""

import argparse
import json
import random
import statistics
import sys
import time

import openai

from witness_cluster import Cluster, words

HISTORY, ANSWER, RESULT = 50_000, 50, 700


def ask(client, messages, hint, max_tokens):
    """The seconds to the first token, the answer's text, and the prompt's usage."""
    began, first, text, usage, extra = time.perf_counter(), None, "", None, {}
    stream = client.chat.completions.create(
        model="witness",
        messages=messages,
        max_tokens=max_tokens,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"intent": {"speculative_prefill": hint}},
    )
    for event in stream:
        if event.choices and event.choices[0].delta.content:
            first = first or time.perf_counter() - began
            text += event.choices[0].delta.content
        usage = event.usage or usage
        extra = (event.model_extra or {}).get("nvext") or extra
    return first, text, usage, extra.get("speculation")


def conversation(client, rng, hint, tool_s):
    """The time to the first token after a tool's result, and what was found."""
    messages = [{"role": "user", "content": words(rng, HISTORY)}]
    _, text, _, _ = ask(client, messages, hint, ANSWER)
    messages.append({"role": "assistant", "content": text})
    time.sleep(tool_s)
    messages.append({"role": "tool", "tool_call_id": "1", "content": words(rng, RESULT)})
    first, _, usage, bought = ask(client, messages, hint, 4)
    return first, usage.prompt_tokens - usage.prompt_tokens_details.cached_tokens, bought


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--baton", default="target/release/baton", help="the program")
    parser.add_argument("--rounds", type=int, default=8, help="of each kind")
    parser.add_argument("--tool-s", type=float, default=2.0, help="what the tool takes")
    parser.add_argument("--step-ms", type=int, default=25, help="of the model: a step")
    parser.add_argument("--prefill-token-us", type=int, default=100, help="and each token in it")
    args = parser.parse_args()
    rng = random.Random(1)
    step, token = args.step_ms / 1e3, args.prefill_token_us / 1e6
    # The new tokens in one step, and one step that draws.
    least = step + RESULT * token + step + token
    found = {True: [], False: []}
    with Cluster(args.baton, 1000 * args.step_ms, args.prefill_token_us) as cluster:
        client = openai.OpenAI(base_url=f"{cluster.urls[0]}/v1", api_key="none")
        ask(client, [{"role": "user", "content": "hi"}], False, 1)
        for at in range(2 * args.rounds):
            hint = at % 2 == 0
            found[hint].append(conversation(client, rng, hint, args.tool_s))
            print(f"round {at + 1} of {2 * args.rounds}", end="\r", file=sys.stderr, flush=True)
    print(f"least: {1e3 * least:.0f} ms (prefill of {RESULT} tokens and one decode step)")
    rows = {"least_ms": 1e3 * least}
    for hint, name in ((True, "ahead"), (False, "without")):
        times = sorted(1e3 * first for first, _, _ in found[hint])
        median, new = statistics.median(times), statistics.median(n for _, n, _ in found[hint])
        rows[name] = dict(ttft_ms=times, median_ms=median, new_tokens=new, ratio=median / rows["least_ms"])
        print(
            f"{name:8} TTFT {median:6.0f} ms ({times[0]:.0f} to {times[-1]:.0f}), "
            f"{median / rows['least_ms']:.2f} x least, {new:.0f} prompt tokens not found"
        )
        print(f"{'':8} {found[hint][-1][2]}")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
