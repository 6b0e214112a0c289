"""What the client tests share: where the cluster is, and who asks it.

`cargo xtask clients` starts a cluster and sets the environment. To try another one:

    BASE_URL=http://127.0.0.1:8080 pytest tests/clients
"""

import os
from urllib.parse import urlsplit

import openai
import pytest


def find_base_url() -> str:
    """The router's HTTP address, without a path."""
    url = os.environ.get("BASE_URL")
    if not url:
        pytest.exit("set BASE_URL to a running cluster, for example http://127.0.0.1:8080", 2)
    return url.rstrip("/")


@pytest.fixture(scope="session")
def base_url() -> str:
    """The same for tests."""
    return find_base_url()


@pytest.fixture(scope="session")
def client(base_url: str) -> openai.OpenAI:
    """OpenAI's client, where a file of tests has no other."""
    # A retry would hide what a test wants to see.
    return openai.OpenAI(base_url=f"{base_url}/v1", api_key="none", max_retries=0, timeout=60)


@pytest.fixture(scope="session")
def model(client) -> str:
    """What the cluster serves."""
    return client.models.list().data[0].id


@pytest.fixture(scope="session")
def grpc_address(base_url: str) -> str:
    """The router's gRPC address; HTTP and gRPC share a port unless the environment differs."""
    return os.environ.get("GRPC_ADDRESS") or urlsplit(base_url).netloc
