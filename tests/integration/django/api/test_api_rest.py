"""The REST API of the automation: what it does, for whom, and what it hides."""

from __future__ import annotations

import base64
import itertools
import re
import uuid
from pathlib import Path
from typing import Any

import pytest
from automate_django import emit, get_kernel
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

API = "/api/automate"
LINES = [{"price": 20, "quantity": 3}]


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


ORDER = {"lines": LINES, "channel_id": "C1"}


def ran(tenant: str = "acme", **payload: Any) -> str:
    """The id of an execution that has run."""
    before = list(WorkflowExecution.objects.values_list("pk", flat=True))
    emit(
        "order.created",
        {"lines": LINES, "channel_id": "C1", **payload},
        tenant_id=tenant,
    )
    get_kernel().run_until_idle()
    return str(WorkflowExecution.objects.exclude(pk__in=before).get(tenant_id=tenant).pk)


def failed_item(tenant: str = "acme", kind: str = "mail") -> str:
    """An item that was given up."""
    outbox = get_kernel().outbox
    item_id = outbox.enqueue(
        kind, {"to": "a@example.com", "password": "hunter2"}, tenant_id=tenant, priority=9
    )
    # A claim may leave some to other workers, and find them at the next.
    claimed = outbox.claim_batch("w", 10, kinds=[kind]) or outbox.claim_batch("w", kinds=[kind])
    assert [item.id for item in claimed] == [item_id]
    outbox.mark_failed(item_id, "w", "PERMANENT", "smtp said no")
    return item_id


# -- workflows ------------------------------------------------------------------------------------


def test_workflows_are_listed_and_read(acme: APIClient) -> None:
    """With their definitions."""
    (found,) = acme.get(f"{API}/workflows").json()
    assert (found["name"], found["problem"]) == ("order-notify", None)
    whole = acme.get(f"{API}/workflows/order-notify").json()
    assert [step["id"] for step in whole["definition"]["steps"]] == ["calculate", "notify"]
    assert acme.get(f"{API}/workflows/none").status_code == 404


def test_starting_a_workflow(acme: APIClient) -> None:
    """202, where to look, and the execution is the tenant's."""
    given = {"payload": {"lines": LINES, "channel_id": "C1"}}
    response = acme.post(f"{API}/workflows/order-notify/start", given, format="json")
    assert response.status_code == 202
    assert response["Location"] == f"{API}/executions/{response.json()['id']}"
    get_kernel().run_until_idle()
    execution = acme.get(response["Location"]).json()
    assert (execution["status"], execution["tenant_id"]) == ("COMPLETED", "acme")
    assert acme.post(f"{API}/workflows/none/start", {}, format="json").status_code == 404


def test_options_of_a_start(acme: APIClient, operator: APIClient) -> None:
    """A key makes a second start the first one, for each tenant; a delay, and a priority."""
    path = f"{API}/workflows/order-notify/start"
    given = {"payload": {}, "idempotency_key": "order-7", "delay": 3600}
    first, again, theirs = (
        client.post(path, each, format="json").json()["id"]
        for client, each in (
            (acme, given), (acme, given), (operator, {**given, "priority": 3, "tenant_id": "b"}),
        )
    )  # fmt: skip
    assert (first == again, first == theirs) == (True, False)
    items = [get_kernel().outbox.get(str(each.item_id)) for each in WorkflowExecution.objects.all()]
    assert sorted(item.priority for item in items if item) == [0, 3]
    assert {item.waiting_for for item in items if item} == {"time"}


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


# -- executions -----------------------------------------------------------------------------------


def test_an_execution_with_its_steps(acme: APIClient) -> None:
    """Input as the workflow has it, output as it came; a secret's name but never its value."""
    body = acme.get(f"{API}/executions/{ran(card={'api_key': 'sk-1'})}").json()
    assert (body["workflow"], body["event"]) == ("order-notify", "order.created")
    assert body["payload"]["card"] == {"api_key": "[hidden]"}
    calculate, notify = body["steps"]
    assert calculate["output"] == {"total": 60}
    assert (notify["action"], notify["status"]) == ("chat.post_message", "COMPLETED")
    assert "{{" in notify["input"]["text"]
    assert "tok-51d0" not in str(body)


