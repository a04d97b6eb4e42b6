"""A SQLite file that is deleted or replaced under a kernel that has it open."""

from __future__ import annotations

import os
import subprocess
import sys
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


IN_DJANGO = """
import shutil, sys, threading
from pathlib import Path
import django
from django.conf import settings

file, other = Path(sys.argv[1], "shop.sqlite3"), Path(sys.argv[1], "restored.sqlite3")
settings.configure(
    SECRET_KEY="x", USE_TZ=True, DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "automate_django"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(file)}},
)
django.setup()
from django.core.management import call_command
from django.db import connections
call_command("migrate", verbosity=0)
connections.close_all()
shutil.copy(file, other)

from automate_django import get_kernel
from automate_kernel.base.errors import StorageError
from waiting import until
kernel, done = get_kernel(), []
kernel.handler("note")(lambda item: done.append(item.payload))
worker = kernel.worker(poll_seconds=0.1)
thread = threading.Thread(target=worker.run, daemon=True)
thread.start()
kernel.outbox.enqueue("note", 1)
until(lambda: worker.stats.completed == 1)
for each in file.parent.glob("shop.sqlite3*"):
    each.unlink()
try:
    kernel.outbox.enqueue("note", 2)
except StorageError as error:
    assert "is gone" in str(error) and error.retryable
else:
    raise AssertionError("it was accepted")
assert not file.exists()
other.rename(file)
# While a thread still has the file that is gone, SQLite may refuse: it knows journals by name.
def accepted():
    try:
        return kernel.outbox.enqueue("note", 3, idempotency_key="three")
    except StorageError as error:
        assert error.retryable, error
until(accepted)
until(lambda: worker.stats.completed == 2)
worker.stop()
thread.join()
assert (done, worker.stats.lost) == ([1, 3], 0), (done, worker.stats)

from automate_django import connections as ours
look = ours.file_identity
def gone_after_the_look(path):
    found = look(path)
    path.unlink(missing_ok=True)
    return found
connections.close_all()
ours.file_identity = gone_after_the_look
try:
    kernel.outbox.enqueue("note", 4)
except StorageError as error:
    assert "is gone" in str(error)
else:
    raise AssertionError("it was accepted")
assert not file.exists()
"""


def test_a_file_under_django_is_missed_and_another_is_taken(tmp_path: Path) -> None:
    """In each thread of a worker, whose outcomes would go to the file that is no more."""
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", IN_DJANGO, str(tmp_path)], env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


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
