"""What the doctor says of work that nobody does, and of workers that can't begin."""

from __future__ import annotations

import threading

import pytest
from automate_kernel import Kernel, StorageError
from automate_kernel.monitoring.diagnosis import Finding, worker_findings, workflow_findings
from automate_kernel.outbox import NewItem, RowsOutboxStore, WorkerInfo
from automate_kernel.worker.reporter import ActivityLog
from automate_kernel.storage import MemoryStorage
from automate_kernel.http.worker_ports import StartFailures, reporting_start_failures
from automate_testing.clock import FakeClock


@pytest.fixture
def outbox(clock: FakeClock) -> RowsOutboxStore:
    return RowsOutboxStore(MemoryStorage(clock))


def report(outbox: RowsOutboxStore, name: str, *kinds: str, problem: str | None = None) -> None:
    """A worker that tells of itself."""
    slots = 0 if problem else 10
    outbox.report(
        WorkerInfo(name, "host-7", 7, None, None, kinds, slots, 0, problem=problem), ActivityLog()
    )


def failures(outbox: RowsOutboxStore, **options: float) -> list[Finding]:
    """What the doctor fails for."""
    found = worker_findings(outbox, program="automate", **options)
    return [each for each in found if each.state == "fail"]


def test_work_that_is_due_and_no_worker(outbox: RowsOutboxStore, clock: FakeClock) -> None:
    """Is a failure after a minute, with what to do; sooner or with a worker it is none."""
    outbox.enqueue_many(
        [NewItem("mail"), NewItem("mail"), NewItem("sms"), NewItem("later", delay=900)]
    )
    assert failures(outbox) == []
    clock.advance(180)
    (found,) = failures(outbox)
    assert found.text == "3 items waiting, the oldest due for 180 s, and no worker runs"
    assert found.remedy == "start one: automate worker"
    assert failures(outbox, idle_seconds=600) == []
    report(outbox, "one", "mail", "sms", "later")
    assert failures(outbox) == []


def test_a_kind_that_no_worker_works_on(outbox: RowsOutboxStore, clock: FakeClock) -> None:
    """Though others run: they have other handlers."""
    outbox.enqueue_many([NewItem("mail"), NewItem("sms")])
    clock.advance(100)
    report(outbox, "one", "mail")
    (found,) = failures(outbox)
    assert found.text.startswith("1 item waiting")
    assert found.text.endswith("none of 1 worker works on their kind: sms")


def test_a_delayed_item_that_nobody_makes_ready(outbox: RowsOutboxStore, clock: FakeClock) -> None:
    """It is due like any other, once its time has come."""
    outbox.enqueue("mail", delay=50)
    clock.advance(100)
    assert failures(outbox) == []
    clock.advance(20)
    assert len(failures(outbox)) == 1


def test_a_paused_kind_is_meant_to_wait(outbox: RowsOutboxStore, clock: FakeClock) -> None:
    """That it is paused is told, as ever, and is no failure."""
    outbox.pause("mail")
    outbox.enqueue("mail")
    clock.advance(600)
    assert failures(outbox) == []


def test_a_lost_worker_works_on_nothing(outbox: RowsOutboxStore, clock: FakeClock) -> None:
    """It was killed, or is cut off."""
    report(outbox, "one", "mail")
    outbox.enqueue("mail")
    clock.advance(120)
    (found,) = failures(outbox)
    assert "no worker runs" in found.text


def test_a_worker_that_cant_begin(outbox: RowsOutboxStore, clock: FakeClock) -> None:
    """Is told with its reason as long as it is tried; it is no worker that works."""
    outbox.enqueue("mail")
    report(outbox, "starter", problem="ended with exit code 1, 4 times in a row")
    (found,) = failures(outbox)
    assert found.text == "a worker on host-7 can't begin: ended with exit code 1, 4 times in a row"
    assert "log" in str(found.remedy)
    clock.advance(120)
    report(outbox, "starter", problem="ended with exit code 1, 6 times in a row")
    again, idle = failures(outbox)
    assert again.text.endswith("6 times in a row")
    assert idle.text.endswith("no worker runs")
    clock.advance(120)  # nobody tries any more
    (found,) = failures(outbox)
    assert "no worker runs" in found.text
    report(outbox, "one", "mail")
    assert failures(outbox) == []


