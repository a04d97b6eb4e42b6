"""Operations over the REST API: who may call which, for whom, how often, and what comes back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from automate_django.models import ApiToken, IdempotencyRecord
from automate_kernel import Call, Connector, action
from automate_kernel.plugins.connectors import options
from automate_kernel.base.errors import AutomateError
from automate_kernel.http.operations import ExposedOperations
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import override_settings
from rest_framework.test import APIClient

API = "/api/automate/operations"
CALLS: list[tuple[str, str | None, str | None]] = []


class Desk(Connector):
    key = "desk"
    display_name = "Desk"

    @action(read_only=True, title="Find a ticket")
    def find(self, subject: str, call: Call, limit: int = 5, ratio: float = 1.0) -> dict[str, Any]:
        """Find tickets."""
        CALLS.append((subject, call.tenant_id, call.idempotency_key))
        return {"subject": subject, "tenant": call.tenant_id}

    @action("lists/open/all")
    def open_lists(self, name: str = "") -> str:
        """List lists: services have names of their own."""
        return "all lists"

    @action
    def fail(self, code: str) -> None:
        """Fail."""
        CALLS.append(("fail", None, None))
        raise AutomateError(code, "the desk said no", retry_after=9)

    @action(destructive=True)
    def close_all(self) -> str:
        """Close every ticket."""
        return "closed"

    @action
    def show(self) -> str:
        """Show a secret."""
        return self.ctx.secrets.get("DESK")

    @options("subject")
    def subjects(self, search: str = "") -> list[str]:
        return [f"{search} one", f"{search} two"]


@contextmanager
def offered(*names: str, **more: Any) -> Iterator[None]:
    with override_settings(AUTOMATE_OPERATIONS={"API": names, **more}):
        yield


@pytest.fixture(autouse=True)
def desk(empty: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A connector of the project, and no calls yet."""
    monkeypatch.setenv("AUTOMATE_SECRET_DESK", "s3cr3t-of-the-desk-77")
    CALLS.clear()
    IdempotencyRecord.objects.all().delete()
    ApiToken.objects.all().delete()
    secrets = ["automate_kernel.secrets.EnvSecretsBackend"]
    settings = override_settings(AUTOMATE_CONNECTORS=[Desk], AUTOMATE_SECRETS=secrets)
    with settings, offered("desk.*"):
        yield


def client_of(
    *scopes: str, tenant: str | None = "acme", all_tenants: bool = False, **options: Any
) -> APIClient:
    """A client of a service's token."""
    _, text = ApiToken.objects.issue(
        "t", tenant_id=tenant, scopes=scopes, all_tenants=all_tenants, **options
    )
    client = APIClient(raise_request_exception=False)
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {text}")
    return client


def call(client: APIClient, name: str, /, **body: Any) -> Any:
    headers = body.pop("headers", {})
    return client.post(f"{API}/{name}", body, format="json", **headers)


def test_nothing_is_offered_by_default() -> None:
    """Without the setting the list is empty, and every name unknown."""
    client = client_of("*")
    with override_settings(AUTOMATE_OPERATIONS={}):
        assert client.get(API).json() == []
        assert call(client, "desk.find", input={"subject": "x"}).status_code == 404
    assert CALLS == []


def test_the_list_has_schemas_and_hints() -> None:
    """A client learns what it may call and how; a destructive one has to be named in full."""
    found = {each["name"]: each for each in client_of("operations:read").get(API).json()}
    assert set(found) == {"desk.fail", "desk.find", "desk.lists/open/all", "desk.show"}
    one = found["desk.find"]
    assert (one["title"], one["read_only"], one["choices"]) == ("Find a ticket", True, ["subject"])
    assert one["input_schema"]["required"] == ["subject"]
    assert client_of("operations:read").get(f"{API}/desk.find").json() == one
    with offered("desk.close_all"):
        assert call(client_of("operations:call"), "desk.close_all").json() == {"output": "closed"}
    assert call(client_of("operations:call"), "desk.close_all").status_code == 404


