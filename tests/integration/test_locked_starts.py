"""An application's transaction that has started a workflow, and goes on: workers work on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from automate_kernel import Kernel
from automate_testing.clock import FakeClock
from automate_kernel.workflows.store.locked_starts import DEFERRED_SECONDS
from automate_kernel.workflows.decide.waits import EVENT, SIGNAL
from automate_sqlalchemy import SqlAlchemyStorage
from waiting import PATIENCE, until
from workers import working
from defined import define, see

CONDITIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "skip": {"concurrency": {"limit": 100, "when_full": "skip"}},
    "rate": {"rate_limit": {"limit": 100, "per": "1s"}},
    "debounce": {"debounce": {"for": "1h"}},
    "queue": {"concurrency": {"limit": 100}},
}


class Shop:
    """A kernel with a workflow `held`, which may have conditions, and one called `free`."""

    def __init__(
        self, engine: sa.Engine, trigger: dict[str, Any], conditions: dict[str, Any]
    ) -> None:
        self.clock = FakeClock()
        storage = SqlAlchemyStorage(engine, clock=self.clock)
        self.kernel = Kernel(storage, discover=False, secrets={})
        self.kernel.action("note")(lambda: None)
        for name, more in {"held": conditions, "free": {}}.items():
            its = {"event": f"{name}.*"} if trigger["type"] == "event" else {}
            self.kernel.add_workflow(
                {"name": name, "trigger": {**trigger, **its},
                 "steps": [{"id": "s", "action": "note"}], **more}
            )  # fmt: skip

    def run(self) -> None:
        self.kernel.run_until_idle()

    def work(self) -> None:
        with working(self.kernel):
            until(lambda: self.count("free") == 3 and not self.due())

    def due(self) -> list[Any]:
        return [
            one for one in self.kernel.outbox.find()
            if one.completed_at is None and one.next_attempt_at <= self.clock()
        ]  # fmt: skip

    def count(self, name: str) -> int:
        return len(self.kernel.executions.find(workflow=name))

    def later(self) -> bool:
        """Let what was put off be due; return True once no event is left."""
        self.clock.advance(DEFERRED_SECONDS)
        self.run()
        return all(one.completed_at for one in self.kernel.outbox.find(kind=EVENT))


def joined(work: Callable[[], object]) -> None:
    """Do *work*, and fail if it does not come to an end."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(2 * PATIENCE)
    assert not thread.is_alive()


@pytest.mark.parametrize("by_worker", [False, True])
@pytest.mark.parametrize("conditions", CONDITIONS)
def test_an_event_is_put_off_while_others_are_handled(
    postgresql_engine: sa.Engine, conditions: str, by_worker: bool
) -> None:
    """The first start of a definition, or one at a gate, makes the next one wait."""
    shop = Shop(postgresql_engine, {"type": "event"}, CONDITIONS[conditions])
    with postgresql_engine.connect() as connection, connection.begin():
        shop.kernel.start("held", transaction=connection)
        for number in range(3):
            shop.kernel.emit(f"held.{number}")
            shop.kernel.emit(f"free.{number}")
        joined(shop.work if by_worker else shop.run)
        assert (shop.count("free"), shop.count("held")) == (3, 0)
    until(shop.later)
    shop.clock.advance(3600)
    shop.run()
    assert shop.count("held") == (1 if conditions == "debounce" else 4)
    assert {one.status for one in shop.kernel.executions.find()} == {"COMPLETED"}
    items = shop.kernel.outbox.find()
    assert {(one.status, one.attempt_count) for one in items} == {("COMPLETED", 1)}


def test_a_schedule_that_is_held_up_fires_later_and_others_now(
    postgresql_engine: sa.Engine,
) -> None:
    """Its time isn't lost, and none fires twice."""
    shop = Shop(postgresql_engine, {"type": "schedule", "every": "1h"}, {})
    shop.run()
    shop.clock.advance(3600)
    with postgresql_engine.connect() as connection, connection.begin():
        shop.kernel.start("held", transaction=connection)
        joined(shop.run)
        assert (shop.count("free"), shop.count("held")) == (1, 0)
    shop.run()
    shop.run()
    assert (shop.count("free"), shop.count("held")) == (1, 2)