class Seconds:
    """A monotonic clock that stands still."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_processes_that_end_again_and_again(outbox: RowsOutboxStore, clock: FakeClock) -> None:
    """Their parent tells of them, in between too, and takes it back once they run."""
    failing: list[str] = []
    seconds = Seconds()
    troubles = StartFailures(outbox, lambda: failing, seconds)

    def wait(duration: float) -> None:
        for _ in range(int(duration)):
            seconds.now += 1
            clock.advance(1)
            troubles.look()

    wait(5)
    assert outbox.workers() == []
    failing[:] = ["a worker process ended with exit code 1, 2 times in a row"]
    wait(1)
    (worker,) = outbox.workers()
    assert worker.problem == failing[0]
    assert (worker.alive, worker.slots) == (False, 0)
    failing[:] = ["a worker process ended with exit code 1, 3 times in a row"]
    wait(1)
    assert [each.problem for each in outbox.workers()] == failing
    failing.clear()  # it is started just now
    wait(15)
    assert len(failures(outbox)) == 1
    wait(15)
    assert outbox.workers() == []


def test_an_outbox_that_cant_be_told(
    outbox: RowsOutboxStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keeps nobody from watching over the processes."""

    def down(*args: object) -> None:
        raise StorageError("the database is down")

    monkeypatch.setattr(outbox, "report", down)
    monkeypatch.setattr("automate_kernel.http.worker_ports._LOOK_SECONDS", 0.001)
    looked = threading.Event()

    def failing() -> list[str]:
        looked.set()
        return ["it ended"]

    with reporting_start_failures(outbox, failing):
        assert looked.wait(10)


def warnings(outbox: RowsOutboxStore) -> list[Finding]:
    found = worker_findings(outbox, program="automate")
    return [each for each in found if each.state == "warn"]


def test_work_that_is_handed_over() -> None:
    """By its reason, with its number and since when."""
    kernel = Kernel(MemoryStorage(FakeClock()), discover=False, secrets={})
    steps = [{"id": "a", "action": "mail.send2"}]
    kernel.add_workflow({"name": "w", "trigger": {"type": "manual"}, "steps": steps})
    for _ in range(3):
        kernel.start("w")
    kernel.run_until_idle()
    (found,) = warnings(kernel.outbox)  # type: ignore[arg-type]
    assert found.text.startswith("3 items handed over since 2026-01-01 00:00 UTC: worker ")
    assert "doesn't know the action 'mail.send2'" in found.text
    assert found.remedy == (
        "start a worker that knows it: automate worker; or cancel the executions"
    )


def test_workers_that_know_different_workflows(outbox: RowsOutboxStore) -> None:
    for name, version, workflows in (("a", "1", ("x",)), ("b", "1", ("x",)), ("c", "2", ("y",))):
        kinds = ("automate.event",)
        about = WorkerInfo(
            name, "host", 7, None, None, kinds, 10, version=version, workflows=workflows
        )
        outbox.report(about, ActivityLog())
    (found,) = warnings(outbox)
    assert found.text == "2 workers with other workflows leave events to c of version 2: a, b"


@pytest.mark.parametrize(
    "given", ["{{ approval.approve_link }}", "{{ approval['link'] }}", "{{ approval }}"]
)
def test_a_notice_whose_links_lead_nowhere(given: str) -> None:
    """It would fail once somebody is asked; without a link, or with an address, it is none."""
    asked = {
        "name": "asks", "trigger": {"type": "manual"},
        "steps": [{"id": "a", "approval": {
            "title": "May we?", "by": ["ann"],
            "notify": {"action": "chat.say", "input": {"text": given}}}}],
    }  # fmt: skip
    keys = {"signing_keys": ["k" * 32]}
    for options, fails in (
        ({}, True),
        (keys, True),
        (keys | {"public_url": "https://a.example"}, False),
    ):
        kernel = Kernel(discover=False, **options)
        kernel.action("chat.say")(_say)
        kernel.add_workflow(asked)
        found = [each for each in workflow_findings(kernel) if each.state == "fail"]
        assert bool(found) is fails
        if found:
            assert "steps.a.approval.notify reads a link" in found[0].text
            assert found[0].remedy == "set public_url and signing_keys"


def _say(text: str) -> None:
    """Say it."""
