"""Schedules over a year, with overlaps, jitter, pauses and backfills, under several workers."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import example_counts
from functools import partial
import pytest
import sqlalchemy as sa
from workers import fire_due
from automate_kernel import signals
from automate_kernel.base.errors import AutomateError, ErrorCodes, WorkflowError
from automate_kernel.kernel import Kernel
from automate_kernel.storage import MemoryStorage
from automate_testing.clock import FakeClock
from automate_kernel.workflows import loads
from automate_kernel.workflows.decide.admission import SkippedError
from automate_sqlalchemy import SqlAlchemyStorage
from waiting import at_once

pytest.importorskip("cronsim")
UTC, BERLIN = timezone.utc, ZoneInfo("Europe/Berlin")
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
Open = Callable[..., Kernel]


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def open_kernel(request: pytest.FixtureRequest, clock: FakeClock) -> Iterator[Open]:
    """Opens kernels on the same data, each as a process of its own has it."""
    if request.param == "memory":
        storage: Any = MemoryStorage(clock)
    else:
        engine: sa.Engine = request.getfixturevalue(f"{request.param}_engine")
        storage = SqlAlchemyStorage(engine, clock=clock)
    opened: list[Kernel] = []

    def open_kernel(*triggers: dict[str, Any], **workflow: Any) -> Kernel:
        kernel = Kernel(storage, discover=False, secrets={})
        opened.append(kernel)
        kernel.action("do.it")(lambda: None)
        kernel.add_workflow(
            {"name": "w", "trigger": [{"type": "schedule", **each} for each in triggers],
             "steps": [{"id": "a", "action": "do.it"}], **workflow}
        )  # fmt: skip
        return kernel

    yield open_kernel
    for kernel in opened:
        kernel.close()


def fired(kernel: Kernel, limit: int = 5000) -> list[datetime]:
    """The times for which there are executions, in order."""
    found = kernel.executions.find(limit=limit)
    return sorted(datetime.fromisoformat(one.event.occurred_at or "") for one in found)


def statuses(kernel: Kernel) -> Counter[str]:
    return Counter(each.status.value for each in kernel.executions.find(limit=5000))


# -- a year ----------------------------------------------------------------------------------------


def quarters(year: int) -> Iterator[datetime]:
    """Each quarter of an hour of a year in Berlin."""
    moment, end = datetime(year - 1, 12, 31, 23, tzinfo=UTC), datetime(year, 12, 31, 23, tzinfo=UTC)
    while moment < end:
        yield moment
        moment += timedelta(minutes=15)


def daily_times(year: int) -> list[datetime]:
    """Half past two of each day: after the gap in spring, the first of both in autumn."""
    found: dict[str, datetime] = {}
    for moment in quarters(year):
        local = moment.astimezone(BERLIN)
        if (local.hour, local.minute) == (2, 30) or (local.hour, local.minute) == (3, 0):
            found.setdefault(f"{local:%m-%d}", moment)
    return list(found.values())


def even_times(year: int) -> list[datetime]:
    """Each half hour from one to three, as often as the clock shows it."""
    shown = [(1, 0), (1, 30), (2, 0), (2, 30)]
    local = [(moment, moment.astimezone(BERLIN)) for moment in quarters(year)]
    return [moment for moment, each in local if (each.hour, each.minute) in shown]


LINES: dict[str, Callable[[int], list[datetime]]] = {
    "30 2 * * *": daily_times,
    "*/30 1-2 * * *": even_times,
}


def looks(year: int, seed: int) -> list[datetime]:
    """When workers look: from minutes to days apart, often around the changes of the clock."""
    chance, found = random.Random(seed), [BEGIN]
    changes = [datetime(year, 3, 29, 1, tzinfo=UTC), datetime(year, 10, 25, 1, tzinfo=UTC)]
    while found[-1] < datetime(year, 12, 31, tzinfo=UTC):
        near = any(abs(found[-1] - change) < timedelta(hours=30) for change in changes)
        step = chance.choice([10, 20, 45] if near else [25, 90, 600, 2000, 4500])
        at = found[-1] + timedelta(minutes=step)
        for change in changes:  # a long step does not pass over them
            if found[-1] < change - timedelta(hours=29) < at:
                at = change - timedelta(hours=29)
        found.append(at)
    return found


class Workers:
    """Three kernels that look at the same moment, each on a thread of its own."""

    def __init__(self, kernels: list[Kernel]) -> None:
        self._go, self._done = threading.Barrier(4), threading.Barrier(4)
        self._over, self.fires = False, 0
        self.errors: list[BaseException] = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._serve, args=(each,)) for each in kernels]
        for thread in self._threads:
            thread.start()

    def _serve(self, kernel: Kernel) -> None:
        while True:
            self._go.wait(60)
            if self._over:
                return
            try:
                count = fire_due(kernel)
            except BaseException as error:
                self.errors.append(error)
                count = 0
            with self._lock:
                self.fires += count
            self._done.wait(60)

    def look(self) -> int:
        """Let all look; return how many fires there were."""
        self.fires = 0
        self._go.wait(60)
        self._done.wait(60)
        assert not self.errors
        return self.fires

    def stop(self) -> None:
        self._over = True
        self._go.wait(60)
        for thread in self._threads:
            thread.join(60)


DAILY, EVEN = LINES
EACH = [
    ("memory", line, catch_up, overlap)
    for line in LINES
    for catch_up in (False, True)
    for overlap in ("allow", "skip", "queue")
]
# Nearly each value with each other once.
FEW = [("memory", DAILY, False, "allow"), ("memory", EVEN, True, "skip"),
       ("memory", EVEN, False, "queue")]  # fmt: skip
SERVER = [("postgresql", EVEN, False, "skip"), ("postgresql", DAILY, True, "allow")]


@pytest.mark.parametrize(
    ("open_kernel", "line", "catch_up", "overlap"),
    [*(EACH if example_counts.full_length else FEW), ("sqlite", DAILY, True, "queue"),
     *(SERVER if example_counts.full_length else [("postgresql", EVEN, True, "allow")])],
    indirect=["open_kernel"],
)  # fmt: skip
def test_a_year_of_cron_with_three_workers(
    open_kernel: Open, clock: FakeClock, line: str, catch_up: bool, overlap: str
) -> None:
    """Over two changes of the clock each time fires exactly once, as the policies say."""
    trigger = {"cron": line, "timezone": "Europe/Berlin", "catch_up": catch_up, "overlap": overlap}
    kernels = [open_kernel(trigger) for _ in range(3)]
    fire_due(kernels[0])
    workers, chance = Workers(kernels), random.Random(line)
    times, wanted = LINES[line](2026), list[datetime]()
    last, goes_on = BEGIN, False
    try:
        for now in looks(2026, seed=7)[1:]:
            clock.advance((now - last).total_seconds())
            due = [moment for moment in times if last < moment <= now]
            due = due if catch_up else due[-1:]
            assert workers.look() == len(due)
            begun = due if overlap != "skip" else due[:1] if not goes_on else []
            wanted += begun
            goes_on = goes_on or bool(begun)
            if chance.random() < 0.6:
                kernels[0].run_until_idle()
                goes_on = False
            last = now
    finally:
        workers.stop()
    kernels[0].run_until_idle()
    assert fired(kernels[0]) == wanted
    assert set(statuses(kernels[0])) == {"COMPLETED"}


def test_the_times_of_the_year() -> None:
    """The two lines differ where the clock changes: the model that the test above believes."""
    daily, even = daily_times(2026), even_times(2026)
    assert (len(daily), len(set(daily))) == (365, 365)
    # None of the two half hours that spring skips, and both that autumn repeats.
    assert len(even) == 365 * 4 - 2 + 2
    assert datetime(2026, 3, 29, 1, tzinfo=UTC) in daily
    assert datetime(2026, 10, 25, 0, 30, tzinfo=UTC) in daily


# -- overlap ---------------------------------------------------------------------------------------


def test_queued_times_run_one_after_another(open_kernel: Open, clock: FakeClock) -> None:
    """The next one begins when the one before has ended, also if that waits meanwhile."""
    kernel = open_kernel({"every": "10m", "overlap": "queue"})
    fire_due(kernel)
    for _ in range(3):
        clock.advance(600)
        fire_due(kernel)
    for _ in range(3):
        (item,) = kernel.outbox.claim_batch("worker", 10)
        kernel.outbox.snooze(item.id, "worker", 5)
        assert kernel.outbox.claim_batch("worker", 10) == []
        clock.advance(5)
        (again,) = kernel.outbox.claim_batch("worker", 10)
        assert again.id == item.id
        kernel.outbox.mark_success(item.id, "worker")


def test_a_skipped_time_is_announced(open_kernel: Open, clock: FakeClock) -> None:
    """The signal has the execution that goes on."""
    kernel, skipped = open_kernel({"every": "10m", "overlap": "skip"}), list[str]()

    def note(_: Kernel, workflow: Any, event: Any, execution_id: str) -> None:
        skipped.append(execution_id)

    fire_due(kernel)
    with signals.workflow_skipped.connected_to(note):
        for _ in range(3):
            clock.advance(600)
            assert fire_due(kernel) == 1
    (execution,) = kernel.executions.find()
    assert skipped == [execution.id] * 2


def test_overlap_beside_concurrency_is_refused() -> None:
    """Two rules for the same would contradict each other."""
    with pytest.raises(WorkflowError, match="overlap: skip means nothing beside concurrency"):
        loads(
            "{name: w, trigger: {type: schedule, every: 5m, overlap: skip}, concurrency: 1,"
            " steps: [{id: a, action: do.it}]}"
        )


def test_two_schedules_have_two_ids() -> None:
    """Else neither of them would be meant by it."""
    with pytest.raises(WorkflowError, match=r"two schedules have the id 'daily'.*rename one"):
        loads(
            "{name: w, trigger: [{type: schedule, id: daily, every: 5m}, {type: schedule, id:"
            " daily, every: 7m}], steps: [{id: a, action: do.it}]}"
        )


# -- jitter ----------------------------------------------------------------------------------------


def test_jitter_is_the_same_on_all_workers(open_kernel: Open, clock: FakeClock) -> None:
    """Each time begins a part of the jitter later, another part each time."""
    kernels = [open_kernel({"every": "1h", "jitter": "10m"}) for _ in range(2)]
    fire_due(kernels[0])
    for number in range(20):
        clock.advance(3600)
        fire_due(kernels[number % 2])
    items = {item.id: item.next_attempt_at for item in kernels[0].outbox.find(limit=100)}
    delays = []
    (schedule,) = kernels[1].schedules.find()
    for execution in kernels[0].executions.find():
        moment = datetime.fromisoformat(execution.event.occurred_at or "")
        delays.append(items[execution.item_id or ""] - moment)
        assert delays[-1] == schedule.jitter(moment)
    assert len(set(delays)) == 20
    assert all(timedelta() <= delay < timedelta(minutes=10) for delay in delays)
    assert max(delays) - min(delays) > timedelta(minutes=3)


# -- pause and resume ------------------------------------------------------------------------------


@pytest.mark.parametrize(("catch_up", "missed"), [(False, 0), (True, 5)])
def test_a_paused_schedule_fires_nothing(
    open_kernel: Open, clock: FakeClock, catch_up: bool, missed: int
) -> None:
    """Resumed, it makes up for what it missed only with catch_up; a second worker knows too."""
    kernel, other = (open_kernel({"every": "10m", "catch_up": catch_up}) for _ in range(2))
    fire_due(kernel)
    assert (kernel.schedules.pause("w"), other.schedules.pause("w")) == (1, 0)
    clock.advance(3000)
    assert fire_due(other) == 0
    (schedule,) = other.schedules.find("w")
    assert (schedule.paused_at, schedule.next_at) == (BEGIN, None)
    assert (other.schedules.resume("w"), kernel.schedules.resume("w")) == (1, 0)
    assert fire_due(kernel) == missed
    clock.advance(600)
    assert fire_due(kernel) == 1
    (schedule,) = other.schedules.find()
    assert schedule.next_at == clock() + timedelta(minutes=10)
    assert schedule.last_fired_at == clock()
    assert schedule.about == "every 10m"
    ids = [each.id for each in kernel.executions.find()]
    assert schedule.execution_id in ids


def test_a_pause_before_the_first_look(open_kernel: Open, clock: FakeClock) -> None:
    """It holds though no worker has seen the schedule yet."""
    kernel = open_kernel({"every": "10m"})
    assert kernel.schedules.pause("w") == 1
    clock.advance(3000)
    assert (fire_due(kernel), fire_due(kernel)) == (0, 0)


def test_one_of_two_schedules(open_kernel: Open, clock: FakeClock) -> None:
    """A number means one of a workflow's triggers."""
    kernel = open_kernel({"every": "10m"}, {"every": "1h"})
    fire_due(kernel)
    assert kernel.schedules.pause("w", number=0) == 1
    clock.advance(3600)
    assert fire_due(kernel) == 1
    assert [each.paused_at is None for each in kernel.schedules.find()] == [False, True]
    with pytest.raises(AutomateError, match="no schedule with the number 5") as raised:
        kernel.schedules.pause("w", number=5)
    assert raised.value.code is ErrorCodes.NOT_FOUND
    assert raised.value.hint == "it has 0 (every 10m), 1 (every 1h)"
    with pytest.raises(AutomateError, match="no schedule"):
        kernel.schedules.resume("w", tenant_id="another")


