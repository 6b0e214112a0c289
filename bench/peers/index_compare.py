#!/usr/bin/env python3
"""The index of a router, by Baton and by Dynamo, upon the same operations, turn by turn in one run.

    bench/peers/index_compare.py                    the figures of docs/benchmarks.md
    bench/peers/index_compare.py --json             the same, and one JSON object on the last line

Dynamo's `mooncake_bench`, from its published crate, makes lookups and events out of its trace and
writes them down; both programs play these. Alone: all events, drained, and then all lookups on one
thread. In a cell: lookups and events at their deadlines within a window, by as many threads of each
kind, until the last event is taken up; a cell counts if both keep up. Baton's lookups are compared
with a naive model after each turn. Blocks are counted as Dynamo counts them: those of lookups and
of events of both kinds. Baton is given names of chains, Dynamo names of blocks, both computed
beforehand.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

from contestants import HERE, ROOT, NotRun, run
from goals import row

CRATE, VERSION = "dynamo-bench", "1.6.1"
PATCH = HERE / "mooncake_bench.patch"
BUILD_S, TURN_S = 3 * 3600, 300


def target():
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))


def sources(folder):
    """The published crate in `folder`, with what the patch adds: it writes the operations down,
    plays them alone, and says how long an operation took on average."""
    probe = folder / "fetch"
    (probe / "src").mkdir(parents=True)
    (probe / "src" / "lib.rs").write_text("")
    manifest = ["[package]", 'name = "fetch"', 'version = "0.0.0"', 'edition = "2021"']
    manifest += ["[dependencies]", f'{CRATE} = "={VERSION}"', "[workspace]", ""]
    (probe / "Cargo.toml").write_text("\n".join(manifest))
    found = json.loads(run(["cargo", "metadata", "--format-version", 1], BUILD_S, probe))
    [package] = [one for one in found["packages"] if one["name"] == CRATE]
    crate = folder / "bench"
    shutil.copytree(pathlib.Path(package["manifest_path"]).parent, crate)
    (crate / ".cargo-ok").unlink(missing_ok=True)
    with (crate / "Cargo.toml").open("a") as manifest:
        manifest.write("\n[workspace]\n")
    run(["patch", "-p1", "-i", PATCH], cwd=crate)
    return crate


def peer():
    """Dynamo's benchmark, built where it is not yet: half an hour on two cores."""
    given = os.environ.get("BATON_MOONCAKE_BENCH")
    if given:
        return pathlib.Path(given)
    folder = target() / "peers-dynamo"
    program, stamp = folder / "mooncake_bench", folder / "patch"
    if program.exists() and stamp.exists() and stamp.read_text() == PATCH.read_text():
        return program
    print("building Dynamo's mooncake_bench", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    crate = sources(folder)
    build = ["cargo", "build", "--release", "--bench", "mooncake_bench", "--no-default-features"]
    build += ["--features", "mooncake", "--message-format", "json"]
    said = run(build, BUILD_S, crate, CARGO_TARGET_DIR=str(folder / "target"))
    built = [json.loads(line) for line in said.splitlines()]
    [made] = [one["executable"] for one in built if one.get("executable")]
    shutil.copy(made, program)
    shutil.copytree(crate / "testdata", folder / "testdata")
    shutil.rmtree(folder / "target")
    stamp.write_text(PATCH.read_text())
    return program


class Dynamo:
    def __init__(self, options):
        self.program = peer()
        self.options = options
        self.trace = options.trace or self.program.parent / "testdata" / "mooncake_trace_1000.jsonl"

    def take(self, window_ms, **variables):
        o = self.options
        with tempfile.TemporaryDirectory() as folder:
            output = pathlib.Path(folder) / "result.json"
            command = [self.program, self.trace, "--query-lanes", o.lanes, "--issuer-threads", 1]
            command += ["--num-unique-inference-workers", o.workers]
            command += ["--trace-duplication-factor", o.duplication]
            command += ["--trace-length-factor", o.length, "--benchmark-duration-ms", window_ms]
            command += ["--result-json-output", output, "concurrent-radix-tree-compressed"]
            run(command + ["--num-event-workers", 1], TURN_S, **variables)
            return json.loads(output.read_text()) if output.exists() else None

    def write(self, path):
        self.take(60_000, MOONCAKE_OPERATIONS=str(path))

    def alone(self):
        found = self.take(1000, MOONCAKE_ALONE="1")
        lookup = found.pop("lookup")
        return {**found, "p50_us": lookup["p50_ns"] / 1e3, "p99_us": lookup["p99_ns"] / 1e3}

    def cell(self, window_ms):
        found = self.take(window_ms)
        blocks = found["total_stored_blocks"] + found["total_removed_blocks"]
        per_event = blocks / found["total_events"]
        return {
            "kept_up": found["kept_up"],
            "block_ops_per_s": found["achieved_block_ops_per_sec"],
            "lookups_per_s": 1e9 / found["query_service_mean_ns"],
            "event_blocks_per_s": per_event * 1e9 / found["update_service_mean_ns"],
            "p50_us": found["query_service"]["p50_ns"] / 1e3,
            "p99_us": found["query_service"]["p99_ns"] / 1e3,
        }


class Baton:
    def __init__(self, options):
        self.options = options
        self.program = options.baton
        if self.program is None:
            build = ["cargo", "build", "--release", "--quiet", "-p", "baton-kv", "--example", "index"]
            subprocess.run(build, cwd=ROOT, check=True)
            self.program = target() / "release" / "examples" / "index"

    def take(self, *more):
        command = [self.program, "--json", "--operations", self.options.operations, *more]
        return json.loads(run(command, TURN_S).splitlines()[-1])

    def alone(self):
        found = self.take()
        limits = {key: value for key, value in found.items() if key.startswith("limit_")}
        same = {key: found[key] for key in ("lookups_per_s", "event_blocks_per_s", "block_ops_per_s")}
        return {**same, **limits, "p50_us": found["lookup_p50_us"], "p99_us": found["lookup_p99_us"]}

    def cell(self, window_ms):
        found = self.take("--window-ms", window_ms, "--lanes", self.options.lanes)
        per_event = found["event_blocks"] / found["events"]
        return {
            "kept_up": found["kept_up"] == 1,
            "block_ops_per_s": found["achieved_block_ops_per_s"],
            "lookups_per_s": 1e6 / found["lookup_mean_us"],
            "event_blocks_per_s": per_event * 1e6 / found["batch_mean_us"],
            "p50_us": found["lookup_p50_us"],
            "p99_us": found["lookup_p99_us"],
        }


def compare(options, contestants):
    """What each found, by turn, contestant and round."""
    turns = {"alone": lambda who: who.alone()}
    for window in options.windows:
        turns[f"{window} ms"] = lambda who, window=window: who.cell(window)
    results = {turn: {name: [] for name in contestants} for turn in turns}
    for number in range(1, options.rounds + 1):
        for turn, take in turns.items():
            print(f"{turn}: round {number} of {options.rounds}", file=sys.stderr)
            for name, who in contestants.items():
                results[turn][name].append(take(who))
    return results


FIGURES = {
    "lookups_per_s": ("lookups, of a busy thread", "M/s", 1e6),
    "event_blocks_per_s": ("blocks of events, of a busy thread", "M/s", 1e6),
    "block_ops_per_s": ("blocks of both, all drained", "M/s", 1e6),
    "p50_us": ("a lookup, p50", "us", 1),
    "p99_us": ("a lookup, p99", "us", 1),
}


def table(results):
    lines = []
    for turn, found in results.items():
        lines.append(f"{turn:<38}" + "".join(f"{name:<28}" for name in found))
        for key, (what, unit, scale) in FIGURES.items():
            line = f"  {what:<36}"
            for rounds in found.values():
                values = [one[key] / scale for one in rounds]
                spread = f"({min(values):.2f}..{max(values):.2f})"
                line += f"{statistics.median(values):>8.2f} {unit:<4}{spread:<15}"
            lines.append(line.rstrip())
        if turn != "alone":
            kept = [f"{sum(one['kept_up'] for one in rounds)} of {len(rounds)}" for rounds in found.values()]
            lines.append(f"  {'rounds that it kept up in':<36}" + "".join(f"{one:>13}{'':<15}" for one in kept).rstrip())
    return lines


LIMITS = {
    "limit_event_blocks_per_s": ("marks of blocks' names alone, an event's blocks", "M/s", 1e6),
    "limit_lookup_p50_us": ("one round of probes, p50", "us", 1),
    "limit_lookup_p99_us": ("one round of probes, p99", "us", 1),
}


def limits(results):
    """What this machine allows to an index that finds blocks by name, measured in the same run."""
    lines = ["limits"]
    for key, (what, unit, scale) in LIMITS.items():
        value = statistics.median(one[key] / scale for one in results["alone"]["baton"])
        lines.append(f"  {what:<50}{value:>8.2f} {unit}")
    return lines


def goals(results):
    def ratios(turn, key, counts=lambda own, other: True):
        pairs = zip(results[turn]["baton"], results[turn]["dynamo"])
        return [own[key] / other[key] for own, other in pairs if counts(own, other)]

    found = [row("alone: blocks of both / Dynamo", ">= 5", ratios("alone", "block_ops_per_s"), lambda v: v >= 5)]
    kept = lambda own, other: own["kept_up"] and other["kept_up"]
    for turn in results:
        if turn == "alone":
            continue
        for key, what in (("lookups_per_s", "lookups"), ("event_blocks_per_s", "blocks of events")):
            values = ratios(turn, key, kept)
            found.append(row(f"{turn}, both keep up: {what} / Dynamo", ">= 2", values, lambda v: v >= 2))
        values = [one["p99_us"] for one in results[turn]["baton"] if one["kept_up"]]
        found.append(row(f"{turn}: a lookup, p99", "<= 1", values, lambda v: v <= 1, "us"))
    return found


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    windows = lambda text: [int(part) for part in text.split(",")]
    parser.add_argument("--windows", type=windows, default=[2000, 500, 100], help="milliseconds, of the cells")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lanes", type=int, default=2, help="threads that look up")
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--duplication", type=int, default=20, help="of the trace, with other blocks")
    parser.add_argument("--length", type=int, default=1, help="by which the trace's prompts are longer")
    parser.add_argument("--trace", type=pathlib.Path, help="[default: the one in Dynamo's crate]")
    parser.add_argument("--baton", type=pathlib.Path, help="the program [default: a release build]")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if min([options.rounds, options.lanes, *options.windows]) < 1:
        parser.error("--rounds, --lanes and --windows must be positive")
    return options


def main():
    options = arguments()
    contestants = {"baton": Baton(options)}
    try:
        contestants["dynamo"] = dynamo = Dynamo(options)
    except NotRun as error:
        sys.exit(f"NOT RUN: dynamo: {error}")
    if os.getloadavg()[0] > 1:
        print(f"warning: load average {os.getloadavg()[0]:.1f}: only ratios mean anything", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        options.operations = pathlib.Path(folder) / "operations"
        dynamo.write(options.operations)
        results = compare(options, contestants)
    found = goals(results)
    print("\n".join([*table(results), *limits(results), "", *(goal["line"] for goal in found)]))
    if options.json:
        print(json.dumps({"rounds": results, "goals": found}))


if __name__ == "__main__":
    main()
