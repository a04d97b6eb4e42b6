"""The REST API of the automation as Django has it beyond the contract: users, limits, keys."""

from __future__ import annotations

import base64
import itertools
import re
import uuid
from pathlib import Path
from typing import Any

import pytest
from automate_django import get_kernel
from automate_django.api.v1.views import permission_of
from automate_kernel.http.api import exchange
from automate_kernel.http.api.routes import ROUTES
from automate_django.api.urls import urlpatterns
from automate_django.models import OutboxItem, WorkflowExecution
from automate_kernel.outbox import ItemStatus, NewItem, Outcome
from automate_kernel.storage.output_store import FileOutputStore
from django.contrib.auth.models import Permission, User
from django.test import override_settings
from django.urls import URLPattern
from rest_framework.test import APIClient
from suites.api import failed_item

API = "/api/automate"


@pytest.fixture
def acme(empty: None, token: Any) -> Any:
    """A service of the tenant acme that may do everything."""
    return token("*", tenant_id="acme")


@pytest.fixture
def operator(empty: None, token: Any) -> Any:
    """A service that sees all tenants."""
    return token("*", all_tenants=True)


def user_client(*permissions: str, tenant: str | None = None, **options: Any) -> APIClient:
    """A logged-in user with permissions; *tenant* is what the project says of it."""
    user = User.objects.create(username=tenant or f"u{uuid.uuid4().hex[:6]}", **options)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = APIClient(raise_request_exception=False)
    client.force_login(user)
    return client


def tenant_by_name(request: Any) -> str | None:
    """The tenant of a test's user: its name, if it has one."""
    name = request.user.get_username()
    return None if name.startswith("u") else name


BY_NAME = override_settings(AUTOMATE_API={"TENANT": tenant_by_name})


NIGHTLY = """\
name: nightly
trigger: {type: schedule, every: 1h, overlap: skip}
concurrency: null
steps: [{id: a, action: chat.post_message, input: {channel: C1, text: hi}}]
"""


def test_schedules(acme: APIClient, operator: APIClient) -> None:
    """Paused, resumed, fired and backfilled by their tenant; another's and everybody's are not."""
    from automate_django import definitions

    definitions.create(NIGHTLY, tenant_id="acme")
    definitions.create(NIGHTLY.replace("nightly", "common"))
    get_kernel().workflows.look_again()
    path = f"{API}/workflows/nightly/schedules"
    (found,) = acme.get(path).json()
    assert (found["number"], found["about"], found["overlap"]) == (0, "every 1h", "skip")
    assert acme.post(f"{path}/pause", {}, format="json").json() == {"changed": 1}
    (found,) = operator.get(path).json()
    assert (found["paused_at"] is None, found["next_at"], found["tenant_id"]) == (
        False,
        None,
        "acme",
    )
    assert acme.post(f"{path}/resume", {"number": 0}, format="json").json() == {"changed": 1}
    fired = acme.post(f"{path}/trigger", {}, format="json")
    assert (fired.status_code, acme.get(fired["Location"]).status_code) == (202, 200)
    refused = acme.post(f"{path}/trigger", {}, format="json")
    assert refused.status_code == 409
    assert fired.json()["id"] in refused.json()["detail"]
    given = {"start": "2026-01-01T00:00Z", "end": "2026-01-01T05:00Z"}
    for changed in (6, 0):
        answer = acme.post(f"{path}/backfill", given, format="json")
        assert answer.json() == {"changed": changed}
    assert acme.post(f"{path}/backfill", {**given, "limit": 5}, format="json").status_code == 400
    assert {each.tenant_id for each in WorkflowExecution.objects.all()} == {"acme"}
    common = f"{API}/workflows/common/schedules"
    assert acme.get(common).json() == []
    answer = acme.post(f"{common}/pause", {}, format="json")
    assert (answer.status_code, "common" in answer.json().get("hint", "")) == (404, False)
    assert operator.post(f"{common}/pause", {}, format="json").json() == {"changed": 1}
    assert acme.get(f"{API}/workflows/none/schedules").status_code == 404


