"""The contracts of secrets backends, each on OpenBao; and servers that misbehave."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from automate_kernel import Connector, action
from automate_testing import (
    HostileAnswersContract,
    SecretsBackendContract,
    WritableSecretsBackendContract,
)
from automate_vault import VaultBackend, WritableVaultBackend
from pydantic import BaseModel
from vault_support import ROOT, Bao

TOKEN = {"method": "token", "token": ROOT}


class TestVersionTwo(SecretsBackendContract):
    @pytest.fixture
    def backend(self, bao: Bao, known_key: str, known_value: str) -> Iterator[VaultBackend]:
        bao.write(known_key, value=known_value)
        backend = VaultBackend(bao.url, auth=TOKEN)
        yield backend
        backend.close()


class TestVersionOne(SecretsBackendContract):
    @pytest.fixture
    def known_key(self) -> str:
        return "app/database#password"

    @pytest.fixture
    def backend(self, bao: Bao, known_value: str) -> Iterator[VaultBackend]:
        bao.post("legacy/app/database", {"user": "ada", "password": known_value})
        backend = VaultBackend(bao.url, auth=TOKEN, mount="legacy")
        yield backend
        backend.close()


class TestAppRole(SecretsBackendContract):
    @pytest.fixture
    def backend(self, bao: Bao, known_key: str, known_value: str) -> Iterator[VaultBackend]:
        bao.write(known_key, value=known_value)
        backend = VaultBackend(bao.url, auth={"method": "approle", **bao.role("contract")})
        yield backend
        backend.close()


class TestWritable(WritableSecretsBackendContract):
    @pytest.fixture
    def writable(self, bao: Bao) -> Iterator[WritableVaultBackend]:
        backend = WritableVaultBackend(bao.url, auth=TOKEN, mount="team/kv")
        yield backend
        backend.close()


class ReaderConfig(BaseModel):
    address: str
    timeout_seconds: float


class Reader(Connector):
    """Reads a secret, with a token that it looks up."""

    key = "reader"
    display_name = "Reader"

    @classmethod
    def config_schema(cls) -> type[BaseModel]:
        return ReaderConfig

    @action
    def read(self) -> int:
        token = self.ctx.secrets.get("VAULT_TOKEN")
        backend = VaultBackend(auth={"method": "token", "token": token}, **self.config)
        try:
            return len(backend.get_secret("app#password"))
        finally:
            backend.close()


class TestHostileAnswers(HostileAnswersContract):
    plugin, operation = Reader, "read"

    def answer_to(self, method: str, path: str) -> Any:
        if "mounts" in path:
            return {"data": {"type": "kv", "options": {"version": "2"}}}
        if "lookup-self" in path:
            return {"data": {"ttl": 3600, "renewable": True}}
        return {"data": {"data": {"password": "hunter2-hunter2"}, "metadata": {"version": 1}}}

    def config(self, url: str) -> dict[str, Any]:
        return {"address": url, "timeout_seconds": self.timeout_seconds}