@pytest.mark.parametrize(
    ("scopes", "method", "path", "status"),
    [
        ((), "get", API, 403),
        (("operations:call",), "get", API, 403),
        (("operations:read",), "post", f"{API}/desk.show", 403),
        (("executions:*",), "post", f"{API}/desk.show", 403),
        (("operations:read",), "post", f"{API}/desk.find/choices/subject", 200),
        (("operations:*",), "post", f"{API}/desk.show", 200),
    ],
)
def test_a_token_needs_the_scope(
    scopes: tuple[str, ...], method: str, path: str, status: int
) -> None:
    """Reading and calling have scopes of their own."""
    assert getattr(client_of(*scopes), method)(path).status_code == status


def test_a_user_needs_the_permission() -> None:
    """A user who may do all else may not call; anonymous requests get 401."""
    user = User.objects.create(username="kim", is_staff=True)
    user.user_permissions.set(
        Permission.objects.filter(content_type__app_label="automate_django").exclude(
            codename="call_operation"
        )
    )
    client = APIClient(raise_request_exception=False)
    assert client.get(API).status_code == 401
    client.force_login(user)
    assert client.get(API).status_code == 403
    assert call(client, "desk.show").status_code == 403
    user.user_permissions.add(Permission.objects.get(codename="call_operation"))
    client.force_login(User.objects.get(pk=user.pk))
    assert call(client, "desk.show").json() == {"output": "[secret]"}


@pytest.mark.parametrize("number", ["1e400", "-1e400", "9" * 400])
def test_a_number_that_readers_make_infinite_is_refused(number: str) -> None:
    """It reached an action as an infinite one, which its schema doesn't have."""
    body = f'{{"input": {{"subject": "x", "ratio": {number}}}}}'
    client = client_of("operations:call")
    answer = client.post(f"{API}/desk.find", body, content_type="application/json")
    assert (answer.status_code, CALLS) == (400, [])
    assert [each["pointer"] for each in answer.json()["errors"]] == ["#/input/ratio"]


def test_a_call_is_made_for_the_clients_tenant() -> None:
    """A tenant's client can't name another one; an operator may name any."""
    mine = client_of("operations:call")
    assert call(mine, "desk.find", input={"subject": "a"}).json()["output"]["tenant"] == "acme"
    refused = call(mine, "desk.find", input={"subject": "a"}, tenant_id="rival")
    assert refused.status_code == 403
    everyone = client_of("operations:call", tenant=None, all_tenants=True)
    answer = call(everyone, "desk.find", input={"subject": "a"}, tenant_id="rival")
    assert answer.json()["output"]["tenant"] == "rival"
    nobody = client_of("operations:call", tenant=None)
    assert call(nobody, "desk.find", input={"subject": "a"}).status_code == 403


def test_a_key_is_carried_out_once() -> None:
    """The same request again gets the same answer; tokens don't share keys, and no lock is held."""
    client, other = client_of("operations:call"), client_of("operations:call")
    key = {"HTTP_IDEMPOTENCY_KEY": "k-1"}
    first = call(client, "desk.find", input={"subject": "a"}, headers=key)
    again = call(client, "desk.find", input={"subject": "a"}, headers=key)
    assert first.json() == again.json()
    assert again["Idempotency-Replayed"] == "true"
    assert len(CALLS) == 1
    reused = call(client, "desk.find", input={"subject": "b"}, headers=key)
    assert reused.status_code == 422
    call(other, "desk.find", input={"subject": "a"}, headers=key)
    keys = [each[2] for each in CALLS]
    assert len(keys) == 2
    assert None not in keys
    assert keys[0] != keys[1]


def test_a_failed_call_frees_its_key() -> None:
    """What failed may be tried again with the same key."""
    client, key = client_of("operations:call"), {"HTTP_IDEMPOTENCY_KEY": "k-2"}
    for number in (1, 2):
        failed = call(client, "desk.fail", input={"code": "UNAVAILABLE"}, headers=key)
        assert (failed.status_code, failed["Retry-After"]) == (503, "9")
        assert len(CALLS) == number
    assert not IdempotencyRecord.objects.exists()


