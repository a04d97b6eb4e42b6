"""
The API for clients, the same in each host.

A host gives a kernel that knows ``orders.total`` and ``chat.post_message``, and clients that send a
token. A client has the methods of Django's test client.
"""

from __future__ import annotations

import base64
import itertools
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from automate_kernel import Kernel
from automate_kernel.http.api import exchange
from automate_kernel.http.api.routes import ROUTES
from automate_kernel.outbox import ItemStatus, NewItem, Outcome
from automate_kernel.storage.output_store import FileOutputStore
from automate_kernel.storage.query import Now, Where
from automate_kernel.storage.tables import EXECUTION, IDEMPOTENCY, OUTBOX
from automate_kernel.triggers.webhooks import ReplayLedger

LINES = [{"price": 20, "quantity": 3}]
ORDER = {"lines": LINES, "channel_id": "C1"}
DOCUMENT = """\
name: greets
trigger: {{type: manual}}
steps:
  - id: say
    action: chat.post_message
    input: {{channel_id: C1, text: "{greeting}"}}
"""
PATHS = (
    "workflows", "executions", "executions/errors", "outbox", "outbox/stats", "outbox/errors",
    "plugins", "workers", "health", "outbox/kinds", "schedules", "tokens",
    "deliveries", "deliveries/refused", "documents", "approvals/decisions",
)  # fmt: skip


def rows_of(kernel: Kernel, table: str) -> list[Any]:
    """All rows of a table, in order."""
    with kernel.storage.begin() as rows:
        return rows.select(table, order_by=["id"])


def mark(kernel: Kernel, *, id: str | None = None, **changes: Any) -> None:
    """Change executions as no worker would."""
    with kernel.storage.begin() as rows:
        rows.update(EXECUTION, [Where("id", "eq", id)] if id else [], changes)


def ran(kernel: Kernel, tenant: str = "acme", **payload: Any) -> str:
    """The id of an execution that has run."""
    before = {row["id"] for row in rows_of(kernel, EXECUTION)}
    kernel.emit("order.created", {**ORDER, **payload}, tenant_id=tenant)
    kernel.run_until_idle()
    (new,) = {row["id"] for row in rows_of(kernel, EXECUTION)} - before
    return str(new)


def failed_item(kernel: Kernel, tenant: str = "acme", kind: str = "mail") -> str:
    """An item that was given up."""
    outbox = kernel.outbox
    payload = {"to": "a@example.com", "password": "hunter2"}
    item_id = outbox.enqueue(kind, payload, tenant_id=tenant, priority=9)
    # A claim may leave some to other workers, and find them at the next.
    claimed = outbox.claim_batch("w", 10, kinds=[kind]) or outbox.claim_batch("w", kinds=[kind])
    assert [item.id for item in claimed] == [item_id]
    outbox.mark_failed(item_id, "w", "PERMANENT", "smtp said no")
    return item_id


def failing(kernel: Kernel, place: str, *, tenant: str = "acme", **options: Any) -> str:
    """An item whose one attempt failed at *place*."""
    outbox = kernel.outbox
    item_id = outbox.enqueue("pay", {}, tenant_id=tenant, max_attempts=1, **options)
    (item,) = outbox.claim_batch("w", kinds=["pay"])
    outcome = Outcome(
        item_id, ItemStatus.RETRY, 0.0, "ERROR", "KeyError: 'x'", item.lease_token,
        f"KeyError in shop.{place}", f'  File "shop.py", line 4, in {place}',
    )  # fmt: skip
    assert not outbox.acknowledge("w", [outcome])
    return item_id


def listed(api: str, client: Any, path: str, **query: Any) -> tuple[list[str], int]:
    """The ids of a whole list, page by page, and how many pages there were."""
    ids, pages, url = [], 0, f"{api}/{path}"
    while url:
        body = client.get(url, query if not pages else {}).json()
        ids += [row["id"] for row in body["results"]]
        pages, url = pages + 1, body["next"]
    return ids, pages