def test_a_signal_to_what_is_being_cancelled_is_put_off(postgresql_engine: sa.Engine) -> None:
    """The start that cancels it may be rolled back: then the signal still counts."""
    shop = Shop(postgresql_engine, {"type": "event"}, {})
    shop.kernel.add_workflow(
        {"name": "waits", "trigger": {"type": "manual"},
         "concurrency": {"when_full": "cancel_older"},
         "steps": [{"id": "s", "wait_for": {"signal": "go"}}]}
    )  # fmt: skip
    one = shop.kernel.start("waits")
    shop.run()
    with postgresql_engine.connect() as connection, connection.begin() as transaction:
        shop.kernel.start("waits", transaction=connection)
        shop.kernel.signal(one, "go")
        for number in range(3):
            shop.kernel.emit(f"free.{number}")
        joined(shop.work)
        assert shop.count("free") == 3
        transaction.rollback()
    shop.later()
    execution = see(shop.kernel, one)
    assert execution.status == "COMPLETED"
    assert {one.attempt_count for one in shop.kernel.outbox.find(kind=SIGNAL)} == {1}


def test_an_event_that_is_put_off_answers_who_waits_for_it(postgresql_engine: sa.Engine) -> None:
    """It was sent in time, however long it is put off: the wait isn't over before."""
    shop = Shop(postgresql_engine, {"type": "event"}, {})
    define(
        shop.kernel, {"id": "a", "wait_for": {"event": "held.1", "timeout": "10s"}}, name="waiting"
    )
    execution_id = shop.kernel.start("waiting")
    shop.run()
    shop.clock.advance(1)
    with postgresql_engine.connect() as connection, connection.begin():
        shop.kernel.start("held", transaction=connection)
        shop.kernel.emit("held.1")
        joined(shop.run)
        for _ in range(3):
            shop.clock.advance(10)
            joined(shop.run)
    until(shop.later)
    shop.clock.advance(60)
    shop.run()
    execution = see(shop.kernel, execution_id)
    assert (execution.status, execution.error) == ("COMPLETED", None)


@pytest.mark.parametrize("what", ["child", "approval"])
def test_a_checkpoint_that_is_held_up_comes_later(postgresql_engine: sa.Engine, what: str) -> None:
    """What others have done meanwhile is saved, and what was called is not called again."""
    shop = Shop(postgresql_engine, {"type": "event"}, {})
    calls: list[str] = []
    shop.kernel.action("count")(lambda: calls.append("called"))
    first = {"id": "a", "action": "count", "needs": []}
    steps = {
        "child": [{"id": "b", "needs": ["a"], "workflow": "held"}],
        "approval": [
            {"id": "b", "needs": [], "approval": {"title": "Pay?"}},
            {"id": "c", "needs": ["a"], "action": "fail"},
        ],
    }  # fmt: skip
    shop.kernel.action("fail")(lambda: 1 / 0)
    shop.kernel.add_workflow(
        {"name": "w", "trigger": {"type": "manual"}, "steps": [
            {"id": "go", "wait_for": {"signal": "go"}, "needs": []},
            *[{**step, "needs": step["needs"] or ([] if "approval" in step else ["go"])}
              for step in (first, *steps[what])],
        ]}
    )  # fmt: skip
    one = shop.kernel.start("w")
    shop.run()
    with postgresql_engine.connect() as connection, connection.begin() as transaction:
        if what == "child":
            shop.kernel.start("held", transaction=connection)
        else:
            shop.kernel.approvals.approve(one, "b", by="ann", transaction=connection)
        with working(shop.kernel):
            shop.kernel.signal(one, "go")
            until(lambda: calls)
            for number in range(3):
                shop.kernel.emit(f"free.{number}")
            until(lambda: ended(shop.kernel, "free") == 3)
            transaction.commit()
            until(lambda: ended(shop.kernel, "w"))
    execution = see(shop.kernel, one)
    assert execution.status == ("COMPLETED" if what == "child" else "FAILED")
    assert calls == ["called"]
    assert shop.count("held") == (2 if what == "child" else 0)


def ended(kernel: Kernel, name: str) -> int:
    return sum(one.status.finished for one in kernel.executions.find(workflow=name))
