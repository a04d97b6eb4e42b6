"""The parts of a process that its forks can't take over: threads, locks, loops, connections."""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Protocol, TypeVar
from weakref import WeakValueDictionary

from automate_kernel.base import runtime
from automate_kernel.base.errors import ErrorCodes, StorageError

T = TypeVar("T")


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
    _renewables[id(one)] = one


_renewed_in = os.getpid()
# So long a fork waits for transactions of other threads. Most take milliseconds.
_PATIENCE_SECONDS = 10.0
# And so long for connections that are held with nothing done on them, perhaps for ever.
_IDLE_PATIENCE_SECONDS = 2.0
# Whose calls are no place of the application's.
_OTHERS = (
    "asgiref", "automate_", "contextlib", "django.", "queue", "sqlalchemy.", "sqlite3", "threading",
)  # fmt: skip
_LOOK_SECONDS = 0.005


class ForkGuard:
    """
    A guard before a library that must not be in use, in any thread, while the process is forked.

    SQLite is such a library. A fork copies its locks as they are. In the child nobody ever frees
    the locks of a thread that is not there. So a fork waits until all are out, for ten seconds, has
    newcomers wait, and calls *leave*, which closes what the child must not inherit. *leave* returns
    False while somebody still uses it. *mine* returns True if the thread that forks does so itself:
    then it is no use to wait. *holders* returns the threads that use it past the guard. *idle*
    returns True if nothing is done or half done there: then a fork waits for two seconds.
    """

    def __init__(
        self,
        leave: Callable[[], bool] = lambda: True,
        mine: Callable[[], bool] = lambda: False,
        *,
        holders: Callable[[], Iterable[int]] = tuple,
        idle: Callable[[], bool] = lambda: False,
    ) -> None:
        self._leave, self.mine, self._holders, self._idle = leave, mine, holders, idle
        self._used_by = ""
        self.left = False
        self.torn = False
        _guards[id(self)] = self

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Use the library for the block, which another thread may end than has begun it."""
        if self.torn:
            self.check()
        token = object()
        # First this, then the look: whoever forks does it the other way round.
        _inside[token] = self, runtime.get_ident()
        if _closed:
            self._wait_outside(token)
        try:
            yield
        finally:
            _inside.pop(token, None)
            if forks_unseen() or runtime.get_ident() in _closed:
                self.leave()

    def check(self) -> None:
        """Raise `StorageError` in a child that can't use the library."""
        if self.torn:
            raise StorageError(
                f"this process was forked while SQLite was in use{self._used_by}, and so can't"
                " use it",
                code=ErrorCodes.FAILED_PRECONDITION,
                hint="end your transactions and stop workers before you fork, fork before they"
                " begin, or start a new process (multiprocessing's 'spawn', or subprocess)",
            )

    def _wait_outside(self, token: object) -> None:
        me = runtime.get_ident()
        while _closed:
            others = _inside.copy()
            del others[token]
            # Who is in another guard must come out, and the thread that forks waits for nobody.
            if me in _closed or any(thread == me for _, thread in others.values()):
                self.left = False
                return
            del _inside[token]
            while _closed:
                runtime.sleep(_LOOK_SECONDS)
            _inside[token] = self, me

    @property
    def idle(self) -> bool:
        """True if who uses the library does nothing with it now."""
        return all(guard is not self for guard, _ in _inside.copy().values()) and self._idle()

    def note_users(self) -> None:
        """Note which threads use the library, and where they are, for the child's error."""
        threads = [thread for guard, thread in _inside.copy().values() if guard is self]
        users = [_place_of(thread) for thread in dict.fromkeys([*threads, *self._holders()])]
        self._used_by = f" by {', '.join(users)}" if users else ""

    def leave(self) -> bool:
        """Close what a child must not inherit; return False while somebody uses the library."""
        self.left = False
        if all(guard is not self for guard, _ in _inside.copy().values()):
            self.left = self._leave()
        return self.left


# Nothing of these is locked: each step on them is atomic, and a signal handler that comes in
# between, in the same thread, would wait for ever.
_renewables: WeakValueDictionary[int, Renewable] = WeakValueDictionary()
_renewables[id(runtime.numbers)] = runtime.numbers
_guards: WeakValueDictionary[int, ForkGuard] = WeakValueDictionary()
_locks: WeakValueDictionary[int, Any] = WeakValueDictionary()
# Who is in which guard, and the threads that are about to fork.
_inside: dict[object, tuple[ForkGuard, int]] = {}
_closed: list[int] = []


