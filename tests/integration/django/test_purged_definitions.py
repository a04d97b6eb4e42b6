"""Definitions that no execution is pinned to are deleted through Django's connection too."""

from __future__ import annotations

import threading

from automate_django.models import WorkflowDefinition, WorkflowExecution
from automate_django.storage import DjangoStorage
from automate_kernel import Kernel
from automate_kernel.storage.errors import LockedError
from automate_kernel.storage.tables import DEFINITION
from django.db import connections


def kernel(version: int) -> Kernel:
    """A kernel with one of many definitions."""
    made = Kernel(DjangoStorage(), discover=False)

    @made.action("do.it")
    def do_it(v: int) -> int:
        return v

    steps = [{"id": "a", "action": "do.it", "input": {"v": version}}]
    made.add_workflow({"name": "w", "trigger": {"type": "manual"}, "steps": steps})
    return made


def test_unused_definitions_go(alias: str) -> None:
    """Those of executions and of the kernel's own workflows stay."""
    kept, used, unused = (kernel(version) for version in (1, 2, 3))
    for each in (kept, used, unused):
        each.run("w")
    own = used.workflows["w"].hash()
    WorkflowExecution.objects.using(alias).exclude(definition_id=own).delete()
    assert kept.purge_definitions(older_than_seconds=0.0) == 1
    left = {each.id for each in WorkflowDefinition.objects.using(alias).all()}
    assert left == {own, kept.workflows["w"].hash()}


def test_a_lock_is_not_waited_for(postgresql: str) -> None:
    """On PostgreSQL a purge gives way to who holds the table, and deletes nothing."""
    storage, seen = DjangoStorage(), list[object]()

    def other() -> None:
        try:
            with DjangoStorage().begin() as rows:
                rows.keep_writers_out(DEFINITION)
        except LockedError as error:
            seen.append(error)
        finally:
            connections.close_all()

    with storage.begin() as rows:
        rows.keep_writers_out(DEFINITION)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(30)
    assert len(seen) == 1
