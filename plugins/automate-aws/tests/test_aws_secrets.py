"""Both secrets backends, on moto and on a service that misbehaves."""

from __future__ import annotations

import json
import os
import re
import socket
from contextlib import closing, nullcontext
from datetime import timedelta
from typing import Any

import pytest
from automate_aws import ParameterStoreBackend, SecretsManagerBackend, parameter_lock
from automate_aws.parameter_lock import ParameterLock
from automate_aws.secret_names import parse_key
from aws_support import REGION, SECRET_KEY, Aws
from hypothesis import given
from hypothesis import strategies as st
from mortal_process import ends
from waiting import within

from automate_kernel import (
    Kernel,
    SecretError,
    SecretNotFoundError,
    SecretUnavailableError,
)
from automate_kernel.secrets import MemorySecretsBackend, WritableSecretsBackend
from automate_testing import SecretsBackendContract, WritableSecretsServiceContract

BACKENDS = [SecretsManagerBackend, ParameterStoreBackend]


class FailingAws:
    """AWS that fails in each way."""

    kind: Any = SecretsManagerBackend

    @pytest.fixture
    def broken(self) -> dict[str, Any]:
        with closing(socket.socket()) as unused:
            unused.bind(("127.0.0.1", 0))
            nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
        return {"nobody listens": self.backend_at(nobody, 10.0)}

    def backend_at(self, url: str, timeout_seconds: float) -> WritableSecretsBackend:
        access = {
            "region": REGION, "access_key_id": "A", "secret_access_key": SECRET_KEY,
            "endpoint_url": url, "max_attempts": 1, "timeout_seconds": timeout_seconds,
        }  # fmt: skip
        return self.kind(access=access)

    def answer_to(self, method: str, path: str) -> Any:
        kept = {"SecretString": "value-of-it", "Parameter": {"Value": "value-of-it"}}
        return {**kept, "ARN": "arn:of-it", "Version": 2}


class TestSecretsManager(FailingAws, WritableSecretsServiceContract):
    @pytest.fixture
    def writable(self, aws: Aws) -> WritableSecretsBackend:
        return SecretsManagerBackend(f"{aws.name}/", access=aws.access)


class TestParameterStore(FailingAws, WritableSecretsServiceContract):
    kind = ParameterStoreBackend

    @pytest.fixture
    def writable(self, aws: Aws) -> WritableSecretsBackend:
        return ParameterStoreBackend(f"/{aws.name}/", access=aws.access)


class TestFieldOfASecret(SecretsBackendContract):
    @pytest.fixture
    def known_key(self) -> str:
        return "db#password"

    @pytest.fixture
    def missing_key(self) -> str:
        return "db#not-there"

    @pytest.fixture
    def backend(self, aws: Aws, known_value: str) -> Any:
        backend = SecretsManagerBackend(f"{aws.name}/", access=aws.access)
        backend.set_secret("db", json.dumps({"user": "ada", "password": known_value, "port": 5432}))
        return backend


@pytest.fixture(params=BACKENDS, ids=["secrets-manager", "parameter-store"])
def backend(request: pytest.FixtureRequest, aws: Aws) -> Any:
    return request.param(f"/{aws.name}/", access=aws.access)


def test_fields_of_a_secret(backend: Any):
    backend.set_secret("db", '{"user": "ada", "port": 5432, "tls": {"ca": "x"}, "none": null}')
    assert backend.get_secret("db#port") == "5432"
    assert json.loads(backend.get_secret("db#tls")) == {"ca": "x"}
    for missing in ("db#none", "db#pass", "db2#user"):
        with pytest.raises(SecretNotFoundError):
            backend.get_secret(missing)
    backend.set_secret("plain", "no json, and a secret")
    with pytest.raises(SecretError, match="no JSON object") as caught:
        backend.get_secret("plain#field")
    assert not isinstance(caught.value, SecretNotFoundError)
    assert caught.value.__context__ is None and "and a secret" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is forked here")
def test_a_forked_process_has_clients_of_its_own(backend: Any):
    backend.set_secret("app", "value-of-app")
    clients = backend._clients
    parents = dict(clients._clients), clients._transport, clients._session

    def use() -> None:
        assert backend.get_secret("app") == "value-of-app"
        assert not {*map(id, clients._clients.values())} & {*map(id, parents[0].values())}
        assert clients._transport is not parents[1] and clients._session is not parents[2]

    assert ends(use)
    assert backend.get_secret("app") == "value-of-app"
    assert (clients._clients, clients._transport, clients._session) == parents


def test_a_part_of_a_secret_is_not_written(backend: Any):
    for key in ("db#password", "db?version=1"):
        with pytest.raises(SecretError, match="part of another"):
            backend.set_secret(key, "value")
        with pytest.raises(SecretError, match="part of another"):
            backend.delete_secret(key)


def test_stages_and_versions_of_secrets_manager(aws: Aws):
    backend = SecretsManagerBackend(access=aws.access)
    key = f"{aws.name}/rotated"
    backend.set_secret(key, "the-old-value")
    backend.set_secret(key, "the-new-value")
    assert backend.get_secret(key) == "the-new-value"
    assert backend.get_secret(f"{key}?stage=AWSPREVIOUS") == "the-old-value"
    found = aws.clients.call("secretsmanager", "describe_secret", SecretId=key)
    for version, stages in found["VersionIdsToStages"].items():
        wanted = "the-new-value" if "AWSCURRENT" in stages else "the-old-value"
        assert backend.get_secret(f"{key}?version={version}") == wanted
    assert backend.get_secret(found["ARN"]) == "the-new-value"
    with pytest.raises(SecretNotFoundError):
        backend.get_secret(f"{key}?stage=NOSUCH")
    with pytest.raises(SecretNotFoundError):  # an ARN would lead around a prefix
        SecretsManagerBackend("x/", access=aws.access).get_secret(found["ARN"])


