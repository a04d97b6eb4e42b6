"""Workflows that a host supplies are picked up while the kernel runs, and never cross tenants."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest
from workers import fire_due
from automate_kernel import Kernel
from automate_kernel.monitoring.diagnosis import workflow_findings
from automate_kernel.base.errors import AutomateError, ErrorCodes, StorageError
from automate_kernel.outbox import ItemStatus
from automate_kernel.storage import MemoryStorage, Where
from automate_kernel.storage.tables import SCHEDULE
from automate_testing.clock import FakeClock
from automate_kernel.workflows.execution import Event
from automate_kernel.workflows.store.catalogue import SuppliedWorkflow
from automate_kernel.workflows.steer.schedule import forget_schedules
from defined import see


def definition(output: Any = None, trigger: Any = None, **more: Any) -> dict[str, Any]:
    return {
        "name": "w",
        "trigger": trigger or {"type": "event", "event": "go"},
        "steps": [{"id": "a", "action": "do.it"}],
        "output": output,
        **more,
    }


class Shelf:
    """A source in memory, which counts how often it is asked."""

    def __init__(self) -> None:
        self.held: list[SuppliedWorkflow] = []
        self.version = 0
        self.stamps = self.loads = 0
        self.broken: Exception | None = None

    def put(self, name: str, body: dict[str, Any], tenant_id: str | None = None) -> None:
        kept = [one for one in self.held if (one.name, one.tenant_id) != (name, tenant_id)]
        self.held = [*kept, SuppliedWorkflow(name=name, definition=body, tenant_id=tenant_id)]
        self.version += 1

    def clear(self) -> None:
        self.held, self.version = [], self.version + 1

    def stamp(self) -> int:
        self.stamps += 1
        if self.broken is not None:
            raise self.broken
        return self.version

    def load(self) -> list[SuppliedWorkflow]:
        self.loads += 1
        return list(self.held)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def kernel(shelf: Shelf, clock: FakeClock) -> Kernel:
    kernel = Kernel(MemoryStorage(clock), discover=False, secrets={}, workflow_source=shelf)
    kernel.action("do.it")(lambda: None)
    return kernel


def outputs(kernel: Kernel) -> list[Any]:
    return [one.output for one in reversed(kernel.executions.find())]


def emit(kernel: Kernel, **options: Any) -> str:
    """Emit, look again at the source, and run."""
    item_id = kernel.emit("go", **options)
    kernel.workflows.look_again()
    kernel.run_until_idle()
    return item_id


def test_a_new_version_counts_for_the_next_event(kernel: Kernel, shelf: Shelf) -> None:
    """What the source holds now is what an event starts, without another kernel."""
    emit(kernel)
    assert outputs(kernel) == []
    shelf.put("w", definition("one"))
    emit(kernel)
    shelf.put("w", definition("two"))
    emit(kernel)
    shelf.clear()
    emit(kernel)
    assert sorted(outputs(kernel)) == ["one", "two"]


def test_a_running_execution_keeps_its_version(kernel: Kernel, shelf: Shelf) -> None:
    """An execution ends with the definition that it began with, though that is gone."""
    shelf.put("w", definition("old"))
    execution_id = kernel.start("w")
    shelf.put("w", definition("new"))
    kernel.workflows.look_again()
    kernel.run_until_idle()
    execution = see(kernel, execution_id)
    assert execution.output == "old"
    assert kernel.workflows["w"].output == "new"


def test_the_source_is_asked_once_a_second(
    kernel: Kernel, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand uses ask once whether there is something new, and load once."""
    seconds = [100.0]
    monkeypatch.setattr("automate_kernel.base.runtime.monotonic", lambda: seconds[0])
    shelf.put("w", definition("one"))
    for _ in range(1000):
        assert "w" in kernel.workflows
    assert (shelf.stamps, shelf.loads) == (1, 1)
    seconds[0] += 1.1
    assert "w" in kernel.workflows
    assert (shelf.stamps, shelf.loads) == (2, 1)
    shelf.put("v", definition("one"))
    assert "v" not in kernel.workflows
    seconds[0] += 1.1
    assert "v" in kernel.workflows


def test_a_tenants_workflow_is_the_tenants_alone(kernel: Kernel, shelf: Shelf) -> None:
    """It starts on no other tenant's event, and nobody else can start or see it."""
    shelf.put("w", definition("of a"), "a")
    shelf.put("w", definition("of b"), "b")
    shelf.put("all", definition("of all"))
    emit(kernel, tenant_id="a")
    assert sorted(outputs(kernel)) == ["of a", "of all"]
    assert {one.tenant_id for one in kernel.executions.find()} == {"a"}
    assert [one.name for one in kernel.workflows] == ["all"]
    assert "w" not in kernel.workflows
    seen = {one.workflow.output for one in kernel.workflows.entries(tenant_id="b")}
    assert seen == {"of b", "of all"}
    assert len(kernel.workflows.entries()) == 3
    with pytest.raises(AutomateError, match="there is no workflow 'w'") as caught:
        kernel.start("w")
    assert "all" in str(caught.value)
    with pytest.raises(AutomateError, match="there is no workflow 'w'"):
        kernel.start("w", tenant_id="c")
    kernel.start("w", tenant_id="b")
    kernel.run_until_idle()
    assert "of b" in outputs(kernel)


