"""Notices to workers that sleep, sent after a commit and apart from it."""

from __future__ import annotations

import atexit
import logging
import selectors
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import WeakSet

from automate_kernel.base import runtime
from automate_kernel.base.forks import renew_in_children
from automate_kernel.secrets.logs import get_logger
from automate_kernel.storage.shortage import warn_of, without_words

logger: logging.Logger = get_logger(__name__)

# An unused connection is kept for a minute. A server refuses to drop a database that somebody is
# connected to, after five seconds of waiting; so whether it is wanted at all is looked at sooner.
_LOOK_SECONDS = 2.0
_IDLE_LOOKS = 30
# Between two notices, which doubles: where several clients commit at once, and where nobody sleeps.
_SHORTEST_PAUSE, _TOGETHER_PAUSE, _UNHEARD_PAUSE = 0.001, 0.004, 0.05
_AFTER_FAILURE_SECONDS = 1.0
_CLOSING_SECONDS = 1.0

CHANNEL = "automate_outbox"
# The key of the advisory lock that workers share while they wait.
WAITING = f"hashtextextended('{CHANNEL}', 0)"
# The lock can be had, for the time of this statement, while no worker shares it.
_NOTIFY = f"SELECT pg_notify('{CHANNEL}', '') WHERE NOT pg_try_advisory_xact_lock({WAITING})"
_PREPARED = b"automate_notify"


class Notifier:
    """
    Wakes the workers that wait for items, through a connection of its own.

    PostgreSQL lets no transaction with a notice commit until the one before it is flushed. In the
    application's transactions, notices would make all of its commits wait for each other.

    *connect* returns a psycopg connection in autocommit mode that is ours to close. It is kept for
    a minute after the last notice, while *owner* returns the same object, and for a moment if that
    is None. Notices of one process that come together become one, and none is sent while no worker
    waits. A notice that is lost only costs the time to the next poll. While *saves* returns
    True it has no connection, and sends none.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        owner: Callable[[], object],
        saves: Callable[[], bool] = lambda: False,
    ) -> None:
        self._connect, self._owner, self._saves = connect, owner, saves
        self._inherited: list[Any] = []
        self._reset()
        renew_in_children(self)

    def _reset(self) -> None:
        # Whoever doesn't get it at once leaves the work to its holder: so nobody waits for it, nor
        # does a signal handler in the holder's own thread.
        self._lock = runtime.Lock()
        self._thread: runtime.Thread | None = None
        self._connection: Any = None
        self._rung = self._heard = 0
        self._wanted = self._in_flight = self._closing = False
        self._pause = self._not_before = 0.0

    def renew(self) -> None:
        """Leave the connection to the parent process."""
        # Kept, since some drivers close a connection, for the parent too, that is let go of.
        if self._connection is not None:
            self._inherited.append(self._connection)
        self._reset()

    def ring(self) -> None:
        """Have the workers woken that wait for items. It does not wait, and does not fail."""
        self._rung += 1
        self._wanted = True
        self._send()

    def _send(self) -> None:
        # What is wanted while another thread holds the lock, that thread sees after it.
        while self._wanted and self._lock.acquire(blocking=False):
            try:
                if not self._sent():
                    return
            finally:
                self._lock.release()

    def _sent(self) -> bool:
        """Send what is wanted; return False if it is left to the thread, or given up."""
        waits = runtime.monotonic() < self._not_before and not self._closing
        if self._thread is None:
            if waits or self._saves() or not self._begin():
                self._wanted = False
            return False
        if self._connection is None or self._in_flight or waits:
            return False
        self._wanted, self._in_flight = False, True
        self._rung = self._heard = 0
        # An error means that the connection is broken, which the thread sees too.
        with suppress(Exception):
            # Below psycopg's own way, which would wait for the answer.
            self._connection.pgconn.send_query_prepared(_PREPARED, None)
            self._connection.pgconn.flush()
        return True

    def _begin(self) -> bool:
        thread = runtime.Thread(target=self._run, name="automate-notifier", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the process ends, or may have no more threads
            return False
        self._thread = thread
        _notifiers.add(self)
        return True

    def _run(self) -> None:
        connection: Any = None
        failed = False
        owner = self._owner()
        try:
            connection = self._connect()
            connection.pgconn.prepare(_PREPARED, _NOTIFY.encode())
            connection.pgconn.nonblocking = 1
            with self._lock:
                self._connection = connection
            self._serve(connection.pgconn, owner)
        except Exception as error:
            failed = True
            if self._wanted or self._in_flight:
                text = "workers can't be woken for a moment, and poll for new items: %s"
                warn_of(logger, without_words(error), text)
            self._wanted = False
            self._not_before = runtime.monotonic() + _AFTER_FAILURE_SECONDS
        finally:
            with self._lock:
                self._thread = self._connection = None
                self._in_flight = False
            if connection is not None:
                connection.close()
        if not failed:
            self._send()  # what was wanted as it ended

    def _serve(self, server: Any, owner: object) -> None:
        looks = 0
        with selectors.DefaultSelector() as selector:
            selector.register(server.socket, selectors.EVENT_READ)
            while True:
                self._send()
                if (self._closing or self._saves()) and not self._in_flight:
                    return
                if not selector.select(_LOOK_SECONDS):
                    looks += 1
                    unwanted = owner is None or self._owner() is not owner
                    # What isn't answered by now goes nowhere.
                    if self._in_flight or unwanted or looks == _IDLE_LOOKS:
                        return
                    continue
                looks = 0
                self._receive(server)
                if self._pause:
                    runtime.sleep(self._pause)

    def _receive(self, server: Any) -> None:
        with self._lock:
            server.consume_input()
            while not server.is_busy():
                result = server.get_result()
                if result is None:
                    self._answered()
                    return
                self._heard += result.ntuples

    def _answered(self) -> None:
        self._in_flight = False
        if self._heard and not self._rung:  # a single client is not to wait for others
            self._pause = 0.0
        else:
            longest = _TOGETHER_PAUSE if self._heard else _UNHEARD_PAUSE
            self._pause = min(longest, max(_SHORTEST_PAUSE, 2 * self._pause))
        self._not_before = runtime.monotonic() + self._pause

    def close(self) -> None:
        """Send what is wanted, for at most a second, and close the connection."""
        thread = self._thread
        if thread is None:
            return
        self._closing = True
        if self._lock.acquire(timeout=_CLOSING_SECONDS):
            with suppress(Exception):
                if self._connection is not None and not self._in_flight:
                    # An answer wakes the thread, whatever it is.
                    self._in_flight = True
                    self._connection.pgconn.send_query(b"")
                    self._connection.pgconn.flush()
            self._lock.release()
        thread.join(_CLOSING_SECONDS)
        self._closing = False
        self._not_before = 0.0


# Those with a thread, so that a process that ends right after a commit still sends its notice.
_notifiers: WeakSet[Notifier] = WeakSet()


@atexit.register
def _close_all() -> None:
    for notifier in list(_notifiers):
        notifier.close()
