"""What failed, where, and whose it was: attempts, groups and labels on the pages."""

from __future__ import annotations

from typing import Any

import pytest

BASE = "/admin/automate_django/outboxitem/"
EXECUTIONS = "/admin/automate_django/workflowexecution/"
SECRET = "tok-page-7788"


@pytest.fixture
def broken(kernel: Any) -> Any:
    """Lets items fail at a place, attempt by attempt."""
    from automate_kernel.outbox import ItemStatus, Outcome

    def broken(place: str, *, attempts: int = 1, **options: Any) -> str:
        item_id: str = kernel.outbox.enqueue("shop.pay", {}, max_attempts=attempts, **options)
        for number in range(attempts):
            (item,) = kernel.outbox.claim_batch("w", kinds=["shop.pay"])
            outcome = Outcome(
                item_id, ItemStatus.RETRY, 0.0, "ERROR", f"KeyError: {number} {SECRET}",
                item.lease_token, f"KeyError in shop.{place}",
                f'  File "shop.py", line 4{number}, in {place}\n    charge("{SECRET}")',
            )  # fmt: skip
            assert not kernel.outbox.acknowledge("w", [outcome])
        return item_id

    return broken


def test_an_item_shows_where_every_attempt_failed(root: Any, kernel: Any, broken: Any) -> None:
    """Each with its error and its files and lines, without the secrets that are known."""
    kernel.redactor.add(SECRET)
    html = root.get(f"{BASE}{broken('charge', attempts=2)}/change/").content.decode()
    assert "2 failed attempts" in html
    for number in (0, 1):
        assert f"line 4{number}, in charge" in html
    assert "KeyError in shop.charge" in html
    assert "Attempt 1 failed" in html
    assert "earlier attempt" not in html
    assert SECRET not in html


def test_errors_are_grouped_by_their_place(root: Any, broken: Any) -> None:
    """Two places with one code are two groups; a group's link lists its items alone."""
    for place in ("charge", "charge", "refund"):
        broken(place)
    html = root.get(BASE).content.decode()
    assert "KeyError in shop.charge" in html
    assert "KeyError in shop.refund" in html
    listed = root.get(BASE, {"slice": "failed", "group": "KeyError in shop.refund"})
    assert [row.last_error_group for row in listed.context_data["found"].items] == [
        "KeyError in shop.refund"
    ]
    asked = root.post(
        f"{BASE}order/",
        {"order": "retry", "scope": "all", "slice": "failed", "group": "KeyError in shop.charge"},
    )
    assert "Retry 2 items?" in asked.content.decode()
    assert "of KeyError in shop.charge" in asked.content.decode()


def test_an_execution_shows_where_every_attempt_failed(root: Any, kernel: Any) -> None:
    """On its page and on its step's, with the group that leads to the others."""
    calls: list[int] = []

    @kernel.action("shop.charge")
    def charge() -> None:
        calls.append(1)
        raise KeyError(f"call {len(calls)}")

    kernel.add_workflow(
        {
            "name": "failing",
            "trigger": {"type": "manual"},
            "steps": [
                {
                    "id": "charge", "action": "shop.charge",
                    "retry": {"attempts": 2, "delay": 0, "jitter": False},
                }
            ],
        }
    )  # fmt: skip
    execution_id = kernel.start("failing", labels={"order": 4711})
    kernel.run_until_idle(patience=5)
    for path in ("change/", "steps/charge/"):
        html = root.get(f"{EXECUTIONS}{execution_id}/{path}").content.decode()
        assert "2 failed attempts" in html, path
        assert html.count("raise KeyError(f&quot;call {len(calls)}&quot;)") >= 2
        assert "test_pages_failures" in html
    page = root.get(f"{EXECUTIONS}{execution_id}/change/")
    group = page.context_data["execution"].error_group
    assert group.startswith("KeyError in ")
    rows = (
        root.get(EXECUTIONS, {"status": "FAILED", "group": group}).context_data["found"].executions
    )
    assert [row.id for row in rows] == [execution_id]
    assert not root.get(EXECUTIONS, {"group": "another"}).context_data["found"].executions
    assert "order=4711" in page.content.decode()
    found = root.get(EXECUTIONS, {"label": "order=4711"}).context_data["found"].executions
    assert [row.id for row in found] == [execution_id]


def test_attempts_of_one_moment_are_listed_the_latest_first(root: Any, kernel: Any) -> None:
    """By the order in which their steps began."""
    from automate_django.models import WorkflowStep

    @kernel.action("shop.note")
    def note() -> None: ...

    steps = [{"id": name, "action": "shop.note"} for name in ("first", "second", "third")]
    kernel.add_workflow({"name": "noting", "trigger": {"type": "manual"}, "steps": steps})
    execution_id = kernel.run("noting").id
    runs = WorkflowStep.objects.filter(execution=execution_id)
    moment = runs.get(step_id="first").attempted_at
    runs.update(started_at=moment, attempted_at=moment)
    page = root.get(f"{EXECUTIONS}{execution_id}/change/")
    listed = [each["step"] for each in page.context_data["all_attempts"]]
    assert listed == ["third", "second", "first"]


def test_items_are_found_by_label(
    root: Any, staff: Any, kernel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However old they are, whatever their status; another tenant's are not found."""
    from automate_django.admin.pages import access, outbox

    monkeypatch.setattr(outbox, "LOOK", 2)
    monkeypatch.setattr(outbox, "LOOK_FOR_TENANT", 2)
    old = kernel.outbox.enqueue("k", labels={"order": 4711}, tenant_id="acme")
    for _ in range(5):
        kernel.outbox.enqueue("k", tenant_id="acme")
    other = kernel.outbox.enqueue("k", labels={"order": 4711}, tenant_id="globex")

    def ids(client: Any, **query: str) -> list[str]:
        return [row.id for row in client.get(BASE, query).context_data["found"].items]

    assert ids(root, label="4711") == [other, old]
    assert ids(root, label="order=4711", slice="due", tenant="acme") == [old]
    assert ids(root, label="customer=4711") == []
    mine = staff("view_outboxitem")
    monkeypatch.setattr(access, "tenant_for_request", lambda request: "acme")
    assert ids(mine, label="4711") == [old]
    assert "order=4711" in mine.get(f"{BASE}{old}/change/").content.decode()
