"""Workflows of a shop whose actions note each call in a table of the shop's own."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from typing import Any

import sqlalchemy as sa
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.kernel import Kernel
from automate_kernel.operations.context import Call, current_call
from fault_kernel import Ledger

EVENT = "order.placed"
PAID = "order.paid"
ELEMENTS = 20
PARCELS = 2
"""How many sub-workflows an order has."""
NOT_CALLED = ("nap", "paid", "parcels", "rest")
"""The steps that wait."""
LONG = 10
"""How many steps the long workflow has."""
_PATIENCE_SECONDS = 60.0
_CALLS = """CREATE TABLE calls (
    id SERIAL, execution VARCHAR(40), step VARCHAR(40), position INTEGER, attempt INTEGER,
    process INTEGER, called_at TIMESTAMPTZ, noted_at TIMESTAMPTZ DEFAULT clock_timestamp(),
    note VARCHAR(40) PRIMARY KEY)"""
_NOTE = """INSERT INTO calls (execution, step, position, attempt, process, called_at, note)
    VALUES (:execution, :step, :position, :attempt, :process,
        clock_timestamp() - :since * interval '1 second', :note)
    ON CONFLICT (note) DO NOTHING"""


class Notes:
    """
    The shop's table of calls, in a database that faults don't spare, on connections of its own.

    A call is noted at once, or as soon as the database is back.
    """

    def __init__(self, url: str) -> None:
        # Tests end the sessions of workers, not those of the shop.
        made = sa.make_url(url).update_query_dict({"application_name": "shop"})
        self._engine = sa.create_engine(made, isolation_level="AUTOCOMMIT")

    def create(self) -> None:
        with self._engine.connect() as connection:
            connection.exec_driver_sql("DROP TABLE IF EXISTS calls")
            connection.exec_driver_sql(_CALLS)

    def write(self, call: Call, position: int, began: float) -> None:
        values = {
            "execution": call.execution_id, "step": call.step_id, "position": position,
            "attempt": call.attempt, "process": os.getpid(),
            # Whether the reply to a commit was lost can't be known: once more does no harm.
            "note": f"{os.getpid()}-{threading.get_ident()}-{time.monotonic_ns()}",
        }  # fmt: skip
        while True:
            try:
                with self._engine.connect() as connection:
                    since = time.monotonic() - began
                    connection.execute(sa.text(_NOTE), {**values, "since": since})
                return
            except sa.exc.DBAPIError:
                if time.monotonic() - began > _PATIENCE_SECONDS:
                    raise
                time.sleep(0.02)

    def close(self) -> None:
        self._engine.dispose()


def succeeds(n: int) -> bool:
    """Return True if the order with this number can be paid."""
    return n % 4 != 1


def output_of(n: int) -> list[Any]:
    """Return the output of the order with this number."""
    parcels = [10 * n + parcel for parcel in range(PARCELS)]
    return [n + 1, n + 2, list(range(ELEMENTS)), n + 3, None if n % 3 == 0 else n, n, parcels]


def _workflow(name: str, one: str, other: str, remainder: int) -> dict[str, Any]:
    """Return a workflow of which some steps call the action *one*, and others the action *other*."""

    def step(step_id: str, action: str, needs: list[str], value: str, **more: Any) -> Any:
        return {
            "id": step_id, "action": action, "needs": needs, "input": {"value": value}, **more
        }  # fmt: skip

    number = "{{ event.payload.n }}"
    # What comes for one order as an event comes for the other as a signal.
    paid = [{"event": PAID, "match": {"n": number}}, {"signal": PAID}][remainder]
    retry = {"attempts": 100, "backoff": "fixed", "delay": "50ms", "jitter": False}
    return {
        "name": name,
        "trigger": {
            "type": "event",
            "event": EVENT,
            "if": f"{{{{ event.payload.n % 2 == {remainder} }}}}",
        },
        "steps": [
            step("take", one, [], number),
            step("left", one, ["take"], "{{ steps.take.output + 1 }}"),
            step("right", other, ["take"], "{{ steps.take.output + 2 }}"),
            step(
                "each", other, ["take"], "{{ item }}", for_each=list(range(ELEMENTS)), concurrency=5
            ),
            step("flaky", f"{one}-flaky", ["left", "right"], number, retry=retry),
            step("gift", f"{other}-gift", ["take"], number, on_failure="continue"),
            step("book", "shop.book", ["take"], number),
            {"id": "nap", "needs": ["left"], "sleep": "50ms"},
            {"id": "paid", "needs": ["right"], "wait_for": paid},
            {
                "id": "parcels", "needs": ["take"], "workflow": "parcel",
                "for_each": list(range(PARCELS)), "concurrency": PARCELS,
                "input": {"n": "{{ event.payload.n * 10 + item }}"},
            },
            step(
                "pay", f"{other}-pay",
                ["each", "flaky", "gift", "book", "nap", "paid", "parcels"], number,
            ),
            step("ship", one, ["pay"], "{{ steps.pay.output + 3 }}"),
        ],
        "on_failure": [step("refund", one, [], number)],
        "output": [
            "{{ steps.left.output }}", "{{ steps.right.output }}", "{{ steps.each.output }}",
            "{{ steps.ship.output }}", "{{ steps.gift.output }}",
            "{{ steps.paid.output.payload.n }}", "{{ steps.parcels.output }}",
        ],
    }  # fmt: skip


_PARCEL = {
    "name": "parcel",
    "trigger": {"type": "manual"},
    "steps": [
        {"id": "rest", "sleep": "30ms"},
        {"id": "pack", "action": "shop.plain", "input": {"value": "{{ event.payload.n }}"}},
    ],
    "output": "{{ steps.pack.output }}",
}

_LONG_WORKFLOW = {
    "name": "long",
    "trigger": {"type": "event", "event": "long.asked"},
    "steps": [
        {
            "id": f"step-{n}",
            # Both kinds, and twice each in a row: the second of a kind is made where it is.
            "action": "long.plain" if n % 4 < 2 else "long.awaited",
            "input": {"value": f"{{{{ steps['step-{n - 1}'].output }}}}" if n > 1 else 0},
        }
        for n in range(1, LONG + 1)
    ],
    "output": f"{{{{ steps['step-{LONG}'].output }}}}",
}


def add_orders(kernel: Kernel, url: str, ledger: Ledger, most_seconds: float) -> None:
    """Add the workflows with their actions, which take up to *most_seconds*."""
    kernel.add_workflow(_LONG_WORKFLOW)
    _add_long_steps(kernel, ledger)
    if sa.make_url(url).get_backend_name() == "postgresql":
        kernel.add_workflow(_PARCEL)
        kernel.add_workflow(_workflow("orders", "shop.plain", "shop.awaited", 0))
        kernel.add_workflow(_workflow("awaited-orders", "shop.awaited", "shop.plain", 1))
        _add_shop(kernel, Notes(url), most_seconds)


def _called() -> tuple[Call, int, float]:
    """Return the call that is being made, the step's position, and the time."""
    began, call = time.monotonic(), current_call()
    assert call is not None
    return call, int((call.idempotency_key or "").rpartition(":")[2]), began


