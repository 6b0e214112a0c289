"""A Python gRPC client, generated from the project's .proto files, against a cluster."""

import importlib
import pathlib
import sys

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_tools import protoc

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto" / "proto"
SERVICE = "baton.v1.Inference"


@pytest.fixture(scope="session")
def channel(grpc_address):
    with grpc.insecure_channel(grpc_address) as channel:
        grpc.channel_ready_future(channel).result(timeout=10)
        yield channel


@pytest.fixture(scope="session")
def stubs(tmp_path_factory):
    """The generated modules, made as a user would make them."""
    out = tmp_path_factory.mktemp("stubs")
    arguments = ["protoc", f"-I{PROTO}", f"--python_out={out}", f"--grpc_python_out={out}"]
    assert protoc.main([*arguments, str(PROTO / "baton/v1/inference.proto")]) == 0
    sys.path.insert(0, str(out))
    messages = importlib.import_module("baton.v1.inference_pb2")
    services = importlib.import_module("baton.v1.inference_pb2_grpc")
    yield messages, services
    sys.path.remove(str(out))


@pytest.fixture(scope="session")
def pb(stubs):
    return stubs[0]


@pytest.fixture(scope="session")
def inference(stubs, channel):
    return stubs[1].InferenceStub(channel)


def test_models_are_listed_with_their_context(inference, pb):
    models = inference.ListModels(pb.ListModelsRequest(), timeout=10).models
    assert models and all(m.id and m.context_tokens > 0 for m in models)


def generate(inference, request, timeout=60):
    return list(inference.Generate(request, timeout=timeout))


def test_text_in_gives_ids_and_text_out(inference, pb):
    request = pb.GenerateRequest(text="Once upon a time", max_tokens=12)
    request.stop.ignore_eos = True
    answers = generate(inference, request)
    ids = [i for a in answers for i in a.token_ids]
    assert len(ids) == 12
    assert "".join(a.text for a in answers)
    assert [a.finish_reason for a in answers if a.finish_reason] == ["length"]
    usage = answers[-1].usage
    assert usage.completion_tokens == 12
    assert usage.prompt_tokens > 0


def test_ids_in_give_the_same_greedy_ids_every_time(inference, pb):
    def ids():
        request = pb.GenerateRequest(tokens=pb.TokenIds(ids=range(10, 110)), max_tokens=10)
        request.stop.ignore_eos = True
        answers = generate(inference, request)
        return [i for a in answers for i in a.token_ids], answers[-1].usage

    first, _ = ids()
    again, usage = ids()
    assert first == again
    assert usage.prompt_tokens == 100
    assert usage.cached_tokens > 0


def test_a_conversation_is_rendered(inference, pb):
    chat = pb.Conversation(messages=[pb.ChatMessage(role="user", content="Hello")])
    answers = generate(inference, pb.GenerateRequest(chat=chat, max_tokens=4))
    assert answers[-1].usage.completion_tokens >= 1


def test_logprobs_come_with_the_ids(inference, pb):
    request = pb.GenerateRequest(text="Once", max_tokens=4, logprobs=2)
    answers = generate(inference, request)
    ids = [i for a in answers for i in a.token_ids]
    logprobs = [entry for a in answers for entry in a.logprobs]
    assert [entry.token_id for entry in logprobs] == ids
    assert all(entry.logprob <= 0 and len(entry.top) == 2 for entry in logprobs)


def test_each_choice_finishes_once(inference, pb):
    request = pb.GenerateRequest(text="Dice:", max_tokens=6, n=2)
    request.sampling.temperature = 1.5
    request.sampling.seed = 5
    answers = generate(inference, request)
    finished = [a.choice for a in answers if a.finish_reason]
    assert sorted(finished) == [0, 1]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, "prompt"),
        # The oneof is named: its three forms are one prompt once they have been read.
        ({"tokens": {"ids": [2**31]}}, "prompt"),
        ({"text": "x", "n": 2**31}, "n"),
    ],
)
def test_a_bad_request_is_an_invalid_argument(inference, pb, fields, named):
    with pytest.raises(grpc.RpcError) as caught:
        generate(inference, pb.GenerateRequest(**fields))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert named in caught.value.details()


def test_an_unknown_model_is_not_found(inference, pb):
    with pytest.raises(grpc.RpcError) as caught:
        generate(inference, pb.GenerateRequest(model="no-such-model", text="x"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_deadline_ends_the_stream(inference, pb):
    request = pb.GenerateRequest(text="Go on", max_tokens=30000)
    request.stop.ignore_eos = True
    with pytest.raises(grpc.RpcError) as caught:
        generate(inference, request, timeout=1)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_cancelled_stream_does_not_hurt_the_next(inference, pb):
    request = pb.GenerateRequest(text="Go on", max_tokens=500)
    request.stop.ignore_eos = True
    for _ in range(5):
        stream = inference.Generate(request, timeout=60)
        next(stream)
        stream.cancel()
    assert generate(inference, pb.GenerateRequest(text="Go on", max_tokens=2))


def test_health_says_serving(channel):
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", SERVICE):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_shows_the_service_and_its_messages(channel):
    database = ProtoReflectionDescriptorDatabase(channel)
    assert SERVICE in database.get_services()
    service = DescriptorPool(database).FindServiceByName(SERVICE)
    assert {method.name for method in service.methods} == {"Generate", "ListModels"}
