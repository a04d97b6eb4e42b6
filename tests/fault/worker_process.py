"""
The processes that the fault tests harm: ``python worker_process.py`` forks one for each order.

What they need is imported once, before the first fork, so that one begins within milliseconds.
Every side effect is a line in a ledger, written in one piece, which outlives the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import itertools
import json
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import sqlalchemy as sa
from automate_kernel.kernel import Kernel
from automate_kernel.workflows.store.checkpoints import Save
from automate_kernel.workflows.steer.executions import ExecutionStore
from automate_kernel.workflows.execution import StepStatus
from automate_sqlalchemy import metadata
from fault_kernel import Ledger, open_kernel, sessions_of
from fault_orders import add_orders
from fault_scripts import SCRIPTS

_NETWORK, _NAMES = 0x40000000, 0x04000000
_NAMESPACES = Path("/run/netns")


@dataclass
class Order:
    """What a process is to do, and what is wrong with it."""

    url: str
    ledger: str
    output: str
    lease_seconds: float = 1.0
    most_seconds: float = 0.06
    slots: int = 4
    worker_id: str = ""
    script: str = ""
    """One of `SCRIPTS`; by default it works until SIGTERM, and tells its statistics."""
    arguments: list[Any] = field(default_factory=list)
    die_at: int = 0
    """The moment, counted from 1, at which it kills itself; see `count_moments`."""
    die_before_checkpoint: int = 0
    """The checkpoint of executions, counted from 1, that it doesn't live to save."""
    die_after_checkpoint: int = 0
    """The checkpoint, counted from 1, whose success it doesn't live to hear of."""
    clock_seconds: float = 0.0
    """By how much its clock is wrong."""
    machine: str = ""
    """The name of the machine that it seems to run on: that of a network namespace."""
    seed: int = 0


def count_moments(engine: sa.Engine, die_at: int) -> list[int]:
    """
    Kill this process at moment number *die_at*; returns the count so far, in a list.

    The moments are those before and after each statement and each commit.
    """
    count, lock = [0], threading.Lock()

    def moment(*_: Any) -> None:
        with lock:
            count[0] += 1
            if count[0] == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sa.event.listen(engine, "before_cursor_execute", moment)
    sa.event.listen(engine, "after_cursor_execute", moment)
    commit = engine.dialect.do_commit

    def committing(connection: Any) -> None:
        moment()
        commit(connection)
        moment()

    engine.dialect.do_commit = committing  # type: ignore[method-assign]
    return count


def die_around_checkpoint(store: ExecutionStore, before: int, after: int) -> None:
    """Kill this process right before checkpoint number *before*, or right after *after*."""
    count, save = itertools.count(1), store.checkpoints.save

    def checkpoint(group: Sequence[Save], **within: Any) -> Any:
        runs = [run for each in group for run in each.turn.saves]
        if all(run.status is StepStatus.RUNNING for run in runs):
            # A call takes so long, on a busy machine, that others are to see it: no outcome is lost.
            return save(group, **within)
        number = next(count)
        if number == before:
            os.kill(os.getpid(), signal.SIGKILL)
        held = save(group, **within)
        if number == after:
            os.kill(os.getpid(), signal.SIGKILL)
        return held

    store.checkpoints.save = checkpoint  # type: ignore[method-assign]


def shift_clock(seconds: float) -> None:
    """Let this process believe that it is *seconds* later; only monotonic time stays right."""
    real_time, real_ns, shift = time.time, time.time_ns, timedelta(seconds=seconds)

    class Kind(type):
        def __instancecheck__(cls, one: object) -> bool:
            return isinstance(one, datetime)

    class Shifted(datetime, metaclass=Kind):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + shift

        @classmethod
        def utcnow(cls) -> Any:
            return datetime.utcnow() + shift

    time.time = lambda: real_time() + seconds
    time.time_ns = lambda: real_ns() + int(seconds * 1e9)
    for name, module in list(sys.modules.items()):
        if name.startswith("automate_") and getattr(module, "datetime", None) is datetime:
            module.datetime = Shifted  # type: ignore[attr-defined]


