"""PostgreSQL's LISTEN as a `Wakeup`, on any psycopg 3 connection that an application can open."""

from __future__ import annotations

import logging
import os
import selectors
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from automate_kernel.base import runtime
from automate_kernel.secrets.logs import get_logger
from automate_kernel.storage.notify import CHANNEL, WAITING
from automate_kernel.storage.shortage import warn_of, without_words

__all__ = ["ListenWakeup"]

logger: logging.Logger = get_logger(__name__)


class ListenWakeup:
    """
    Waits for notices of new items; after a lost connection it polls until it has a new one.

    *connect* returns a psycopg connection in autocommit mode that is ours to close. A missed notice
    (a reconnect, a pooler in transaction mode) only costs the time to the next poll. While *saves*
    returns True it gives its connection back, and has none.
    """

    def __init__(
        self, connect: Callable[[], Any], saves: Callable[[], bool] = lambda: False
    ) -> None:
        self._connect, self._saves = connect, saves
        self._connection: Any = None
        self._expecting = False
        # It waits on both: the server's socket, and a pipe that `wake` writes to.
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        # A signal handler may run in the thread that has it.
        self._lock = runtime.RLock()
        self._closed = False

    def expect(self) -> bool:
        """Ask for notices; return False if none was asked for so far, and they come from now on."""
        if self._expecting:
            return True
        if self._saves():
            return True
        try:
            self._open().execute(f"SELECT pg_advisory_lock_shared({WAITING})")
            self._expecting = True
        except Exception as error:
            self._drop(error)
            return True
        return False

    def ignore(self) -> None:
        """Ask for no notices until `expect` is called: who is busy looks for work anyway."""
        if self._saves():
            self._close()
        if not self._expecting:
            return
        self._expecting = False
        try:
            self._connection.execute(f"SELECT pg_advisory_unlock_shared({WAITING})")
        except Exception as error:
            self._drop(error)

    def wait(self, timeout: float) -> bool:
        """Block until a notice, `wake` or *timeout* seconds."""
        watched = [self._reader]
        if self._saves():
            self._close()
        if self._connection is not None:
            watched.append(self._connection.fileno())
        with selectors.DefaultSelector() as selector:
            for descriptor in watched:
                selector.register(descriptor, selectors.EVENT_READ)
            ready = [key.fd for key, _ in selector.select(timeout)]
        if self._reader in ready:
            self._drain_pipe()
        if len(ready) > (self._reader in ready):
            self._read_notices()
        return bool(ready)

    def _open(self) -> Any:
        if self._connection is None:
            connection = self._connect()
            connection.execute(f"LISTEN {CHANNEL}")
            self._connection = connection
        return self._connection

    def _read_notices(self) -> None:
        try:
            # Below psycopg's own generator, which takes longer than all else between the notice
            # and the claim.
            server = self._connection.pgconn
            server.consume_input()
            while server.notifies():
                pass
        except Exception as error:
            self._drop(error)

    def _drop(self, error: Exception) -> None:
        warn_of(logger, without_words(error), "LISTEN failed, polling until it works again: %s")
        self._close()

    def _close(self) -> None:
        connection, self._connection, self._expecting = self._connection, None, False
        if connection is not None:
            try:
                connection.close()
            except Exception:
                logger.debug("closing a broken connection failed", exc_info=True)

    def _drain_pipe(self) -> None:
        try:
            while os.read(self._reader, 1024):
                pass
        except BlockingIOError:
            pass

    def wake(self) -> None:
        """End a wait that is going on, from another thread or a signal handler."""
        # Once it is closed, the pipe's number may be that of another file.
        with self._lock, suppress(BlockingIOError):  # it is full of unread wake-ups already
            if not self._closed:
                os.write(self._writer, b"w")

    def close(self) -> None:
        """Close the connection and the pipe."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        with self._lock:
            self._closed = True
            os.close(self._reader)
            os.close(self._writer)