def _alive(registry: WeakValueDictionary[int, T]) -> list[T]:
    found = [reference() for reference in registry.valuerefs()]
    return [one for one in found if one is not None]


def new_lock() -> runtime.Lock:
    """Return a lock that is free in each process that is forked, whoever held it."""
    made = runtime.Lock()
    _locks[id(made)] = made
    return made


def new_rlock() -> Any:
    """Return a reentrant lock that is free in each process that is forked, but for this thread."""
    made = runtime.RLock()
    _locks[id(made)] = made
    return made


def _close_guards() -> None:
    """Keep newcomers out, and wait until all others have left, but for whom it is no use."""
    began = runtime.monotonic()
    _closed.append(runtime.get_ident())
    while True:
        guards = _alive(_guards)
        used = {guard for guard in guards if not guard.leave()}
        awaited, waited = used - _hopeless(guards), runtime.monotonic() - began
        if not awaited or waited > _PATIENCE_SECONDS:
            break
        if waited > _IDLE_PATIENCE_SECONDS and all(guard.idle for guard in awaited):
            break
        runtime.sleep(_LOOK_SECONDS)
    for guard in used:
        guard.note_users()


def is_within(thread: int, modules: tuple[str, ...]) -> bool:
    """Return True if a *thread* runs code of *modules*, by the beginnings of their names."""
    frame = sys._current_frames().get(thread)  # noqa: SLF001 - its own documentation names it
    while frame is not None:
        if _module_of(frame).startswith(modules):
            return True
        frame = frame.f_back
    return False


def _module_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _place_of(thread: int) -> str:
    """Return the name of a *thread*, and the line of the application that it has come to."""
    # Not threading.enumerate, which takes a lock that a signal handler's own thread may have.
    known = vars(threading)["_active"].get(thread)
    name = f"the thread {known.name if known is not None else thread}"
    first = frame = sys._current_frames().get(thread)  # noqa: SLF001 - as above
    while frame is not None and _module_of(frame).startswith(_OTHERS):
        frame = frame.f_back
    frame = frame or first
    if frame is None:
        return name
    return f"{name} ({frame.f_code.co_filename}:{frame.f_lineno}, in {frame.f_code.co_name})"


def _hopeless(guards: list[ForkGuard]) -> set[ForkGuard]:
    """Return the guards that nobody leaves before this thread goes on."""
    inside = [*_inside.copy().values()]
    hopeless, stuck = {guard for guard in guards if guard.mine()}, {runtime.get_ident()}
    known = -1
    while known != len(hopeless) + len(stuck):
        known = len(hopeless) + len(stuck)
        hopeless.update(guard for guard, thread in inside if thread in stuck)
        # They may wait for a lock that this thread has.
        stuck.update(thread for guard, thread in inside if guard in hopeless)
    return hopeless


def _open_guards() -> None:
    with suppress(ValueError):
        _closed.remove(runtime.get_ident())


def _renew_guards() -> None:
    """Let nobody into a guard that somebody was in. Forget the threads that are not here."""
    me, inside = runtime.get_ident(), _inside.copy()
    occupied = {guard for guard, _ in inside.values()}
    for guard in _alive(_guards):
        # uWSGI, which forks in C, has closed no guard.
        guard.torn = guard.torn or not (guard.left if _closed else guard not in occupied)
    for token, (_, thread) in inside.items():
        if thread != me:
            del _inside[token]
    _closed.clear()


def _renew_all() -> None:
    global _renewed_in  # noqa: PLW0603  (the process is one)
    _renewed_in = os.getpid()
    for lock in _alive(_locks):
        owned = getattr(lock, "_is_owned", None)  # by the thread that has forked, and goes on
        if owned is None or not owned():
            lock._at_fork_reinit()  # noqa: SLF001 - as the standard library does for its own
    _renew_guards()
    for one in _alive(_renewables):
        one.renew()


def _renew_after_uwsgi() -> None:
    """Have uWSGI renew in its workers too: it forks in C, and by default Python doesn't notice."""
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
    # of uWSGI's let Python notice after all.
    if _renewed_in == os.getpid():
        return
    # Else a worker that ends waits for the parent's threads, which it takes for its own.
    after_fork: Any = vars(threading)["_after_fork"]
    after_fork()
    _renew_all()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_close_guards, after_in_parent=_open_guards, after_in_child=_renew_all
    )
_renew_after_uwsgi()