def note_stops(ledger: Ledger, seconds: float) -> None:
    """Write down when this process has stood still for so long, as a busy machine lets it."""
    tick, looked_at = threading.Event(), time.monotonic()
    while True:
        tick.wait(seconds / 5)
        before, looked_at = looked_at, time.monotonic()
        if looked_at - before > seconds:
            ledger.write("stood", os.getpid())


def move_to(machine: str) -> None:
    """Leave for a network and a host name of one's own."""
    libc = ctypes.CDLL(None, use_errno=True)
    network = os.open(_NAMESPACES / machine, os.O_RDONLY)
    if libc.setns(network, _NETWORK) or libc.unshare(_NAMES):
        raise OSError(ctypes.get_errno(), "a namespace can't be entered")
    socket.sethostname(machine)


def run(order: Order) -> None:
    """Carry *order* out in this process."""
    random.seed(order.seed or os.getpid())  # else all forks would roll the same dice
    os.environ["PGAPPNAME"] = sessions_of(os.getpid())
    if order.machine:
        move_to(order.machine)
    if order.clock_seconds:
        shift_clock(order.clock_seconds)
    ledger = Ledger(order.ledger)
    kernel = open_kernel(order.url, ledger, order.lease_seconds, order.most_seconds)
    add_orders(kernel, order.url, ledger, order.most_seconds)
    moments = count_moments(kernel.storage.engine, order.die_at)
    die_around_checkpoint(
        kernel.executions, order.die_before_checkpoint, order.die_after_checkpoint
    )
    if order.script:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        SCRIPTS[order.script].act(kernel, ledger, *order.arguments)
        print(moments[0], flush=True)
    else:
        _work(kernel, order, ledger)


def _work(kernel: Kernel, order: Order, ledger: Ledger) -> None:
    # After half of its lease it may have lost that before its next heartbeat.
    noting = {"target": note_stops, "args": (ledger, order.lease_seconds / 2), "daemon": True}
    threading.Thread(**noting).start()
    options = {"worker_id": order.worker_id} if order.worker_id else {}
    worker = kernel.worker(slots=order.slots, poll_seconds=0.1, report_seconds=0.5, **options)
    # On a thread: the interrupted code may hold the very lock that `stop` needs.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=worker.stop).start())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    print(json.dumps(asdict(worker.run())), flush=True)


def _child(order: Order) -> NoReturn:
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        output = os.open(order.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(os.open(order.output + ".errors", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        faulthandler.register(signal.SIGUSR1)
        run(order)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # without the cleaning up that belongs to the parent


def warm_up() -> None:
    """Import what is imported at first use too, before the forks, for them to be quick."""
    sa.create_engine("postgresql+psycopg://")
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/warm"
        kernel = open_kernel(url, Ledger(f"{folder}/ledger"), 60.0, 0.0)
        metadata.create_all(kernel.storage.engine)
        add_orders(kernel, url, Ledger(f"{folder}/ledger"), 0.0)
        kernel.run("crash", {"n": 1})
        kernel.worker().stop()
        kernel.close()
        kernel.storage.engine.dispose()
    gc.collect()
    gc.freeze()


def serve() -> None:
    """Fork for each order on the standard input; tell how a process ended to who asks for it."""
    warm_up()
    children: set[int] = set()
    # A worker that is asked to stop while it starts waits with that until it can.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    for line in sys.stdin:
        asked: dict[str, Any] = json.loads(line)
        answer: int | None
        if "pid" in asked:
            pid, status = os.waitpid(asked["pid"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
            children.discard(pid)
        else:
            answer = os.fork()
            if not answer:
                _child(Order(**asked))
            children.add(answer)
        print(json.dumps(answer), flush=True)
    for pid in children:  # the tests are gone
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    serve()
