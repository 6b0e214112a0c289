"""The figures that Baton has set itself: each with what was found in this run."""

import argparse
import json
import pathlib
import statistics
import sys

from contestants import HERE, ROOT, NotRun, baton, run

TCP, SHM = "baton tcp read", "baton shm copy"


def row(what, goal, values, good, unit="x"):
    """One line: the median, held against the goal."""
    if not values:
        return {"figure": what, "goal": goal, "found": None, "met": None, "line": f"{what:<58}{goal:>12}  NOT RUN"}
    middle = statistics.median(values)
    met = good(middle)
    spread = f"({min(values):.2f}..{max(values):.2f})"
    line = f"{what:<58}{goal:>12}{middle:>8.2f} {unit} {spread:<16}{'' if met else ' MISSED'}"
    return {"figure": what, "goal": goal, "found": middle, "values": values, "met": met, "line": line.rstrip()}


def best(results, block, word, link):
    """The fastest of a peer's variants, by its median."""
    names = {name for size, name in results.speeds if size == block}
    names = [name for name in names if name.startswith(word) and link in name]
    return max(names, key=lambda name: statistics.median(results.of(block, name)), default=None)


def versus(results, block, own, word, link):
    other = best(results, block, word, link)
    return results.ratio(block, own, other) if other else []


def goals(options, results):
    found = []
    for block in options.sizes:
        size = f"{block >> 10} KiB"
        found.append(row(f"tcp {size} / raw loopback", ">= 0.85", results.ratio(block, TCP, "raw tcp stream"), lambda v: v >= 0.85))
        least = 1.6 if block >= 1 << 20 else 1.0
        for word in ("NIXL", "Mooncake"):
            values = versus(results, block, TCP, word, " tcp ")
            found.append(row(f"tcp {size} / {word} tcp", f"> {least}", values, lambda v, least=least: v > least))
        if block >= 64 << 10:
            values = results.ratio(block, SHM, "memcpy")
            found.append(row(f"shm copy {size}, checksum verified / memcpy", ">= 0.9", values, lambda v: v >= 0.9))
            for word, link in (("NIXL", " shm "), ("UCX cma", "")):
                values = versus(results, block, SHM, word, link)
                found.append(row(f"shm copy {size} / {word}", "> 1", values, lambda v: v > 1))
        found.append(mapped(options, block, size))
        found.append(posting(results, block, size))
        found += busy(options, block, size)
    found += hand_over(options)
    found += rdma(options)
    return found


def costs(results, block, name):
    """Microseconds per block, of each round."""
    rows = results.details.get((block, name), [])
    return [row["us_per_descriptor"] for row in rows]


def mapped(options, block, size):
    """What it takes to use 64 blocks in place that have been verified before."""
    values = []
    # An owner lets a quarter of its slots be mapped.
    wanted = {"batch_bytes": 64 * block, "working_set": max(options.working_set, 256 * block)}
    options = argparse.Namespace(**{**vars(options), **wanted})
    more = ("--rounds", 1, "--transport", "shm", "--op", "map", "--reference", "none")
    try:
        for _ in range(options.rounds):
            values += [64 * row["us_per_descriptor"] for row in baton(options.baton, options, block, *more)]
    except NotRun as error:
        print(f"NOT RUN: shm map: {error}", file=sys.stderr)
    return row(f"shm map, 64 blocks of {size}", "<= 5 us", values, lambda v: v <= 5, "us")


def posting(results, block, size):
    """What RDMA costs by itself, over a device that does nothing."""
    values = costs(results, block, "posting")
    what = f"RDMA, a descriptor of {size}, device that does nothing"
    return row(what, "<= 0.3 us", values, lambda v: v <= 0.3, "us")


def busy(options, block, size):
    """How much the tail grows when every core is busy with something else. memcpy, which waits for
    nobody, shows what the scheduler does to any thread."""
    rows = []
    try:
        for _ in range(options.rounds):
            rows += baton(options.baton, options, block, "--rounds", 1, "--load", 2, "--reference", "memcpy")
    except NotRun:
        pass
    found = []
    for name, kind, op in (("tcp", "tcp", "read"), ("shm copy", "shm", "copy"), ("memcpy", "memcpy", None)):
        values = [r["busy_p99_ratio"] for r in rows if r["load"] and (r["transport"], r["op"]) == (kind, op)]
        goal = "(a limit)" if op is None else "<= 3"
        what = f"{name} {size}, p99 of a batch, 2 busy threads / quiet"
        found.append(row(what, goal, values, lambda v, op=op: op is None or v <= 3))
    return found


def rdma(options):
    """RDMA beside perftest, on soft-RoCE in a virtual machine; everything there is emulated."""
    if options.no_vm:
        return []
    folder = pathlib.Path(options.baton).resolve()
    script = HERE / "rdma.py"
    command = ["cargo", "xtask", "vm", "--timeout", 1500, "--", script, "--baton", folder]
    try:
        rows = json.loads(run(command, patience_s=1600, cwd=ROOT).splitlines()[-1])["rows"]
    except (NotRun, ValueError, KeyError, IndexError) as error:
        print(f"NOT RUN: RDMA beside perftest: {error}", file=sys.stderr)
        rows = []
    found = []
    for op in ("read", "write"):
        for block in (64 << 10, 1 << 20):
            values = [r["ratios"] for r in rows if (r["op"], r["block_bytes"]) == (op, block)]
            what = f"verbs {op} {block >> 10} KiB in the guest / perftest"
            found.append(row(what, ">= 0.8", sum(values, []), lambda v: v >= 0.8))
    for one in rows:
        if "planned" in one:
            what = f"verbs read {one['block_bytes'] >> 10} KiB, work requests and doorbells of a batch"
            planned, most = one["planned"], [max(values) for values in zip(*one["posted"])]
            goal = f"{planned[0]}, {planned[1]}"
            met = all(posted == planned for posted in one["posted"])
            line = f"{what:<58}{goal:>12}{most[0]:>7g}, {most[1]:g}{'' if met else ' MISSED'}"
            found.append({"figure": what, "goal": goal, "found": most, "met": met, "line": line})
    return found


def hand_over(options):
    """From the last block sealed to decode's next step, over and above that block's transfer: what
    a pull of one such block takes by itself."""
    found = []
    for kind, op in (("shm", "copy"), ("tcp", "read")):
        values, alone_ms = [], 0.0
        try:
            for _ in range(3):
                said = run([options.baton, "bench", "smoke", "--json", "--transport", kind, "--prompts", 8])
                said = json.loads(said.splitlines()[-1])
                values.append(said["handover_ms_p50"])
            block = said["moved_bytes"] // max(1, said["moved_blocks"])
            one = argparse.Namespace(**{**vars(options), "batch_bytes": block})
            more = ("--rounds", 3, "--transport", kind, "--op", op, "--reference", "none")
            alone_ms = baton(options.baton, one, block, *more)[0]["p50_us"] / 1e3
        except NotRun as error:
            print(f"NOT RUN: hand-over over {kind}: {error}", file=sys.stderr)
        values = [value for value in values if value is not None]
        limit = 1 + alone_ms
        what = f"hand-over, {kind}, last block announced to decode's step"
        found.append(row(what, f"<= {limit:.2f} ms", values, lambda v, most=limit: v <= most, "ms"))
    return found
