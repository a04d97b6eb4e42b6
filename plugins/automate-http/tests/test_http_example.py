"""The example workflow that the package ships runs against a real server."""

from __future__ import annotations

import json
from typing import Any

import automate_http
import pytest
from automate_kernel import Kernel
from automate_testing.authoring.example import ExampleFile
from automate_kernel.triggers.webhooks import StandardWebhooksSignature

SECRET = "whsec_" + "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"


@pytest.fixture
def kernel(server: Any) -> Kernel:
    config = {"base_url": server.url(host="127.0.0.1"), "allow_private_networks": ["127.0.0.1"]}
    return Kernel(config={"http": config}, secrets={"PARTNER_HOOK": SECRET})


def test_the_example_runs(server: Any, kernel: Kernel) -> None:
    """It reads an order, and sends a signed webhook of it."""
    server.answer("/orders/7", body=b"{}", Content_Type="application/json")
    server.answer("/hooks", status=202)
    example = ExampleFile.of(automate_http.__name__)
    assert example is not None
    with kernel:
        kernel.add_workflow(example.path)
        assert kernel.run("http-example").output == 202
    sent = server.last
    assert json.loads(sent.body) == {"type": "order.read", "status": 200}
    assert StandardWebhooksSignature("$secret:PARTNER_HOOK").verify(
        sent.headers, sent.body, kernel.secrets
    )
