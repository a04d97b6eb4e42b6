"""The parts of a process that its forks can't take over: threads, locks, loops, connections."""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol
from weakref import WeakSet

from automate_kernel.errors import ErrorCodes, StorageError


class Renewable(Protocol):
    """Something with threads or connections, which are its own process's."""

    def renew(self) -> None:
        """Forget them, and make others when needed. None is closed: the parent goes on with it."""


def renew_in_children(one: Renewable) -> None:
    """
    Have *one* renewed in each process that is forked from this one.

    Servers that load an application before they fork (uWSGI, Gunicorn with ``--preload``) have the
    kernel in both. A thread is not copied, so who waited for its answer would wait for ever; and
    two processes that write to one socket mix up their requests.
    """
    _renewables.add(one)


_renewables: WeakSet[Renewable] = WeakSet()
_renewed_in = os.getpid()
# So long a fork waits for transactions of other threads. Most take milliseconds.
_PATIENCE_SECONDS = 10.0
_LOOK_SECONDS = 0.005


class ForkGate:
    """
    A gate before a library that must not be in use, in any thread, while the process is forked.

    SQLite is such a library. Its locks are copied in the state that they are in, and nobody in the
    child ever frees those of a thread that is not there. So a fork waits until all are out, for ten
    seconds, has newcomers wait, and calls *leave*, which closes what the child must not inherit.
    *leave* returns False while somebody still uses it.
    """

    def __init__(self, leave: Callable[[], bool] = lambda: True) -> None:
        self._leave = leave
        self._changed = threading.Condition(threading.Lock())
        self._inside: dict[int, int] = {}
        self._closed = 0  # by so many threads that fork
        self._left = False
        self._torn = False
        _gates.add(self)

    def __enter__(self) -> None:
        if self._torn:
            raise StorageError(
                "this process was forked while SQLite was in use, and so can't use it",
                code=ErrorCodes.FAILED_PRECONDITION,
                hint="end your transactions and stop workers before you fork, fork before they"
                " begin, or start a new process (multiprocessing's 'spawn', or subprocess)",
            )
        me = threading.get_ident()
        with self._changed:
            while self._closed and me not in self._inside:
                self._changed.wait()
            self._inside[me] = self._inside.get(me, 0) + 1

    def __exit__(self, *_: object) -> None:
        me = threading.get_ident()
        with self._changed:
            self._inside[me] -= 1
            if not self._inside[me]:
                del self._inside[me]
                if self._closed:
                    self._changed.notify_all()
            empty = not self._inside
        if empty and forks_unseen():
            self._leave()

    def close(self, deadline: float) -> None:
        """Keep newcomers out, and wait until all others have left."""
        me = threading.get_ident()
        with self._changed:
            self._closed += 1
            left = deadline - time.monotonic()
            self._changed.wait_for(lambda: not self._inside.keys() - {me}, max(0.0, left))
            self._left = not self._inside

    def leave(self, deadline: float) -> None:
        """Call what was given as *leave* until it has succeeded."""
        while self._left and not (done := self._leave()):
            if time.monotonic() > deadline:
                self._left = done
            else:
                time.sleep(_LOOK_SECONDS)

    def open(self) -> None:
        """Let newcomers in again."""
        with self._changed:
            self._closed -= 1
            self._changed.notify_all()

    def renew(self) -> None:
        """Forget the threads that are not in this process. If some were inside, let nobody in."""
        me = threading.get_ident()
        # uWSGI, which forks in C, has closed no gate.
        self._torn = self._torn or not (self._left if self._closed else not self._inside)
        self._changed = threading.Condition(threading.Lock())
        self._inside = {me: self._inside[me]} if me in self._inside else {}
        self._closed = 0


def new_lock() -> threading.Lock:
    """Return a lock that is free in each process that is forked, whoever held it."""
    made = threading.Lock()
    _locks.add(made)
    return made


def new_rlock() -> Any:
    """Return a reentrant lock that is free in each process that is forked, but for this thread."""
    made = threading.RLock()
    _locks.add(made)
    return made


_gates: WeakSet[ForkGate] = WeakSet()
_locks: WeakSet[Any] = WeakSet()


def _close_gates() -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    closed = list(_gates)
    for gate in closed:
        gate.close(deadline)
    for gate in closed:
        gate.leave(deadline)


def _open_gates() -> None:
    for gate in list(_gates):
        gate.open()


def _renew_all() -> None:
    global _renewed_in  # noqa: PLW0603  (the process is one)
    _renewed_in = os.getpid()
    for lock in list(_locks):
        owned = getattr(lock, "_is_owned", None)  # by the thread that has forked, and goes on
        if owned is None or not owned():
            lock._at_fork_reinit()  # noqa: SLF001 - as the standard library does for its own
    for gate in list(_gates):
        gate.renew()
    for one in list(_renewables):
        one.renew()


def _renew_after_uwsgi() -> None:
    """Have uWSGI renew in its workers too: it forks in C, and by default Python isn't told."""
    uwsgi: Any = sys.modules.get("uwsgi")
    if not hasattr(uwsgi, "masterpid"):  # uWSGI's own module, which is nowhere but inside of it
        return
    try:
        decorators: Any = importlib.import_module("uwsgidecorators")
    except Exception:  # it isn't installed, or refuses since there is no master process
        before = getattr(uwsgi, "post_fork_hook", None)

        def hook() -> None:
            if before is not None:
                before()
            _forked_by_uwsgi()

        uwsgi.post_fork_hook = hook
    else:
        # The hook is one attribute, which this module sets at its import, and has a list for.
        decorators.postfork(_forked_by_uwsgi)


def forks_unseen() -> bool:
    """Return True in a process of uWSGI that is still to be forked, and calls no hook before."""
    uwsgi: Any = sys.modules.get("uwsgi")
    return hasattr(uwsgi, "masterpid") and not uwsgi.worker_id()


def _forked_by_uwsgi() -> None:
    # Without a master the first worker is the very process that loaded the application. And options
    # of uWSGI's have Python told after all.
    if _renewed_in == os.getpid():
        return
    # Else a worker that ends waits for the parent's threads, which it takes for its own.
    after_fork: Any = vars(threading)["_after_fork"]
    after_fork()
    _renew_all()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_close_gates, after_in_parent=_open_gates, after_in_child=_renew_all)
_renew_after_uwsgi()