def test_an_output_in_the_output_store_is_read_by_itself(
    acme: APIClient, operator: APIClient, tmp_path: Path
) -> None:
    kernel = get_kernel()
    kernel.executions.outputs.store = FileOutputStore(tmp_path)

    @kernel.action("shop.export")
    def export() -> str:
        return "x" * 300_000

    kernel.add_workflow(
        {
            "name": "exporting",
            "trigger": {"type": "manual"},
            "steps": [{"id": "a", "action": "shop.export"}],
            "output": "{{ steps.a.output | length }}",
        }
    )
    one = kernel.start("exporting", tenant_id="acme")
    kernel.run_until_idle()
    body = acme.get(f"{API}/executions/{one}").json()
    (step,) = body["steps"]
    assert (step["output"], step["output_ref"].startswith(one)) == (None, True)
    assert (body["output"], body["output_ref"]) == (300_000, None)
    path = f"{API}/executions/{one}/output"
    assert acme.get(path).json() == {"output": 300_000}
    assert acme.get(path, {"step": "a"}).json() == {"output": "x" * 300_000}
    for misspelt in ({"stp": "a"}, {"position": 0}, {"step": "a", "tenant_id": "acme"}):
        assert acme.get(path, misspelt).status_code == 400  # not the execution's own output
    assert acme.get(path, {"step": "b"}).status_code == 404
    other = kernel.start("exporting", tenant_id="rival")
    kernel.run_until_idle()
    assert acme.get(f"{API}/executions/{other}/output").status_code == 404


def test_an_execution_that_is_handed_on_says_why(acme: APIClient) -> None:
    kernel = get_kernel()
    kernel.add_workflow(
        {
            "name": "handing",
            "trigger": {"type": "manual"},
            "steps": [{"id": "a", "action": "shop.fly2"}],
        }
    )
    one = kernel.start("handing", tenant_id="acme")
    assert acme.get(f"{API}/executions/{one}").json()["handed_on"] is None
    kernel.run_until_idle()
    found = acme.get(f"{API}/executions/{one}").json()["handed_on"]
    assert (found["code"], found["times"]) == ("UNKNOWN_ACTION", 1)
    assert "doesn't know the action 'shop.fly2'" in found["reason"]


def test_executions_are_filtered(acme: APIClient) -> None:
    """By status, workflow and time; a misspelt filter is an error, not everything."""
    execution_id = ran()

    def found(query: str) -> list[str]:
        response = acme.get(f"{API}/executions?{query}")
        return [row["id"] for row in response.json()["results"]]

    assert found("status=COMPLETED&workflow=order-notify") == [execution_id]
    assert found("status=FAILED") == []
    assert found("created_after=2999-01-01T00:00:00Z") == []
    for wrong in ("status=GONE", "stauts=FAILED", "created_after=x"):
        response = acme.get(f"{API}/executions?{wrong}")
        assert response.status_code == 400
        assert response.json()["errors"][0]["parameter"] == wrong.partition("=")[0]


def test_cancel_resume_and_retry(acme: APIClient) -> None:
    """What can't be done is a 409 that says why."""
    execution_id = ran()
    path = f"{API}/executions/{execution_id}"
    for what, why in (("cancel", "It has ended already."), ("resume", "It has not failed.")):
        response = acme.post(f"{path}/{what}", {}, format="json")
        assert (response.status_code, response.json()["detail"]) == (409, why)
    again = acme.post(f"{path}/retry", {}, format="json")
    assert again.status_code == 202
    assert again.json()["id"] != execution_id
    started = again["Location"]
    assert acme.post(f"{started}/cancel", {}, format="json").json()["status"] == "CANCELLED"
    WorkflowExecution.objects.filter(pk=execution_id).update(status="FAILED")
    assert acme.post(f"{path}/resume", {}, format="json").json()["status"] == "PENDING"
    get_kernel().run_until_idle()
    response = acme.post(f"{path}/resume", {"step": "notify"}, format="json")
    assert response.json()["status"] == "PENDING"
    get_kernel().run_until_idle()
    unknown = acme.post(f"{path}/resume", {"step": "none"}, format="json")
    assert unknown.status_code == 400


def test_a_signal_is_sent_to_one_execution(acme: APIClient) -> None:
    """What it waits for is shown; one that has ended takes none."""
    kernel = get_kernel()
    kernel.add_workflow(
        {
            "name": "listening",
            "trigger": {"type": "manual"},
            "steps": [{"id": "go", "wait_for": {"signal": "go", "timeout": "1d"}}],
        }
    )
    path = f"{API}/executions/{kernel.start('listening', tenant_id='acme')}"
    kernel.run_until_idle()
    (wait,) = acme.get(path).json()["waits"]
    assert (wait["step_id"], wait["about"], wait["details"]["signal"]) == ("go", "signal", "go")
    given = {"name": "go", "payload": {"by": "ann"}, "idempotency_key": "k"}
    answers = [acme.post(f"{path}/signal", given, format="json") for _ in range(2)]
    assert [each.status_code for each in answers] == [202, 202]
    assert answers[0].json() == answers[1].json()
    kernel.run_until_idle()
    assert acme.get(path).json()["status"] == "COMPLETED"
    ended = acme.post(f"{path}/signal", given, format="json")
    assert (ended.status_code, ended.json()["detail"]) == (409, "It has ended already.")
    assert acme.post(f"{path}/signal", {"name": ""}, format="json").status_code == 400


