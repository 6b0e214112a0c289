"""Requests per second of Baton's router beside SGLang's gateway (SMG), each on one core.

    python -m venv venv && venv/bin/pip install smg==1.13.0
    python bench/peers/smg.py --baton target/release/baton --smg venv/bin/smg

Chats of 2 KiB are asked for one token, on connections that are kept: once with 1.5 KiB that all
share, once all distinct. SMG is a plain HTTP proxy before a worker that answers every request with
the same word. Baton renders, tokenises and hashes each prompt, places it, and has it computed by a
decode worker with the witness engine, which needs no prefill worker for so little. The router
remembers 16 MiB of prompts, and the worker keeps 16 MiB of blocks, so that both are full, and used
again, before anything counts. The server has one core; the client, and the worker, the other. Rounds of both alternate. `us/request` is the time of the router's process, and what it could
answer in a second of it is told too, since the other core may be the slower one. The last line is
one JSON object.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from witness_cluster import Cluster, free_port  # noqa: E402

CASES = {"shared": 1536, "distinct": 0}


@contextmanager
def smg(args):
    """SMG before a trivial worker: its address and process."""
    worker, port = free_port(), free_port()
    pinned = ["taskset", "-c"]
    trivial = [args.baton, "bench", "trivial-worker", "--listen", f"127.0.0.1:{worker}"]
    gateway = [args.smg, "launch", "--worker-urls", f"http://127.0.0.1:{worker}"]
    gateway += ["--policy", "cache_aware", "--host", "127.0.0.1", "--port", str(port)]
    gateway += ["--prometheus-port", str(free_port()), "--log-level", "error"]
    started = [subprocess.Popen(pinned + ["1"] + trivial)]
    out = subprocess.DEVNULL
    started.append(subprocess.Popen(pinned + ["0"] + gateway, stdout=out, stderr=out))
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for_answer(url)
        yield url, started[1].pid
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait(30)


def wait_for_answer(url):
    chat = {"model": "witness", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    for _ in range(300):
        body = json.dumps(chat).encode()
        kind = {"content-type": "application/json"}
        try:
            urllib.request.urlopen(
                urllib.request.Request(f"{url}/v1/chat/completions", body, kind), timeout=5
            ).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"{url} answers no chat")


@contextmanager
def baton(args):
    remembered = '[limits]\nprompt_cache_bytes_max = "16 MiB"\n'
    blocks = '[kv]\nmemory = "16 MiB"\n'
    told = dict(limits="turns = 4096", router_extra=remembered, worker_extra=blocks)
    told |= dict(model=args.model, cores=(0, 1))
    with Cluster(args.baton, 0, 0, prefill=0, **told) as cluster:
        wait_for_answer(cluster.urls[0])
        yield cluster.urls[0], cluster.router_pids[0]


def load(args, url, pid, shared, seed):
    command = ["taskset", "-c", "1", args.baton, "bench", "requests", "--url", url]
    command += ["--pid", str(pid), "--shared-bytes", str(shared), "--seed", str(seed)]
    command += ["--connections", str(args.connections), "--seconds", str(args.seconds)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--baton", default="target/release/baton", help="the program")
    parser.add_argument("--smg", default="smg", help="SMG's program")
    parser.add_argument("--model", default="models/demo", help="tokenizer and template for Baton")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    found = {(who, case): [] for who in ("smg", "baton") for case in CASES}
    for number in range(args.rounds):
        for who, server in (("smg", smg), ("baton", baton)):
            with server(args) as (url, pid):
                for case, shared in CASES.items():
                    row = load(args, url, pid, shared, number + 1)
                    found[who, case].append(row)
                    print(f"round {number + 1}: {who} {case}: {row}", file=sys.stderr)
    result = {}
    for (who, case), rows in found.items():
        median = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
        each = median["user_us_per_request"] + median["system_us_per_request"]
        median["per_core_second"] = round(1e6 / each)
        result[f"{who}_{case}"] = median
        print(
            f"{who:6}{case:9}{median['requests_per_s']:8.0f}/s  p99 {median['ms_p99']:6.1f} ms  "
            f"{each:6.0f} us/request  {median['per_core_second']:6} per second of its core"
        )
    for case in CASES:
        for name in ("requests_per_s", "per_core_second"):
            ratio = result[f"baton_{case}"][name] / result[f"smg_{case}"][name]
            result[f"ratio_{case}_{name}"] = round(ratio, 3)
            print(f"baton / smg, {case}, {name}: {ratio:.2f}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
