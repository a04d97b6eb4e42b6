"""Connections of a worker's threads: each thread of Django's has its own."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from automate_django.connections import LentConnections, keeping_none
from automate_django.storage import DjangoStorage
from automate_kernel.operations.context import handled_item
from automate_kernel.storage import shortage as shortages
from automate_kernel.storage.shortage import Shortage
from django.db import connections, transaction


def in_a_thread(name: str, work: Any) -> None:
    thread = threading.Thread(target=work, name=name)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.parametrize("thread", ["automate-clock", "host"])
@pytest.mark.parametrize("item", [None, "an item"])
def test_a_workers_thread_keeps_no_connection_while_there_is_a_shortage(
    postgresql: str, thread: str, item: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But where a handler is, which may read from it, and in the application's own threads."""
    shortage, kept = Shortage(), []
    monkeypatch.setitem(shortages._shortages, f"database {postgresql!r}", shortage)
    storage = DjangoStorage(postgresql)
    assert storage.shortage is shortage

    def work() -> None:
        handled_item.set(item)  # type: ignore[arg-type]
        here = connections[postgresql]
        for noted in (False, True):
            if noted:
                shortage.note()
            with storage.begin(atomic=False) as rows:
                rows.now()
            kept.append(here.connection is not None)
            with transaction.atomic(using=postgresql), storage.begin() as rows:
                rows.now()
            assert here.connection is not None, "the block is the application's"
        LentConnections().automate_after_call()
        kept.append(here.connection is not None)
        here.close()

    in_a_thread(thread, work)
    spares = thread != "host" and item is None
    assert kept == [True, not spares, False]


def test_what_a_handler_has_begun_may_end_in_another_thread() -> None:
    """As an execution does, whose last step has a thread of its own."""
    hook, entered = LentConnections(), []

    def begin() -> None:
        entered.append(hook.automate_handling())
        entered[0].__enter__()

    in_a_thread("automate-intake", begin)
    in_a_thread("automate-step", lambda: entered.append(entered[0].__exit__(None, None, None)))
    assert len(entered) == 2


def test_a_call_in_a_handler_leaves_its_connection_alone(
    postgresql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handler may be reading rows; it is given back once the item is done."""
    shortage = Shortage()
    shortage.note()
    monkeypatch.setitem(shortages._shortages, f"database {postgresql!r}", shortage)
    lent, here = LentConnections(), connections[postgresql]
    with lent.automate_handling():
        here.ensure_connection()
        lent.automate_after_call()
        assert here.connection is not None
    assert here.connection is None


def test_a_thread_that_waits_keeps_no_connection(postgresql: str) -> None:
    """The main one of a worker does, from its preflight to its end."""
    storage, here = DjangoStorage(postgresql), connections[postgresql]
    here.ensure_connection()
    with keeping_none():
        assert here.connection is None
        with storage.begin(atomic=False) as rows:
            rows.now()
        assert here.connection is None
    with storage.begin(atomic=False) as rows:
        rows.now()
    assert here.connection is not None