def _flaky(call: Call, value: int) -> None:
    if call.attempt <= 1 + value % 2:
        raise ConnectionError("the other side is down")


def _pay(call: Call, value: int) -> None:
    if not succeeds(value):
        raise AutomateError(ErrorCodes.FAILED_PRECONDITION, "no money")


def _gift(call: Call, value: int) -> None:
    if value % 3 == 0:
        raise AutomateError(ErrorCodes.NOT_FOUND, "no gift")


def _add_shop(kernel: Kernel, notes: Notes, most_seconds: float) -> None:
    def add(suffix: str, act: Any) -> None:
        @kernel.action(f"shop.plain{suffix}")
        def plain(value: int) -> int:
            call, position, began = _called()
            notes.write(call, position, began)
            time.sleep(random.random() * most_seconds)
            act(call, value)
            return value

        @kernel.action(f"shop.awaited{suffix}")
        async def awaited(value: int) -> int:
            call, position, began = _called()
            await asyncio.to_thread(notes.write, call, position, began)
            await asyncio.sleep(random.random() * most_seconds)
            act(call, value)
            return value

    @kernel.action("shop.book", transactional=True)
    def book(value: int) -> int:
        call, position, began = _called()
        notes.write(call, position, began)
        written = f"INSERT INTO booked VALUES ('{call.idempotency_key}')"
        call.transaction.exec_driver_sql(written)
        time.sleep(random.random() * most_seconds)
        return value

    add("", lambda call, value: None)
    add("-flaky", _flaky)
    add("-gift", _gift)
    add("-pay", _pay)


def _add_long_steps(kernel: Kernel, ledger: Ledger) -> None:
    def note() -> None:
        call, _, _ = _called()
        ledger.write("long", call.execution_id, call.step_id, call.attempt)

    @kernel.action("long.plain")
    def plain(value: int) -> int:
        note()
        return value + 1

    @kernel.action("long.awaited")
    async def awaited(value: int) -> int:
        note()
        return value + 1
