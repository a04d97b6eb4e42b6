"""An operator's command whose transaction a database undoes after a deadlock is made again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from workers import fire_due
from automate_kernel import AutomateError, ErrorCodes, Kernel, signals
from automate_kernel.outbox import ItemStatus
from automate_kernel.storage import Storage
from automate_kernel.storage.errors import DeadlockError
from automate_kernel.storage.tables import PAUSE
from automate_testing.clock import FakeClock
from defined import define

pytest.importorskip("cronsim")


class Unlucky:
    """A storage that undoes each transaction of its own once, while it is told to."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.undoes = False
        self.undone = 0
        self._spared = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    @contextmanager
    def begin(self, transaction: Any = None, *, atomic: bool = True, **more: Any) -> Iterator[Any]:
        own = atomic and not self._storage.joins(transaction)
        with self._storage.begin(transaction, atomic=atomic, **more) as rows:
            yield rows
            if own and self.undoes:
                self._spared = not self._spared
                if self._spared:
                    self.undone += 1
                    raise DeadlockError("undone for another one", retryable=True)


@pytest.fixture
def unlucky(clocked_storage: Storage) -> Unlucky:
    return Unlucky(clocked_storage)


@pytest.fixture
def kernel(unlucky: Unlucky) -> Iterator[Kernel]:
    storage: Any = unlucky
    with Kernel(storage, discover=False, secrets={}, lease_seconds=30.0) as kernel:

        @kernel.action("do.it")
        def do_it(fails: bool = False) -> int:
            if fails:
                raise AutomateError(ErrorCodes.INVALID_ARGUMENT, "refused")
            return 7

        @kernel.handler("job")
        def job(item: Any) -> None:
            if item.payload == "fails":
                raise AutomateError(ErrorCodes.INVALID_ARGUMENT, "refused")

        fails = {"fails": "{{ event.payload.fails }}"}
        steps = [{"id": "a", "action": "do.it"}, {"id": "b", "action": "do.it", "input": fails}]
        kernel.add_workflow({"name": "w", "trigger": {"type": "manual"}, "steps": steps})
        define(kernel, {"id": "ok", "approval": {"title": "Go on?"}}, name="asking")
        kernel.add_workflow({
            "name": "clean", "trigger": {"type": "manual"},
            "steps": [{"id": "s", "sleep": "1h"}], "finally": [{"id": "f", "action": "do.it"}],
        })  # fmt: skip
        trigger = {"type": "schedule", "every": "1h", "overlap": "skip"}
        kernel.add_workflow({"name": "hourly", "trigger": trigger, "steps": steps[:1]})
        fire_due(kernel)
        yield kernel


class Scene:
    """What an operator works on: by name the ids of executions and items."""

    def __init__(self, kernel: Kernel, unlucky: Unlucky, clock: FakeClock) -> None:
        self.kernel, self.unlucky, self.clock = kernel, unlucky, clock
        self.failed = kernel.start("w", {"fails": True})
        self.asking = kernel.start("asking")
        self.cleans = kernel.start("clean")
        self.bad_job = kernel.outbox.enqueue("job", "fails")
        kernel.run_until_idle()
        clock.advance(60)
        self.waits = kernel.start("w", {"fails": False})
        self.job = kernel.outbox.enqueue("job")

    @contextmanager
    def luck(self) -> Iterator[None]:
        """What workers do anew by themselves is not undone in this block."""
        self.unlucky.undoes, undoes = False, self.unlucky.undoes
        yield
        self.unlucky.undoes = undoes

    def work(self) -> None:
        with self.luck():
            self.kernel.run_until_idle()

    def status(self, execution_id: str) -> str:
        execution = self.kernel.executions.get(execution_id)
        return "" if execution is None else execution.status.value

    def item(self, item_id: str) -> ItemStatus | None:
        item = self.kernel.outbox.get(item_id)
        return None if item is None else item.status

    def children(self, workflow: str) -> int:
        return len(self.kernel.executions.find(workflow=workflow))


