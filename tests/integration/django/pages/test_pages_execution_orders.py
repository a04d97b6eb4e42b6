"""Orders for very many executions, which a worker carries out as it does for items."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from automate_django import definitions
from automate_django.models import AuditEntry
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.workflows.steer import bulk_runner
from automate_kernel.workflows.steer import executions as stored_executions
from django.db import connections
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

BASE = "/admin/automate_django/workflowexecution/"
CHANGE = ("view_workflowexecution", "change_workflowexecution")
WORKFLOW = """\
name: pay
trigger: {type: manual}
steps: [{id: charge, action: bank.charge}]
"""
PATIENT = """\
name: patient
trigger: {type: manual}
steps:
  - {id: nap, sleep: 1h}
"""


@pytest.fixture(autouse=True)
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten executions a step."""
    monkeypatch.setattr(bulk_runner, "SECONDS", 0.0)
    few = replace(stored_executions.EXECUTIONS, batch=10)
    monkeypatch.setattr(stored_executions, "EXECUTIONS", few)


@pytest.fixture
def away() -> list[bool]:
    """Whether the bank is away."""
    return [True]


@pytest.fixture
def kernel(kernel: Any, away: list[bool]) -> Any:
    @kernel.action("bank.charge")
    def charge() -> str:
        if away[0]:
            raise AutomateError(ErrorCodes.UNAVAILABLE, "the bank is away")
        return "paid"

    for each in (WORKFLOW, PATIENT):
        definitions.create(each, author="ann")
    return kernel


@pytest.fixture
def broken(kernel: Any, away: list[bool]) -> Callable[..., list[str]]:
    """Makes executions that failed; the bank is back after that."""

    def broken(n: int, **options: Any) -> list[str]:
        away[0] = True
        ids = [str(kernel.start("pay", **options)) for _ in range(n)]
        kernel.run_until_idle()
        assert statuses(kernel, ids) == {"FAILED"}
        away[0] = False
        return ids

    return broken


@pytest.fixture
def order(alive: Any) -> Callable[..., str]:
    """Gives an order for all that match while a worker lives; the page that follows it."""
    alive(kinds=["automate.order"])

    def order(client: Any, name: str = "resume", **data: Any) -> str:
        answer = client.post(f"{BASE}order/", {"order": name, "sure": "yes", **data})
        assert answer.status_code == 302
        return str(answer.url)

    return order


def statuses(kernel: Any, ids: list[str]) -> set[str]:
    return {str(kernel.executions.get(each).status) for each in ids}


def count(kernel: Any, status: str) -> int:
    return kernel.executions.stats().counts["pay"].get(status, 0)


def text(client: Any, page: str) -> str:
    return str(client.get(page).content.decode())


def test_a_worker_resumes_them(alias: str, kernel: Any, root: Any, broken: Any, order: Any) -> None:
    """The request ends with the first step, and the page says how far it is and that it ended."""
    ids = broken(35)
    page = order(root, status="FAILED", workflow="pay")
    assert page.startswith(f"{BASE}orders/")
    html = text(root, page)
    assert "<strong>10</strong> of <strong>35</strong>" in html
    assert "It waits for a worker" in html
    assert count(kernel, "FAILED") == 25
    kernel.run_until_idle()
    assert statuses(kernel, ids) == {"COMPLETED"}
    assert "It is done" in text(root, page)
    assert root.get(f"{page}now/")["X-Automate-Fragment"] == "stop"
    ended = AuditEntry.objects.order_by("id").last()
    assert ended.object_repr == "ended: 35 of 35 failed executions of pay"
    assert ended.model == "automate_django.workflowexecution"
    assert ended.actor == root.user.username
    # The order is no item's.
    elsewhere = page.replace("workflowexecution", "outboxitem")
    assert root.get(elsewhere).status_code == 404


