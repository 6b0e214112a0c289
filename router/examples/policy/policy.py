"""A placement policy for a Baton router: the cheapest worker, with sessions spread.

    python policy.py --listen 127.0.0.1:7400
    baton up --decode 2 --policy http://127.0.0.1:7400
    curl ... -H 'x-baton-policy: external' -H 'x-baton-explain: 1'

docs/routing.md, "A policy of your own", has the protocol. `--slow-ms` tries the router's time-out.
"""

import argparse
import collections
import importlib
import pathlib
import signal
import sys
import tempfile
import threading
import time
from concurrent import futures

import grpc
from grpc_tools import protoc

PROTO = pathlib.Path(__file__).resolve().parents[3] / "proto" / "proto"
SESSIONS_MAX = 16384


def stubs():
    """The modules of the protocol, made from its .proto file."""
    out = tempfile.mkdtemp(prefix="baton-policy-")
    arguments = ["protoc", f"-I{PROTO}", f"--python_out={out}", f"--grpc_python_out={out}"]
    if protoc.main([*arguments, str(PROTO / "baton/policy/v1/policy.proto")]) != 0:
        sys.exit("the .proto file could not be compiled")
    sys.path.insert(0, out)
    module = "baton.policy.v1.policy_pb2"
    return importlib.import_module(module), importlib.import_module(f"{module}_grpc")


class Spread:
    """Remembers where sessions live; each that lives elsewhere makes a worker dearer to a new one."""

    def __init__(self, spread_ms):
        self.spread_ms = spread_ms
        self.homes = collections.OrderedDict()  # session -> worker id, the oldest first
        self.lock = threading.Lock()

    def choose(self, turn, candidates):
        """The cheapest candidate, and what it came to in milliseconds."""
        with self.lock:
            known = turn.HasField("session")
            home = self.homes.pop(turn.session, None) if known else None
            crowd = collections.Counter(self.homes.values())

            def cost(candidate):
                at_home = candidate.worker_id == home
                crowded = 0 if at_home else crowd[candidate.worker_id] * self.spread_ms
                return candidate.cost.total_ms + crowded

            best = min(candidates, key=cost)
            if known:
                self.homes[turn.session] = best.worker_id
                if len(self.homes) > SESSIONS_MAX:
                    self.homes.popitem(last=False)
            return best, cost(best)


def serve(args):
    pb, services = stubs()
    spread = Spread(args.spread_ms)

    class Policy(services.PolicyServicer):
        def Choose(self, request, context):
            time.sleep(args.slow_ms / 1000)
            if not request.decode:
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, "there is nobody to choose")
            best, cost = spread.choose(request.turn, request.decode)
            prefill = []
            if best.HasField("with_prefill_worker_id"):
                first, others = best.with_prefill_worker_id, request.prefill
                prefill = [first, *(p.worker_id for p in others if p.worker_id != first)][:3]
            return pb.ChooseReply(decode_worker_id=best.worker_id, prefill_worker_ids=prefill,
                                  probability=1, reason=f"{cost:.1f} ms of {len(request.decode)}")

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    services.add_PolicyServicer_to_server(Policy(), server)
    port = server.add_insecure_port(args.listen)
    server.start()
    print(f"ready: http://{args.listen.rsplit(':', 1)[0]}:{port}", flush=True)
    signal.sigwait({signal.SIGINT, signal.SIGTERM})
    server.stop(grace=1).wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--listen", default="127.0.0.1:7400", help="port 0 takes any free one")
    parser.add_argument("--spread-ms", type=float, default=1.0, help="a session's price elsewhere")
    parser.add_argument("--slow-ms", type=float, default=0.0, help="to wait before each answer")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    serve(parser.parse_args())
