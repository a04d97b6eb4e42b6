"""While workers know different workflows, one that knows the newest decides what events start."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from waiting import until
from workers import working
from automate_kernel import Kernel
from automate_kernel.base.errors import ConfigError, StorageError
from automate_kernel.outbox import WorkerInfo
from automate_kernel.storage import MemoryStorage
from automate_kernel.worker.periodic import PeriodicTask
from automate_kernel.worker.reporter import ActivityLog
from automate_kernel.workflows.steer.leader_election import (
    EVENT,
    LeaderElection,
    followers,
    leader,
    version_key,
)
from automate_kernel.workflows.execution import ExecutionStatus
from hypothesis import given
from hypothesis import strategies as st

START = datetime(2026, 1, 1, tzinfo=timezone.utc)


def worker(
    name: str, *workflows: str, version: str | None = None, at: int = 0, **more: Any
) -> WorkerInfo:
    started = START + timedelta(seconds=at)
    about = {"kinds": (EVENT,), "version": version, "workflows": workflows, **more}
    return WorkerInfo(name, "host", 1, started, started, **about)


def lead(*workers: WorkerInfo) -> str | None:
    first = leader(workers)
    return first and first.id


# -- the rule --------------------------------------------------------------------------------------


def test_the_last_started_leads() -> None:
    assert lead(worker("old", "a"), worker("new", "b", at=9)) == "new"
    assert lead() is None


def test_a_later_version_leads_whenever_it_was_started() -> None:
    """An old worker that is started again is an old worker."""
    again, new = worker("again", "a", version="1.9", at=9), worker("new", "b", version="1.10")
    assert lead(again, new) == "new"
    assert lead(worker("none", "a", at=9), new) == "new"


def test_who_knows_less_does_not_lead() -> None:
    """A worker for some of the workflows, started late, takes no event from those with all."""
    everything = worker("all", "a", "b")
    some = worker("some", "a", at=9)
    assert lead(everything, some) == "all"
    assert [one.id for one in followers([everything, some])] == ["some"]


def test_a_later_version_may_know_less() -> None:
    """A workflow was taken out, and both decide: who knows more too."""
    old, new = worker("old", "a", "b", version="1"), worker("new", "a", version="2")
    assert lead(old, new) == "new"
    assert followers([old, new]) == []


@pytest.mark.parametrize(
    "gone", [{"lost": True}, {"stopping": True}, {"problem": "why"}, {"kinds": ("other",)}]
)
def test_who_does_not_work_on_events_does_not_lead(gone: Any) -> None:
    assert lead(worker("old", "a"), worker("new", "b", at=9, **gone)) == "old"


WORKERS = st.lists(
    st.builds(
        lambda n, known, version, at, alive: worker(
            str(n), *sorted(known), version=version, at=at, lost=not alive
        ),
        st.integers(0, 10**6),
        st.frozensets(st.sampled_from("abcd")),
        st.sampled_from([None, "1", "2"]),
        st.integers(0, 5),
        st.booleans(),
    ),
    unique_by=lambda one: one.id,
)


@given(WORKERS)
def test_somebody_decides_and_only_who_knows_as_much(workers: list[WorkerInfo]) -> None:
    """Events never wait for nobody, and the leader does not depend on the order of the list."""
    alive = [one for one in workers if one.alive]
    first = leader(workers)
    assert (first is None) == (not alive)
    assert leader(workers[::-1]) == first
    left = followers(workers)
    assert first not in left
    for one in alive:
        knows_all = first is not None and set(first.workflows) <= set(one.workflows)
        assert (one not in left) == knows_all


@given(st.text(), st.text())
def test_versions_have_an_order(one: str, other: str) -> None:
    assert (version_key(one) < version_key(other)) != (version_key(one) >= version_key(other))


def test_numbers_in_versions_are_numbers() -> None:
    told = ["", "1.9", "1.10", "2.beta", "2.0", "2026.11.2", "2026.11.10"]
    assert sorted(told, key=version_key) == told
    assert version_key(None) == version_key("")


# -- looking ---------------------------------------------------------------------------------------


def test_a_worker_that_has_not_reported_yet_is_the_newest() -> None:
    workers = [worker("old", "a", at=5)]
    new = LeaderElection(lambda: workers, lambda: ("b",))
    new.look()
    assert not new.leaves_events
    old = LeaderElection(lambda: [*workers, worker("new", "b", at=9)], lambda: ("a",))
    old.look()
    assert old.leaves_events
    assert old.leader == "new"


def test_the_report_keeps_what_is_known() -> None:
    kernel = Kernel(discover=False, secrets={})
    about = worker("one", "a", "b", version="1.2 beta")
    kernel.outbox.report(about, ActivityLog())
    (found,) = kernel.outbox.workers()
    assert (found.kinds, found.version, found.workflows) == ((EVENT,), "1.2 beta", ("a", "b"))
    kernel.outbox.report(replace(about, workflows=("a", "b", "c")), ActivityLog())
    assert kernel.outbox.workers()[0].workflows == ("a", "b", "c")


@pytest.mark.parametrize("wrong", ["", "x" * 300, "a\nb", 5])
def test_a_version_is_text(wrong: Any) -> None:
    with pytest.raises(ConfigError):
        Kernel(discover=False, version=wrong)


def test_marks_follow_names_and_triggers() -> None:
    """A changed step changes nothing here: the same events start it."""

    def marks(*workflows: dict[str, Any]) -> tuple[str, ...]:
        kernel = Kernel(discover=False, secrets={})
        for one in workflows:
            kernel.add_workflow({"steps": [{"id": "a", "action": "x"}], **one})
        return kernel.workflows.marks()

    on = {"type": "event", "event": "e"}
    first = marks({"name": "w", "trigger": on})
    assert len(first) == 1
    assert marks({"name": "w", "trigger": on, "steps": [{"id": "b", "action": "y"}]}) == first
    assert marks({"name": "v", "trigger": on}) != first
    assert marks({"name": "w", "trigger": {**on, "event": "f"}}) != first
    assert marks({"name": "w", "trigger": {**on, "if": "{{ event.payload.n > 1 }}"}}) != first
    assert marks({"name": "w", "trigger": {"type": "manual"}}) == ()
    both = marks({"name": "w", "trigger": on}, {"name": "v", "trigger": on})
    assert len(both) == 2
    assert set(first) < set(both)


# -- workers ---------------------------------------------------------------------------------------


def kernel_on(storage: MemoryStorage, *events: str, **options: Any) -> Kernel:
    kernel = Kernel(storage, discover=False, secrets={}, **options)
    kernel.action("work")(lambda: None)
    for event in events:
        kernel.add_workflow(
            {
                "name": f"on-{event}",
                "trigger": {"type": "event", "event": event},
                "steps": [{"id": "a", "action": "work"}],
            }
        )
    return kernel


def have_looked(*kernels: Kernel) -> None:
    """Wait until the workers of *kernels* have looked who else works, from now on."""
    now = time.monotonic()
    until(lambda: all((each._leader_election._looked_at or 0.0) > now for each in kernels))


def test_an_old_worker_leaves_events_while_a_new_one_lives() -> None:
    """The event waits for the new one; once that has gone, the old one decides again."""
    storage = MemoryStorage()
    old, new = kernel_on(storage, "a"), kernel_on(storage, "a", "b")
    old.handler("job")(lambda item: None)
    # It lives, and is busy.
    marks = new.workflows.marks()
    new.outbox.report(worker("new", *marks, kinds=tuple(new.kinds)), ActivityLog())
    with working(old):
        event = old.emit("b")
        have_looked(old)
        job = old.outbox.enqueue("job")
        until(lambda: status(old, job) == "COMPLETED")
        assert status(old, event) == "PENDING"
        with working(new):
            until(lambda: new.executions.find(workflow="on-b", status="COMPLETED"))
        new.outbox.remove_worker("new")
        old.emit("a")
        until(lambda: old.executions.find(workflow="on-a", status="COMPLETED"))


def test_workers_that_know_the_same_share_events() -> None:
    storage = MemoryStorage()
    one, other = kernel_on(storage, "a"), kernel_on(storage, "a")
    with working(one, worker_id="one"), working(other, worker_id="other"):
        until(lambda: len(one.outbox.workers()) == 2)
        have_looked(one, other)
        assert not one._leader_election.leaves_events
        assert not other._leader_election.leaves_events
        one.emit("a")
        until(lambda: one.executions.find(status=ExecutionStatus.COMPLETED))


def test_a_worker_that_could_not_look_looks_before_it_decides() -> None:
    """It was frozen, or a purge held it up, while a new one began."""
    storage, held, over = MemoryStorage(), threading.Event(), threading.Event()
    old, new = kernel_on(storage, "a"), kernel_on(storage, "a", "b")
    old.handler("job")(lambda item: None)
    seconds = [0.0]
    old._leader_election.clock = lambda: seconds[0]

    def hold_up() -> None:
        held.set()
        over.wait(20)

    with working(
        old, periodic_tasks=[PeriodicTask("slow", 60.0, hold_up, at_once=True, clock=True)]
    ):
        assert held.wait(20)
        marks = new.workflows.marks()
        new.outbox.report(worker("new", *marks, kinds=tuple(new.kinds)), ActivityLog())
        seconds[0] += 5
        event = old.emit("b")
        job = old.outbox.enqueue("job")
        until(lambda: status(old, job) == "COMPLETED")
        assert status(old, event) == "PENDING"
        over.set()
    with working(new):
        until(lambda: new.executions.find(workflow="on-b", status="COMPLETED"))


def test_who_can_not_look_leaves_events_for_this_time() -> None:
    """And decides again once it could, if nobody knows more."""
    seconds, away = [0.0], [False]

    def workers() -> list[WorkerInfo]:
        if away[0]:
            raise StorageError("the database is away", retryable=True)
        return []

    own = LeaderElection(workers, lambda: ["a"], clock=lambda: seconds[0])
    away[0] = True
    assert not own.leaves()  # no worker has begun to look
    away[0] = False
    own.look()
    away[0] = True
    assert not own.leaves()
    seconds[0] += 5
    assert own.leaves()
    away[0] = False
    assert not own.leaves()


def status(kernel: Kernel, item_id: str) -> str:
    item = kernel.outbox.get(item_id)
    return "" if item is None else item.status.value
