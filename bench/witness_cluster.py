"""A cluster on this machine whose model is the witness engine, which takes the time that a large
model would; for the measurements beside this file."""

import secrets
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

WORKER = """name = "{name}"
[cluster]
secret_file = "{folder}/secret"
[serve]
listen = "127.0.0.1:{port}"
[model]
{model}
engine = "witness"
step_latency = "{step_us} us"
prefill_token_latency = "{token_us} us"
decode_token_latency = "{token_us} us"
[transfer]
shm_dir = "{folder}"
[limits]
{limits}
[log]
filter = "warn"
{extra}
"""

ROUTER = """[cluster]
secret_file = "{folder}/secret"
[serve]
listen = "127.0.0.1:{port}"
[model]
{model}
{text}
[log]
filter = "warn"
{extra}
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Cluster:
    """Its processes, until the end of a `with`.

    `model` is the folder whose tokenizer and template count; without one, texts are made up.
    `cores` pins the first router to the first of two cores, and everything else to the other."""

    def __init__(
        self, baton, step_us, token_us, prefill=1, decode=1, routers=1, router_extra="",
        worker_extra="", limits="", model=None, cores=None,
    ):  # fmt: skip
        self.folder = tempfile.TemporaryDirectory(prefix="baton-bench-")
        self.started, self.urls, self.router_pids, self.cores = [], [], [], cores
        named = f'dir = "{Path(model).resolve()}"\nname = "witness"' if model else 'name = "witness"'
        invented = "" if model else "synthetic_vocab = 32000"
        folder = Path(self.folder.name)
        secret = folder / "secret"
        secret.touch(0o600)
        secret.write_text(secrets.token_hex(32))
        peers = []
        for kind, count in (("prefill", prefill), ("decode", decode)):
            for number in range(count):
                name, port = f"{kind}-{number}", free_port()
                own = "chunk_tokens = 2048" if kind == "prefill" else limits
                told = dict(step_us=step_us, token_us=token_us, model=named, limits=own)
                told |= dict(extra=worker_extra)
                text = WORKER.format(name=name, folder=folder, port=port, **told)
                self._start(baton, kind, folder / f"{name}.toml", text)
                peers.append(f'[[{kind}]]\nuri = "http://127.0.0.1:{port}"\n')
        for number in range(routers):
            port = free_port()
            told = dict(model=named, text=invented, extra=router_extra)
            text = ROUTER.format(folder=folder, port=port, **told) + "".join(peers)
            self._start(baton, "router", folder / f"router-{number}.toml", text)
            self.router_pids.append(self.started[-1].pid)
            self.urls.append(f"http://127.0.0.1:{port}")

    def _start(self, baton, kind, path, text):
        path.write_text(text)
        command = [baton, kind, "--config", path]
        if self.cores:
            other = kind != "router" or bool(self.router_pids)
            command = ["taskset", "-c", str(self.cores[other])] + command
        self.started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))

    def computed_tokens(self):
        """Positions of prompts and answers that all workers have computed since they started."""
        with urllib.request.urlopen(f"{self.urls[0]}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        counts = [line for line in lines if line.startswith("baton_engine_tokens_total")]
        return sum(int(float(line.rsplit(" ", 1)[1])) for line in counts)

    def __enter__(self):
        for url in self.urls:
            for _ in range(200):
                try:
                    urllib.request.urlopen(f"{url}/ready").close()
                    break
                except OSError:
                    time.sleep(0.1)
        return self

    def __exit__(self, *_):
        for process in reversed(self.started):
            process.terminate()
        for process in self.started:
            process.wait(30)
        self.folder.cleanup()


async def first_token_s(client, **request):
    """The seconds to the first token of a streamed completion, which is read to its end."""
    began, first = time.perf_counter(), None
    stream = await client.completions.create(
        model="witness", temperature=0, stream=True, **request
    )
    async for event in stream:
        if first is None and event.choices and event.choices[0].text:
            first = time.perf_counter() - began
    return first


def words(rng, count):
    """A text of so many characters, which are as many tokens to the witness's router."""
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz ") for _ in range(count))