def test_fired_by_hand(open_kernel: Open) -> None:
    """It begins beside its own times, also while it is paused; overlap: skip holds."""
    kernel = open_kernel({"every": "10m", "overlap": "skip", "payload": {"n": 1}})
    kernel.schedules.pause("w")
    first = kernel.schedules.trigger("w")
    with pytest.raises(SkippedError):
        kernel.schedules.trigger("w")
    kernel.run_until_idle()
    execution = kernel.executions.get(first)
    assert execution is not None
    assert (execution.status, execution.event.payload) == ("COMPLETED", {"n": 1})
    two = open_kernel({"every": "10m"}, {"every": "1h"}, name="two")
    with pytest.raises(AutomateError, match=r"0 \(every 10m\), 1 \(every 1h\)") as raised:
        two.schedules.trigger("two")
    assert raised.value.code is ErrorCodes.INVALID_ARGUMENT


# -- backfill --------------------------------------------------------------------------------------


def test_a_backfill_makes_each_time_once(open_kernel: Open, clock: FakeClock) -> None:
    """Repeated, and over times that have fired, it makes nothing twice."""
    kernel = open_kernel({"every": "1h"})
    fire_due(kernel)
    clock.advance(3600)
    assert fire_due(kernel) == 1
    clock.advance(9 * 3600)
    assert fire_due(kernel) == 1  # the newest alone
    seen: list[int] = []
    end = clock()
    assert kernel.schedules.backfill("w", BEGIN, end, progress=seen.append) == 9
    assert seen == list(range(1, 12))
    assert kernel.schedules.backfill("w", BEGIN, end) == 0
    assert fired(kernel) == [BEGIN + timedelta(hours=n) for n in range(11)]
    clock.advance(3600)
    assert fire_due(kernel) == 1
    kernel.run_until_idle()
    assert statuses(kernel) == {"COMPLETED": 12}


