"""Why an execution or an item waits: each reason names who holds what it needs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from automate_kernel import AutomateError, ErrorCodes, Kernel
from automate_kernel.monitoring.waiting import WaitReason, why_execution_waits, why_item_waits
from automate_kernel.outbox import NewItem
from automate_kernel.outbox.worker_reports import WorkerInfo
from automate_kernel.storage import MemoryStorage
from automate_kernel.storage.query import Where
from automate_kernel.storage.tables import OUTBOX
from automate_testing import FakeClock
from automate_kernel.worker.reporter import ActivityLog
from defined import see

MANUAL = {"type": "manual"}


@pytest.fixture
def kernel(clock: FakeClock) -> Kernel:
    kernel = Kernel(MemoryStorage(clock), discover=False, secrets={"TOKEN": "s3cr3t-of-the-shop"})

    @kernel.action("shop.fail")
    def fail() -> None:
        raise AutomateError(ErrorCodes.UNAVAILABLE, "the shop is shut")

    return kernel


def started(kernel: Kernel, *steps: dict[str, Any], **fields: Any) -> str:
    kernel.add_workflow({"name": "w", "trigger": MANUAL, "steps": list(steps), **fields})
    execution_id = kernel.start("w", {"order": 4711}, tenant_id="acme")
    kernel.run_until_idle()
    return execution_id


def reasons(kernel: Kernel, execution_id: str) -> dict[str, WaitReason]:
    execution = see(kernel, execution_id)
    return {each.code: each for each in why_execution_waits(kernel, execution)}


def report(kernel: Kernel, *kinds: str, in_flight: int = 0, **about: Any) -> None:
    info = WorkerInfo("worker-7", "host", 7, None, None, kinds, 10, in_flight, **about)
    kernel.outbox.report(info, ActivityLog())


def test_waits_of_steps_name_what_must_come(kernel: Kernel, clock: FakeClock) -> None:
    """With the values that an event must have, who may decide, and the end of each wait."""
    kernel.add_workflow({"name": "child", "trigger": MANUAL, "steps": [{"id": "s", "sleep": "1d"}]})
    found = reasons(
        kernel,
        started(
            kernel,
            {"id": "paid", "wait_for": {
                "event": "payment", "match": {"order": "{{ event.payload.order }}"},
                "timeout": "3d"}},
            {"id": "told", "needs": [], "wait_for": {"signal": "go"}},
            {"id": "asked", "needs": [], "approval": {"title": "May we?", "by": ["ann"]}},
            {"id": "rests", "needs": [], "sleep": "2h"},
            {"id": "sub", "needs": [], "workflow": "child"},
        ),
    )  # fmt: skip
    assert set(found) == {"event", "signal", "approval", "time", "workflow"}
    assert found["event"].text == "Step 'paid' waits for the event 'payment' with order = 4711."
    assert found["event"].until == clock() + timedelta(days=3)
    assert found["signal"].text == "Step 'told' waits for the signal 'go'."
    assert found["approval"].text == "Step 'asked' asks ann: May we?"
    assert found["time"].until == clock() + timedelta(hours=2)
    child = found["workflow"].details["execution_id"]
    assert kernel.executions.get(child) is not None
    assert found["workflow"].command == f"executions show {child}"


def test_a_retry_says_what_failed(kernel: Kernel, clock: FakeClock) -> None:
    """And when it is tried again."""
    retry = {"attempts": 3, "delay": "1h", "max_delay": "1h", "jitter": False}
    found = reasons(kernel, started(kernel, {"id": "a", "action": "shop.fail", "retry": retry}))
    assert set(found) == {"retry"}
    assert found["retry"].text == "Step 'a' failed once and is tried again: the shop is shut"
    assert found["retry"].until == clock() + timedelta(hours=1)


def test_a_few_steps_that_wait_for_their_time_stand_for_all(kernel: Kernel) -> None:
    """A page shows five of a thousand, and each of a few."""
    for number, shown in ((2, 2), (5, 5), (7, 5)):
        rests = [{"id": f"s{n}", "needs": [], "sleep": "2h"} for n in range(number)]
        kernel.add_workflow({"name": f"w{number}", "trigger": MANUAL, "steps": rests})
        execution = see(kernel, kernel.start(f"w{number}"))
        kernel.run_until_idle()
        execution = see(kernel, execution.id)
        found = why_execution_waits(kernel, execution)
        assert [each.code for each in found] == ["time"] * shown
        assert len({each.details["step"] for each in found}) == shown


def test_a_step_whose_sub_workflow_goes_on_has_not_failed(kernel: Kernel) -> None:
    """It has no error to be told, though it is due like a retry."""
    child = {"name": "child", "trigger": MANUAL, "steps": [{"id": "s", "action": "shop.fail"}]}
    kernel.add_workflow(child)
    parent = started(kernel, {"id": "sub", "workflow": "child"})
    assert kernel.executions.resume(parent)
    execution = see(kernel, parent)
    assert [(run.step_id, run.error) for run in execution.steps] == [("sub", None)]
    assert "retry" not in reasons(kernel, parent)


def test_behind_a_concurrency_key_stands_who_has_the_place(kernel: Kernel) -> None:
    """Not an ordering key, which it doesn't have, and not PENDING alone."""
    one = {"limit": 1, "key": "{{ event.payload.order }}"}
    first = started(kernel, {"id": "a", "sleep": "1d"}, concurrency=one)
    behind = [kernel.start("w", {"order": 4711}, tenant_id="acme") for _ in range(2)]
    other = kernel.start("w", {"order": 4711}, tenant_id="other")
    kernel.run_until_idle()
    for each in behind:
        found = reasons(kernel, each)
        assert set(found) == {"concurrency"}
        (holder,) = found["concurrency"].details["holders"]
        assert holder["execution"] == first
        assert found["concurrency"].details["waiting"] == 2
        assert f"by the execution {first}. In line for a place: 2." in found["concurrency"].text
    assert set(reasons(kernel, other)) == {"time"}  # another tenant's key is another key