Command = Callable[[Scene], bool]


def _kinds_pause(scene: Scene) -> bool:
    scene.kernel.outbox.pause("job")
    return scene.kernel.outbox.stats().paused == ("job",)


def _kinds_resume(scene: Scene) -> bool:
    outbox = scene.kernel.outbox
    scene.kernel.outbox.pause("job")
    scene.work()
    outbox.resume("job")
    scene.work()
    return scene.item(scene.job) is ItemStatus.COMPLETED


def _limit(scene: Scene) -> bool:
    scene.kernel.outbox.limit("job", concurrency=1)
    return [each.kind for each in scene.kernel.outbox.limits()] == ["job"]


def _requeue(scene: Scene) -> bool:
    again = scene.kernel.outbox.requeue([scene.bad_job])
    return again == 1 and scene.item(scene.bad_job) is ItemStatus.PENDING


def _reschedule(scene: Scene) -> bool:
    return scene.kernel.outbox.reschedule([scene.job], delay=60) == 1


def _cancel_item(scene: Scene) -> bool:
    cancelled = scene.kernel.outbox.cancel([scene.job])
    return cancelled == 1 and scene.item(scene.job) is ItemStatus.CANCELLED


def _discard(scene: Scene) -> bool:
    discarded = scene.kernel.outbox.discard([scene.bad_job])
    return discarded == 1 and scene.item(scene.bad_job) is None


def _reap(scene: Scene) -> bool:
    with scene.luck():
        (item,) = scene.kernel.outbox.claim_batch("dead", kinds=["job"])
    scene.clock.advance(31)
    reaped = scene.kernel.outbox.reap()
    return [each.id for each in reaped.retried] == [item.id]


def _purge_items(scene: Scene) -> bool:
    scene.kernel.outbox.purge(older_than_seconds=30)
    return scene.item(scene.bad_job) is None


def _pause(scene: Scene) -> bool:
    paused = scene.kernel.executions.pause(scene.waits)
    return paused and scene.status(scene.waits) == "PAUSED"


def _unpause(scene: Scene) -> bool:
    scene.kernel.executions.pause(scene.waits)
    unpaused = scene.kernel.executions.unpause(scene.waits)
    return unpaused and scene.status(scene.waits) == "PENDING"


def _cancel(scene: Scene) -> bool:
    cancelled = scene.kernel.executions.cancel(scene.waits)
    return cancelled and scene.status(scene.waits) == "CANCELLED"


def _cancel_what_cleans_up(scene: Scene) -> bool:
    cancelled = scene.kernel.executions.cancel(scene.cleans)
    return cancelled and scene.status(scene.cleans) == "CANCELLING"


def _resume(scene: Scene) -> bool:
    resumed = scene.kernel.executions.resume(scene.failed)
    return resumed and scene.status(scene.failed) == "PENDING"


def _resume_matching(scene: Scene) -> bool:
    resumed = scene.kernel.executions.resume_matching(workflow="w", per_second=1)
    return resumed == 1 and scene.status(scene.failed) == "PENDING"


def _retry_step(scene: Scene) -> bool:
    retried = scene.kernel.executions.retry_step(scene.failed, "b")
    return retried and scene.status(scene.failed) == "PENDING"


def _fork(scene: Scene) -> bool:
    copy = scene.kernel.executions.fork(scene.failed, "b", payload={"fails": False})
    scene.work()
    return scene.status(copy) == "COMPLETED" and scene.children("w") == 3


def _purge(scene: Scene) -> bool:
    purged = scene.kernel.executions.purge(older_than_seconds=30)
    return purged == 1 and scene.kernel.executions.get(scene.failed) is None


def _pause_workflow(scene: Scene) -> bool:
    workflows = scene.kernel.workflows
    return workflows.pause("w") and [each.workflow for each in workflows.paused()] == ["w"]


