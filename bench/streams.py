"""What a router does for many streams at once, each of which is to get a token every 20 ms.

    python bench/streams.py --baton target/release/baton

The router has one core; one prefill and two decode processes with the witness engine, and the
client, share another. Each round is told with what a write of one event costs on this machine, in a
process that does nothing else: no server that sends each token as it comes can take less. The last
line is one JSON object.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time

from witness_cluster import Cluster

EVENT = b"f4\r\n" + b"x" * 244 + b"\r\n"


def write_us(streams, rounds=20):
    """The processor time of one write of an event, over as many connections as there are streams."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    reader = os.fork()
    if reader == 0:
        drain(listener, streams)
        os._exit(0)
    os.sched_setaffinity(0, {0})
    senders = [socket.create_connection(listener.getsockname()) for _ in range(streams)]
    for sender in senders:
        sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sender.send(EVENT)
    began = time.process_time()
    for _ in range(rounds):
        for sender in senders:
            sender.send(EVENT)
    took = time.process_time() - began
    for sender in senders:
        sender.close()
    os.waitpid(reader, 0)
    listener.close()
    os.sched_setaffinity(0, range(os.cpu_count()))
    return 1e6 * took / (rounds * streams)


def drain(listener, streams):
    """Reads all connections to their ends."""
    import selectors

    os.sched_setaffinity(0, {1})
    watched = selectors.DefaultSelector()
    for _ in range(streams):
        watched.register(listener.accept()[0], selectors.EVENT_READ)
    while watched.get_map():
        for key, _ in watched.select():
            if not key.fileobj.recv(1 << 16):
                watched.unregister(key.fileobj)
                key.fileobj.close()


def round_of(args, api):
    with Cluster(
        args.baton, 1000 * args.interval_ms, 0, decode=2, limits="turns = 4096", cores=(0, 1)
    ) as cluster:
        command = ["taskset", "-c", "1", args.baton, "bench", "streams", "--url", cluster.urls[0]]
        command += ["--pid", str(cluster.router_pids[0]), "--streams", str(args.streams)]
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
        writes.append(write_us(args.streams))
        rows.append(round_of(args, args.api))
        print(f"round {number + 1}: one write {writes[-1]:.2f} us; {rows[-1]}", file=sys.stderr)
    found = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    found["interval_ms"] = args.interval_ms
    found["write_us"] = statistics.median(writes)
    print(json.dumps(dict(api=args.api, median=found, rounds=rows)))


if __name__ == "__main__":
    main()