def test_pause_fork_and_repair(acme: APIClient) -> None:
    """Each is done once, and what can't be done is a 409."""
    started = acme.post(f"{API}/workflows/order-notify/start", {"payload": ORDER}, format="json")
    path = started["Location"]
    assert acme.post(f"{path}/pause", {}, format="json").json()["status"] == "PAUSED"
    assert acme.post(f"{path}/pause", {}, format="json").status_code == 409
    get_kernel().run_until_idle()
    assert acme.get(path).json()["status"] == "PAUSED"
    assert acme.post(f"{path}/unpause", {}, format="json").json()["status"] == "PENDING"
    assert acme.post(f"{path}/unpause", {}, format="json").status_code == 409
    get_kernel().run_until_idle()
    given = {"step": "notify", "payload": ORDER}
    copy = acme.post(f"{path}/fork", given, format="json")
    assert copy.status_code == 202
    get_kernel().run_until_idle()
    assert acme.get(copy["Location"]).json()["status"] == "COMPLETED"
    again = acme.post(f"{path}/retry-step", {"step": "notify"}, format="json")
    assert (again.status_code, again.json()["detail"]) == (409, "It has not failed.")
    execution_id = path.rstrip("/").rpartition("/")[2]
    WorkflowExecution.objects.filter(pk=execution_id).update(status="FAILED")
    resumed = acme.post(f"{path}/resume", {"definition": "current"}, format="json")
    assert resumed.json()["status"] == "PENDING"
    forced = acme.post(f"{path}/cancel", {"force": True}, format="json")
    assert forced.json()["status"] == "CANCELLED"


def test_a_tenant_pauses_its_own_executions(acme: APIClient, token: Any) -> None:
    """Another tenant's go on; an operator pauses them all."""
    path = f"{API}/workflows/order-notify"
    answer = acme.post(f"{path}/pause", {"reason": "stock-taking"}, format="json")
    assert answer.json() == {"name": "order-notify", "tenant_id": "acme", "paused": True}
    assert acme.post(f"{path}/pause", {"tenant_id": "rival"}, format="json").status_code == 403
    for client, expected in ((acme, "PENDING"), (token("*", tenant_id="rival"), "COMPLETED")):
        started = client.post(f"{path}/start", {"payload": ORDER}, format="json")
        get_kernel().run_until_idle()
        assert client.get(started["Location"]).json()["status"] == expected
    assert acme.post(f"{path}/resume", {}, format="json").json()["paused"] is False
    assert acme.post(f"{path}/resume", {}, format="json").status_code == 409
    assert acme.post(f"{API}/workflows/nothing/pause", {}, format="json").status_code == 404


def test_failed_executions_are_resumed_together(acme: APIClient, token: Any) -> None:
    """By ids or by filter, and nobody else's; a word is asked for which are meant."""
    rival = token("*", tenant_id="rival")
    ids = [ran() for _ in range(3)]
    WorkflowExecution.objects.update(status="FAILED", error_code="UNAVAILABLE")

    def bulk(client: APIClient, **given: Any) -> Any:
        return client.post(f"{API}/executions/bulk", {"action": "resume", **given}, format="json")

    assert bulk(rival, status="FAILED").json() == {"changed": 0}
    assert bulk(rival, ids=ids).json() == {"changed": 0}
    assert bulk(rival, status="FAILED", tenant_id="acme").status_code == 403
    assert bulk(acme, error_code="ABORTED").json() == {"changed": 0}
    assert bulk(acme, ids=[ids[0], str(uuid.uuid4())]).json() == {"changed": 1}
    assert bulk(acme, status="FAILED", limit=1).json() == {"changed": 1}
    assert bulk(acme, error_code="UNAVAILABLE", per_second=5).json() == {"changed": 1}
    for wrong in ({}, {"limit": 5}, {"ids": ids, "workflow": "x"}, {"status": "RUNNING"}):
        assert bulk(acme, **wrong).status_code == 400
    statuses = WorkflowExecution.objects.values_list("status", flat=True)
    assert set(statuses) == {"PENDING"}