def test_versions_and_labels_of_parameter_store(aws: Aws):
    backend = ParameterStoreBackend(access=aws.access)
    key = f"/{aws.name}/rotated"
    backend.set_secret(key, "the-old-value")
    backend.set_secret(key, "the-new-value")
    aws.clients.call(
        "ssm", "label_parameter_version", Name=key, ParameterVersion=1, Labels=["tested"]
    )
    assert backend.get_secret(key) == "the-new-value"
    assert backend.get_secret(f"{key}?version=1") == "the-old-value"
    assert backend.get_secret(f"{key}?label=tested") == "the-old-value"
    with pytest.raises(SecretNotFoundError):
        backend.get_secret(f"{key}?version=7")
    stored = aws.clients.call("ssm", "get_parameter", Name=key)["Parameter"]
    assert stored["Type"] == "SecureString" and "the-new-value" not in stored["Value"].split(":")[0]


def test_a_secret_that_is_marked_for_deletion_ends_the_look_up(aws: Aws):
    backend = SecretsManagerBackend(access=aws.access)
    backend.set_secret(aws.name, "an-old-value")
    aws.clients.call("secretsmanager", "delete_secret", SecretId=aws.name)
    kernel = Kernel(
        discover=False, secrets=[backend, MemorySecretsBackend({aws.name: "from-further-down"})]
    )
    with pytest.raises(SecretError, match="marked for deletion") as caught:
        kernel.secrets.get(aws.name)
    assert not caught.value.retryable and "restore" in str(caught.value)


def test_a_binary_secret_is_refused(aws: Aws):
    aws.clients.call("secretsmanager", "create_secret", Name=aws.name, SecretBinary=b"\x00\x01")
    with pytest.raises(SecretError, match="base64"):
        SecretsManagerBackend(access=aws.access).get_secret(aws.name)


def test_the_lock_of_a_process_that_died_is_free_after_its_lease(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
):
    name = f"/{aws.name}/lock"
    aws.clients.call("ssm", "put_parameter", Name=name, Value="held dead", Type="String")
    with (
        pytest.raises(SecretUnavailableError, match="held by another"),
        ParameterLock(aws.clients, name, wait_seconds=0, sleep=lambda _: None).held(),
    ):
        raise AssertionError("it got the lock")
    now = parameter_lock._now_of
    monkeypatch.setattr(
        parameter_lock, "_now_of", lambda answer: now(answer) + timedelta(seconds=61)
    )
    with ParameterLock(aws.clients, name, wait_seconds=0).held():
        pass


@pytest.mark.parametrize("late", [20, 61])
def test_the_lease_of_a_lock_runs_from_its_write(aws: Aws, late: int):
    """Where the answer came late, the lock may be another's: it is not freed, or not even had."""
    name, now = f"/{aws.name}/lock", [0.0]

    def passes(seconds: float) -> None:
        now[0] += seconds

    class Late:
        def call(self, service: str, method: str, **given: Any) -> Any:
            answer = aws.clients.call(service, method, **given)
            if method == "put_parameter":
                passes(late)
            return answer

    lock = ParameterLock(Late(), name, sleep=passes, clock=lambda: now[0])  # type: ignore[arg-type]
    with pytest.raises(SecretUnavailableError) if late == 61 else nullcontext(), lock.held():
        assert late == 20
        passes(38)
    state = ParameterLock(aws.clients, name)._state()
    assert state is not None and not state.free


def test_of_two_processes_that_see_the_lock_free_one_gets_it(aws: Aws):
    name = f"/{aws.name}/lock"
    lock = ParameterLock(aws.clients, name)
    with lock.held():
        pass
    seen = lock._state()
    assert seen is not None and seen.free
    # Another takes it after this one has looked, and before it writes.
    other = ParameterLock(aws.clients, name)
    assert other._tried()
    assert lock._write("held late") != seen.version + 1
    other._write("free")

    def hold() -> None:
        with lock.held():
            pass

    within(5, hold)


def test_a_kernel_reads_a_field_by_its_key(aws: Aws):
    backend = SecretsManagerBackend(f"{aws.name}/", access=aws.access)
    backend.set_secret("crm", '{"token": "tok-51d0aef77ac1"}')
    kernel = Kernel(discover=False, secrets=[backend])

    @kernel.action("crm.length")
    def length(token: str) -> int:
        return len(token)

    assert kernel.invoke("crm.length", {"token": "$secret:{crm#token}"}) == 16
    problem = kernel.secrets.check(["nobody"]).problems[0].problem
    assert "aws secretsmanager create-secret" in problem


NAME = re.compile(r"[a-z/]+")
VALUES = st.text("AZaz09_.-", min_size=1, max_size=20)


@given(
    st.text("az/", min_size=1), st.none() | VALUES,
    st.none() | st.text(min_size=1).filter(lambda text: "\n" not in text),
)  # fmt: skip
def test_a_key_comes_apart_as_it_was_put_together(name: str, value: str | None, field: str | None):
    key = name + (f"?stage={value}" if value else "") + (f"#{field}" if field else "")
    found = parse_key(key, NAME, "stage")
    assert (found.name, found.value, found.field) == (name, value, field)


@given(st.text())
def test_no_key_names_what_its_backend_does_not_allow(key: str):
    try:
        found = parse_key(key, NAME, "stage")
    except SecretNotFoundError:
        return
    assert NAME.fullmatch(found.name) and found.selector in {None, "stage"}
