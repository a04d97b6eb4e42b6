"""
A process that spends of a budget, and dies while a call goes on if it is told to.

    python spending_worker.py URL LEDGER DIES

It waits for a line with the number of its next calls, and answers with a line how many of them were
refused. It notes what it took before it settles that.
"""

from __future__ import annotations

import os
import signal
import sys

import sqlalchemy as sa
from automate_kernel import AutomateError
from automate_kernel.operations.budgets import SpendingLimit, Budgets
from automate_sqlalchemy import SqlAlchemyStorage


def main() -> None:
    url, ledger, dies = sys.argv[1], sys.argv[2], sys.argv[3] == "dies"
    # SQLite gives up after five seconds, in which a busy machine may let others alone come first.
    patient = {"timeout": 60} if url.startswith("sqlite") else {}
    budgets = Budgets(SqlAlchemyStorage(sa.create_engine(url, connect_args=patient)))
    budget = SpendingLimit(name="llm", limits={"tokens": 1_000}, tenant_id="acme")
    for calls in sys.stdin:
        refused = 0
        for number in range(int(calls)):
            try:
                reservation = budgets.reserve([budget], {"tokens": 40})
            except AutomateError as error:
                if error.code != "RESOURCE_EXHAUSTED":
                    raise
                refused += 1
                continue
            took = 40 if dies and number == 1 else 25
            with open(ledger, "a") as lines:
                lines.write(f"{took}\n")
            if took == 40:
                os.kill(os.getpid(), signal.SIGKILL)
            budgets.settle(reservation, {"tokens": took})
        print(refused, flush=True)


if __name__ == "__main__":
    main()