def test_executions_are_cancelled_and_paused_together(acme: APIClient, token: Any) -> None:
    """By ids or by filter, and nobody else's; only what can be done to their status."""
    rival = token("*", tenant_id="rival")
    ids = [ran() for _ in range(3)]
    WorkflowExecution.objects.update(status="FAILED")

    def bulk(client: APIClient, action: str, **given: Any) -> Any:
        return client.post(f"{API}/executions/bulk", {"action": action, **given}, format="json")

    assert bulk(acme, "resume", ids=ids).json() == {"changed": 3}
    for action in ("pause", "cancel"):
        assert bulk(rival, action, status="PENDING").json() == {"changed": 0}
        assert bulk(rival, action, ids=ids).json() == {"changed": 0}
    assert bulk(acme, "pause", ids=ids[:2]).json() == {"changed": 2}
    assert bulk(acme, "unpause", status="PAUSED", limit=1).json() == {"changed": 1}
    assert bulk(acme, "cancel", status="PAUSED").json() == {"changed": 1}
    for wrong in ({"per_second": 5, "ids": ids}, {"status": "FAILED"}, {}):
        assert bulk(acme, "cancel", **wrong).status_code == 400
    found = WorkflowExecution.objects.values_list("status", flat=True)
    assert sorted(found) == ["CANCELLED", "PENDING", "RUNNING"]


# -- events ---------------------------------------------------------------------------------------


def test_an_event(acme: APIClient) -> None:
    """It is the tenant's, whatever else it says."""
    given = {"name": "order.created", "payload": {"lines": LINES, "channel_id": "C"}, "source": "x"}
    response = acme.post(f"{API}/events", given, format="json")
    assert response.status_code == 202
    item = OutboxItem.objects.get(pk=response.json()["id"])
    assert (item.tenant_id, item.payload["source"]) == ("acme", "x")


@pytest.mark.parametrize(
    ("wrong", "pointer"),
    [
        ({"payload": {}}, "#/name"),
        ({"name": ""}, "#/name"),
        ({"name": " "}, "#/name"),
        ({"name": "x "}, "#/name"),
        ({"name": "x\ny"}, "#/name"),
        ({"name": "n" * 5000}, "#/name"),
        ({"name": "x", "idempotency_key": ""}, "#/idempotency_key"),
        ({"name": "x", "idempotency_key": " "}, "#/idempotency_key"),
        ({"name": "x", "source": " "}, "#/source"),
        ({"name": "x", "tenant_id": " "}, "#/tenant_id"),
        ({"name": "x", "delay": -1}, "#/delay"),
        ({"name": "x", "dealy": 1}, "#/dealy"),
        ([], "#"),
    ],
)
def test_an_event_that_is_none(acme: APIClient, wrong: Any, pointer: str) -> None:
    """400, with where."""
    response = acme.post(f"{API}/events", wrong, format="json")
    assert response.status_code == 400
    assert response.json()["errors"][0]["pointer"] == pointer
    assert not OutboxItem.objects.exists()


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


# -- the outbox -----------------------------------------------------------------------------------


def test_items_are_listed_without_what_they_carry(acme: APIClient) -> None:
    """No payload, no headers, no token of a lease."""
    item_id = failed_item()
    (row,) = acme.get(f"{API}/outbox?status=FAILED&kind=mail&error_code=PERMANENT").json()[
        "results"
    ]
    assert (row["id"], row["error"]) == (item_id, "smtp said no")
    assert not {"payload", "headers", "lease_token"} & set(row)


def test_an_items_payload_hides_secrets(acme: APIClient) -> None:
    """What stands under a secret's name is not shown."""
    body = acme.get(f"{API}/outbox/{failed_item()}").json()
    assert body["payload"] == {"to": "a@example.com", "password": "[hidden]"}
    assert "lease_token" not in body


def test_steering_one_item(acme: APIClient) -> None:
    """Requeue, reschedule, cancel, discard; each a 409 where it can't be."""
    item_id = failed_item()
    path = f"{API}/outbox/{item_id}"

    def do(what: str, given: Any = None) -> Any:
        return acme.post(f"{path}/{what}", given or {}, format="json")

    assert do("cancel").status_code == 409
    assert do("requeue").json()["status"] == "PENDING"
    assert do("requeue").status_code == 409
    later = do("reschedule", {"run_at": "2999-01-01T00:00:00Z"}).json()
    assert later["next_attempt_at"].startswith("2999-01-01")
    assert do("reschedule", {"run_at": "2999-01-01T00:00:00Z", "delay": 1}).status_code == 400
    assert do("discard").status_code == 409
    assert do("cancel").json()["status"] == "CANCELLED"
    assert do("discard").status_code == 204
    assert acme.get(path).status_code == 404


