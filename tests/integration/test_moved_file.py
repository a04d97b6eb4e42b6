"""A SQLite file that is deleted or replaced under a kernel that has it open."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from automate_kernel import Kernel
from automate_kernel.base.errors import ErrorCodes, StorageError
from automate_sqlalchemy import SqlAlchemyStorage, metadata
from waiting import until


def test_a_deleted_file_is_missed_and_another_is_taken(tmp_path: Path) -> None:
    """What is accepted is in the file of that name, and a worker goes on with it."""
    file, other = tmp_path / "shop.sqlite3", tmp_path / "restored.sqlite3"
    for each in (file, other):
        engine = sa.create_engine(f"sqlite:///{each}")
        metadata.create_all(engine)
        engine.dispose()
    done: list[int] = []
    with Kernel(SqlAlchemyStorage(f"sqlite:///{file}"), discover=False, secrets={}) as kernel:

        @kernel.handler("note")
        def note(item) -> None:
            done.append(item.payload)

        kernel.outbox.enqueue("note", 1)
        worker = kernel.worker(poll_seconds=0.1)
        thread = threading.Thread(target=worker.run)
        thread.start()
        try:
            until(lambda: done == [1])
            for journal in tmp_path.glob("shop.sqlite3*"):
                journal.unlink()
            with pytest.raises(StorageError, match="is gone") as caught:
                kernel.outbox.enqueue("note", 2)
            assert caught.value.code is ErrorCodes.UNAVAILABLE and caught.value.hint
            other.rename(file)
            kernel.outbox.enqueue("note", 3)
            until(lambda: done == [1, 3])
        finally:
            worker.stop()
            thread.join()
    engine = sa.create_engine(f"sqlite:///{file}")
    with engine.connect() as connection:
        statuses = connection.exec_driver_sql("SELECT payload, status FROM automate_outbox").all()
    assert [tuple(row) for row in statuses] == [("3", "COMPLETED")]


def test_no_empty_file_takes_the_place_of_a_deleted_file(tmp_path: Path) -> None:
    """SQLite creates what a new connection doesn't find, and then there is no table."""
    file = tmp_path / "shop.sqlite3"
    engine = sa.create_engine(f"sqlite:///{file}")
    metadata.create_all(engine)
    engine.dispose()
    with Kernel(SqlAlchemyStorage(f"sqlite:///{file}"), discover=False, secrets={}) as kernel:
        kernel.outbox.enqueue("note", 1)
        kernel.storage.engine.dispose()
        file.rename(tmp_path / "away")
        for _ in range(2):
            with pytest.raises(StorageError, match="is gone"):
                kernel.outbox.enqueue("note", 2)
        assert not file.exists()
        (tmp_path / "away").rename(file)
        kernel.outbox.enqueue("note", 3)
        assert kernel.outbox.count() == 2


def test_a_coroutine_without_asyncio_is_refused_with_the_remedy() -> None:
    """Under trio, say, where asyncio's own words were of no help."""
    from automate_kernel import AutomateError

    with Kernel(discover=False, secrets={}) as kernel:
        for made in (
            lambda: kernel.aemit("order.created"),
            lambda: kernel.ainvoke("core.nothing"),
            lambda: kernel.asignal("id", "name"),
            lambda: kernel.aoptions("core.nothing", "field"),
            lambda: kernel.outbox.aenqueue("note"),
        ):
            with pytest.raises(AutomateError, match="asyncio") as caught:
                made().send(None)
            assert "trio.to_thread" in str(caught.value)


def test_bytes_of_another_locale_name_it() -> None:
    """Python gives bytes that the locale's encoding doesn't have as halves of surrogate pairs."""
    with (
        Kernel(discover=False, secrets={}) as kernel,
        pytest.raises(Exception, match=r"LC_ALL=C\.UTF-8"),
    ):
        kernel.emit("caf\udcc3\udca9")
