"""The example of a placement policy in Python, asked by a router of a cluster of its own."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "router" / "examples" / "policy" / "policy.py"
# Nothing here takes that long, on any machine.
PATIENCE_S = 60
BODY = {"model": "witness", "prompt": list(range(10, 110)), "max_tokens": 2}


@contextlib.contextmanager
def running(*command):
    """A process, when it is ready, with the address that it says; stopped in the end."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        lines = iter(process.stdout.readline, "")
        ready = next((line for line in lines if line.startswith("ready: ")), None)
        assert ready, f"{command} ended before it was ready"
        yield ready.split()[1].rstrip("/")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=PATIENCE_S)


def policy(listen, *more):
    return running(sys.executable, str(EXAMPLE), "--listen", listen, *more)


@pytest.fixture(scope="module")
def baton():
    """The binary under test."""
    path = os.environ.get("BATON")
    if not path:
        pytest.skip("set BATON to the binary: this test starts a cluster of its own")
    return path


def explained(url, session="s"):
    """A request that is placed by the external policy, and why it went where it went."""
    headers = {"x-baton-policy": "external", "x-baton-explain": "1"}
    data = json.dumps({**BODY, "prompt_cache_key": session}).encode()
    headers["content-type"] = "application/json"
    return json.loads(fetch(f"{url}/v1/completions", data, headers))["nvext"]["explain"]


def fetch(url, data=None, headers={}):
    request = urllib.request.Request(url, data, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read().decode()


def until(url, wanted):
    """Asks until the decision is as wanted; a busy machine may be late now and then."""
    give_up = time.monotonic() + PATIENCE_S
    while True:
        found = explained(url)
        if wanted(found):
            return found
        assert time.monotonic() < give_up, found


def test_the_example_decides_and_its_loss_costs_nothing_but_its_advice(baton):
    with contextlib.ExitStack() as stack:
        with policy("127.0.0.1:0") as address:
            up = ["up", "--engine", "witness", "--prefill", "0", "--decode", "2"]
            cluster = running(baton, *up, "--listen", "127.0.0.1:0", "--policy", address)
            url = stack.enter_context(cluster)
            found = until(url, lambda found: found["policy"] == "external")
            assert found["fallback"] is None
            assert found["external"]["outcome"] == "answered"
            assert found["external"]["decode"] == found["decode"]
            assert " ms of 2" in found["external"]["reason"]
            assert found["decode_candidates"][0]["probability"] == 1.0
        gone = until(url, lambda found: found["policy"] == "kv-aware")
        assert gone["fallback"] in ("unreachable", "timeout")
        until(url, lambda found: found["fallback"] == "paused")
        listen = address.removeprefix("http://")
        with policy(listen, "--slow-ms", "1000"):
            until(url, lambda found: found["fallback"] == "timeout")
        with policy(listen):
            until(url, lambda found: found["policy"] == "external")
        metrics = fetch(f"{url}/metrics")
        for outcome in ("answered", "timeout", "paused"):
            assert f'baton_policy_calls_total{{outcome="{outcome}"}}' in metrics