def test_steering_many(acme: APIClient) -> None:
    """By filter and by ids; without either it is an error."""
    ids = [failed_item() for _ in range(3)] + [failed_item(kind="sms")]

    def bulk(**given: Any) -> Any:
        return acme.post(f"{API}/outbox/bulk", given, format="json")

    assert bulk(action="requeue", kind="mail", limit=2).json() == {"changed": 2}
    assert bulk(action="discard", ids=[ids[3], str(uuid.uuid4())]).json() == {"changed": 1}
    assert bulk(action="cancel", kind="mail").json() == {"changed": 2}
    assert bulk(action="cancel", ids=ids, kind="mail").status_code == 400
    assert bulk(action="explode").status_code == 400


def test_stats(acme: APIClient, operator: APIClient) -> None:
    """A tenant counts its own items, an operator all."""
    failed_item()
    failed_item("rival")
    get_kernel().outbox.enqueue("mail", {}, tenant_id="acme")
    mine = acme.get(f"{API}/outbox/stats").json()
    assert mine["counts"] == {"mail": {"FAILED": 1, "PENDING": 1}}
    assert mine["oldest_due_seconds"] >= 0
    assert operator.get(f"{API}/outbox/stats").json()["counts"]["mail"]["FAILED"] == 2


# -- what failed ----------------------------------------------------------------------------------


def failing(place: str, *, tenant: str = "acme", **options: Any) -> str:
    """An item whose one attempt failed at *place*."""
    outbox = get_kernel().outbox
    item_id = outbox.enqueue("pay", {}, tenant_id=tenant, max_attempts=1, **options)
    (item,) = outbox.claim_batch("w", kinds=["pay"])
    outcome = Outcome(
        item_id, ItemStatus.RETRY, 0.0, "ERROR", "KeyError: 'x'", item.lease_token,
        f"KeyError in shop.{place}", f'  File "shop.py", line 4, in {place}',
    )  # fmt: skip
    assert not outbox.acknowledge("w", [outcome])
    return item_id


def test_an_item_tells_where_every_attempt_failed(acme: APIClient) -> None:
    """Files and lines, attempt by attempt."""
    item_id = failing("charge")
    get_kernel().outbox.requeue([item_id])
    get_kernel().outbox.claim_batch("w", kinds=["pay"])
    get_kernel().outbox.mark_failed(item_id, "w", "DOWN", "away")
    body = acme.get(f"{API}/outbox/{item_id}").json()
    assert body["error_group"] == "DOWN"
    first, second = body["failed_attempts"]
    assert (first["attempt"], first["error_group"]) == (1, "KeyError in shop.charge")
    assert "line 4, in charge" in first["trace"]
    assert (second["error"], second["trace"]) == ("away", None)


def test_an_execution_tells_where_every_attempt_failed(acme: APIClient) -> None:
    """With the step; a step that failed tells its own."""
    execution_id = ran(channel_id=7)
    body = acme.get(f"{API}/executions/{execution_id}").json()
    assert body["status"] == "FAILED"
    assert [each["step"] for each in body["failed_attempts"]][-1] == "notify"
    assert body["error_group"] == body["failed_attempts"][-1]["error_group"]
    assert [step["error_group"] for step in body["steps"]][-1] == body["error_group"]
    assert "trace" in body["steps"][-1]
    assert [each["status"] for each in body["attempts"]] == ["COMPLETED", "FAILED"]
    for each in body["attempts"]:
        assert each["worker_id"]
        assert each["started_at"] <= each["ended_at"]
        assert each["duration_seconds"] >= 0
    (group,) = acme.get(f"{API}/executions/errors").json()
    assert (group["kind"], group["count"]) == ("order-notify", 1)
    found = acme.get(f"{API}/executions", {"error_group": group["error_group"]}).json()
    assert [row["id"] for row in found["results"]] == [execution_id]


def test_errors_are_grouped_and_steered_by_group(acme: APIClient, token: Any) -> None:
    """One code, two places: two groups, of which one is put back; nobody sees another's."""
    ids = [failing("charge"), failing("charge"), failing("refund")]
    failing("charge", tenant="rival")
    groups = acme.get(f"{API}/outbox/errors").json()
    assert [(each["error_group"], each["count"]) for each in groups] == [
        ("KeyError in shop.charge", 2), ("KeyError in shop.refund", 1),
    ]  # fmt: skip
    assert groups[0]["latest_id"] == ids[1]
    given = {"action": "requeue", "error_group": "KeyError in shop.charge"}
    assert acme.post(f"{API}/outbox/bulk", given, format="json").json() == {"changed": 2}
    assert [each["count"] for each in acme.get(f"{API}/outbox/errors").json()] == [1]
    found = acme.get(f"{API}/outbox", {"error_group": "KeyError in shop.refund"}).json()["results"]
    assert [row["id"] for row in found] == ids[2:]
    assert token("workflows:read", tenant_id="acme").get(f"{API}/outbox/errors").status_code == 403
    assert acme.get(f"{API}/outbox/errors?tenant_id=rival").status_code == 403


