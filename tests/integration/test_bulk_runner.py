"""A worker process is killed in the middle of a bulk action, and exactly one other carries it on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa

from automate_kernel import Kernel
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.outbox import BulkAction
from automate_kernel.storage import Now, Where
from automate_kernel.storage.tables import OUTBOX
from automate_kernel.workflows.steer import bulk_runner
from automate_kernel.workflows.steer.bulk_runner import KIND, BulkRequest, BulkRunner
from automate_kernel.workflows.steer import executions as stored_executions
from automate_sqlalchemy import SqlAlchemyStorage, metadata

PAY = {
    "name": "pay",
    "trigger": {"type": "manual"},
    "steps": [{"id": "charge", "action": "bank.charge"}],
}


class Host:
    """An application that lets everybody do everything, and writes ends down."""

    def __init__(self) -> None:
        self.ends: dict[str, tuple[BulkRequest, str]] = {}

    def objection(self, request: BulkRequest) -> str:
        return ""

    def is_tied(self, request: BulkRequest) -> bool:
        return False

    def ended(self, request_id: str, request: BulkRequest, problem: str, _: object) -> None:
        assert request_id not in self.ends
        self.ends[request_id] = request, problem

    def find_ended(self, request_id: str) -> tuple[BulkRequest, str] | None:
        return self.ends.get(request_id)


def opened(path: Path, *, away: bool) -> tuple[Kernel, BulkRunner, Host]:
    """A kernel on the database at *path*, with what runs bulk actions."""
    storage = SqlAlchemyStorage(sa.create_engine(f"sqlite:///{path}"))
    kernel = Kernel(storage, discover=False, secrets={})

    @kernel.action("bank.charge")
    def charge() -> str:
        if away:
            raise AutomateError(ErrorCodes.UNAVAILABLE, "the bank is away")
        return "paid"

    kernel.add_workflow(PAY)
    host = Host()
    kernel.bulk.ask(host)
    return kernel, kernel.bulk, host


class Mortal(BulkRunner):
    """A runner that dies once it has done its second turn, and before it says so."""

    turns = 0

    def carry_on(self, request: BulkRequest) -> BulkRequest:
        done = super().carry_on(request)
        self.turns += 1
        if self.turns == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return done


def test_a_killed_worker_leaves_the_rest_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it did stays done; each execution goes on once, and the end is recorded once."""
    few = replace(stored_executions.EXECUTIONS, batch=10)
    monkeypatch.setattr(stored_executions, "EXECUTIONS", few)
    monkeypatch.setattr(bulk_runner, "SECONDS", 0.0)
    path = tmp_path / "kernel.sqlite3"
    metadata.create_all(sa.create_engine(f"sqlite:///{path}"))
    kernel, _, _ = opened(path, away=True)
    ids = [kernel.start("pay") for _ in range(45)]
    kernel.run_until_idle()
    kernel, runner, host = opened(path, away=False)
    action = BulkAction("resume", {"status": "FAILED"}, target="executions")
    assert runner.total(action) == 45
    request_id = runner.hand_over(BulkRequest("resume", "ann", None, "failed", {}, 45, action))
    child = subprocess.run([sys.executable, __file__, str(path)], check=False)
    assert child.returncode == -signal.SIGKILL
    found = runner.find_progress(UUID(request_id))
    assert found is not None
    assert (found.request.action.done, found.over, found.waits) == (10, False, False)
    item = kernel.outbox.get(found.item_id)
    assert item is not None and item.lease_owner is not None
    # Nobody waits for it here: its lease has ended.
    with kernel.storage.begin() as rows:
        rows.update(OUTBOX, [Where("id", "eq", item.id)], {"lease_expires_at": Now(-1)})
    assert [each.id for each in kernel.outbox.reap().retried] == [item.id]
    kernel.outbox.reschedule([item.id])
    kernel.run_until_idle()
    assert {kernel.executions.get(each).status.value for each in ids} == {"COMPLETED"}
    assert {len(kernel.executions.attempts(each)) for each in ids} == {2}
    assert list(host.ends) == [request_id]
    # The second turn was done, and nobody heard of it.
    assert host.ends[request_id][0].action.done == 35
    assert not runner.stop(UUID(request_id))


def die_over(path: Path) -> None:
    """Work on bulk actions alone until death comes."""
    stored_executions.EXECUTIONS = replace(stored_executions.EXECUTIONS, batch=10)
    bulk_runner.SECONDS = 0.0
    kernel, _, host = opened(path, away=False)
    mortal = Mortal(kernel.outbox, kernel.executions, host)
    while items := kernel.outbox.claim_batch("mortal", 1, kinds=[KIND]):
        mortal.handle(items[0])


if __name__ == "__main__":
    die_over(Path(sys.argv[1]))