def test_they_are_cancelled_paused_and_let_go_on(
    alias: str, kernel: Any, root: Any, order: Any
) -> None:
    """Each of the orders that the list has for their status."""
    ids = [str(kernel.start("patient")) for _ in range(12)]
    listed = text(root, f"{BASE}?status=PENDING")
    assert "Pause all…" in listed and "Cancel all…" in listed and "Resume all…" not in listed
    order(root, "pause", status="PENDING")
    kernel.run_until_idle()
    assert statuses(kernel, ids) == {"PAUSED"}
    order(root, "unpause", status="PAUSED", workflow="patient")
    kernel.run_until_idle()
    assert not statuses(kernel, ids) & {"PAUSED"}
    (status,) = statuses(kernel, ids)
    order(root, "cancel", status=status)
    kernel.run_until_idle()
    assert statuses(kernel, ids) == {"CANCELLED"}
    answer = root.post(f"{BASE}order/", {"order": "cancel", "status": "CANCELLED"})
    assert answer.status_code == 400


def test_a_worker_that_dies_leaves_it_to_exactly_one(
    kernel: Any, root: Any, broken: Any, order: Any
) -> None:
    """It had done its batch, and died before it said so; what it says after that is not heard."""
    ids = broken(35)
    page = order(root, status="FAILED")
    runner = bulk_runner_of(kernel)
    (dead,) = kernel.outbox.claim_batch("dead", 1, kinds=["automate.order"])
    runner.carry_on(bulk_runner.BulkRequest.read(dead.payload["request"]))
    assert count(kernel, "FAILED") == 15
    kernel.outbox.release([dead.id], "dead")
    (taken,) = kernel.outbox.claim_batch("next", 1, kinds=["automate.order"])
    with pytest.raises(AutomateError, match="lost"):
        runner.handle(dead)
    assert len(kernel.outbox.find(kind="automate.order", status="RUNNING")) == 1
    runner.handle(taken)
    kernel.run_until_idle()
    assert statuses(kernel, ids) == {"COMPLETED"}
    assert "It is done" in text(root, page)
    # Each went on once.
    assert {len(kernel.executions.attempts(each)) for each in ids} == {2}
    assert len(AuditEntry.objects.filter(object_repr__startswith="ended")) == 1


def bulk_runner_of(kernel: Any) -> Any:
    from automate_django.bulk_actions import bulk_runner as runner_of

    return runner_of(kernel)


def test_it_is_stopped(kernel: Any, root: Any, broken: Any, order: Any) -> None:
    """What is done stays done, and nothing more is."""
    broken(25)
    page = order(root, status="FAILED")
    assert root.post(f"{page}stop/").status_code == 302
    kernel.run_until_idle()
    assert count(kernel, "FAILED") == 15
    assert "It was stopped" in text(root, page)


def test_what_begins_or_fails_after_it_began_is_not_meant(
    kernel: Any, root: Any, broken: Any, order: Any, away: list[bool]
) -> None:
    """Neither one that began later, nor one that was running and fails while it goes on."""
    old = broken(15)
    running = str(kernel.start("pay"))
    page = order(root, status="FAILED")
    # Resumed ones fail again: that is another failure.
    away[0] = True
    kernel.run_until_idle()
    later = str(kernel.start("pay"))
    kernel.run_until_idle()
    assert "<strong>15</strong> of <strong>15</strong>" in text(root, page)
    assert {len(kernel.executions.attempts(each)) for each in old} == {2}
    assert [len(kernel.executions.attempts(each)) for each in (running, later)] == [1, 1]


