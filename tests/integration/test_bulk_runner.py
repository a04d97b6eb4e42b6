"""A worker process is killed in the middle of a bulk action, and exactly one other carries it on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from automate_kernel import Kernel
from automate_kernel.access import roles
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.outbox import BulkAction
from automate_kernel.storage import MemoryStorage, Now, Where
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

    def review(self, request: BulkRequest) -> tuple[BulkRequest, str]:
        return request, ""

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


def handed_over(**about: str) -> tuple[Kernel, str]:
    """Five failed executions, and a bulk action on them that a worker has to carry on."""
    kernel = Kernel(MemoryStorage(), discover=False)
    kernel.add_workflow(PAY)
    kernel.action("bank.charge")(lambda: 1 / 0)
    for _ in range(5):
        kernel.start("pay")
    kernel.run_until_idle()
    action = BulkAction("fork", {"status": "FAILED"}, target="executions", step="charge")
    asked = BulkRequest("fork", "ann", None, "failed", {}, 5, action, **about)
    return kernel, kernel.bulk.hand_over(asked)


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    few = replace(stored_executions.EXECUTIONS, batch=1)
    monkeypatch.setattr(stored_executions, "EXECUTIONS", few)
    monkeypatch.setattr(bulk_runner, "SECONDS", 0.0)


def turn(kernel: Kernel) -> None:
    """Carry one turn out, as a worker does."""
    [item] = kernel.outbox.claim_batch("w", 1, kinds=[KIND])
    kernel.bulk.handle(item)


def problem_of(kernel: Kernel, request_id: str) -> str:
    found = kernel.bulk.find_progress(UUID(request_id))
    assert found is not None and found.over
    assert found.request.action.done == 2
    return found.problem


def with_session(roles: list[str], **options: Any) -> tuple[Kernel, Any, str]:
    """A kernel with a session, in which a bulk action was begun that has done two of five."""
    kernel, _ = handed_over()
    kernel.sessions.begin("ann", roles=roles, tenant_id=None, method="test", **options)
    [session] = kernel.sessions.all()
    kernel.outbox.cancel([each.id for each in kernel.outbox.find(kind=KIND)])
    action = BulkAction("fork", {"status": "FAILED"}, target="executions", step="charge")
    asked = BulkRequest("fork", "ann", None, "failed", {}, 5, action, session=session.id)
    request_id = kernel.bulk.hand_over(asked)
    turn(kernel)
    turn(kernel)
    return kernel, session, request_id


@pytest.mark.usefixtures("one_by_one")
def test_the_end_of_a_session_stops_what_was_begun_in_it() -> None:
    kernel, session, request_id = with_session(["admin"])
    assert kernel.sessions.end(session.id)
    turn(kernel)
    assert "session in which it was begun was ended" in problem_of(kernel, request_id)
    assert not kernel.outbox.claim_batch("w", 1, kinds=[KIND])


@pytest.mark.usefixtures("one_by_one")
@pytest.mark.parametrize("purged", [False, True])
def test_who_logs_out_stops_nothing(purged: bool) -> None:
    """Nor does a session that has run out and is forgotten."""
    kernel, session, request_id = with_session(["author"])
    assert kernel.sessions.leave(session.id)
    assert not kernel.sessions.leave(session.id)
    assert not kernel.sessions.all()
    turn(kernel)
    if purged:
        assert kernel.sessions.purge() == 1
    kernel.run_until_idle()
    found = kernel.bulk.find_progress(UUID(request_id))
    assert found is not None
    assert (found.over, found.problem, found.request.action.done) == (True, "", 5)


@pytest.mark.usefixtures("one_by_one")
def test_a_session_ends_once_it_may_not_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, _, request_id = with_session(["author"])
    monkeypatch.setitem(roles.RIGHTS, "author", frozenset({"view", "steer"}))  # type: ignore[arg-type]
    turn(kernel)
    assert "may not do it any more" in problem_of(kernel, request_id)


@pytest.mark.usefixtures("one_by_one")
@pytest.mark.parametrize("by", ["session", "api"])
def test_a_revoked_token_stops_what_was_begun_by_it(by: str) -> None:
    """Whether it began a session on the pages, or a client of the API had it."""
    kernel, first = handed_over()
    kernel.bulk.stop(UUID(first))
    token, _ = kernel.tokens.new("ann", roles=["admin"], scopes=["executions:write"])
    about = {"token": token.id}
    if by == "session":
        kernel.sessions.begin("ann", roles=[], tenant_id=None, method="token", token=token)
        about = {"session": kernel.sessions.all()[0].id}
    action = BulkAction("fork", {"status": "FAILED"}, target="executions", step="charge")
    asked = BulkRequest("fork", token.id, None, "failed", {}, 5, action, **about)
    request_id = kernel.bulk.hand_over(asked)
    turn(kernel)
    turn(kernel)
    kernel.tokens.revoke(token.prefix)
    turn(kernel)
    assert "token by which it was begun is revoked" in problem_of(kernel, request_id)
    assert kernel.executions.count_bulk(action) == 5
    with pytest.raises(AutomateError, match="revoked|ended"):
        kernel.bulk.hand_over(asked)


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
