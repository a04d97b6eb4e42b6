"""A call of the host's that loses a deadlock is made again, if its transaction was ours alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from automate_kernel import Kernel
from automate_kernel.storage.tables import DEBOUNCE, OUTBOX
from automate_sqlalchemy import SqlAlchemyStorage, metadata

PATIENCE = 20.0


@pytest.fixture
def kernel(mariadb_engine: sa.Engine) -> Iterator[Kernel]:
    with Kernel(SqlAlchemyStorage(mariadb_engine), discover=False, secrets={}) as kernel:
        kernel.action("do.it")(lambda: None)
        kernel.add_workflow(
            {
                "name": "w", "trigger": {"type": "manual"}, "debounce": {"for": "1h"},
                "steps": [{"id": "a", "action": "do.it"}],
            }
        )  # fmt: skip
        yield kernel


class Rival:
    """A transaction that locks what the next start locks, in the other order, and weighs more."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._connection = engine.connect()
        self._outbox, self._gates = metadata.tables[OUTBOX], metadata.tables[DEBOUNCE]

    def lock_item(self) -> None:
        self._connection.execute(sa.select(self._outbox.c.id).with_for_update())
        # The database undoes the one of the two that has changed less.
        for n in range(50):
            self._connection.execute(self._outbox.update().values(last_error=f"{n}"))

    def lock_gate(self) -> None:
        """Lock the gate that the start has, once that waits for the item."""
        query = sa.text(
            "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
        )
        deadline = time.monotonic() + PATIENCE
        while True:
            with self._engine.connect() as looks:
                if looks.execute(query).scalar():
                    break
            assert time.monotonic() < deadline, "the start does not wait"
            time.sleep(0.01)
        self._connection.execute(sa.select(self._gates.c.id).with_for_update())

    def end(self) -> None:
        self._connection.rollback()
        self._connection.close()


def test_a_start_that_loses_a_deadlock_begins_again(
    kernel: Kernel, mariadb_engine: sa.Engine
) -> None:
    """Its caller sees nothing of it."""
    first = kernel.start("w", {"n": 1})
    rival, started = Rival(mariadb_engine), list[str]()
    rival.lock_item()
    thread = threading.Thread(target=lambda: started.append(kernel.start("w", {"n": 2})))
    thread.start()
    rival.lock_gate()
    rival.end()
    thread.join(PATIENCE)
    assert started == [first]
    (execution,) = kernel.executions.find()
    assert execution.event.payload == {"n": 2}
