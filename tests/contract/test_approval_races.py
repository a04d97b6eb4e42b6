"""Decisions on approvals, on every database: one of many wins, and the host's commit decides."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from approvals_asked import ask
from automate_kernel import Kernel
from automate_kernel.errors import AutomateError, ErrorCodes
from automate_kernel.storage import MemoryStorage, Storage
from automate_kernel.storage.tables import WAIT
from automate_sqlalchemy import SqlAlchemyStorage

KEY = "a-key-of-thirty-two-characters-at-least"


def _on(engine: str) -> Callable[[pytest.FixtureRequest], Storage]:
    return lambda request: SqlAlchemyStorage(request.getfixturevalue(f"{engine}_engine"))


STORAGES: dict[str, Callable[[pytest.FixtureRequest], Storage]] = {
    "memory": lambda request: MemoryStorage(),
    "sqlite": _on("sqlite"),
    "postgresql": _on("postgresql"),
    "mariadb": _on("mariadb"),
}


@pytest.fixture(params=STORAGES)
def kernel(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    storage = STORAGES[request.param](request)
    with Kernel(storage, signing_keys=[KEY], discover=False) as kernel:
        yield kernel


def sent(kernel: Kernel) -> list[dict[str, Any]]:
    items = kernel.outbox.find(kind="automate.signal")
    return [item.payload["event"]["payload"] for item in items]


def test_of_many_decisions_at_once_one_is_made(kernel: Kernel) -> None:
    """By account and by link; the others learn it, whichever they wanted."""
    execution_id, approvals = ask(kernel), kernel.approvals
    token = approvals.token(execution_id, "ok", by="linked")
    start = threading.Barrier(6)
    results: list[Any] = []

    def decide(number: int) -> None:
        start.wait()
        try:
            if number == 0:
                approvals.decide_by_token(token, approved=True)
            elif number % 2:
                approvals.approve(execution_id, "ok", by=f"p{number}")
            else:
                approvals.reject(execution_id, "ok", by=f"p{number}")
            results.append(number)
        except AutomateError as error:
            results.append(error.code)

    threads = [threading.Thread(target=decide, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [each for each in results if isinstance(each, int)]
    assert {each for each in results if each != winner} <= {
        ErrorCodes.FAILED_PRECONDITION, ErrorCodes.NOT_FOUND,
    }  # fmt: skip
    (decision,) = sent(kernel)
    assert decision["by"] == ("linked" if winner == 0 else f"p{winner}")
    with kernel.storage.begin(atomic=False) as rows:
        (row,) = rows.select(WAIT)
    assert row["details"]["decision"] == decision
    assert row["details"]["title"] == "Pay it back?"


def test_a_decision_that_is_rolled_back_leaves_the_approval_open(kernel: Kernel) -> None:
    """Nothing of it stays, on no database."""
    execution_id = ask(kernel, tenant="acme")
    with pytest.raises(ZeroDivisionError), kernel.storage.begin() as rows:
        kernel.approvals.approve(execution_id, "ok", by="ann", transaction=rows.native)
        raise ZeroDivisionError
    assert sent(kernel) == []
    assert len(kernel.approvals.pending(tenant_id="acme").approvals) == 1
    kernel.approvals.reject(execution_id, "ok", by="bob", tenant_id="acme")
    assert kernel.approvals.pending().approvals == []


def test_a_decision_in_a_session_of_the_host_commits_with_it(
    sqlite_engine: sa.Engine, postgresql_engine: sa.Engine
) -> None:
    """Also after the session has read and written something of its own."""
    from sqlalchemy.orm import Session

    for engine in (sqlite_engine, postgresql_engine):
        kernel = Kernel(SqlAlchemyStorage(engine), discover=False)
        execution_id = ask(kernel)
        with Session(engine) as session:
            kernel.emit("paid", {}, transaction=session)
            kernel.approvals.approve(execution_id, "ok", by="ann", transaction=session)
            session.commit()
        assert [decision["by"] for decision in sent(kernel)] == ["ann"]
