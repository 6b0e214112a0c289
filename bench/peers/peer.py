#!/usr/bin/env python3
"""Moves blocks between two processes with NIXL or Mooncake, and prints one line of JSON.

The same work as `baton xfer-bench` does: blocks of one size, one batch under way, source and
destination wandering through a working set that no cache holds. Everything that a peer lets one
prepare is prepared before the time is taken. Every byte is compared before and after.

    peer.py nixl --block-bytes 65536 --op read --seconds 1
"""

import argparse
import ctypes
import json
import mmap
import os
import random
import subprocess
import sys
import time

import numpy

STAMP = 0xAA


def say(message):
    """One line to the other process, or to the caller."""
    print(json.dumps(message), flush=True)


class Memory:
    """Anonymous memory: its address, and a view to fill and compare it."""

    def __init__(self, size):
        self.size = size
        self.map = mmap.mmap(-1, size)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        self.words = numpy.frombuffer(self.map, dtype=numpy.uint64)

    def pattern(self):
        """Every word is another, and says where it belongs."""
        with numpy.errstate(over="ignore"):
            place = numpy.arange(len(self.words), dtype=numpy.uint64)
            return (place + numpy.uint64(1)) * numpy.uint64(0x9E3779B97F4A7C15)

    def fill(self):
        self.words[:] = self.pattern()

    def spoil(self):
        self.words.view(numpy.uint8)[:] = STAMP

    def compare(self, order=None, block_bytes=0):
        """Whether all is there; `order` says which source block each block should be."""
        expected = self.pattern()
        if order is not None:
            expected = expected.reshape(-1, block_bytes // 8)[order].reshape(-1)
        return bool((self.words == expected).all())


class Nixl:
    def __init__(self, name, memory):
        from nixl._api import nixl_agent, nixl_agent_config

        self.memory = memory
        self.agent = nixl_agent(name, nixl_agent_config(backends=["UCX"]))
        region = [(memory.address, memory.size, 0, "")]
        self.registered = self.agent.register_memory(region, "DRAM")

    def invitation(self):
        metadata = self.agent.get_agent_metadata()
        return {"address": self.memory.address, "metadata": metadata.hex()}

    def prepare(self, said, op, block_bytes, batches):
        target = self.agent.add_remote_agent(bytes.fromhex(said["metadata"]))
        count = self.memory.size // block_bytes

        def blocks(side, address):
            rows = [(address + at * block_bytes, block_bytes, 0) for at in range(count)]
            return self.agent.prep_xfer_dlist(side, rows, "DRAM")

        local, remote = blocks("NIXL_INIT_AGENT", self.memory.address), blocks(target, said["address"])
        self.kept = (local, remote)
        make = self.agent.make_prepped_xfer
        return [make(op.upper(), local, into, remote, source) for into, source in batches]

    def move(self, handle):
        state = self.agent.transfer(handle)
        while state == "PROC":
            state = self.agent.check_xfer_state(handle)
        if state != "DONE":
            raise RuntimeError(f"NIXL ended a transfer with {state}")


class Mooncake:
    def __init__(self, _name, memory):
        from mooncake.engine import TransferEngine

        self.memory = memory
        self.engine = TransferEngine()
        if self.engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") != 0:
            raise RuntimeError("Mooncake's engine does not start")
        if self.engine.register_memory(memory.address, memory.size) != 0:
            raise RuntimeError("Mooncake does not register memory")

    def invitation(self):
        return {"address": self.memory.address, "port": self.engine.get_rpc_port()}

    def prepare(self, said, op, block_bytes, batches):
        self.target = f"127.0.0.1:{said['port']}"
        names = {"read": "batch_transfer_sync_read", "write": "batch_transfer_sync_write"}
        self.transfer = getattr(self.engine, names[op])

        def addresses(base, indices):
            return [base + int(at) * block_bytes for at in indices]

        return [
            (
                addresses(self.memory.address, into),
                addresses(said["address"], source),
                [block_bytes] * len(into),
            )
            for into, source in batches
        ]

    def move(self, lists):
        if self.transfer(self.target, *lists) != 0:
            raise RuntimeError("Mooncake reports a failed transfer")


ENGINES = {"nixl": Nixl, "mooncake": Mooncake}


def target(options):
    """Holds its side of the memory and answers the initiator, line by line."""
    # What a library prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(message):
        print(json.dumps(message), file=answers, flush=True)

    memory = Memory(options.working_set)
    memory.fill() if options.op == "read" else memory.spoil()
    engine = ENGINES[options.engine]("target", memory)
    answer(engine.invitation())
    for line in sys.stdin:
        ask = json.loads(line)
        if ask["ask"] == "cpu":
            answer(time.process_time())
        elif ask["ask"] == "spoil":
            memory.spoil()
            answer(True)
        elif ask["ask"] == "compare":
            answer(memory.compare(ask["order"], options.block_bytes))


class Other:
    """The target process, seen from here."""

    def __init__(self, options):
        command = [sys.executable, __file__, options.engine, "--target", "--op", options.op]
        command += ["--working-set", str(options.working_set)]
        command += ["--block-bytes", str(options.block_bytes)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, **pipes)
        self.said = self.hear()

    def hear(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the target has ended")
        return json.loads(line)

    def ask(self, **message):
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()
        return self.hear()

    def end(self):
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()


def initiator(options):
    count = options.working_set // options.block_bytes
    batch = max(1, options.batch_bytes // options.block_bytes)
    count -= count % batch
    local, remote = list(range(count)), list(range(count))
    if options.placement == "random":
        chance = random.Random(7)
        chance.shuffle(local)
        chance.shuffle(remote)
    batches = [(local[at : at + batch], remote[at : at + batch]) for at in range(0, count, batch)]
    options.working_set = count * options.block_bytes

    other = Other(options)
    try:
        memory = Memory(options.working_set)
        memory.spoil() if options.op == "read" else memory.fill()
        engine = ENGINES[options.engine]("initiator", memory)
        prepared = engine.prepare(other.said, options.op, options.block_bytes, batches)
        # Which source block stands at each place of the destination.
        places, sources = (local, remote) if options.op == "read" else (remote, local)
        order = [source for _, source in sorted(zip(places, sources))]

        def check():
            """All blocks once, onto wrong bytes."""
            memory.spoil() if options.op == "read" else other.ask(ask="spoil")
            for one in prepared:
                engine.move(one)
            if options.op == "read":
                good = memory.compare(order, options.block_bytes)
            else:
                good = other.ask(ask="compare", order=order)
            if not good:
                raise RuntimeError("bytes arrived wrong")

        check()
        cpu = other.ask(ask="cpu") + time.process_time()
        took, moves = [], 0
        begun = time.perf_counter()
        while time.perf_counter() - begun < options.seconds or not took:
            before = time.perf_counter()
            engine.move(prepared[moves % len(prepared)])
            took.append(time.perf_counter() - before)
            moves += 1
        elapsed = time.perf_counter() - begun
        cpu = other.ask(ask="cpu") + time.process_time() - cpu
        check()
    finally:
        other.end()
    took.sort()
    moved = moves * batch * options.block_bytes
    return {
        "gb_per_s": moved / elapsed / 1e9,
        "descriptors_per_s": moves * batch / elapsed,
        "p50_us": took[len(took) // 2] * 1e6,
        "p99_us": took[min(len(took) - 1, len(took) * 99 // 100)] * 1e6,
        "cpu_s_per_gib": cpu / (moved / 2**30),
        "checked": True,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", choices=sorted(ENGINES))
    parser.add_argument("--op", choices=["read", "write"], default="read")
    parser.add_argument("--block-bytes", type=int, default=65536)
    parser.add_argument("--batch-bytes", type=int, default=16 << 20)
    parser.add_argument("--working-set", type=int, default=128 << 20)
    parser.add_argument("--placement", choices=["sequential", "random"], default="sequential")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--target", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.target:
        target(options)
        return
    result = initiator(options)
    sys.stdout.flush()
    say(result)
    # Some engines crash while they are taken down; what was measured is complete.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