def _resume_workflow(scene: Scene) -> bool:
    workflows = scene.kernel.workflows
    return workflows.pause("w") and workflows.resume("w") and workflows.paused() == []


def _approve(scene: Scene) -> bool:
    scene.kernel.approvals.approve(scene.asking, "ok", by="ann")
    scene.work()
    return scene.status(scene.asking) == "COMPLETED"


def _pause_schedule(scene: Scene) -> bool:
    return scene.kernel.schedules.pause("hourly") == 1


def _resume_schedule(scene: Scene) -> bool:
    schedules = scene.kernel.schedules
    return schedules.pause("hourly") == 1 and schedules.resume("hourly") == 1


def _trigger_schedule(scene: Scene) -> bool:
    scene.kernel.schedules.trigger("hourly")
    return scene.children("hourly") == 1


def _backfill(scene: Scene) -> bool:
    end = scene.clock()
    begun = scene.kernel.schedules.backfill("hourly", end - timedelta(hours=2), end)
    return begun == scene.children("hourly") == 3 - bool(end.minute)


def _tick(scene: Scene) -> bool:
    scene.clock.advance(3600)
    return fire_due(scene.kernel) == scene.children("hourly") == 1


def _run_until_idle(scene: Scene) -> bool:
    """A cron job's worker beside others."""
    scene.kernel.run_until_idle()
    ended = scene.item(scene.job) is ItemStatus.COMPLETED
    return ended and scene.status(scene.waits) == "COMPLETED"


COMMANDS: list[Command] = [
    _kinds_pause, _kinds_resume, _limit, _requeue, _reschedule, _cancel_item, _discard,
    _reap, _purge_items, _pause, _unpause, _cancel, _cancel_what_cleans_up, _resume, _resume_matching,
    _retry_step, _fork, _purge, _pause_workflow, _resume_workflow, _approve, _pause_schedule,
    _resume_schedule, _trigger_schedule, _backfill, _tick, _run_until_idle,
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=lambda one: one.__name__[1:])
def test_a_command_that_loses_a_deadlock_is_made_again(
    command: Command, kernel: Kernel, unlucky: Unlucky, clock: FakeClock
) -> None:
    """Once, and the operator sees nothing of it."""
    scene = Scene(kernel, unlucky, clock)
    unlucky.undoes = True
    assert command(scene)
    assert unlucky.undone


def test_a_cancellation_that_is_made_again_is_announced_once(
    kernel: Kernel, unlucky: Unlucky, clock: FakeClock
) -> None:
    """Though the first try had noted it already."""
    told = list[str]()

    def hear(sender: Any, execution: Any, **_: Any) -> None:
        told.append(execution.id)

    scene = Scene(kernel, unlucky, clock)
    item = kernel.executions.get(scene.waits)
    assert item is not None
    signals.workflow_cancelled.connect(hear, sender=kernel)
    unlucky.undoes = True
    kernel.outbox.cancel([str(item.item_id)])
    unlucky.undoes = False
    kernel.run_until_idle()
    assert told == [scene.waits]


def test_a_database_that_always_undoes_is_told_of(kernel: Kernel, unlucky: Unlucky) -> None:
    """After ten tries, and nothing is left of them."""

    def lose(rows: Any) -> int:
        raise DeadlockError("undone for another one", retryable=True)

    begin = type(unlucky).begin

    @contextmanager
    def always(transaction: Any = None, *, atomic: bool = True) -> Iterator[Any]:
        with begin(unlucky, transaction, atomic=atomic) as rows:
            yield rows
            lose(rows)

    unlucky.begin = always  # type: ignore[method-assign]
    with pytest.raises(DeadlockError):
        kernel.outbox.pause("job")
    del unlucky.begin  # type: ignore[attr-defined]
    with unlucky.begin() as rows:
        assert rows.select(PAUSE) == []