def test_things_are_found_by_label(acme: APIClient, token: Any) -> None:
    """What an event carries, and what it started; another tenant finds nothing."""
    labels = {"order": "4711"}
    lines = {"lines": LINES, "channel_id": "C1"}
    given = {"name": "order.created", "payload": lines, "labels": labels}
    event_id = acme.post(f"{API}/events", given, format="json").json()["id"]
    started = acme.post(
        f"{API}/workflows/order-notify/start", {"payload": lines, "labels": labels}, format="json"
    ).json()["id"]
    get_kernel().run_until_idle()
    rival = token("*", tenant_id="rival")
    for label in ("order=4711", "4711"):
        items = acme.get(f"{API}/outbox", {"label": label}).json()["results"]
        assert [row["id"] for row in items] == [event_id]
        executions = acme.get(f"{API}/executions", {"label": label}).json()["results"]
        assert len(executions) == 2
        assert started in [row["id"] for row in executions]
        assert {str(row["labels"]) for row in executions} == {str(labels)}
        for path in ("outbox", "executions"):
            assert rival.get(f"{API}/{path}", {"label": label}).json()["results"] == []
    assert acme.get(f"{API}/outbox/{event_id}").json()["labels"] == labels
    wrong = {**given, "labels": {"a b": "x"}}
    assert acme.post(f"{API}/events", wrong, format="json").status_code == 400


def test_executions_are_found_by_several_labels(acme: APIClient) -> None:
    """All of them must hold; those that the workflow sets count as those of its event."""
    get_kernel().add_workflow(
        {
            "name": "labelled",
            "trigger": {"type": "manual"},
            "labels": {"customer": "{{ event.payload.customer }}"},
            "steps": [{"id": "a", "sleep": 0}],
        }
    )
    ids = {
        customer: get_kernel().start(
            "labelled", {"customer": customer}, labels={"region": "eu"}, tenant_id="acme"
        )
        for customer in ("ann", "bob")
    }
    for customer, its in ids.items():
        found = acme.get(f"{API}/executions", {"label": ["region=eu", f"customer={customer}"]})
        (row,) = found.json()["results"]
        assert (row["id"], row["labels"]) == (its, {"customer": customer, "region": "eu"})
    both = acme.get(f"{API}/executions", {"label": "region=eu"}).json()["results"]
    assert {row["id"] for row in both} == set(ids.values())
    many = acme.get(f"{API}/executions", {"label": ["a=1"] * 11})
    assert many.status_code == 400


# -- large tables ---------------------------------------------------------------------------------


def listed(client: APIClient, path: str, **query: Any) -> tuple[list[str], int]:
    """The ids of a whole list, page by page, and how many pages there were."""
    ids, pages, url = [], 0, f"{API}/{path}"
    while url:
        body = client.get(url, query if not pages else {}).json()
        ids += [row["id"] for row in body["results"]]
        pages, url = pages + 1, body["next"]
    return ids, pages