def test_what_cant_be_stored(acme: APIClient) -> None:
    """NUL, NaN, too deep, too long: refused with a reason, never a crash."""
    for body in (
        b'{"name": "x", "payload": "a\\u0000"}',
        b'{"name": "x", "payload": NaN}',
        b'{"name": "x", "payload": ' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"name": "x", "payload": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"name": "x", "payload": "' + b"a" * 1_100_000 + b'"}',
    ):
        response = acme.post(f"{API}/events", body, content_type="application/json")
        assert response.status_code == 400, (body[:40], response.content[:200])
    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=100):
        given = {"name": "x", "payload": "a" * 200}
        assert acme.post(f"{API}/events", given, format="json").status_code == 413


def test_events_are_idempotent(acme: APIClient) -> None:
    """By header, and by the event's own key."""
    given = {"name": "order.created", "payload": {}, "idempotency_key": "o-1"}
    answers = [
        acme.post(f"{API}/events", given, format="json", HTTP_IDEMPOTENCY_KEY=key)
        for key in ("a", "a", "b")
    ]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert OutboxItem.objects.count() == 1


PATHS = (
    "workflows", "executions", "executions/errors", "outbox", "outbox/stats", "outbox/errors",
    "plugins",
)  # fmt: skip


def test_a_token_of_no_tenant_sees_nothing(token: Any, empty: None) -> None:
    """Neither a tenant nor all of them was given to it: 403."""
    client = token("*")
    for path in PATHS:
        assert client.get(f"{API}/{path}").status_code == 403, path


def test_a_user_needs_permissions(empty: None) -> None:
    """In a session Django's permissions say what may be done, the tenant to what."""
    with BY_NAME:
        item = failed_item(get_kernel())
        client = user_client("view_outboxitem", tenant="acme")
        assert client.get(f"{API}/outbox/{item}").status_code == 200
        assert client.get(f"{API}/executions").status_code == 403
        assert client.post(f"{API}/outbox/{item}/requeue").status_code == 403
        changer = user_client("change_outboxitem", tenant="acme2")
        assert changer.post(f"{API}/outbox/{item}/requeue").status_code == 404
        bulk = {"action": "discard", "status": "FAILED"}
        assert changer.post(f"{API}/outbox/bulk", bulk, format="json").status_code == 403
        forks = {"action": "fork", "status": "COMPLETED", "step": "a"}
        many = f"{API}/executions/bulk/begin"
        steers = user_client("change_workflowexecution", tenant="acme3")
        assert steers.post(many, forks, format="json").status_code == 403
        resumes = {"action": "resume", "status": "FAILED"}
        assert steers.post(many, resumes, format="json").status_code == 202


def test_staff_with_the_permission_are_operators(empty: None) -> None:
    """``operate_outbox`` and the staff flag: one of them alone is not enough."""
    with BY_NAME:
        failed_item(get_kernel())
        permissions = ("view_outboxitem", "operate_outbox")
        assert len(
            user_client(*permissions, is_staff=True).get(f"{API}/outbox").json()["results"]
        ) == 1  # fmt: skip
        assert user_client(*permissions).get(f"{API}/outbox").status_code == 403
        only_staff = user_client("view_outboxitem", is_staff=True)
        assert only_staff.get(f"{API}/outbox").status_code == 403


def test_a_users_token_can_do_no_more_than_the_user(empty: None, token: Any) -> None:
    """Scopes and permissions, both; and all tenants only if the user is an operator."""
    user = User.objects.create(username="u1")
    client = token("*", user=user, tenant_id="acme")
    assert client.get(f"{API}/outbox").status_code == 403
    user.user_permissions.set(Permission.objects.filter(codename="view_outboxitem"))
    assert client.get(f"{API}/outbox").status_code == 200
    assert (
        token("events:write", user=user, tenant_id="acme").get(f"{API}/outbox").status_code == 403
    )
    assert token("*", user=user, all_tenants=True).get(f"{API}/outbox").status_code == 403


def test_the_limit_of_the_api(noon: float, acme: APIClient) -> None:
    """600 a minute by default; a setting changes it."""
    assert acme.get(f"{API}/workflows")["RateLimit-Limit"] == "600"
    with override_settings(AUTOMATE_API={"RATE_LIMIT_PER_MINUTE": 1}):
        assert acme.get(f"{API}/workflows").status_code == 429