def test_a_start_that_is_put_off_names_the_field_that_does_so(
    kernel: Kernel, clock: FakeClock
) -> None:
    """A rate's turn, and the quiet that a debounce waits for; a delay is a time alone."""
    fields: dict[str, dict[str, Any]] = {
        "rate_limit": {"limit": 1, "per": "1h"}, "debounce": {"for": "5m"}, "delay": {},
    }  # fmt: skip
    found = {}
    for name, value in fields.items():
        more = {name: value} if value else {}
        kernel.add_workflow(
            {"name": name, "trigger": MANUAL, "steps": [{"id": "a", "sleep": "1d"}], **more}
        )
        ids = [kernel.start(name, delay=0 if value else 60) for _ in range(2)]
        kernel.run_until_idle()
        found[name] = reasons(kernel, ids[-1])
    assert [list(each) for each in found.values()] == [["rate_limit"], ["debounce"], ["time"]]
    rate, debounce = found["rate_limit"]["rate_limit"], found["debounce"]["debounce"]
    assert rate.text == "The workflow 'rate_limit' begins at most 1 in 1h."
    assert rate.until == clock() + timedelta(hours=1)
    assert debounce.text == "It begins once no other event has come for 5m."
    assert debounce.until == clock() + timedelta(minutes=5)


def test_an_ordering_key_names_what_goes_before(kernel: Kernel) -> None:
    """The first of the line is not behind anybody."""
    first, second = kernel.outbox.enqueue_many(
        [NewItem("mail", n, ordering_key="ann") for n in range(2)]
    )
    report(kernel, "mail")
    item = kernel.outbox.claim_batch("worker-7", limit=1)
    assert [each.id for each in item] == [first]
    waiting = kernel.outbox.get(second)
    assert waiting is not None
    if waiting.waiting_for == "key":
        (found,) = why_item_waits(kernel, waiting)
        assert found.code == "ordering"
        assert [each["item"] for each in found.details["holders"]] == [first]
    running = kernel.outbox.get(first)
    assert running is not None
    (found,) = why_item_waits(kernel, running)
    assert (found.code, found.details["worker"]) == ("running", "worker-7")


PAUSED: dict[str, Callable[[Kernel, str], object]] = {
    "paused": lambda kernel, one: kernel.executions.pause(one),
    "workflow_paused": lambda kernel, one: kernel.workflows.pause("w", "the bank is shut"),
    "kind_paused": lambda kernel, one: kernel.outbox.pause("automate.advance", "an upgrade"),
}