class ApiContract:
    """Subclass it, and supply `kernel`, `token`, `stranger` and `api`."""

    api = "/api"
    """The path of the API's root."""

    @pytest.fixture
    def kernel(self) -> Kernel:
        """The kernel, with empty tables."""
        raise NotImplementedError

    @pytest.fixture
    def token(self, kernel: Kernel) -> Callable[..., Any]:
        """Make a client: ``token("outbox:*", tenant_id="acme")``, or with ``all_tenants=True``."""
        raise NotImplementedError

    @pytest.fixture
    def stranger(self, kernel: Kernel) -> Any:
        """A client without a token."""
        raise NotImplementedError

    @pytest.fixture
    def acme(self, token: Any) -> Any:
        """A service of the tenant acme that may do everything."""
        return token("*", tenant_id="acme")

    @pytest.fixture
    def operator(self, token: Any) -> Any:
        """A service that sees all tenants."""
        return token("*", all_tenants=True)

    def test_workflows_are_listed_and_read(self, acme: Any) -> None:
        """With their definitions."""
        (found,) = acme.get(f"{self.api}/workflows").json()
        assert (found["name"], found["problem"]) == ("order-notify", None)
        whole = acme.get(f"{self.api}/workflows/order-notify").json()
        assert [step["id"] for step in whole["definition"]["steps"]] == ["calculate", "notify"]
        assert acme.get(f"{self.api}/workflows/none").status_code == 404

    def test_starting_a_workflow(self, acme: Any, kernel: Kernel) -> None:
        """202, where to look, and the execution is the tenant's."""
        given = {"payload": {"lines": LINES, "channel_id": "C1"}}
        response = acme.post(f"{self.api}/workflows/order-notify/start", given, format="json")
        assert response.status_code == 202
        assert response["Location"] == f"{self.api}/executions/{response.json()['id']}"
        kernel.run_until_idle()
        execution = acme.get(response["Location"]).json()
        assert (execution["status"], execution["tenant_id"]) == ("COMPLETED", "acme")
        assert acme.post(f"{self.api}/workflows/none/start", {}, format="json").status_code == 404

    def test_options_of_a_start(self, acme: Any, operator: Any, kernel: Kernel) -> None:
        """A key makes a second start the first one, for each tenant; a delay, and a priority."""
        path = f"{self.api}/workflows/order-notify/start"
        given = {"payload": {}, "idempotency_key": "order-7", "delay": 3600}
        first, again, theirs = (
            client.post(path, each, format="json").json()["id"]
            for client, each in (
                (acme, given), (acme, given), (operator, {**given, "priority": 3, "tenant_id": "b"}),
            )
        )  # fmt: skip
        assert (first == again, first == theirs) == (True, False)
        items = [kernel.outbox.get(str(row["item_id"])) for row in rows_of(kernel, EXECUTION)]
        assert sorted(item.priority for item in items if item) == [0, 3]
        assert {item.waiting_for for item in items if item} == {"time"}

    def test_an_execution_with_its_steps(self, acme: Any, kernel: Kernel) -> None:
        """Input as the workflow has it, output as it came; a secret's name but never its value."""
        body = acme.get(f"{self.api}/executions/{ran(kernel, card={'api_key': 'sk-1'})}").json()
        assert (body["workflow"], body["event"]) == ("order-notify", "order.created")
        assert body["payload"]["card"] == {"api_key": "[hidden]"}
        calculate, notify = body["steps"]
        assert calculate["output"] == {"total": 60}
        assert (notify["action"], notify["status"]) == ("chat.post_message", "COMPLETED")
        assert "{{" in notify["input"]["text"]
        assert "tok-51d0" not in str(body)

    def test_an_output_in_the_output_store_is_read_by_itself(
        self, acme: Any, operator: Any, tmp_path: Path, kernel: Kernel
    ) -> None:
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
        body = acme.get(f"{self.api}/executions/{one}").json()
        (step,) = body["steps"]
        assert (step["output"], step["output_ref"].startswith(one)) == (None, True)
        assert (body["output"], body["output_ref"]) == (300_000, None)
        path = f"{self.api}/executions/{one}/output"
        assert acme.get(path).json() == {"output": 300_000}
        assert acme.get(path, {"step": "a"}).json() == {"output": "x" * 300_000}
        for misspelt in ({"stp": "a"}, {"position": 0}, {"step": "a", "tenant_id": "acme"}):
            assert acme.get(path, misspelt).status_code == 400  # not the execution's own output
        assert acme.get(path, {"step": "b"}).status_code == 404
        other = kernel.start("exporting", tenant_id="rival")
        kernel.run_until_idle()
        assert acme.get(f"{self.api}/executions/{other}/output").status_code == 404

    def test_an_execution_that_is_handed_over_says_why(self, acme: Any, kernel: Kernel) -> None:
        kernel.add_workflow(
            {
                "name": "handing",
                "trigger": {"type": "manual"},
                "steps": [{"id": "a", "action": "shop.fly2"}],
            }
        )
        one = kernel.start("handing", tenant_id="acme")
        assert acme.get(f"{self.api}/executions/{one}").json()["handed_over"] is None
        kernel.run_until_idle()
        found = acme.get(f"{self.api}/executions/{one}").json()["handed_over"]
        assert (found["code"], found["times"]) == ("UNKNOWN_ACTION", 1)
        assert "doesn't know the action 'shop.fly2'" in found["reason"]

    def test_executions_are_filtered(self, acme: Any, kernel: Kernel) -> None:
        """By status, workflow and time; a misspelt filter is an error, not everything."""
        execution_id = ran(kernel)

        def found(query: str) -> list[str]:
            response = acme.get(f"{self.api}/executions?{query}")
            return [row["id"] for row in response.json()["results"]]

        assert found("status=COMPLETED&workflow=order-notify") == [execution_id]
        assert found("status=FAILED") == []
        assert found("created_after=2999-01-01T00:00:00Z") == []
        for wrong in ("status=GONE", "stauts=FAILED", "created_after=x"):
            response = acme.get(f"{self.api}/executions?{wrong}")
            assert response.status_code == 400
            assert response.json()["errors"][0]["parameter"] == wrong.partition("=")[0]

    def test_cancel_resume_and_retry(self, acme: Any, kernel: Kernel) -> None:
        """What can't be done is a 409 that says why."""
        execution_id = ran(kernel)
        path = f"{self.api}/executions/{execution_id}"
        for what, why in (("cancel", "It has ended already."), ("resume", "It has not failed.")):
            response = acme.post(f"{path}/{what}", {}, format="json")
            assert (response.status_code, response.json()["detail"]) == (409, why)
        again = acme.post(f"{path}/retry", {}, format="json")
        assert again.status_code == 202
        assert again.json()["id"] != execution_id
        started = again["Location"]
        assert acme.post(f"{started}/cancel", {}, format="json").json()["status"] == "CANCELLED"
        mark(kernel, status="FAILED", id=execution_id)
        assert acme.post(f"{path}/resume", {}, format="json").json()["status"] == "PENDING"
        kernel.run_until_idle()
        response = acme.post(f"{path}/resume", {"step": "notify"}, format="json")
        assert response.json()["status"] == "PENDING"
        kernel.run_until_idle()
        unknown = acme.post(f"{path}/resume", {"step": "none"}, format="json")
        assert unknown.status_code == 400

    def test_a_signal_is_sent_to_one_execution(self, acme: Any, kernel: Kernel) -> None:
        """What it waits for is shown; one that has ended takes none."""
        kernel.add_workflow(
            {
                "name": "listening",
                "trigger": {"type": "manual"},
                "steps": [{"id": "go", "wait_for": {"signal": "go", "timeout": "1d"}}],
            }
        )
        path = f"{self.api}/executions/{kernel.start('listening', tenant_id='acme')}"
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

    def test_pause_fork_and_repair(self, acme: Any, kernel: Kernel) -> None:
        """Each is done once, and what can't be done is a 409."""
        started = acme.post(
            f"{self.api}/workflows/order-notify/start", {"payload": ORDER}, format="json"
        )
        path = started["Location"]
        assert acme.post(f"{path}/pause", {}, format="json").json()["status"] == "PAUSED"
        assert acme.post(f"{path}/pause", {}, format="json").status_code == 409
        kernel.run_until_idle()
        assert acme.get(path).json()["status"] == "PAUSED"
        assert acme.post(f"{path}/unpause", {}, format="json").json()["status"] == "PENDING"
        assert acme.post(f"{path}/unpause", {}, format="json").status_code == 409
        kernel.run_until_idle()
        given = {"step": "notify", "payload": ORDER}
        copy = acme.post(f"{path}/fork", given, format="json")
        assert copy.status_code == 202
        kernel.run_until_idle()
        assert acme.get(copy["Location"]).json()["status"] == "COMPLETED"
        again = acme.post(f"{path}/retry-step", {"step": "notify"}, format="json")
        assert (again.status_code, again.json()["detail"]) == (409, "It has not failed.")
        execution_id = path.rstrip("/").rpartition("/")[2]
        mark(kernel, status="FAILED", id=execution_id)
        resumed = acme.post(f"{path}/resume", {"definition": "current"}, format="json")
        assert resumed.json()["status"] == "PENDING"
        forced = acme.post(f"{path}/cancel", {"force": True}, format="json")
        assert forced.json()["status"] == "CANCELLED"

    def test_a_tenant_pauses_its_own_executions(
        self, acme: Any, token: Any, kernel: Kernel
    ) -> None:
        """Another tenant's go on; an operator pauses them all."""
        path = f"{self.api}/workflows/order-notify"
        answer = acme.post(f"{path}/pause", {"reason": "stock-taking"}, format="json")
        assert answer.json() == {"name": "order-notify", "tenant_id": "acme", "paused": True}
        assert acme.post(f"{path}/pause", {"tenant_id": "rival"}, format="json").status_code == 403
        for client, expected in ((acme, "PENDING"), (token("*", tenant_id="rival"), "COMPLETED")):
            started = client.post(f"{path}/start", {"payload": ORDER}, format="json")
            kernel.run_until_idle()
            assert client.get(started["Location"]).json()["status"] == expected
        assert acme.post(f"{path}/resume", {}, format="json").json()["paused"] is False
        assert acme.post(f"{path}/resume", {}, format="json").status_code == 409
        assert (
            acme.post(f"{self.api}/workflows/nothing/pause", {}, format="json").status_code == 404
        )

    def test_failed_executions_are_resumed_together(
        self, acme: Any, token: Any, kernel: Kernel
    ) -> None:
        """By ids or by filter, and nobody else's; a word is asked for which are meant."""
        rival = token("*", tenant_id="rival")
        ids = [ran(kernel) for _ in range(3)]
        mark(kernel, status="FAILED", error_code="UNAVAILABLE")

        def bulk(client: Any, **given: Any) -> Any:
            return client.post(
                f"{self.api}/executions/bulk", {"action": "resume", **given}, format="json"
            )

        assert bulk(rival, status="FAILED").json() == {"changed": 0}
        assert bulk(rival, ids=ids).json() == {"changed": 0}
        assert bulk(rival, status="FAILED", tenant_id="acme").status_code == 403
        assert bulk(acme, error_code="ABORTED").json() == {"changed": 0}
        assert bulk(acme, ids=[ids[0], str(uuid.uuid4())]).json() == {"changed": 1}
        assert bulk(acme, status="FAILED", limit=1).json() == {"changed": 1}
        assert bulk(acme, error_code="UNAVAILABLE", per_second=5).json() == {"changed": 1}
        for wrong in ({}, {"limit": 5}, {"ids": ids, "workflow": "x"}, {"status": "RUNNING"}):
            assert bulk(acme, **wrong).status_code == 400
        statuses = [row["status"] for row in rows_of(kernel, EXECUTION)]
        assert set(statuses) == {"PENDING"}

    def test_executions_are_cancelled_and_paused_together(
        self, acme: Any, token: Any, kernel: Kernel
    ) -> None:
        """By ids or by filter, and nobody else's; only what can be done to their status."""
        rival = token("*", tenant_id="rival")
        ids = [ran(kernel) for _ in range(3)]
        mark(kernel, status="FAILED")

        def bulk(client: Any, action: str, **given: Any) -> Any:
            return client.post(
                f"{self.api}/executions/bulk", {"action": action, **given}, format="json"
            )

        assert bulk(acme, "resume", ids=ids).json() == {"changed": 3}
        for action in ("pause", "cancel"):
            assert bulk(rival, action, status="PENDING").json() == {"changed": 0}
            assert bulk(rival, action, ids=ids).json() == {"changed": 0}
        assert bulk(acme, "pause", ids=ids[:2]).json() == {"changed": 2}
        assert bulk(acme, "unpause", status="PAUSED", limit=1).json() == {"changed": 1}
        assert bulk(acme, "cancel", status="PAUSED").json() == {"changed": 1}
        for wrong in ({"per_second": 5, "ids": ids}, {"status": "FAILED"}, {}):
            assert bulk(acme, "cancel", **wrong).status_code == 400
        found = [row["status"] for row in rows_of(kernel, EXECUTION)]
        assert sorted(found) == ["CANCELLED", "PENDING", "RUNNING"]

    def test_a_worker_carries_on_what_is_begun(self, acme: Any, token: Any, kernel: Kernel) -> None:
        """Its progress is for the tenant alone; copies of executions begin once each."""
        rival, all_tenants = token("*", tenant_id="rival"), token("*", all_tenants=True)
        ids = [ran(kernel) for _ in range(3)]
        path = f"{self.api}/executions/bulk"

        def begin(client: Any, **given: Any) -> Any:
            return client.post(f"{path}/begin", given, format="json")

        copies = {"action": "fork", "status": "COMPLETED", "per_second": 1000}
        steps = acme.get(f"{self.api}/executions/{ids[0]}").json()["steps"]
        copies["step"] = steps[-1]["id"]
        begun = begin(acme, **copies)
        assert begun.status_code == 202, begun.content
        answer = begun.json()
        assert {**answer, "id": ""} == {
            "id": "", "action": "fork", "total": 3, "seen": 0, "changed": 0, "over": False,
            "waits": True, "problem": "",
        }  # fmt: skip
        own = f"{path}/{answer['id']}"
        assert rival.get(own).status_code == 404
        assert rival.post(f"{own}/stop", {}, format="json").status_code == 404
        assert acme.get(f"{path}/{uuid.uuid4()}").status_code == 404
        kernel.run_until_idle()
        done = all_tenants.get(own).json()
        assert (done["seen"], done["changed"], done["over"], done["problem"]) == (3, 3, True, "")
        assert len(rows_of(kernel, EXECUTION)) == 6
        assert acme.post(f"{own}/stop", {}, format="json").status_code == 409
        other = begin(acme, action="fork", step=copies["step"], ids=ids, definition="current")
        stopped = acme.post(f"{path}/{other.json()['id']}/stop", {}, format="json").json()
        assert (stopped["over"], stopped["problem"]) == (True, "It was stopped")
        kernel.run_until_idle()
        assert len(rows_of(kernel, EXECUTION)) == 6
        assert begin(rival, **copies).json()["total"] == 0
        for wrong in (
            {"action": "fork", "status": "FAILED"}, {"action": "fork", "step": "x"},
            {"action": "resume", "step": "x", "ids": ids}, {"action": "resume"},
            {"action": "cancel", "ids": ids, "workflow": "w"}, {"action": "fork", "limit": 4},
            {"action": "cancel", "status": "COMPLETED"}, {"action": "no", "ids": ids},
            {"action": "pause", "status": "RUNNING", "per_second": 2},
        ):  # fmt: skip
            assert begin(acme, **wrong).status_code == 400, wrong

    def test_an_event(self, acme: Any, kernel: Kernel) -> None:
        """It is the tenant's, whatever else it says."""
        given = {
            "name": "order.created",
            "payload": {"lines": LINES, "channel_id": "C"},
            "source": "x",
        }
        response = acme.post(f"{self.api}/events", given, format="json")
        assert response.status_code == 202
        item = kernel.outbox.get(response.json()["id"])
        assert item is not None
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
    def test_an_event_that_is_none(
        self, acme: Any, wrong: Any, pointer: str, kernel: Kernel
    ) -> None:
        """400, with where."""
        response = acme.post(f"{self.api}/events", wrong, format="json")
        assert response.status_code == 400
        assert response.json()["errors"][0]["pointer"] == pointer
        assert not rows_of(kernel, OUTBOX)

    def test_items_are_listed_without_what_they_carry(self, acme: Any, kernel: Kernel) -> None:
        """No payload, no headers, no token of a lease."""
        item_id = failed_item(kernel)
        (row,) = acme.get(f"{self.api}/outbox?status=FAILED&kind=mail&error_code=PERMANENT").json()[
            "results"
        ]
        assert (row["id"], row["error"]) == (item_id, "smtp said no")
        assert not {"payload", "headers", "lease_token"} & set(row)

    def test_an_items_payload_hides_secrets(self, acme: Any, kernel: Kernel) -> None:
        """What stands under a secret's name is not shown."""
        body = acme.get(f"{self.api}/outbox/{failed_item(kernel)}").json()
        assert body["payload"] == {"to": "a@example.com", "password": "[hidden]"}
        assert "lease_token" not in body

    def test_steering_one_item(self, acme: Any, kernel: Kernel) -> None:
        """Requeue, reschedule, cancel, discard; each a 409 where it can't be."""
        item_id = failed_item(kernel)
        path = f"{self.api}/outbox/{item_id}"

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

    def test_steering_many(self, acme: Any, kernel: Kernel) -> None:
        """By filter and by ids; without either it is an error."""
        ids = [failed_item(kernel) for _ in range(3)] + [failed_item(kernel, kind="sms")]

        def bulk(**given: Any) -> Any:
            return acme.post(f"{self.api}/outbox/bulk", given, format="json")

        assert bulk(action="requeue", kind="mail", limit=2).json() == {"changed": 2}
        assert bulk(action="discard", ids=[ids[3], str(uuid.uuid4())]).json() == {"changed": 1}
        assert bulk(action="cancel", kind="mail").json() == {"changed": 2}
        assert bulk(action="cancel", ids=ids, kind="mail").status_code == 400
        assert bulk(action="explode").status_code == 400

    def test_stats(self, acme: Any, operator: Any, kernel: Kernel) -> None:
        """A tenant counts its own items, an operator all."""
        failed_item(kernel)
        failed_item(kernel, "rival")
        kernel.outbox.enqueue("mail", {}, tenant_id="acme")
        mine = acme.get(f"{self.api}/outbox/stats").json()
        assert mine["counts"] == {"mail": {"FAILED": 1, "PENDING": 1}}
        assert mine["oldest_due_seconds"] >= 0
        assert operator.get(f"{self.api}/outbox/stats").json()["counts"]["mail"]["FAILED"] == 2

    def test_an_item_tells_where_every_attempt_failed(self, acme: Any, kernel: Kernel) -> None:
        """Files and lines, attempt by attempt."""
        item_id = failing(kernel, "charge")
        kernel.outbox.requeue([item_id])
        kernel.outbox.claim_batch("w", kinds=["pay"])
        kernel.outbox.mark_failed(item_id, "w", "DOWN", "away")
        body = acme.get(f"{self.api}/outbox/{item_id}").json()
        assert body["error_group"] == "DOWN"
        first, second = body["failed_attempts"]
        assert (first["attempt"], first["error_group"]) == (1, "KeyError in shop.charge")
        assert "line 4, in charge" in first["trace"]
        assert (second["error"], second["trace"]) == ("away", None)

    def test_an_execution_tells_where_every_attempt_failed(self, acme: Any, kernel: Kernel) -> None:
        """With the step; a step that failed tells its own."""
        execution_id = ran(kernel, channel_id=7)
        body = acme.get(f"{self.api}/executions/{execution_id}").json()
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
        (group,) = acme.get(f"{self.api}/executions/errors").json()
        assert (group["kind"], group["count"]) == ("order-notify", 1)
        found = acme.get(f"{self.api}/executions", {"error_group": group["error_group"]}).json()
        assert [row["id"] for row in found["results"]] == [execution_id]

    def test_errors_are_grouped_and_steered_by_group(
        self, acme: Any, token: Any, kernel: Kernel
    ) -> None:
        """One code, two places: two groups, of which one is put back; nobody sees another's."""
        ids = [failing(kernel, "charge"), failing(kernel, "charge"), failing(kernel, "refund")]
        failing(kernel, "charge", tenant="rival")
        groups = acme.get(f"{self.api}/outbox/errors").json()
        assert [(each["error_group"], each["count"]) for each in groups] == [
            ("KeyError in shop.charge", 2), ("KeyError in shop.refund", 1),
        ]  # fmt: skip
        assert groups[0]["latest_id"] == ids[1]
        given = {"action": "requeue", "error_group": "KeyError in shop.charge"}
        assert acme.post(f"{self.api}/outbox/bulk", given, format="json").json() == {"changed": 2}
        assert [each["count"] for each in acme.get(f"{self.api}/outbox/errors").json()] == [1]
        found = acme.get(f"{self.api}/outbox", {"error_group": "KeyError in shop.refund"}).json()[
            "results"
        ]
        assert [row["id"] for row in found] == ids[2:]
        assert (
            token("workflows:read", tenant_id="acme").get(f"{self.api}/outbox/errors").status_code
            == 403
        )
        assert acme.get(f"{self.api}/outbox/errors?tenant_id=rival").status_code == 403

    def test_things_are_found_by_label(self, acme: Any, token: Any, kernel: Kernel) -> None:
        """What an event carries, and what it started; another tenant finds nothing."""
        labels = {"order": "4711"}
        lines = {"lines": LINES, "channel_id": "C1"}
        given = {"name": "order.created", "payload": lines, "labels": labels}
        event_id = acme.post(f"{self.api}/events", given, format="json").json()["id"]
        started = acme.post(
            f"{self.api}/workflows/order-notify/start",
            {"payload": lines, "labels": labels},
            format="json",
        ).json()["id"]
        kernel.run_until_idle()
        rival = token("*", tenant_id="rival")
        for label in ("order=4711", "4711"):
            items = acme.get(f"{self.api}/outbox", {"label": label}).json()["results"]
            assert [row["id"] for row in items] == [event_id]
            executions = acme.get(f"{self.api}/executions", {"label": label}).json()["results"]
            assert len(executions) == 2
            assert started in [row["id"] for row in executions]
            assert {str(row["labels"]) for row in executions} == {str(labels)}
            for path in ("outbox", "executions"):
                assert rival.get(f"{self.api}/{path}", {"label": label}).json()["results"] == []
        assert acme.get(f"{self.api}/outbox/{event_id}").json()["labels"] == labels
        wrong = {**given, "labels": {"a b": "x"}}
        assert acme.post(f"{self.api}/events", wrong, format="json").status_code == 400

    def test_executions_are_found_by_several_labels(self, acme: Any, kernel: Kernel) -> None:
        """All of them must hold; those that the workflow sets count as those of its event."""
        kernel.add_workflow(
            {
                "name": "labelled",
                "trigger": {"type": "manual"},
                "labels": {"customer": "{{ event.payload.customer }}"},
                "steps": [{"id": "a", "sleep": 0}],
            }
        )
        ids = {
            customer: kernel.start(
                "labelled", {"customer": customer}, labels={"region": "eu"}, tenant_id="acme"
            )
            for customer in ("ann", "bob")
        }
        for customer, its in ids.items():
            found = acme.get(
                f"{self.api}/executions", {"label": ["region=eu", f"customer={customer}"]}
            )
            (row,) = found.json()["results"]
            assert (row["id"], row["labels"]) == (its, {"customer": customer, "region": "eu"})
        both = acme.get(f"{self.api}/executions", {"label": "region=eu"}).json()["results"]
        assert {row["id"] for row in both} == set(ids.values())
        many = acme.get(f"{self.api}/executions", {"label": ["a=1"] * 11})
        assert many.status_code == 400

    @pytest.mark.parametrize("path", ["outbox", "executions"])
    def test_a_list_looks_at_a_bounded_stretch(
        self, operator: Any, acme: Any, path: str, monkeypatch: pytest.MonkeyPatch, kernel: Kernel
    ) -> None:
        """Whatever it is to find; its pages go on until all is looked at, and nothing is lost."""
        monkeypatch.setattr(exchange, "LOOKED", 5)
        if path == "outbox":
            kinds = ["rare" if number % 9 == 4 else "usual" for number in range(31)]
            rows = kernel.outbox.enqueue_many(
                NewItem(kind, tenant_id="acme" if number % 2 else "rival")
                for number, kind in enumerate(kinds)
            )
            wanted = [each for each, kind in zip(rows, kinds, strict=True) if kind == "rare"]
            query = {"kind": "rare"}
        else:
            rows = [ran(kernel) for _ in range(8)]
            wanted, query = rows, {"workflow": "order-notify", "status": "COMPLETED"}
        found, pages = listed(self.api, operator, path, **query)
        assert found == wanted[::-1]
        assert pages > 1
        nothing, pages = listed(self.api, operator, path, **{**query, next(iter(query)): "nothing"})
        assert nothing == []
        if path == "outbox":
            assert pages == 31 // 5 + 1
            mine, _ = listed(self.api, acme, path)
            assert mine == [row for number, row in enumerate(rows) if number % 2][::-1]
            first = operator.get(f"{self.api}/outbox", {"kind": "usual", "page_size": 3}).json()
            second = operator.get(first["next"]).json()
            back = operator.get(second["previous"]).json()
            assert [row["id"] for row in back["results"]] == [row["id"] for row in first["results"]]

    def test_another_tenants_rows_are_not_there(
        self, acme: Any, token: Any, kernel: Kernel
    ) -> None:
        """404 for each path that names one, and nothing in a list."""
        execution, item = ran(kernel), failed_item(kernel)
        rival = token("*", tenant_id="rival")
        for path in (f"executions/{execution}", f"outbox/{item}"):
            assert acme.get(f"{self.api}/{path}").status_code == 200
            assert rival.get(f"{self.api}/{path}").status_code == 404
        for path in (
            f"executions/{execution}/cancel", f"executions/{execution}/resume",
            f"executions/{execution}/retry", f"executions/{execution}/pause",
            f"executions/{execution}/unpause", f"outbox/{item}/requeue", f"outbox/{item}/cancel",
            f"outbox/{item}/discard",
        ):  # fmt: skip
            assert rival.post(f"{self.api}/{path}", {}, format="json").status_code == 404, path
        for path, given in (
            (f"executions/{execution}/fork", {"step": "notify"}),
            (f"executions/{execution}/retry-step", {"step": "notify"}),
            (f"executions/{execution}/signal", {"name": "go"}),
            (f"outbox/{item}/reschedule", {"delay": 9}),
        ):
            assert rival.post(f"{self.api}/{path}", given, format="json").status_code == 404, path
        for path in ("executions", "outbox"):
            assert rival.get(f"{self.api}/{path}").json()["results"] == []
        assert rival.get(f"{self.api}/outbox/stats").json()["counts"] == {}
        before = [(row["id"], row["status"]) for row in rows_of(kernel, OUTBOX)]
        for bulk in (
            {"action": "requeue", "ids": [item]},
            {"action": "requeue", "status": "FAILED"},
            {"action": "discard"},
        ):
            response = rival.post(f"{self.api}/outbox/bulk", bulk, format="json")
            assert response.json() == {"changed": 0}
        assert [(row["id"], row["status"]) for row in rows_of(kernel, OUTBOX)] == before

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
    def test_naming_another_tenant_is_refused(
        self, acme: Any, path: str, given: Any, kernel: Kernel
    ) -> None:
        """403; nor can one put the own items before others'."""
        failed_item(kernel, "rival")
        assert acme.post(f"{self.api}/{path}", given, format="json").status_code == 403
        assert acme.get(f"{self.api}/executions?tenant_id=rival").status_code == 403
        assert len(rows_of(kernel, OUTBOX)) == 1

    def test_an_operator_works_for_all(self, operator: Any, kernel: Kernel) -> None:
        """It sees every row, and names the tenant of what it makes."""
        execution = ran(kernel, "rival")
        assert operator.get(f"{self.api}/executions/{execution}").status_code == 200
        assert len(operator.get(f"{self.api}/executions?tenant_id=rival").json()["results"]) == 1
        given = {"name": "x", "tenant_id": "acme", "priority": 5}
        item = kernel.outbox.get(
            operator.post(f"{self.api}/events", given, format="json").json()["id"]
        )
        assert item is not None
        assert (item.tenant_id, item.priority) == ("acme", 5)

    @pytest.mark.parametrize(
        ("scope", "allowed"),
        [
            (
                "outbox:read",
                {
                    "outbox",
                    "outbox/stats",
                    "outbox/errors",
                    "outbox/kinds",
                    "deliveries",
                    "deliveries/refused",
                },
            ),
            ("executions:read", {"executions", "executions/errors"}),
            ("workflows:*", {"workflows", "schedules", "documents"}),
            ("plugins:read", {"plugins"}),
            ("events:write", set()),
        ],
    )
    def test_each_scope_opens_its_part(self, token: Any, scope: str, allowed: set[str]) -> None:
        """And no other."""
        client = token(scope, all_tenants=True)
        found = {path for path in PATHS if client.get(f"{self.api}/{path}").status_code == 200}
        assert found == allowed
        posted = client.post(f"{self.api}/outbox/bulk", {"action": "discard"}, format="json")
        assert posted.status_code == 403

    def test_deliveries_are_listed_and_redelivered(self, operator: Any, kernel: Kernel) -> None:
        """For operators; once for each sight of one; what was refused with its reason."""
        event_id = kernel.emit("order.created", ORDER, tenant_id="acme")
        with kernel.storage.begin() as rows:
            ReplayLedger(kernel.storage).remember(rows, "chat", "message", "1", event_id)
        kernel.deliveries.refused.note("chat", "message", "refused", "no header X")
        (found,) = operator.get(f"{self.api}/deliveries?connector=chat").json()["results"]
        assert (found["item_id"], found["trigger"], found["redeliveries"]) == (
            event_id,
            "message",
            0,
        )
        (refused,) = operator.get(f"{self.api}/deliveries/refused?outcome=refused").json()
        assert (refused["reason"], refused["times"]) == ("no header X", 1)
        path = f"{self.api}/deliveries/{found['id']}/redeliver"
        again, twice, wrong = (
            operator.post(path, {"seen": seen}, format="json") for seen in (0, 0, -1)
        )
        assert [each.status_code for each in (again, twice, wrong)] == [202, 409, 400]
        item = kernel.outbox.get(again.json()["id"])
        assert item is not None and item.tenant_id == "acme"
        assert (
            operator.post(path.replace(found["id"], "none"), {}, format="json").status_code == 404
        )

    def test_a_workflow_is_edited(self, token: Any, kernel: Kernel) -> None:
        """Drafts, versions, publish and back; each problem has its line, and the trail each act."""
        client = token("workflows:*", tenant_id="acme")
        other = token("workflows:*", tenant_id="rival")
        path, text = f"{self.api}/documents", DOCUMENT.format(greeting="hello")

        def post(where: str, **given: Any) -> Any:
            return client.post(f"{path}{where}", given, format="json")

        wrong = post(
            "/check", source="name: x\nsteps:\n- id: a\n  action: orders.total\n  nope: 1\n"
        )
        assert wrong.status_code == 400
        assert any("Line 5" in each["detail"] for each in wrong.json()["errors"]), wrong.json()
        assert post("/check", source=text.replace("chat.post", "chat.pots")).json()["missing"]
        large = post("/check", source=text + "#" * 300_000).json()["errors"][0]["detail"]
        assert "larger than 256 KiB" in large
        made = post("", source=text, publish=False, comment="first")
        assert made.status_code == 201, made.json()
        one = f"/{made.json()['id']}"
        assert made.json()["version"] is None
        assert client.get(f"{self.api}/workflows/greets").status_code == 404
        assert post(f"{one}/versions/1/publish").status_code == 200
        assert client.get(f"{self.api}/workflows/greets").status_code == 200
        second = DOCUMENT.format(greeting="good day")
        assert post(f"{one}/save", source=second, based_on=1).json()["number"] == 2
        late = post(f"{one}/save", source=text + "# mine\n", based_on=1)
        assert (late.status_code, late.json()["code"]) == (409, "ABORTED")
        assert post(f"{one}/save", source=second).json()["code"] == "FAILED_PRECONDITION"
        renamed = post(f"{one}/save", source=second.replace("greets", "bows"))
        assert "stays as it is" in renamed.json()["errors"][0]["detail"]
        assert post(f"{one}/versions/1/restore", comment="as it was").json()["restored_from"] == 1
        listed = client.get(f"{path}{one}/versions").json()
        assert [each["number"] for each in listed] == [3, 2, 1]
        assert client.get(f"{path}{one}/versions/2").json()["source"] == second
        assert client.get(f"{path}{one}").json()["source"] == text
        assert post(f"{one}/disable").json()["enabled"] is False
        assert post(f"{one}/disable").status_code == 409
        assert client.get(f"{self.api}/workflows/greets").status_code == 404
        for where in (one, f"{one}/versions", f"{one}/versions/1"):
            assert other.get(f"{path}{where}").status_code == 404
        assert other.post(f"{path}{one}/enable", {}, format="json").status_code == 404
        assert other.get(path).json() == []
        for number in ("0", "9", "x", "%00", "1" * 400):
            assert client.get(f"{path}{one}/versions/{number}").status_code == 404
        reader = token("workflows:read", tenant_id="acme")
        assert reader.post(f"{path}{one}/enable", {}, format="json").status_code == 403
        assert post(f"{one}/enable").json()["version"] == 3
        acts = [each.action for each in kernel.audit.page(object_id=one[1:]).records]
        assert {"publish", "save", "restore", "disable", "enable"} <= set(acts)

    def test_plugins_are_for_operators(self, acme: Any, operator: Any) -> None:
        """States, and never a traceback."""
        assert acme.get(f"{self.api}/plugins").status_code == 403
        found = {row["key"]: row for row in operator.get(f"{self.api}/plugins").json()}
        assert found["chat"]["usable"] is True
        assert "traceback" not in found["chat"]

    def test_ids_that_are_none(self, acme: Any) -> None:
        """404, as for one that is not there."""
        for row_id in ("x", "0", str(uuid.uuid4()), "%00"):
            for path in ("executions", "outbox"):
                assert acme.get(f"{self.api}/{path}/{row_id}").status_code == 404

    @pytest.mark.parametrize("place", ["outbox", "executions", "approvals"])
    def test_a_cursor_of_brackets_is_no_page(self, operator: Any, place: str) -> None:
        """Python reads no JSON that is nested so deep, and raises another error than for the rest."""
        cursor = base64.urlsafe_b64encode(b"[" * 6000).decode()
        answer = operator.get(f"{self.api}/{place}", {"cursor": cursor})
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
        self, operator: Any, path: str, query: str
    ) -> None:
        """A client that pages by offset would read the first page for ever."""
        answer = operator.get(f"{self.api}/{path}?{query}")
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["parameter"] == query.partition("=")[0]

    # -- every route ---------------------------------------------------------------------------

    @pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
    def test_a_route_is_closed_to_who_may_not(self, stranger: Any, token: Any, route: Any) -> None:
        """401 without a token, 403 without its scope, and for operators alone where it says so."""
        path = (
            self.api
            + "/"
            + "/".join(str(uuid.uuid4()) if part[0] == "{" else part for part in route.parts)
        )

        def ask(client: Any) -> int:
            asked = client.get if route.method == "GET" else client.post
            return int(asked(path).status_code)

        assert ask(stranger) == 401
        area = route.scope.partition(":")[0]
        others = {each.scope for each in ROUTES if not each.scope.startswith(f"{area}:")}
        assert ask(token(*others, all_tenants=True)) == 403
        own = ask(token(route.scope, tenant_id="acme"))
        assert (own == 403) is route.operator
        assert own not in (401, 500)

    def test_who_is_nobody(self, stranger: Any) -> None:
        """One and the same 401 everywhere, whatever else is wrong."""
        for path in (*PATHS, "schema"):
            assert stranger.get(f"{self.api}/{path}").status_code == 401
        assert stranger.post(f"{self.api}/events", {"nme": "x"}, format="json").status_code == 401

    def test_an_unknown_path_and_a_wrong_method(self, operator: Any) -> None:
        assert operator.get(f"{self.api}/executions/a/b/c/d").status_code == 404
        answer = operator.post(f"{self.api}/executions", {}, format="json")
        assert (answer.status_code, answer.json()["code"]) == (405, "METHOD_NOT_ALLOWED")
        assert {"GET", "HEAD"} <= set(answer["Allow"].replace(" ", "").split(","))

    def test_errors_are_problems(self, acme: Any) -> None:
        """Of each wrong field its place; never what was sent."""
        given = {"name": "x", "delay": "hunter2", "labels": {"a": 5}, "a/b": 1}
        answer = acme.post(f"{self.api}/events", given, format="json")
        assert answer["Content-Type"] == "application/problem+json"
        body = answer.json()
        assert (body["status"], body["code"]) == (400, "INVALID_ARGUMENT")
        assert {each["pointer"] for each in body["errors"]} == {"#/delay", "#/labels/a", "#/a~1b"}
        assert "hunter2" not in answer.content.decode()

    def test_bodies_that_are_none(self, acme: Any) -> None:
        """No JSON, NaN, too deep, half a character, another type: a reason, never a crash."""
        for body in (
            b"{", b'"x"', b'{"name": "x", "payload": NaN}', b'{"name": "x", "payload": "\\ud83d"}',
            b'{"name": "x", "payload": ' + b"[" * 500 + b"]" * 500 + b"}",
            b'{"name": "x", "payload": "a\\u0000"}',
        ):  # fmt: skip
            answer = acme.post(f"{self.api}/events", body, content_type="application/json")
            assert answer.status_code == 400, body[:40]
        form = acme.post(f"{self.api}/events", b"name=x", content_type="text/plain")
        assert form.status_code == 415

    def test_an_etag(self, acme: Any, kernel: Kernel) -> None:
        """What has not changed is not sent again."""
        path = f"{self.api}/executions/{ran(kernel)}"
        tag = acme.get(path)["ETag"]
        for known in (tag, f'"x", {tag}', tag.removeprefix("W/"), "*"):
            answer = acme.get(path, HTTP_IF_NONE_MATCH=known)
            assert (answer.status_code, answer.content) == (304, b"")
        mark(kernel, status="FAILED")
        changed = acme.get(path, HTTP_IF_NONE_MATCH=tag)
        assert (changed.status_code, changed.json()["status"]) == (200, "FAILED")

    def test_a_key_is_carried_out_once(self, acme: Any, token: Any, kernel: Kernel) -> None:
        """The same answer again, but for another request; each client has keys of its own."""
        execution = ran(kernel)
        path = f"{self.api}/executions/{execution}"

        def do(what: str, given: Any = None, key: str = "k", client: Any = acme) -> Any:
            body = given or {}
            return client.post(f"{path}/{what}", body, format="json", HTTP_IDEMPOTENCY_KEY=key)

        first, again = do("retry"), do("retry")
        assert (first.status_code, again.status_code) == (202, 202)
        assert (first.content, first["Location"]) == (again.content, again["Location"])
        assert again["Idempotency-Replayed"] == "true"
        assert do("retry", key="other").json() != first.json()
        assert do("retry", client=token("*", tenant_id="acme")).json() != first.json()
        reused = do("fork", {"step": "notify"})
        assert (reused.status_code, reused.json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
        assert do("cancel", key="late").status_code == 409
        mark(kernel, status="PENDING", id=execution)
        assert do("cancel", key="late").status_code == 200  # a failure has freed it
        for wrong in ("a, b", "", "ä", "x" * 256):
            assert do("retry", key=wrong).status_code == 400, wrong

    def test_a_key_is_one_requests_at_a_time(self, acme: Any, kernel: Kernel) -> None:
        """A second request is told to wait; what died gets free by itself."""
        path = f"{self.api}/executions/{ran(kernel)}/retry"

        def do() -> Any:
            return acme.post(path, {}, format="json", HTTP_IDEMPOTENCY_KEY="k")

        def change(**changes: Any) -> None:
            with kernel.storage.begin() as rows:
                rows.update(IDEMPOTENCY, [], changes)

        first = do()
        change(lock="another", locked_until=Now(60.0))
        busy = do()
        assert (busy.status_code, busy["Retry-After"]) == (409, "1")
        assert busy.json()["code"] == "IDEMPOTENCY_KEY_IN_USE"
        change(locked_until=Now(-1.0))
        assert do().json() != first.json()
        change(expires_at=Now(-1.0))
        assert "Idempotency-Replayed" not in do()

    # -- what only the command line could do ---------------------------------------------------

    def test_kinds(self, operator: Any, kernel: Kernel) -> None:
        """Paused, limited, and as they were."""
        failed_item(kernel)
        path = f"{self.api}/outbox/kinds"

        def do(what: str, **given: Any) -> Any:
            return operator.post(f"{path}/mail/{what}", given, format="json")

        assert do("pause", reason="no post").json()["paused"] is True
        limit = do("limit", rate=100, per_seconds=60).json()["limit"]
        assert (limit["rate"], limit["per_seconds"], limit["concurrency"]) == (100, 60.0, None)
        (found,) = [each for each in operator.get(path).json() if each["kind"] == "mail"]
        assert (found["counts"], found["paused"]) == ({"FAILED": 1}, True)
        assert do("limit", burst=3).status_code == 400
        assert do("unlimit").json()["limit"] is None
        assert do("unlimit").status_code == 409
        assert do("resume").json()["paused"] is False
        assert do("resume").status_code == 409

    def test_versions_schedules_and_waits(self, acme: Any, operator: Any, kernel: Kernel) -> None:
        """Those of the own executions; why they do not go on."""
        ran(kernel), ran(kernel, "rival")
        path = f"{self.api}/workflows/order-notify"
        (version,) = acme.get(f"{path}/versions").json()
        whole = acme.get(path).json()
        assert version["current"] is True
        assert version["definition_id"] == whole["definition_id"]
        assert whole["paused"] is False
        acme.post(f"{path}/pause", {}, format="json")
        assert acme.get(path).json()["paused"] is True
        started = acme.post(f"{path}/start", {"payload": ORDER}, format="json")
        waits = acme.get(f"{started['Location']}/waits").json()
        assert waits["reasons"][0]["code"] == "workflow_paused"
        assert operator.get(f"{self.api}/schedules").json() == []

    def test_the_service(self, operator: Any) -> None:
        health = operator.get(f"{self.api}/health").json()
        assert health == {"ready": False, "problems": ["no worker works"]}
        assert operator.get(f"{self.api}/workers").json() == []

    def test_a_token_passes_on_what_it_has(self, token: Any, operator: Any) -> None:
        """Neither another's rows nor more scopes; it ends at once."""
        path = f"{self.api}/tokens"
        acme = token("tokens:write", "outbox:*", tenant_id="acme")

        def make(client: Any, **given: Any) -> Any:
            return client.post(path, {"name": "made", **given}, format="json")

        for wrong, status in (
            ({"scopes": ["*"]}, 403), ({"scopes": ["outbox:read", "executions:read"]}, 403),
            ({"roles": ["viewer"]}, 403), ({"scopes": ["outbox:*"], "tenant_id": "rival"}, 403),
            ({}, 400), ({"roles": ["root"]}, 400), ({"scopes": ["outbox:*"], "usr": "x"}, 400),
        ):  # fmt: skip
            assert make(acme, **wrong).status_code == status, wrong
        made = make(acme, scopes=["outbox:read"]).json()
        assert (made["tenant_id"], made["all_tenants"]) == ("acme", False)
        fresh = token(text=made["text"])
        assert fresh.get(f"{self.api}/outbox").status_code == 200
        assert fresh.get(f"{self.api}/executions").status_code == 403
        rows = acme.get(path).json()["results"]
        assert {row["tenant_id"] for row in rows} == {"acme"}
        assert made["text"] not in str(rows)
        theirs = make(operator, roles=["admin"], tenant_id="rival").json()["prefix"]
        assert acme.post(f"{path}/{theirs}/revoke", {}, format="json").status_code == 404
        revoke = f"{path}/{made['prefix']}/revoke"
        assert acme.post(revoke, {}, format="json").status_code == 204
        assert acme.post(revoke, {}, format="json").status_code == 409
        assert fresh.get(f"{self.api}/outbox").status_code == 401

    def test_commands_are_in_the_audit_trail(
        self, acme: Any, operator: Any, kernel: Kernel
    ) -> None:
        """Before they are carried out, with their outcome, and without payloads and comments."""
        execution, item = ran(kernel), failed_item(kernel)
        ids = [item, str(uuid.uuid4())]
        for client, path, given in (
            (acme, f"executions/{execution}/cancel", {"force": True}),
            (operator, f"executions/{execution}/retry", {}),
            (operator, f"executions/{execution}/fork", {"step": "notify", "payload": "hunter2"}),
            (acme, f"executions/{execution}/fork", {"step": "none"}),
            (acme, "outbox/bulk", {"action": "requeue", "ids": ids}),
            (acme, "outbox/bulk", {"action": "requeue", "tenant_id": "rival", "kind": "x"}),
            (operator, "outbox/kinds/mail/pause", {"reason": "no post"}),
            (acme, "workflows/order-notify/start", {"payload": ORDER}),
        ):  # fmt: skip
            client.post(f"{self.api}/{path}", given, format="json")
        found = kernel.audit.page().records[::-1]
        assert [(each.action, each.model, each.outcome, each.tenant_id) for each in found] == [
            ("cancel", "execution", "nothing", "acme"),
            ("retry", "execution", "done", "acme"),
            ("fork", "execution", "done", "acme"),
            ("fork", "execution", "refused", "acme"),
            ("requeue", "item", "done", "acme"),
            ("pause", "kind", "done", None),
        ]
        assert {each.actor for each in found} == {"token:test"}
        assert (found[0].object_id, found[0].details) == (execution, {"force": True})
        assert found[4].details == {"ids": ids, "number": 2}
        assert "hunter2" not in str(found)

    def test_the_document(self, acme: Any) -> None:
        """OpenAPI 3.1, with a path for each route, whose names meet none of the host's."""
        document = acme.get(f"{self.api}/schema").json()
        assert (document["openapi"], document["servers"]) == ("3.1.0", [{"url": self.api}])
        ours = {(route.method.lower(), "/" + route.path.replace(":path", "")) for route in ROUTES}
        paths = document["paths"].items()
        assert {(method, path) for path, each in paths for method in each} == ours
        assert all(name.startswith("Automate") for name in document["components"]["schemas"])