def test_who_lost_the_permission_or_the_tenant_has_nothing_carried_on(
    kernel: Any, staff: Any, broken: Any, order: Any
) -> None:
    """The worker asks at each turn."""

    def tenant_by_mail(request: Any) -> str:
        return str(request.user.email.partition("@")[0])

    with override_settings(AUTOMATE_ADMIN={"TENANT": tenant_by_mail}):
        mine = broken(25, tenant_id="acme")
        theirs = broken(5, tenant_id="globex")
        for change in ("permission", "tenant"):
            client = staff(*CHANGE)
            client.user.email = "acme@example.org"
            client.user.save()
            before = count(kernel, "FAILED")
            page = order(client, status="FAILED")
            assert count(kernel, "FAILED") == before - 10
            if change == "tenant":
                client.user.email = "globex@example.org"
                client.user.save()
            else:
                client.user.user_permissions.clear()
            kernel.run_until_idle()
            assert count(kernel, "FAILED") == before - 10
            assert client.get(page).status_code in (200, 403)
            assert "stopped: 10 of" in AuditEntry.objects.latest("id").object_repr
        assert statuses(kernel, theirs) == {"FAILED"}
        stays = staff(*CHANGE)
        stays.user.email = "acme@example.org"
        stays.user.save()
        order(stays, status="FAILED")
        kernel.run_until_idle()
        assert statuses(kernel, mine) == {"COMPLETED"}
        assert statuses(kernel, theirs) == {"FAILED"}


def test_a_tenant_of_the_requests_is_as_it_was(
    kernel: Any, staff: Any, broken: Any, order: Any
) -> None:
    """Where a session or a host name says the tenant, a worker can't ask for it again."""
    with override_settings(AUTOMATE_ADMIN={"TENANT": lambda request: request.session and "acme"}):
        ids = broken(15, tenant_id="acme")
        order(staff(*CHANGE), status="FAILED")
        kernel.run_until_idle()
        assert statuses(kernel, ids) == {"COMPLETED"}


def test_a_rate_holds(kernel: Any, root: Any, broken: Any, order: Any) -> None:
    """They go on one after the other, over the borders of the turns."""
    ids = broken(25)
    order(root, status="FAILED", per_second="1")
    for _ in range(5):
        for item in kernel.outbox.claim_batch("w", 1, kinds=["automate.order"]):
            bulk_runner_of(kernel).handle(item)
    items = [kernel.outbox.get(kernel.executions.get(each).item_id) for each in ids]
    due = sorted(item.next_attempt_at for item in items)
    gaps = [(b - a).total_seconds() for a, b in zip(due[1:], due[2:], strict=False)]
    assert min(gaps) > 0.99


def test_groups_by_cause_lead_to_their_executions(
    kernel: Any, root: Any, staff: Any, broken: Any
) -> None:
    """As on the page of the outbox; a tenant sees the own ones."""
    broken(3, tenant_id="acme")
    broken(1, tenant_id="globex")
    group = kernel.executions.error_groups()[0].group
    page = text(root, BASE)
    assert "What fails" in page
    assert ">4</strong> ×" in page
    assert group in page
    assert "status=FAILED&amp;workflow=pay" in page
    with override_settings(AUTOMATE_ADMIN={"TENANT": lambda request: "acme"}):
        own = text(staff(*CHANGE), BASE)
        assert ">3</strong> ×" in own
    assert "What fails" not in text(root, f"{BASE}?status=COMPLETED")


def test_few_statements_for_many(
    database: str, kernel: Any, broken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For 500 executions, of which each took eight by itself, and in small transactions."""
    from automate_kernel.outbox import BulkAction

    monkeypatch.setattr(
        stored_executions, "EXECUTIONS", replace(stored_executions.EXECUTIONS, batch=50)
    )
    ids = broken(500)

    def statements(command: str, most: int, **matching: Any) -> None:
        action = BulkAction(command, {"ids": ids, **matching}, target="executions")
        with CaptureQueriesContext(connections[database]) as queries:
            action = kernel.executions.run_bulk(action)
        assert (action.done, action.finished) == (500, True)
        assert len(queries) <= most, f"{command}: {len(queries)}"

    statements("resume", 150)
    statements("pause", 150)
    statements("unpause", 150)
    statements("cancel", 300)
    assert statuses(kernel, ids) == {"CANCELLED"}