def test_a_name_that_is_taken_is_not_taken_over(
    kernel: Kernel, shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    """The host's own workflow stays, and the supplied one is told as a problem."""
    kernel.add_workflow(definition("mine"))
    shelf.put("w", definition("theirs"))
    shelf.put("v", definition("theirs"))
    shelf.put("v", definition("another"), "a")
    with caplog.at_level(logging.ERROR):
        emit(kernel, tenant_id="a")
    assert sorted(outputs(kernel)) == ["mine", "theirs"]
    assert set(kernel.workflows.problems()) == {(None, "w"), ("a", "v")}
    assert "another workflow is called 'w'" in caplog.text


def test_a_workflow_that_is_added_later_takes_its_name_back(kernel: Kernel, shelf: Shelf) -> None:
    """What the host adds comes first, whenever it does."""
    shelf.put("w", definition("theirs"))
    assert kernel.workflows["w"].output == "theirs"
    kernel.add_workflow(definition("mine"))
    assert [one.output for one in kernel.workflows] == ["mine"]


def test_a_broken_workflow_holds_up_no_other_and_loses_no_event(
    kernel: Kernel, shelf: Shelf
) -> None:
    """The event starts the others; put back once the broken one is mended, it starts that too."""
    shelf.put("w", definition("{{ event.payload | nosuchfilter }}"))
    shelf.put("v", definition("fine"))
    shelf.put("unreadable", {"name": "unreadable", "steps": "none"})
    item_id = emit(kernel)
    assert outputs(kernel) == ["fine"]
    item = kernel.outbox.get(item_id)
    assert item is not None
    assert item.status is ItemStatus.FAILED
    assert "workflow 'w'" in (item.last_error or "")
    with pytest.raises(AutomateError, match="nosuchfilter"):
        kernel.start("w")
    assert set(kernel.workflows.problems()) == {(None, "w"), (None, "unreadable")}
    shelf.put("w", definition("mended"))
    kernel.workflows.look_again()
    kernel.outbox.requeue([item_id])
    kernel.run_until_idle()
    assert sorted(outputs(kernel)) == ["fine", "mended"]


def test_an_event_waits_while_the_source_can_not_be_asked(kernel: Kernel, shelf: Shelf) -> None:
    """To go on without its workflows would be done with the event, and start nothing."""
    shelf.put("w", definition("one"))
    shelf.broken = StorageError("the database is away")
    item_id = kernel.emit("go")
    with pytest.raises(StorageError):
        "w" in kernel.workflows  # noqa: B015
    with pytest.raises(StorageError):
        kernel.run_until_idle()  # it looks for schedules first
    shelf.broken = None
    kernel.run_until_idle()
    item = kernel.outbox.get(item_id)
    assert item is not None
    assert item.status is ItemStatus.COMPLETED
    assert outputs(kernel) == ["one"]


def test_a_printed_kernel_asks_nobody(kernel: Kernel, shelf: Shelf) -> None:
    """A debugger that shows a kernel sends no query."""
    shelf.put("w", definition())
    assert "0 workflows" in repr(kernel)
    assert shelf.stamps == 0


# -- schedules -------------------------------------------------------------------------------------


def tick(kernel: Kernel) -> int:
    kernel.workflows.look_again()
    return fire_due(kernel)


def test_schedules_of_a_source_fire(kernel: Kernel, shelf: Shelf, clock: FakeClock) -> None:
    """Each tenant's schedule fires on its own, for that tenant."""
    every = {"type": "schedule", "every": "10m"}
    shelf.put("w", definition("x", every), "a")
    shelf.put("w", definition("x", every), "b")
    assert tick(kernel) == 0
    clock.advance(600)
    assert tick(kernel) == 2
    assert {one.tenant_id for one in kernel.executions.find()} == {"a", "b"}
    shelf.clear()
    clock.advance(600)
    assert tick(kernel) == 0


def test_what_is_done_to_one_schedule_leaves_the_others_alone(
    kernel: Kernel, shelf: Shelf, clock: FakeClock
) -> None:
    """Of other tenants, of nobody, and of a definition that can't run."""
    every = {"type": "schedule", "every": "10m"}
    for name, tenant_id in (("w", "a"), ("w", "b"), ("v", None)):
        shelf.put(name, {**definition("x", every), "name": name}, tenant_id)
    shelf.put("broken", {**definition("x", every), "name": "broken", "output": "{{ nothing("})
    assert tick(kernel) == 0
    counts = [len(kernel.schedules.find(tenant_id=each)) for each in ("a", "b", None, "c")]
    assert (counts, len(kernel.schedules.find())) == ([1, 1, 1, 0], 3)
    assert kernel.schedules.pause("w", tenant_id="a") == 1
    clock.advance(600)
    assert tick(kernel) == 2
    one = kernel.schedules.trigger("w", tenant_id="b")
    begun = {each.tenant_id: each.execution_id for each in kernel.schedules.find()}
    assert begun.pop("b") == one
    assert one not in begun.values()
    clock.advance(600)
    with kernel.storage.begin() as rows:
        forget_schedules(rows, kernel.schedules.find(tenant_id="b")[0].workflow, "b")
    assert tick(kernel) == 1


def test_a_changed_schedule_counts_from_its_change(
    kernel: Kernel, shelf: Shelf, clock: FakeClock
) -> None:
    """New times don't fire for the past, though the old ones fired long ago."""
    shelf.put("w", definition("x", {"type": "schedule", "cron": "0 0 1 1 *"}))
    assert tick(kernel) == 0
    clock.advance(86_400 * 3 + 3600 * 15)
    shelf.put("w", definition("x", {"type": "schedule", "cron": "0 9 * * *"}))
    assert [tick(kernel), tick(kernel)] == [0, 0]
    clock.advance(3600 * 18)
    assert tick(kernel) == 1


def test_a_schedule_that_is_switched_on_again_counts_from_then(
    kernel: Kernel, shelf: Shelf, clock: FakeClock
) -> None:
    """`forget_schedules` makes a pause one for which nothing is made up."""
    shelf.put("w", definition("x", {"type": "schedule", "every": "1h"}))
    tick(kernel)
    workflow = kernel.workflows["w"]
    clock.advance(86_400)
    with kernel.storage.begin() as rows:
        assert rows.select(SCHEDULE, [Where("last_fired_at", "ne", None)])
        forget_schedules(rows, workflow, None)
    assert [tick(kernel), tick(kernel)] == [0, 0]
    clock.advance(3600)
    assert tick(kernel) == 1


# -- starting --------------------------------------------------------------------------------------


def event(**fields: Any) -> Event:
    return Event(**{"id": "e1", "name": "go", **fields})


def test_start_gives_an_event_to_the_tenant(kernel: Kernel, shelf: Shelf) -> None:
    """A tenant that is given counts, also beside an event; another's event is refused."""
    shelf.put("w", definition())
    for given in (event(), event(tenant_id="a")):
        execution = see(kernel, kernel.start("w", event=given, tenant_id="a"))
        assert (execution.tenant_id, execution.event.tenant_id) == ("a", "a")
    with pytest.raises(AutomateError) as caught:
        kernel.start("w", event=event(tenant_id="b"), tenant_id="a")
    assert caught.value.code is ErrorCodes.INVALID_ARGUMENT
    assert len(kernel.executions.find()) == 1


def test_start_again(kernel: Kernel, shelf: Shelf) -> None:
    """Another execution sees what the first one saw, in the workflow as it is now."""
    shelf.put("w", definition("{{ event.payload.n }}"), "a")
    first = kernel.start("w", {"n": 1}, tenant_id="a")
    kernel.run_until_idle()
    shelf.put("w", definition("{{ event.payload.n + 1 }}"), "a")
    kernel.workflows.look_again()
    second = kernel.start_again(first)
    kernel.run_until_idle()
    assert sorted(outputs(kernel)) == [1, 2]
    began, again = kernel.executions.get(first), kernel.executions.get(second)
    assert began is not None
    assert again is not None
    assert replace(again.event, id=began.event.id) == began.event
    with pytest.raises(AutomateError) as caught:
        kernel.start_again("01890000-0000-7000-8000-000000000000")
    assert caught.value.code is ErrorCodes.NOT_FOUND


def test_the_doctor_tells_of_broken_ones(kernel: Kernel, shelf: Shelf) -> None:
    """Each with what is wrong, those of tenants too; the others are counted when all is well."""
    shelf.put("v", definition("fine"), "a")
    assert [one.text for one in workflow_findings(kernel)] == ["1 are valid"]
    shelf.put("w", definition("{{ event.payload | nosuchfilter }}"), "a")
    shelf.put("u", {"steps": 1})
    kernel.workflows.look_again()
    findings = workflow_findings(kernel)
    assert [one.state for one in findings] == ["fail", "fail"]
    assert "nosuchfilter" in f"{findings[0]}{findings[1]}"
