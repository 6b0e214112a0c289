"""What schemathesis makes of the OpenAPI document, well-formed and not, is answered as the document says."""

import os

import pytest
import requests
import schemathesis
from conftest import find_base_url
from hypothesis import HealthCheck, Phase, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

LONG = "BATON_LONG" in os.environ
# Of each endpoint that takes a body; there are seven.
CASES = 300 if LONG else 25
# Tokens of an answer: it is its shape that is looked at.
TOKENS = 4
TOKEN_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "min_tokens")

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]

# How often each status was answered, by endpoint.
answered = {}


@pytest.fixture(scope="session")
def model(base_url):
    return requests.get(f"{base_url}/v1/models", timeout=60).json()["data"][0]["id"]


document = schemathesis.openapi.from_url(f"{find_base_url()}/openapi.json")


def is_whole(value, least, most):
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def make_servable(body, path, model):
    """The model that there is, and a short answer; what is wrong on purpose stays wrong."""
    if not isinstance(body, dict):
        return
    if isinstance(body.get("model"), str):
        body["model"] = model
    for name in TOKEN_LIMITS:
        if is_whole(body.get(name), 1, 2**31 - 1):
            body[name] = TOKENS
    limit = {"/v1/chat/completions": "max_tokens", "/v1/responses": "max_output_tokens"}.get(path)
    if limit and body.get(limit) is None:
        body[limit] = TOKENS
    if is_whole(body.get("n"), 1, 16):
        body["n"] = min(body["n"], 2)


def keep_rules(body, path):
    """What a schema cannot say: fields that need each other, and ids that the model has."""
    if not body.get("stream"):
        body.pop("stream_options", None)
    if not body.get("logprobs") is True and "messages" in body:
        body.pop("top_logprobs", None)
    for name in ("best_of", "logit_bias", "stop_token_ids"):
        body.pop(name, None)
    if "prompt" in body:
        body.pop("messages", None)
    nothing = body.get("prompt") is None and body.get("messages") is None
    if isinstance(body.get("prompt"), list) or (path == "/tokenize" and nothing):
        body["prompt"] = "Once upon a time"
    if isinstance(body.get("tokens"), list):
        body["tokens"] = [int(token) % 256 for token in body["tokens"]]


@document.parametrize()
@settings(
    max_examples=CASES,
    deadline=None,
    derandomize=not LONG,
    database=None,
    # The explicit cases go through every bound of every field: thousands.
    phases=[Phase.explicit, Phase.generate] if LONG else [Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_what_is_served_is_what_is_described(case, model):
    path = case.operation.path
    make_servable(case.body, path, model)
    if case.meta.generation.mode == GenerationMode.POSITIVE and isinstance(case.body, dict):
        keep_rules(case.body, path)
    response = case.call(timeout=60)
    seen = answered.setdefault(path, {})
    seen[response.status_code] = seen.get(response.status_code, 0) + 1
    case.validate_response(response, checks=CHECKS)


def test_there_were_enough_cases_and_good_ones_among_them():
    total = sum(sum(seen.values()) for seen in answered.values())
    print(f"{total} cases: {answered}")
    assert total >= 7 * CASES
    for path, seen in answered.items():
        # A name is hardly ever guessed.
        assert seen.get(200) or path == "/v1/models/{id}", path
