"""A budget holds over processes that spend at once, and over those that die meanwhile."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import processes
import pytest
import sqlalchemy as sa
from automate_kernel import AutomateError
from automate_kernel.operations.budgets import SpendingLimit, Budgets
from automate_sqlalchemy import SqlAlchemyStorage

SCRIPT = Path(__file__).with_name("spending_worker.py")


def answers(workers: list[subprocess.Popen[str]], calls: int) -> list[str]:
    """What the *workers* say after so many calls, made by all of them at once."""
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write(f"{calls}\n")
        worker.stdin.flush()
    return [worker.stdout.readline() for worker in workers if worker.stdout is not None]


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite", "postgresql", "mariadb"])
def test_no_process_passes_the_budget(
    request: pytest.FixtureRequest, database: str, tmp_path: Path
) -> None:
    """Five processes ask for more than there is, two are killed in a call, and nothing is lost."""
    engine: sa.Engine = request.getfixturevalue(f"{database}_engine")
    url, ledger = engine.url.render_as_string(hide_password=False), tmp_path / "ledger"
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    started = [
        processes.start([sys.executable, str(SCRIPT), url, str(ledger), fate], **pipes)
        for fate in ("lives", "lives", "lives", "dies", "dies")
    ]
    *living, first, second = started
    try:
        # Few enough that the two get into their second call.
        assert answers(started, 5) == ["0\n", "0\n", "0\n", "", ""]
        assert [first.wait(30), second.wait(30)] == [-signal.SIGKILL, -signal.SIGKILL]
        refused = sum(map(int, answers(living, 20)))
        # One alone: what each of them was refused last the others may have held then.
        refused += int(answers(living[:1], 20)[0])
    finally:
        for process in started:
            processes.end(process)
    taken = [int(line) for line in ledger.read_text().split()]
    assert taken.count(40) == 2
    # They went on until there was no room for another one.
    assert refused > 0 and 1_000 - 40 < sum(taken) <= 1_000
    budgets = Budgets(SqlAlchemyStorage(engine))
    (account,) = budgets.find("llm")
    assert account.spent == {"tokens": 25 * taken.count(25)} and account.reserved == {"tokens": 80}
    with pytest.raises(AutomateError, match="80 are reserved"):
        budgets.reserve(
            [SpendingLimit(name="llm", limits={"tokens": 1_000}, tenant_id="acme")], {"tokens": 40}
        )
