"""
Worker processes for the tests of limits: ``limited_worker.py URL LEDGER HOW_MANY``.

What they need is imported once, before they are forked. Each begin and end of a handler is a line in the ledger, written in one piece, so that the lines of
all processes stand in the order in which things happened.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
import traceback
from typing import Any, NoReturn

import psycopg  # noqa: F401  (imported before the forks, for them to be quick)
import sqlalchemy as sa
from automate_kernel import Kernel
from automate_kernel.outbox import OutboxItem
from automate_sqlalchemy import SqlAlchemyStorage

KINDS = ("narrow", "paced", "shared.a", "shared.b", "plain")


def open_kernel(url: str, ledger: str) -> Kernel:
    """A kernel whose handlers write to *ledger*."""
    kernel = Kernel(SqlAlchemyStorage(sa.create_engine(url)), secrets={}, discover=False)
    file = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(what: str, item: OutboxItem) -> None:
        line: dict[str, Any] = {
            "what": what,
            "id": item.id,
            "kind": item.kind,
            "key": item.concurrency_key or item.ordering_key,
            "claimed_at": item.updated_at.timestamp(),
            "pid": os.getpid(),
        }
        os.write(file, (json.dumps(line) + "\n").encode())

    def handle(item: OutboxItem) -> None:
        note("begin", item)
        time.sleep(random.random() * 0.03)  # the work
        note("end", item)

    for kind in KINDS:
        kernel.handler(kind)(handle)
    return kernel


def work(url: str, ledger: str, number: int) -> None:
    """Work until SIGTERM."""
    random.seed(number)  # else all forks would roll the same dice
    worker = open_kernel(url, ledger).worker(slots=4, worker_id=f"limited-{number}")
    # On a thread: the interrupted code may hold the very lock that `stop` needs.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=worker.stop).start())
    worker.run()


def child(url: str, ledger: str, number: int) -> NoReturn:
    """A forked process, which ends with 0 if all was well."""
    code = 1
    try:
        work(url, ledger, number)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)  # without the cleaning up that belongs to the parent


def main(url: str, ledger: str, how_many: str) -> int:
    """Fork them, hand SIGTERM on to them, and return how many ended badly."""
    children: list[int] = []
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    for number in range(int(how_many)):
        pid = os.fork()
        if not pid:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
            child(url, ledger, number)
        children.append(pid)
    signal.sigwait([signal.SIGTERM])
    for pid in children:
        os.kill(pid, signal.SIGTERM)
    return sum(os.waitpid(pid, 0)[1] != 0 for pid in children)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