@pytest.mark.parametrize("path", ["outbox", "executions"])
def test_a_list_looks_at_a_bounded_stretch(
    operator: APIClient, acme: APIClient, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is to find; its pages go on until all is looked at, and nothing is lost."""
    monkeypatch.setattr(exchange, "LOOKED", 5)
    if path == "outbox":
        kinds = ["rare" if number % 9 == 4 else "usual" for number in range(31)]
        rows = get_kernel().outbox.enqueue_many(
            NewItem(kind, tenant_id="acme" if number % 2 else "rival")
            for number, kind in enumerate(kinds)
        )
        wanted = [each for each, kind in zip(rows, kinds, strict=True) if kind == "rare"]
        query = {"kind": "rare"}
    else:
        rows = [ran() for _ in range(8)]
        wanted, query = rows, {"workflow": "order-notify", "status": "COMPLETED"}
    found, pages = listed(operator, path, **query)
    assert found == wanted[::-1]
    assert pages > 1
    nothing, pages = listed(operator, path, **{**query, next(iter(query)): "nothing"})
    assert nothing == []
    if path == "outbox":
        assert pages == 31 // 5 + 1
        mine, _ = listed(acme, path)
        assert mine == [row for number, row in enumerate(rows) if number % 2][::-1]
        first = operator.get(f"{API}/outbox", {"kind": "usual", "page_size": 3}).json()
        second = operator.get(first["next"]).json()
        back = operator.get(second["previous"]).json()
        assert [row["id"] for row in back["results"]] == [row["id"] for row in first["results"]]


# -- tenants --------------------------------------------------------------------------------------


def test_another_tenants_rows_are_not_there(acme: APIClient, token: Any) -> None:
    """404 for each path that names one, and nothing in a list."""
    execution, item = ran(), failed_item()
    rival = token("*", tenant_id="rival")
    for path in (f"executions/{execution}", f"outbox/{item}"):
        assert acme.get(f"{API}/{path}").status_code == 200
        assert rival.get(f"{API}/{path}").status_code == 404
    for path in (
        f"executions/{execution}/cancel", f"executions/{execution}/resume",
        f"executions/{execution}/retry", f"executions/{execution}/pause",
        f"executions/{execution}/unpause", f"outbox/{item}/requeue", f"outbox/{item}/cancel",
        f"outbox/{item}/discard",
    ):  # fmt: skip
        assert rival.post(f"{API}/{path}", {}, format="json").status_code == 404, path
    for path, given in (
        (f"executions/{execution}/fork", {"step": "notify"}),
        (f"executions/{execution}/retry-step", {"step": "notify"}),
        (f"executions/{execution}/signal", {"name": "go"}),
        (f"outbox/{item}/reschedule", {"delay": 9}),
    ):
        assert rival.post(f"{API}/{path}", given, format="json").status_code == 404, path
    for path in ("executions", "outbox"):
        assert rival.get(f"{API}/{path}").json()["results"] == []
    assert rival.get(f"{API}/outbox/stats").json()["counts"] == {}
    before = list(OutboxItem.objects.order_by("pk").values("pk", "status"))
    for given in (
        {"action": "requeue", "ids": [item]},
        {"action": "requeue", "status": "FAILED"},
        {"action": "discard"},
    ):
        response = rival.post(f"{API}/outbox/bulk", given, format="json")
        assert response.json() == {"changed": 0}
    assert list(OutboxItem.objects.order_by("pk").values("pk", "status")) == before


@pytest.mark.parametrize(
    ("path", "given"),
    [
        ("events", {"name": "x", "tenant_id": "rival"}),
        ("workflows/order-notify/start", {"tenant_id": "rival"}),
        ("outbox/bulk", {"action": "requeue", "status": "FAILED", "tenant_id": "rival"}),
        ("events", {"name": "x", "priority": 1000}),
        ("workflows/order-notify/start", {"priority": 1000}),
        ("workflows/order-notify/schedules/pause", {"tenant_id": "rival"}),
    ],
)
def test_naming_another_tenant_is_refused(acme: APIClient, path: str, given: Any) -> None:
    """403; nor can one put the own items before others'."""
    failed_item("rival")
    assert acme.post(f"{API}/{path}", given, format="json").status_code == 403
    assert acme.get(f"{API}/executions?tenant_id=rival").status_code == 403
    assert OutboxItem.objects.count() == 1


def test_an_operator_works_for_all(operator: APIClient) -> None:
    """It sees every row, and names the tenant of what it makes."""
    execution = ran("rival")
    assert operator.get(f"{API}/executions/{execution}").status_code == 200
    assert len(operator.get(f"{API}/executions?tenant_id=rival").json()["results"]) == 1
    given = {"name": "x", "tenant_id": "acme", "priority": 5}
    item = OutboxItem.objects.get(
        pk=operator.post(f"{API}/events", given, format="json").json()["id"]
    )
    assert (item.tenant_id, item.priority) == ("acme", 5)


PATHS = (
    "workflows", "executions", "executions/errors", "outbox", "outbox/stats", "outbox/errors",
    "plugins",
)  # fmt: skip


def test_who_is_nobody(empty: None) -> None:
    """401 everywhere."""
    for path in (*PATHS, "schema"):
        assert APIClient().get(f"{API}/{path}").status_code == 401
    assert APIClient().post(f"{API}/events", {"name": "x"}, format="json").status_code == 401


def test_a_token_of_no_tenant_sees_nothing(token: Any, empty: None) -> None:
    """Neither a tenant nor all of them was given to it: 403."""
    client = token("*")
    for path in PATHS:
        assert client.get(f"{API}/{path}").status_code == 403, path


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [
        ("outbox:read", {"outbox", "outbox/stats", "outbox/errors"}),
        ("executions:read", {"executions", "executions/errors"}),
        ("workflows:*", {"workflows"}),
        ("plugins:read", {"plugins"}),
        ("events:write", set()),
    ],
)
def test_each_scope_opens_its_part(empty: None, token: Any, scope: str, allowed: set[str]) -> None:
    """And no other."""
    client = token(scope, all_tenants=True)
    found = {path for path in PATHS if client.get(f"{API}/{path}").status_code == 200}
    assert found == allowed
    posted = client.post(f"{API}/outbox/bulk", {"action": "discard"}, format="json")
    assert posted.status_code == 403