@pytest.mark.parametrize("code", PAUSED)
def test_pauses_say_who_and_why(kernel: Kernel, code: str) -> None:
    """Of the execution, of its workflow, of all executions."""
    kernel.add_workflow({"name": "w", "trigger": MANUAL, "steps": [{"id": "a", "sleep": "1s"}]})
    execution_id = kernel.start("w")
    report(kernel, "automate.*")
    PAUSED[code](kernel, execution_id)
    found = reasons(kernel, execution_id)
    assert code in found
    assert "worker" not in found
    if code != "paused":
        assert ("the bank is shut" in found[code].text) or ("an upgrade" in found[code].text)


def test_due_work_says_whether_anybody_takes_it(kernel: Kernel) -> None:
    """No worker, one of other kinds, one that is lost, one that has its hands full."""
    item_id = kernel.outbox.enqueue("mail.send")

    def code() -> str:
        item = kernel.outbox.get(item_id)
        assert item is not None
        (found,) = why_item_waits(kernel, item)
        return found.code if "hands full" not in found.text else "full"

    assert code() == "no_worker"
    report(kernel, "other")
    assert code() == "no_worker"
    report(kernel, "mail.send", stopping=True)
    assert code() == "no_worker"
    report(kernel, "mail.*", in_flight=10)
    assert code() == "full"
    report(kernel, "mail.*", in_flight=3)
    assert code() == "worker"
    kernel.outbox.limit("mail.send", concurrency=1)
    assert code() == "limit"


def test_what_is_not_due_waits_for_its_time_alone(kernel: Kernel, clock: FakeClock) -> None:
    """Whatever may hold it up by then."""
    item_id = kernel.outbox.enqueue("mail", run_at=clock() + timedelta(hours=1))
    kernel.outbox.pause("mail", "an upgrade")
    item = kernel.outbox.get(item_id)
    assert item is not None
    (found,) = why_item_waits(kernel, item)
    assert (found.code, found.until) == ("time", clock() + timedelta(hours=1))


def test_a_lease_that_is_over(kernel: Kernel, clock: FakeClock) -> None:
    """The worker that has it may be dead."""
    kernel.outbox.enqueue("mail")
    (item,) = kernel.outbox.claim_batch("worker-7")
    clock.advance(10_000)
    found = kernel.outbox.get(item.id)
    assert found is not None
    assert [each.code for each in why_item_waits(kernel, found)] == ["lease_over"]


def test_what_has_ended_does_not_wait(kernel: Kernel) -> None:
    """Neither an execution nor an item."""
    execution_id = started(kernel, {"id": "a", "sleep": "0s"})
    assert reasons(kernel, execution_id) == {}
    for item in kernel.outbox.find():
        assert why_item_waits(kernel, item) == []


def test_no_reason_shows_a_secret(kernel: Kernel) -> None:
    """Neither of a match nor of an error, though somebody put it there."""
    kernel.secrets.get("TOKEN")
    found = reasons(
        kernel,
        started(kernel, {"id": "a", "wait_for": {
            "event": "e", "match": {"password": "{{ event.payload.order }}"}}}),
    )  # fmt: skip
    assert "4711" not in str(found["event"])


def test_what_a_worker_handed_over_says_what_it_lacked(kernel: Kernel, clock: FakeClock) -> None:
    """Another version of the application knows the action."""
    kernel.add_workflow(
        {"name": "w", "trigger": MANUAL, "steps": [{"id": "a", "action": "shop.unknown"}]}
    )
    execution_id = kernel.start("w")
    kernel.run_until_idle()
    found = reasons(kernel, execution_id)
    assert set(found) == {"handed_over"}
    assert "shop.unknown" in found["handed_over"].text
    assert found["handed_over"].details["times"] == 1


def test_a_step_that_waits_beside_it_hides_no_handover(kernel: Kernel) -> None:
    """What no worker can do comes first: the signal alone would not help."""
    execution_id = started(
        kernel,
        {"id": "told", "wait_for": {"signal": "go"}},
        {"id": "a", "needs": [], "action": "shop.unknown"},
    )
    assert list(reasons(kernel, execution_id)) == ["handed_over", "signal"]


def test_an_execution_whose_item_is_gone_has_no_reason(kernel: Kernel) -> None:
    """A page shows it all the same; a worker repairs it later."""
    kernel.add_workflow({"name": "w", "trigger": MANUAL, "steps": [{"id": "a", "sleep": "1d"}]})
    execution_id = kernel.start("w")
    with kernel.storage.begin() as rows:
        rows.delete(OUTBOX, [Where("status", "eq", "PENDING")])
    assert reasons(kernel, execution_id) == {}
