"""The figures that Baton has set itself: each with what was found in this run."""

import json
import statistics

from contestants import NotRun, baton, run

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
    found.append(posting(options, results))
    found += busy(options)
    found += hand_over(options, results)
    return found


def posting(options, results):
    """What RDMA costs by itself, over a device that does nothing."""
    turns = [results.details.get((block, "posting"), []) for block in options.sizes]
    values = [turn["us_per_descriptor"] for some in turns for turn in some]
    return row("RDMA, cost of a descriptor over a device that does nothing", "<= 0.3 us", values, lambda v: v <= 0.3, "us")


def busy(options):
    """How much the tail grows when every core is busy with something else."""
    found = []
    try:
        rows = baton(options.baton, options, 1 << 20, "--rounds", options.rounds, "--load", 2, "--reference", "none")
    except NotRun:
        rows = []
    for kind in ("tcp", "shm"):
        values = [r["busy_p99_ratio"] for r in rows if r["load"] and r["transport"] == kind]
        found.append(row(f"{kind}, p99 of a batch, 2 busy threads / quiet", "<= 3", values, lambda v: v <= 3))
    return found


def hand_over(options, results):
    """From the last block sealed to decode's next step, over and above that block's transfer."""
    found = []
    for kind in ("shm", "tcp"):
        values, transfer_ms = [], 0.0
        speeds = results.of(options.sizes[0], TCP if kind == "tcp" else SHM)
        try:
            for _ in range(3):
                said = run([options.baton, "bench", "smoke", "--json", "--transport", kind, "--prompts", 8])
                said = json.loads(said.splitlines()[-1])
                values.append(said["handover_ms_p50"])
                if speeds and said["moved_blocks"]:
                    block = said["moved_bytes"] / said["moved_blocks"]
                    transfer_ms = block / statistics.median(speeds) / 1e6
        except NotRun:
            pass
        values = [value for value in values if value is not None]
        found.append(row(f"hand-over, {kind}, last block announced to decode's step", f"<= {1 + transfer_ms:.2f} ms", values, lambda v, t=transfer_ms: v <= 1 + t, "ms"))
    return found
