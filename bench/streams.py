"""What a router does for many streams at once, each of which is to get a token every 20 ms.

    python bench/streams.py --baton target/release/baton

The router has one core; one prefill and two decode processes with the witness engine, the client, and
a second router, share another. Over the second router go a few streams only, which tell when the
workers' steps were. Each round is told with what a write of one event costs on this machine, in a
process that does nothing else: no server that sends each token as it comes can take less. The last
line is one JSON object.
"""

import argparse
import json
import statistics
import subprocess
import sys

from witness_cluster import Cluster


def write_us(args):
    """The processor time of one write of an event, over as many connections as there are streams."""
    command = [args.baton, "bench", "writes", "--streams", str(args.streams)]
    command += ["--interval-ms", str(args.interval_ms)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return json.loads(said.stdout)["write_us"]


def round_of(args, api):
    step_us = 1000 * args.interval_ms
    with Cluster(
        args.baton, step_us, 0, decode=2, routers=2, limits="turns = 4096", cores=(0, 1)
    ) as cluster:
        command = ["taskset", "-c", "1", args.baton, "bench", "streams", "--url", cluster.urls[0]]
        command += ["--beside", cluster.urls[1], "--streams", str(args.streams)]
        command += ["--pid", str(cluster.router_pids[0])]
        command += ["--tokens", str(args.tokens)]
        said = subprocess.run(command + ["--api", api], check=True, stdout=subprocess.PIPE)
        return json.loads(said.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--baton", default="target/release/baton", help="the program")
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=500, help="of each stream")
    parser.add_argument("--interval-ms", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--api", choices=["chat", "messages"], default="chat")
    args = parser.parse_args()
    rows, writes = [], []
    for number in range(args.rounds):
        writes.append(write_us(args))
        rows.append(round_of(args, args.api))
        print(f"round {number + 1}: one write {writes[-1]:.2f} us; {rows[-1]}", file=sys.stderr)
    found = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    found["interval_ms"] = args.interval_ms
    found["write_us"] = statistics.median(writes)
    print(json.dumps(dict(api=args.api, median=found, rounds=rows)))


if __name__ == "__main__":
    main()