def test_plugins_are_for_operators(acme: APIClient, operator: APIClient) -> None:
    """States, and never a traceback."""
    assert acme.get(f"{API}/plugins").status_code == 403
    found = {row["key"]: row for row in operator.get(f"{API}/plugins").json()}
    assert found["chat"]["usable"] is True
    assert "traceback" not in found["chat"]


def test_a_user_needs_permissions(empty: None) -> None:
    """In a session Django's permissions say what may be done, the tenant to what."""
    with BY_NAME:
        item = failed_item()
        client = user_client("view_outboxitem", tenant="acme")
        assert client.get(f"{API}/outbox/{item}").status_code == 200
        assert client.get(f"{API}/executions").status_code == 403
        assert client.post(f"{API}/outbox/{item}/requeue").status_code == 403
        changer = user_client("change_outboxitem", tenant="acme2")
        assert changer.post(f"{API}/outbox/{item}/requeue").status_code == 404
        bulk = {"action": "discard", "status": "FAILED"}
        assert changer.post(f"{API}/outbox/bulk", bulk, format="json").status_code == 403


def test_staff_with_the_permission_are_operators(empty: None) -> None:
    """``operate_outbox`` and the staff flag: one of them alone is not enough."""
    with BY_NAME:
        failed_item()
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


def test_ids_that_are_none(acme: APIClient) -> None:
    """404, as for one that is not there."""
    for row_id in ("x", "0", str(uuid.uuid4()), "%00"):
        for path in ("executions", "outbox"):
            assert acme.get(f"{API}/{path}/{row_id}").status_code == 404


def test_the_limit_of_the_api(noon: float, acme: APIClient) -> None:
    """600 a minute by default; a setting changes it."""
    assert acme.get(f"{API}/workflows")["RateLimit-Limit"] == "600"
    with override_settings(AUTOMATE_API={"RATE_LIMIT_PER_MINUTE": 1}):
        assert acme.get(f"{API}/workflows").status_code == 429


@pytest.mark.parametrize("place", ["outbox", "executions", "approvals"])
def test_a_cursor_of_brackets_is_no_page(operator: Any, place: str) -> None:
    """Python reads no JSON that is nested so deep, and raises another error than for the rest."""
    cursor = base64.urlsafe_b64encode(b"[" * 6000).decode()
    answer = operator.get(f"{API}/{place}", {"cursor": cursor})
    assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("path", "query"),
    [
        *itertools.product(
            ["executions", "outbox", "approvals"],
            ["limit=1", "offset=1", "tenant_id=a&tenant_id=b"],
        ),
        # Lists without pages.
        ("executions/errors", "page_size=1"),
        ("outbox/errors", "cursor=x"),
    ],
)
def test_a_parameter_that_would_be_passed_over_is_refused(
    operator: APIClient, path: str, query: str
) -> None:
    """A client that pages by offset would read the first page for ever."""
    answer = operator.get(f"{API}/{path}?{query}")
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["parameter"] == query.partition("=")[0]


def routes() -> set[tuple[str, str, str, str]]:
    """Every request that a scope is needed for: method, path, scope, permission."""
    return {
        (each.method, re.sub(r"\{[^}]*\}", "{}", each.path), each.scope, permission_of(each))
        for each in ROUTES
    }


def documented() -> set[tuple[str, str, str, str]]:
    """What the page of the API says of them."""
    page = (Path(__file__).parents[4] / "docs/reference/rest-api.md").read_text(encoding="utf-8")
    found = set()
    for line in page.splitlines():
        if not line.startswith(("| `GET ", "| `POST ")):
            continue
        first, scope, permission, *_ = (
            re.findall("`([^`]*)`", part) for part in line.split("|")[1:]
        )
        if not scope:
            continue  # a link, a webhook: a signature proves who comes
        method, _, path = first[0].partition(" ")
        paths = [path, *(f"{path.rpartition('/')[0]}/{other}" for other in first[1:])]
        for each in paths:
            found.add((method, re.sub(r"\{[^}]*\}", "{}", each), scope[0], permission[0]))
    return found


def test_the_page_has_every_path_with_its_scope_and_its_permission() -> None:
    """A team that grants scopes by the page grants no other ones."""
    assert documented() == routes()
