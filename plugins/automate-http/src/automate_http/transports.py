"""The transports of a plugin, one for each event loop that it runs on."""

from __future__ import annotations

import asyncio
import ssl
import threading
from weakref import WeakKeyDictionary

from automate_http.guard import Guard
from automate_http.transport import GuardedTransport, default_ssl_context
from automate_kernel.errors import ConfigError


class Transports:
    """
    Guarded transports by event loop: connections belong to the loop that opened them.

    *ca_file* names the authorities to trust in place of the public ones; *owner* is named in the
    error for a file that can't be read.
    """

    def __init__(self, guard: Guard, *, ca_file: str | None, owner: str) -> None:
        self._guard, self._ca_file, self._owner = guard, ca_file, owner
        self._lock = threading.Lock()
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, GuardedTransport] = (
            WeakKeyDictionary()
        )

    @property
    def empty(self) -> bool:
        """True if no transport is open."""
        with self._lock:
            return not self._by_loop

    def get(self) -> GuardedTransport:
        """Return the transport of the running loop, opened at the first use."""
        loop = asyncio.get_running_loop()
        with self._lock:
            transport = self._by_loop.get(loop)
            if transport is None:
                transport = GuardedTransport(self._guard, ssl_context=self._ssl_context())
                self._by_loop[loop] = transport
            return transport

    async def aclose(self) -> None:
        """Close the connections of this event loop, and let other loops close theirs."""
        with self._lock:
            transports = list(self._by_loop.items())
            self._by_loop.clear()
        for loop, transport in transports:
            if loop is asyncio.get_running_loop():
                await transport.aclose()
            elif loop.is_running():
                asyncio.run_coroutine_threadsafe(transport.aclose(), loop)

    def _ssl_context(self) -> ssl.SSLContext:
        if self._ca_file is None:
            return default_ssl_context()
        try:
            return ssl.create_default_context(cafile=self._ca_file)
        except OSError:
            raise ConfigError(
                f"{self._owner} can't read ca_file {self._ca_file!r}",
                hint="it is a file of certificates in PEM",
            ) from None
