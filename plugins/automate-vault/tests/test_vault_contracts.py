"""The contracts of secrets backends, each on OpenBao; and servers that misbehave."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from automate_kernel import Connector, action
from automate_testing import (
    HostileAnswersContract,
    SecretsServiceContract,
    WritableSecretsServiceContract,
)
from automate_vault import VaultBackend, WritableVaultBackend
from pydantic import BaseModel
from vault_support import ROOT, Bao

TOKEN = {"method": "token", "token": ROOT}


class FailingVault:
    """A Vault that fails in each way, at each of its requests."""

    mount = "secret"
    version = "2"

    def backend_at(self, url: str, timeout_seconds: float) -> VaultBackend:
        return VaultBackend(url, auth=TOKEN, mount=self.mount, timeout_seconds=timeout_seconds)

    @pytest.fixture
    def broken(self, tmp_path: Path) -> dict[str, VaultBackend]:
        with closing(socket.socket()) as unused:
            unused.bind(("127.0.0.1", 0))
            nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
        gone = {"method": "token", "token_file": tmp_path / "gone"}
        return {
            "nobody listens": VaultBackend(nobody, auth=TOKEN),
            "the file of its token is gone": VaultBackend(nobody, auth=gone),
        }

    def answer_to(self, method: str, path: str) -> Any:
        known = {
            "lookup-self": {"data": {"ttl": 3600, "renewable": True}},
            "mounts": {"data": {"type": "kv", "options": {"version": self.version}}},
            "login": {"auth": {"client_token": "t-canary", "lease_duration": 3600}},
        }
        for part, answer in known.items():
            if part in path:
                return answer
        if method == "POST":
            return {"data": {"version": 2}}
        fields = {"value": "value-of-it", "password": "password-of-it"}
        two = {"data": fields, "metadata": {"version": 1}}
        return {"data": two if self.version == "2" else fields}


class TestVersionTwo(FailingVault, SecretsServiceContract):
    @pytest.fixture
    def backend(self, bao: Bao, known_key: str, known_value: str) -> Iterator[VaultBackend]:
        bao.write(known_key, value=known_value)
        backend = VaultBackend(bao.url, auth=TOKEN)
        yield backend
        backend.close()


class TestVersionOne(FailingVault, SecretsServiceContract):
    mount, version = "legacy", "1"

    @pytest.fixture
    def known_key(self) -> str:
        return "app/database#password"

    @pytest.fixture
    def backend(self, bao: Bao, known_value: str) -> Iterator[VaultBackend]:
        bao.post("legacy/app/database", {"user": "ada", "password": known_value})
        backend = VaultBackend(bao.url, auth=TOKEN, mount="legacy")
        yield backend
        backend.close()


class TestAppRole(FailingVault, SecretsServiceContract):
    def backend_at(self, url: str, timeout_seconds: float) -> VaultBackend:
        login = {"method": "approle", "role_id": "contract", "secret_id": "secret-canary"}
        return VaultBackend(url, auth=login, timeout_seconds=timeout_seconds)

    @pytest.fixture
    def backend(self, bao: Bao, known_key: str, known_value: str) -> Iterator[VaultBackend]:
        bao.write(known_key, value=known_value)
        backend = VaultBackend(bao.url, auth={"method": "approle", **bao.role("contract")})
        yield backend
        backend.close()


class TestWritable(FailingVault, WritableSecretsServiceContract):
    def backend_at(self, url: str, timeout_seconds: float) -> WritableVaultBackend:
        return WritableVaultBackend(url, auth=TOKEN, timeout_seconds=timeout_seconds)

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