def test_a_backfill_before_the_first_look_is_known_wherever_the_trigger_stands(
    open_kernel: Open, clock: FakeClock
) -> None:
    """No worker has seen the schedule yet, and the next deployment puts another before it."""
    clock.advance(3 * 3600)
    assert open_kernel({"every": "1h"}).schedules.backfill("w", BEGIN, clock()) == 4
    kernel = open_kernel({"every": "7m"}, {"every": "1h"})
    assert kernel.schedules.backfill("w", BEGIN, clock(), number=1) == 0
    by_hand = open_kernel({"every": "1d"}, name="x").schedules
    execution_id = by_hand.trigger("x")
    assert [each.execution_id for each in by_hand.find("x")] == [execution_id]


def test_two_backfills_at_once(open_kernel: Open, clock: FakeClock) -> None:
    """Beside a ticker too, each time has one execution."""
    kernels = [open_kernel({"every": "1h", "catch_up": True}) for _ in range(3)]
    fire_due(kernels[0])
    clock.advance(20 * 3600)
    barrier, counts = threading.Barrier(3), list[int]()
    end = clock()

    def work(number: int, kernel: Kernel) -> None:
        barrier.wait(20)
        counts.append(
            fire_due(kernel) if number == 0 else kernel.schedules.backfill("w", BEGIN, end)
        )

    at_once(*(partial(work, *each) for each in enumerate(kernels)))
    assert len(counts) == 3
    assert fired(kernels[0]) == [BEGIN + timedelta(hours=n) for n in range(21)]


