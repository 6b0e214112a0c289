#!/usr/bin/env python3
"""Blocks over RDMA by Baton and by perftest, turn by turn, on one device.

    cargo build --release
    cargo xtask vm --timeout 900 -- bench/peers/rdma.py --device rxe0 --baton target/release/baton

Both ends of each turn are processes of this host. perftest moves the same buffer again and again and
looks at nothing; Baton moves other blocks each time and verifies their checksums. Both have as many
queue pairs, and as many bytes under way. The last line is a JSON object.
"""

import argparse
import json
import pathlib
import shutil
import statistics
import sys

from contestants import NotRun, free_port, listening, run

MIB = 1 << 20
# Bytes of Baton's work requests, and of its stages on each queue pair.
MESSAGE_BYTES = MIB


def perftest(op, block, options):
    """GB/s of ib_read_bw or ib_write_bw."""
    program = f"ib_{op}_bw"
    if not shutil.which(program):
        raise NotRun(f"{program} is not installed: apt-get install perftest")
    port = str(free_port())
    depth = max(1, options.batch_bytes // block // options.queue_pairs)
    count = max(5, options.bytes // block // options.queue_pairs)
    command = [program, "-d", options.device, "-p", port, "-s", block, "-q", options.queue_pairs]
    command += ["-n", count, "-t", depth, "-N", "-F"]
    if options.gid_index is not None:
        command += ["-x", options.gid_index]
    with listening(command, port):
        said = run([*command, "127.0.0.1"])
    rows = [line.split() for line in said.splitlines()]
    # bytes, iterations, peak, average in MiB/s, messages
    found = [float(row[3]) for row in rows if len(row) == 5 and row[0] == str(block)]
    if not found or found[0] <= 0:
        raise NotRun(f"{program} printed no figure")
    return found[0] * MIB / 1e9


def baton(op, block, options):
    """A row of one turn of `baton xfer-bench`."""
    command = [options.baton, "xfer-bench", "--json", "--transport", "verbs", "--op", op]
    command += ["--device", options.device, "--queue-pairs", options.queue_pairs]
    command += ["--block-size", block, "--batch-bytes", options.batch_bytes]
    command += ["--working-set", options.working_set, "--reference", "none", "--rounds", 1]
    command += ["--iterations", max(1, options.bytes // options.batch_bytes), "--check"]
    return json.loads(run(command).splitlines()[-1])["rows"][0]


def planned_reads(options):
    """Work requests, and doorbells, of one batch of neighbouring blocks: each queue pair READs its
    share in stages of one message, then the share's slot records with another."""
    share = options.batch_bytes // options.queue_pairs
    return options.queue_pairs * (-(-share // MESSAGE_BYTES) + 1)


def measure(options):
    found = []
    for block in options.sizes:
        for op in ("read", "write"):
            row = {"op": op, "block_bytes": block, "baton": [], "perftest": [], "posted": []}
            found.append(row)
            for number in range(1, options.rounds + 1):
                print(f"{op} {block}: round {number} of {options.rounds}", file=sys.stderr)
                row["perftest"].append(perftest(op, block, options))
                turn = baton(op, block, options)
                row["baton"].append(turn["gb_per_s"])
                row["posted"].append(
                    [turn["work_requests"] / turn["pulls"], turn["doorbells"] / turn["pulls"]]
                )
            row["ratios"] = [own / other for own, other in zip(row["baton"], row["perftest"])]
            row["ratio"] = statistics.median(row["ratios"])
            if op == "read":
                row["planned"] = [planned_reads(options)] * 2
    return found


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="rxe0")
    parser.add_argument("--gid-index", type=int, help="perftest's; Baton finds its own")
    parser.add_argument("--baton", type=pathlib.Path, required=True, help="a release build")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--queue-pairs", type=int, default=2)
    parser.add_argument("--sizes", type=lambda text: [int(s) for s in text.split(",")], default=[64 << 10, MIB])
    parser.add_argument("--batch-bytes", type=int, default=16 * MIB)
    parser.add_argument("--working-set", type=int, default=64 * MIB)
    parser.add_argument("--bytes", type=int, default=128 * MIB, help="of one turn")
    options = parser.parse_args()
    try:
        rows = measure(options)
    except NotRun as error:
        sys.exit(f"NOT RUN: {error}")
    print(f"{'':<16}{'Baton GB/s':>12}{'perftest':>10}  ratio (min..max)   requests, doorbells per batch")
    for row in rows:
        own, other = statistics.median(row["baton"]), statistics.median(row["perftest"])
        spread = f"({min(row['ratios']):.2f}..{max(row['ratios']):.2f})"
        posted = "; ".join(sorted({f"{requests:g}, {doorbells:g}" for requests, doorbells in row["posted"]}))
        plan = f" (planned {row['planned'][0]}, {row['planned'][1]})" if "planned" in row else ""
        name = f"{row['op']} {row['block_bytes'] >> 10} KiB"
        print(f"{name:<16}{own:>12.4f}{other:>10.4f}  {row['ratio']:.2f} {spread}   {posted}{plan}")
    print(json.dumps({"queue_pairs": options.queue_pairs, "batch_bytes": options.batch_bytes, "rows": rows}))


if __name__ == "__main__":
    main()