@pytest.mark.parametrize(
    ("code", "status"),
    [("UNAUTHENTICATED", 502), ("NOT_FOUND", 422), ("RESOURCE_EXHAUSTED", 429), ("INTERNAL", 500)],
)
def test_a_service_failure_is_a_problem_with_its_code(code: str, status: int) -> None:
    """A service's 401 is no 401 of ours."""
    answer = call(client_of("operations:call"), "desk.fail", input={"code": code})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer["Content-Type"] == "application/problem+json"
    assert ("the desk said no" in answer.json()["detail"]) is (code != "INTERNAL")


def test_wrong_input_is_pointed_at() -> None:
    """Each wrong field has a pointer into the body, and nothing is called."""
    client = client_of("operations:call")
    answer = call(client, "desk.find", input={"limit": "hunter2", "more": 1})
    assert answer.status_code == 400
    pointers = {each["pointer"] for each in answer.json()["errors"]}
    assert pointers == {"#/input/subject", "#/input/limit", "#/input/more"}
    assert "hunter2" not in answer.content.decode()
    unknown = client.post(f"{API}/desk.find", {"inputs": {}}, format="json")
    assert unknown.json()["errors"][0]["pointer"] == "#/inputs"
    escaped = call(client, "desk.find", input={"subject": "x", "a/b~c": 1}).json()["errors"]
    assert [each["pointer"] for each in escaped] == ["#/input/a~1b~0c"]
    listed = client.post(f"{API}/desk.find", {"input": [1]}, format="json")
    assert listed.status_code == 400
    assert CALLS == []


def test_text_is_literal() -> None:
    """A client can't have a secret resolved."""
    answer = call(client_of("operations:call"), "desk.find", input={"subject": "$secret:DESK"})
    assert answer.json()["output"]["subject"] == "$secret:DESK"


def test_outputs_are_bounded() -> None:
    """A large output is no answer."""
    with offered("desk.*", MAX_OUTPUT_BYTES=20):
        answer = call(client_of("operations:call"), "desk.find", input={"subject": "x" * 50})
    assert answer.status_code == 429
    assert "ask for less" in answer.json()["detail"]


def test_choices_of_a_field() -> None:
    """The plugin's method is asked with the text; another field has none."""
    client = client_of("operations:read")
    path = f"{API}/desk.find/choices"
    found = client.post(f"{path}/subject", {"search": "a"}, format="json").json()
    assert found == [{"value": "a one", "label": "a one"}, {"value": "a two", "label": "a two"}]
    assert client.post(f"{path}/limit", {}, format="json").status_code == 422
    assert client.post(f"{path}/subject", {"limit": 0}, format="json").status_code == 400


def test_a_name_may_hold_slashes() -> None:
    """As a service's own names do."""
    client = client_of("operations:*")
    name = "desk.lists/open/all"
    assert client.get(f"{API}/{name}").json()["name"] == name
    assert call(client, name).json() == {"output": "all lists"}
    choices = client.post(f"{API}/{name}/choices/name", {}, format="json")
    assert choices.json()["code"] == "NOT_FOUND"
    assert "name" in choices.json()["detail"]


@pytest.mark.parametrize("path", ["desk.find", "desk.find/choices/subject"])
def test_no_transaction_is_held_while_a_service_is_asked(
    monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """With ATOMIC_REQUESTS neither, with a key or without. The call itself has its own thread."""
    held: list[bool] = []

    def noted(self: Any, *args: Any, **options: Any) -> Any:
        held.append(connection.in_atomic_block)
        return []

    monkeypatch.setattr(ExposedOperations, "call", noted)
    monkeypatch.setattr(ExposedOperations, "choices", noted)
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    client = client_of("operations:*")
    for headers in ({}, {"HTTP_IDEMPOTENCY_KEY": "k-3"}):
        assert call(client, path, headers=headers).status_code == 200
    assert held == [False, False]
