"""
Executions that wait for each other's concurrency places, on every storage: they are found.

Each waits for a signal first, so that all have their places before their sub-workflows begin.
"""

from __future__ import annotations

from typing import Any

import pytest
from automate_kernel import Kernel
from automate_kernel.monitoring.diagnosis import Finding, execution_findings
from automate_kernel.storage import Storage
from automate_kernel.storage.query import Where
from automate_kernel.storage.tables import DEFINITION


class World:
    """A kernel whose workflows hold a place, and then start others that need one."""

    def __init__(self, storage: Storage) -> None:
        self.kernel = Kernel(storage, discover=False, secrets={})

    def add(self, name: str, *steps: dict[str, Any], **more: Any) -> None:
        first = {"id": "go", "wait_for": {"signal": "go"}, "if": "{{ event.source is none }}"}
        more.setdefault("trigger", {"type": "manual"})
        self.kernel.add_workflow({"name": name, "steps": [first, *steps], **more})

    def go(self, *names: str) -> list[str]:
        """Start executions, and let them go on once all have the places that there are."""
        ids = [self.kernel.start(name, {"who": "acme"}) for name in names]
        self.kernel.run_until_idle()
        for each in ids:
            self.kernel.signal(each, "go")
        self.kernel.run_until_idle()
        return ids

    def findings(self) -> list[Finding]:
        found = execution_findings(self.kernel, program="automate")
        return [each for each in found if each.state != "ok"]


@pytest.fixture
def world(storage: Storage) -> World:
    return World(storage)


def child(workflow: str, **more: Any) -> dict[str, Any]:
    return {"id": "child", "workflow": workflow, "input": "{{ event.payload }}", **more}


def test_two_that_wait_for_each_others_places(world: World) -> None:
    """All of them are named, with the key; once one is cancelled, the other goes on."""
    key = "{{ event.payload.who }}"
    world.add("tea", child("jam"), concurrency={"limit": 1, "key": key})
    world.add("jam", child("tea"), concurrency=1)
    tea, jam = world.go("tea", "jam")
    (found,) = world.findings()
    children = {one.parent_id: one.id for one in world.kernel.executions.find() if one.parent_id}
    assert f"jam {children[tea]}, a sub-workflow of {tea}, needs a place that jam {jam} holds" in (
        found.text
    )
    assert (
        f"tea {children[jam]}, a sub-workflow of {jam}, needs a place of {key} = 'acme' that"
        f" tea {tea} holds"
    ) in found.text
    assert found.remedy is not None
    assert found.remedy.startswith("cancel one of them: automate executions cancel ")
    cancelled = found.remedy.split()[7].rstrip(";")
    assert cancelled in (tea, jam)
    assert world.kernel.executions.cancel(cancelled)
    world.kernel.run_until_idle()
    assert world.findings() == []


def test_those_that_only_wait_behind_them_are_not_named(world: World) -> None:
    """Neither starts in the queue, nor one whose own sub-workflow stands in it."""
    world.add("tea", child("jam"), concurrency=1)
    world.add("jam", child("tea"), concurrency=1)
    world.add("late", child("tea"), concurrency=1)
    ids = world.go("tea", "jam", "late", "tea")
    (found,) = world.findings()
    assert [each in found.text for each in ids] == [True, True, False, False]


def test_a_place_that_comes_free_is_none(world: World) -> None:
    """One of the two who hold the places of tea waits for a signal, and then ends."""
    world.add("tea", child("jam"), concurrency=2)
    world.add("jam", child("tea"), concurrency=1)
    world.kernel.start("tea", {"who": "other"})
    world.go("tea", "jam")
    waiting = [item for item in world.kernel.outbox.find() if item.waiting_for == "key"]
    assert len(waiting) == 2
    assert world.findings() == []


def test_through_workflows_between_and_a_chain(world: World) -> None:
    """The sub-workflow of a sub-workflow, which was continued as new, deadlocks."""
    world.add("between", child("jam", **{"if": "{{ event.payload.again is defined }}"}), {
        "id": "on", "needs": ["child"], "if": "{{ event.payload.again is not defined }}",
        "continue_as_new": {"who": "acme", "again": 1},
    })  # fmt: skip
    world.add("tea", child("between"), concurrency=1)
    world.add("jam", child("tea"), concurrency=1)
    tea, jam = world.go("tea", "jam")
    (found,) = world.findings()
    assert tea in found.text
    assert jam in found.text


def test_workflows_of_a_later_version(world: World) -> None:
    """What this version can't read deadlocks all the same: only the key is left out."""
    key = "{{ event.payload.who }}"
    world.add("tea", child("jam"), concurrency={"limit": 1, "key": key})
    world.add("jam", child("tea"), concurrency=1)
    tea, jam = world.go("tea", "jam")
    with world.kernel.storage.begin() as rows:
        for row in rows.select(DEFINITION):
            newer = {"body": {**row["body"], "brand_new": 1}}
            rows.update(DEFINITION, [Where("id", "eq", row["id"])], newer)
    (found,) = world.findings()
    assert found.text.startswith("executions wait for each other for ever")
    assert tea in found.text
    assert jam in found.text


def test_two_circles_are_two_findings(world: World) -> None:
    """Of one key each."""
    key = {"limit": 1, "key": "{{ event.payload.who }}"}
    for n in range(2):
        world.add(f"tea{n}", child(f"jam{n}"), concurrency=key)
        world.add(f"jam{n}", child(f"tea{n}"), concurrency=key)
    world.go("tea0", "jam0", "tea1", "jam1")
    assert len(world.findings()) == 2


def test_many_in_one_circle_are_named_in_part(world: World) -> None:
    """The first few, and how many there are beside them."""
    names = [f"w{n}" for n in range(7)]
    for name, after in zip(names, [*names[1:], names[0]], strict=True):
        world.add(name, child(after), concurrency=1)
    world.go(*names)
    (found,) = world.findings()
    assert found.text.endswith("; and 3 more")
