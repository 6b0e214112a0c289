#!/usr/bin/env python3
"""The same work by Baton and by others, turn by turn in one run, in one table.

    bench/peers/compare.py                          the figures of docs/benchmarks.md
    bench/peers/compare.py --sizes 4K..16M          a sweep over block sizes, for the chart

In each round everything has its turn, one after the other, in processes of its own: Baton's
transports and the machine's limits (raw loopback streams, memcpy), NIXL and Mooncake over tcp and
shared memory, ucx_perftest. Writes bench/results/xfer.json and xfer.svg, and prints the table.
What cannot take part is listed with the reason.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

import chart
import contestants as by
from contestants import HERE, ROOT, UCX_CMA, UCX_TCP, NotRun
from goals import goals


def size(text):
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    try:
        return int(text[:-1]) * units[text[-1]] if text[-1] in units else int(text)
    except (ValueError, IndexError):
        raise argparse.ArgumentTypeError(f"expected a size such as 64K, found {text!r}") from None


def sizes(text):
    found = []
    for part in text.split(","):
        if ".." in part:
            first, last = map(size, part.split("..", 1))
            if not 0 < first <= last:
                raise argparse.ArgumentTypeError(f"expected an ascending range, found {part!r}")
            while first <= last:
                found.append(first)
                first *= 4
        else:
            found.append(size(part))
    return found


def shown(count):
    for shift, unit in ((30, "G"), (20, "M"), (10, "K")):
        if count % (1 << shift) == 0:
            return f"{count >> shift}{unit}"
    return str(count)


class Results:
    """Speeds by block size, contestant and round, and who could not take part."""

    def __init__(self):
        self.speeds = {}
        self.missing = {}
        self.details = {}

    def add(self, block_bytes, name, number, row):
        if row["gb_per_s"] is not None:
            self.speeds.setdefault((block_bytes, name), {})[number] = row["gb_per_s"]
        self.details.setdefault((block_bytes, name), []).append(row)

    def fails(self, name, error):
        if name not in self.missing:
            print(f"NOT RUN: {name}: {error}", file=sys.stderr)
        self.missing[name] = str(error)

    def of(self, block_bytes, name):
        return list(self.speeds.get((block_bytes, name), {}).values())

    def ratio(self, block_bytes, name, other):
        """Of the rounds in which both took part."""
        own, theirs = (self.speeds.get((block_bytes, one), {}) for one in (name, other))
        return [own[number] / theirs[number] for number in own if number in theirs]


def turns(options, python):
    """What has a turn in each round: a name and how to take it, by block size."""

    def peers(engine, link, variables, placements):
        for op in ("read", "write"):
            for placement in placements:
                kind = "" if placement == options.placement else f" {placement}"
                name = f"{engine} {link} {op}{kind}".replace("nixl", "NIXL")
                name = name.replace("mooncake", "Mooncake")

                def take(block, op=op, placement=placement):
                    if isinstance(python, NotRun):
                        raise python
                    return by.peer(engine, op, python, options, block, placement, variables)

                yield name, take

    # Where blocks lie side by side NIXL merges them, which is not always to its advantage: it may
    # show the better of both.
    both = [options.placement] if options.placement == "random" else ["sequential", "random"]
    yield from peers("nixl", "tcp", UCX_TCP, both)
    yield from peers("mooncake", "tcp", {}, [options.placement])
    yield from peers("nixl", "shm", {}, both)
    count = max(2, int(options.seconds * 4))
    cold = options.working_set
    # One message as large as the working set: its memory is in no cache either.
    yield "UCX cma get, one message", lambda _: by.ucx_perftest("ucp_get", cold, count * 4, UCX_CMA)
    yield (
        "UCX tcp put, hot",
        lambda block: by.ucx_perftest("ucp_put_bw", block, max(20, (64 << 20) // block), UCX_TCP),
    )


def compare(options, python):
    results = Results()
    program = options.baton
    for block in options.sizes:
        for number in range(1, options.rounds + 1):
            print(f"{shown(block)}: round {number} of {options.rounds}", file=sys.stderr)
            try:
                for name, row in by.baton_round(program, options, block, "all").items():
                    results.add(block, name, number, row)
            except NotRun as error:
                results.fails("baton", error)
            for name, take in turns(options, python):
                try:
                    results.add(block, name, number, take(block))
                except NotRun as error:
                    results.fails(name, error)
    return results


def table(options, results):
    names = list(dict.fromkeys(name for _, name in results.speeds))
    lines = []
    for block in options.sizes:
        lines.append(f"{shown(block)} blocks, {shown(max(options.batch_bytes, block))} per batch")
        lines.append(f"  {'':<30}{'GB/s':>8}  {'(min..max)':<16}{'CPU s/GiB':>10}  ratios")
        for name in names:
            speeds = results.of(block, name)
            if not speeds:
                continue
            spread = f"({min(speeds):.2f}..{max(speeds):.2f})"
            cpu = [row.get("cpu_s_per_gib") for row in results.details[(block, name)]]
            cpu = [value for value in cpu if value is not None]
            cpu = f"{statistics.median(cpu):.3f}" if cpu else "-"
            ratios = []
            for own in ("baton tcp read", "baton shm copy"):
                link = own.split()[1]
                related = link in name or (link == "shm" and ("memcpy" in name or "cma" in name))
                ratio = results.ratio(block, own, name)
                if related and ratio and name != own:
                    ratios.append(f"{own} is {statistics.median(ratio):.2f} x this")
            median = statistics.median(speeds)
            line = f"  {name:<30}{median:>8.2f}  {spread:<16}{cpu:>10}  {'; '.join(ratios)}"
            lines.append(line.rstrip())
        lines.append("")
    for name, why in results.missing.items():
        lines.append(f"NOT RUN: {name}: {why}")
    return lines


def commit():
    found = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True
    )
    return found.stdout.strip() or None


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=sizes, default=sizes("64K,1M"), help="64K,1M or 4K..16M (times 4)")
    parser.add_argument("--batch-bytes", type=size, default=size("16M"))
    parser.add_argument("--working-set", type=size, default=size("128M"))
    parser.add_argument("--placement", choices=["sequential", "random"], default="sequential")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one turn")
    parser.add_argument("--baton", type=pathlib.Path, help="the program [default: a release build]")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "bench" / "results" / "xfer.json")
    parser.add_argument("--no-goals", action="store_true", help="only the speeds, for a sweep")
    parser.add_argument("--no-vm", action="store_true", help="without RDMA in a virtual machine")
    options = parser.parse_args()
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("--rounds and --seconds must be positive")
    return options


def main():
    options = arguments()
    if options.baton is None:
        build = ["cargo", "build", "--release", "--quiet", "--package", "baton"]
        subprocess.run(build, cwd=ROOT, check=True)
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        options.baton = target / "release" / "baton"
    try:
        python = by.environment()
    except NotRun as error:
        python = error
    load = os.getloadavg()[0]
    if load > 1:
        print(f"warning: load average {load:.1f}: only ratios mean anything", file=sys.stderr)
    results = compare(options, python)
    lines = table(options, results)
    document = {
        "commit": commit(),
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "load_average_before": load,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "batch_bytes": options.batch_bytes,
        "working_set": options.working_set,
        "placement": options.placement,
        "speeds": [
            {"block_bytes": block, "contestant": name, "gb_per_s": list(speeds.values())}
            for (block, name), speeds in results.speeds.items()
        ],
        "not_run": results.missing,
    }
    if not options.no_goals:
        found = goals(options, results)
        document["goals"] = found
        lines.append("")
        lines.append(f"{'figure':<58}{'goal':>12}{'found':>10}  spread")
        for goal in found:
            lines.append(goal["line"])
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(document, indent=1) + "\n")
    options.output.with_suffix(".svg").write_text(chart.draw(document))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