@pytest.mark.parametrize("overlap", ["skip", "queue"])
def test_a_backfill_of_times_that_must_not_overlap(
    open_kernel: Open, clock: FakeClock, overlap: str
) -> None:
    """None is skipped, since each was asked for: they run one after another."""
    kernel = open_kernel({"every": "1h", "overlap": overlap})
    clock.advance(5 * 3600)
    assert kernel.schedules.backfill("w", BEGIN, clock()) == 6
    assert len(kernel.outbox.claim_batch("worker", 10)) == 1
    assert statuses(kernel) == {"PENDING": 6}


def test_a_backfill_is_not_debounced(open_kernel: Open, clock: FakeClock) -> None:
    """Each time was asked for: none takes the place of the one before, and none waits."""
    kernel = open_kernel({"every": "1h"}, debounce={"for": "1d"})
    clock.advance(3 * 3600)
    assert kernel.schedules.backfill("w", BEGIN, clock()) == 4
    kernel.run_until_idle()
    assert statuses(kernel) == {"COMPLETED": 4}


def test_a_backfill_over_debounced_times_makes_each_once(
    open_kernel: Open, clock: FakeClock
) -> None:
    """
    The last of the times that came together has run, in the execution that began with the first.

    So the backfill runs the others, and runs none again.
    """
    kernel = open_kernel({"every": "1h"}, debounce={"for": "90m", "at_most": "3h"})
    fire_due(kernel)
    for _ in range(10):
        clock.advance(3600)
        fire_due(kernel)
        kernel.run_until_idle()
    debounced = fired(kernel)
    assert 0 < len(debounced) < 10
    begin, end = BEGIN + timedelta(hours=1), clock()
    # From the middle of those that came together, whose first one lies before it.
    assert kernel.schedules.backfill("w", begin + timedelta(hours=2), end) == 8 - sum(
        each >= begin + timedelta(hours=2) for each in debounced
    )
    assert kernel.schedules.backfill("w", begin, end) == 2 - sum(
        each < begin + timedelta(hours=2) for each in debounced
    )
    assert kernel.schedules.backfill("w", begin, end) == 0
    kernel.run_until_idle()
    assert fired(kernel) == [BEGIN + timedelta(hours=n) for n in range(1, 11)]
    found = kernel.executions.find(limit=100)
    assert all(each.labels == {} for each in found)
    # By what it has run with, an execution is found inside alone.
    assert not any(kernel.labelled(each.event.id) for each in found)


def test_a_backfill_asks_the_if(open_kernel: Open, clock: FakeClock) -> None:
    """Times that the condition refuses are left out."""
    kernel = open_kernel({"every": "1h", "if": "{{ event.occurred_at[11:13] != '02' }}"})
    clock.advance(4 * 3600)
    assert kernel.schedules.backfill("w", BEGIN, clock()) == 4


def test_what_no_backfill_can_be(open_kernel: Open, clock: FakeClock) -> None:
    """Too many times, an end in the future, a time without a zone: nothing is fired."""
    kernel = open_kernel({"every": "1s"})
    clock.advance(2000)
    for start, end, message in (
        (BEGIN, clock(), "more than 1000 times"),
        (BEGIN, clock() + timedelta(seconds=1), "future"),
        (BEGIN.replace(tzinfo=None), clock(), "time zone"),
        (BEGIN, BEGIN - timedelta(seconds=1), "can't end before"),
    ):
        with pytest.raises(AutomateError, match=message) as raised:
            kernel.schedules.backfill("w", start, end)
        assert raised.value.code is ErrorCodes.INVALID_ARGUMENT
    assert fired(kernel) == []
