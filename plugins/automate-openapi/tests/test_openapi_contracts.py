"""The kernel's contracts, and a service that misbehaves."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from automate_kernel import Connector
from automate_kernel.plugins.connectors import ConnectorContext
from automate_testing import ConnectorContract, HostileAnswersContract
from automate_openapi import OpenApiConnector
from openapi_support import PETSTORE, Secrets
from recording_service import Service

TOKEN_AUTH = {"token": {"secret": "T"}}


class TestOpenApiConnector(ConnectorContract):
    supports_webhooks = False
    example_inputs: ClassVar[Any] = {"getPet": {"petId": 7}}
    bad_configs = ({"document": "/nowhere.yaml"},)

    @pytest.fixture
    def connector(self, service: Service) -> Connector:
        service.answer({"id": 7, "name": "Rex"})
        return OpenApiConnector(
            {"document": str(PETSTORE), "auth": TOKEN_AUTH, **service.config},
            ctx=ConnectorContext(key="pets", secrets=Secrets()),
        )


class TestAgainstHostileAnswers(HostileAnswersContract):
    plugin, operation, example_input = OpenApiConnector, "getPet", {"petId": 7}
    answer = {"id": 7, "name": "Rex"}
    auth: ClassVar[Any] = TOKEN_AUTH

    def config(self, url: str) -> dict[str, Any]:
        return {
            "document": str(PETSTORE),
            "base_url": url,
            "auth": self.auth,
            "validate_output": "error",
            "allow_private_networks": ["127.0.0.1"],
            "timeout_seconds": self.timeout_seconds,
        }


class TestPutAgainstHostileAnswers(TestAgainstHostileAnswers):
    """A request with a body, which may be repeated; what comes back isn't in the document."""

    operation, example_input = "replacePet", {"petId": 7, "name": "Rex"}
    reads_json = False


class TestKeyInQueryAgainstHostileAnswers(TestAgainstHostileAnswers):
    operation = "deletePet"
    auth: ClassVar[Any] = {"key": {"secret": "T"}}
    reads_json = False


class TestPagesAgainstHostileAnswers(TestAgainstHostileAnswers):
    operation, example_input = "listPets", {"max_items": 5}
    answer: ClassVar[Any] = [{"id": 7, "name": "Rex"}]

    def config(self, url: str) -> dict[str, Any]:
        return {**super().config(url), "pages": {"listPets": {"by": "link"}}}


class TestDocumentAgainstHostileAnswers(HostileAnswersContract):
    """A document with a URL comes from a service too."""

    plugin, operation = OpenApiConnector, "get"
    reads_json = False

    def config(self, url: str) -> dict[str, Any]:
        return {
            "document": f"{url}/openapi.json",
            "allow_private_networks": ["127.0.0.1"],
            "timeout_seconds": self.timeout_seconds,
            "max_document_bytes": 1_000_000,
        }

    def answer_to(self, method: str, path: str) -> Any:
        if path != "/openapi.json":
            return {}
        operation = {"operationId": "get", "responses": {"200": {"description": "fine"}}}
        return {
            "openapi": "3.1.0",
            "info": {"title": "x", "version": "1"},
            "paths": {"/x": {"get": operation}},
        }
