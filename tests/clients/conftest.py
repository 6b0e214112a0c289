"""What the client tests share: where the cluster is.

`cargo xtask clients` starts a cluster and sets the environment. To try another one:

    BASE_URL=http://127.0.0.1:8080 pytest tests/clients
"""

import os
from urllib.parse import urlsplit

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
def grpc_address(base_url: str) -> str:
    """The router's gRPC address; HTTP and gRPC share a port unless the environment differs."""
    return os.environ.get("GRPC_ADDRESS") or urlsplit(base_url).netloc
