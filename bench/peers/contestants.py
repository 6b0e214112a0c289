"""Who takes part in the comparison: how each is started, and what it prints."""

import contextlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# UCX needs a transport that can wire up; `self` for a process that talks to itself.
UCX_TCP = {"UCX_TLS": "tcp,self", "UCX_NET_DEVICES": "lo"}
UCX_CMA = {"UCX_TLS": "posix,cma,self"}
PATIENCE_S = 120


class NotRun(Exception):
    """A contestant cannot take part, and why."""


def run(command, patience_s=PATIENCE_S, cwd=None, **changes):
    """Runs a command to its end; what it has printed."""
    environment = {**os.environ, **changes}
    try:
        done = subprocess.run(
            [str(word) for word in command],
            env=environment,
            capture_output=True,
            text=True,
            timeout=patience_s,
            cwd=cwd,
        )
    except FileNotFoundError as error:
        raise NotRun(f"{command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise NotRun(f"did not end within {patience_s} s") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise NotRun(f"exit code {done.returncode}: {said[-1]}")
    return done.stdout


def baton(program, options, block_bytes, *more):
    """Rows of one run of `baton xfer-bench`."""
    command = [program, "xfer-bench", "--json", "--block-size", block_bytes]
    command += ["--batch-bytes", options.batch_bytes, "--working-set", options.working_set]
    command += ["--placement", options.placement, "--seconds", options.seconds, *more]
    return json.loads(run(command).splitlines()[-1])["rows"]


def baton_round(program, options, block_bytes, transports):
    """One turn of each transport and of its limit: speeds by name."""
    rows = baton(program, options, block_bytes, "--rounds", 1, "--check", "--transport", transports)
    found = {}
    for row in rows:
        name = " ".join(filter(None, ["baton", row["transport"], row["op"]]))
        if row["op"] is None:
            name = {"raw_tcp": "raw tcp stream"}.get(row["transport"], row["transport"])
        found[name] = row
    return found


def environment(requirements=HERE / "requirements.txt"):
    """The Python of a virtual environment with the peers, made where there is none."""
    given = os.environ.get("BATON_PEERS_VENV")
    folder = pathlib.Path(given) if given else ROOT / "target" / "peers-venv"
    python, stamp = folder / "bin" / "python", folder / "installed.txt"
    wanted = requirements.read_text()
    if given or (stamp.exists() and stamp.read_text() == wanted):
        if not python.exists():
            raise NotRun(f"BATON_PEERS_VENV: no {python}")
        return python
    print("making a virtual environment for NIXL and Mooncake", file=sys.stderr)
    try:
        run([sys.executable, "-m", "venv", "--clear", folder])
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        # Hundreds of megabytes: not within the patience that a measurement gets.
        subprocess.run(
            [str(w) for w in [*pip, "--retries", "2", "--no-deps", "-r", requirements]],
            check=True,
            timeout=1200,
            stdout=sys.stderr,
        )
    except (NotRun, subprocess.SubprocessError) as error:
        raise NotRun(f"cannot be installed: {error}") from error
    stamp.write_text(wanted)
    return python


def peer(engine, op, python, options, block_bytes, placement, variables):
    """One turn of NIXL or Mooncake."""
    command = [python, HERE / "peer.py", engine, "--op", op, "--block-bytes", block_bytes]
    command += ["--batch-bytes", options.batch_bytes, "--working-set", options.working_set]
    command += ["--placement", placement, "--seconds", options.seconds]
    lines = run(command, **variables).splitlines()
    answers = [line for line in lines if line.startswith('{"gb_per_s"')]
    if not answers:
        raise NotRun("printed no figure")
    return json.loads(answers[-1])


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ucx_perftest(test, size, count, variables):
    """One turn of ucx_perftest: both ends, and the overall bandwidth. It compares no content."""
    if not shutil.which("ucx_perftest"):
        raise NotRun("ucx_perftest is not installed: apt-get install ucx-utils")
    port = str(free_port())
    try:
        with listening(["ucx_perftest", "-p", port], port, **variables):
            command = ["ucx_perftest", "127.0.0.1", "-p", port, "-t", test, "-s", size]
            command += ["-n", count, "-w", max(2, count // 20), "-f"]
            last = run(command, **variables).splitlines()[-1].split()
        # iterations, three of latency, bandwidth average and overall, message rate likewise
        return {"gb_per_s": float(last[5]) * 2**20 / 1e9}
    except (IndexError, ValueError) as error:
        raise NotRun("ucx_perftest printed no figure") from error


@contextlib.contextmanager
def listening(command, port, **changes):
    """A server that has begun to listen at its port, killed in the end."""
    server = subprocess.Popen(
        [str(word) for word in command],
        env={**os.environ, **changes},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_listener(int(port), server)
        yield
    finally:
        server.kill()
        server.wait()


def wait_for_listener(port, process):
    """Waits until somebody listens, without connecting: the server serves its first caller."""
    wanted = f":{port:04X} "
    for _ in range(200):
        lines = pathlib.Path("/proc/net/tcp").read_text().splitlines()
        lines += pathlib.Path("/proc/net/tcp6").read_text().splitlines()
        if any(wanted in line.split(" rem")[0] and " 0A " in line for line in lines):
            return
        if process.poll() is not None:
            raise NotRun(f"{process.args[0]} ended at once")
        time.sleep(0.05)
    raise NotRun(f"{process.args[0]} does not listen")
