"""``kernel.run`` with many sub-workflows: they are brought forward and saved together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from automate_kernel import Kernel
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.outbox import OutboxItem
from automate_kernel.plugins import hookimpl
from automate_sqlalchemy import SqlAlchemyStorage
from defined import define

MANY = 40


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def engine(request: pytest.FixtureRequest) -> sa.Engine:
    found: sa.Engine = request.getfixturevalue(f"{request.param}_engine")
    return found


@pytest.fixture
def kernel(engine: sa.Engine) -> Iterator[Kernel]:
    made = Kernel(SqlAlchemyStorage(engine), discover=False, secrets={})
    yield made
    made.close()


def add(kernel: Kernel, steps: list[dict[str, Any]], **step: Any) -> None:
    define(kernel, *steps, name="one", output="{{ event.payload }}")
    each = {"id": "each", "for_each": "{{ event.payload.numbers }}", "concurrency": MANY}
    define(kernel, {**each, "workflow": "one", "input": "{{ item }}", **step}, name="many")


def test_it_takes_few_statements_for_each(
    kernel: Kernel, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their checkpoints, and what wakes the one that waits for them, are written as groups."""
    # A busy machine makes a quick call look slow: then nothing of others is left unsaved for it.
    monkeypatch.setattr(kernel._runner, "mean_seconds", lambda action: 0.0)

    @kernel.action("shop.add")
    def more(number: int) -> int:
        return number + 1

    add(kernel, [{"id": "a", "action": "shop.add", "input": {"number": "{{ event.payload }}"}}])
    assert kernel.run("many", {"numbers": [0]}).status == "COMPLETED"
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        seen.append(statement)

    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        done = kernel.run("many", {"numbers": list(range(MANY))})
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)
    assert done.status == "COMPLETED"
    assert len(seen) < 10 * MANY
    assert not [one for one in kernel.executions.find(limit=200) if not one.status.finished]


def test_each_ends_as_if_it_were_alone(kernel: Kernel) -> None:
    """One fails, one is tried again, one waits, one has an action of another worker, in a group."""
    tries: list[int] = []

    @kernel.action("shop.work")
    def work(number: int) -> int:
        tries.append(number)
        if number % 5 == 1:
            raise AutomateError(ErrorCodes.INVALID_ARGUMENT, f"not {number}", retryable=False)
        if number % 5 == 2 and tries.count(number) < 3:
            raise AutomateError(ErrorCodes.UNAVAILABLE, "away", retryable=True)
        return number

    number = {"number": "{{ event.payload }}"}
    retry = {"attempts": 3, "delay": "10ms", "max_delay": "20ms", "jitter": False}
    add(
        kernel,
        [
            {"id": "a", "action": "shop.work", "input": number, "retry": retry},
            {"id": "nap", "sleep": "20ms", "if": "{{ event.payload % 5 == 3 }}"},
            {"id": "b", "action": "shop.work", "input": number},
            {"id": "c", "action": "shop.elsewhere", "if": "{{ event.payload % 5 == 4 }}"},
        ],
    )
    numbers = list(range(20))
    steps = [{"id": "one", "workflow": "one", "input": "{{ 100 }}"}]
    kernel.add_workflow({"name": "waits", "trigger": {"type": "manual"}, "steps": steps})
    for each in numbers:
        kernel.start("one", each)
    with kernel.executing_here():
        # Together with what an execution waits for, whatever that is.
        assert kernel.run("waits", patience=60.0).status == "COMPLETED"
    found = kernel.executions.find(workflow="one", limit=100)
    assert len(found) == 21
    ends = {one.event.payload: (one.status.value, one.error_code) for one in found}
    assert {"COMPLETED", "FAILED"} == {status for status, _ in ends.values()}
    tried = {each: tries.count(each) for each in numbers}
    tries.clear()
    for each in numbers:
        alone = kernel.run("one", each, patience=60.0)
        assert (alone.status.value, alone.error_code) == ends[each], each
    assert tried == {each: tries.count(each) for each in numbers}
    stats = kernel.outbox.stats()
    assert stats.total("RUNNING") == stats.total("PENDING") == stats.total("FAILED") == 0


def test_what_is_around_each_item_is_around_it_alone(kernel: Kernel) -> None:
    """A hook that sees each item sees them one after another."""
    inside: list[str] = []
    most = 0

    class Watch:
        @hookimpl
        @contextmanager
        def automate_handling(self, item: OutboxItem) -> Iterator[None]:
            nonlocal most
            inside.append(item.id)
            most = max(most, len(inside))
            yield
            inside.remove(item.id)

    kernel.plugins.hooks.add(Watch(), "watch")
    kernel.action("shop.note")(lambda: None)
    add(kernel, [{"id": "a", "action": "shop.note"}])
    assert kernel.run("many", {"numbers": list(range(10))}).status == "COMPLETED"
    assert (most, inside) == (1, [])
