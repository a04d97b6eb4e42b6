"""The transports of a plugin, one for each event loop that it runs on."""

from __future__ import annotations

import asyncio
import ssl
import threading
from weakref import WeakKeyDictionary

from automate_http.guard import Guard
from automate_http.transport import GuardedTransport, default_ssl_context
from automate_kernel.base.errors import ConfigError


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
                # Their connections hold them, and nobody else closes these.
                for ended in [each for each in self._by_loop if each.is_closed()]:
                    del self._by_loop[ended]
                transport = GuardedTransport(self._guard, ssl_context=self._ssl_context())
                self._by_loop[loop] = transport
            return transport

    async def aclose_here(self) -> None:
        """Close the connections of this event loop."""
        with self._lock:
            transport = self._by_loop.pop(asyncio.get_running_loop(), None)
        if transport is not None:
            await transport.aclose()

    async def aclose(self) -> None:
        """Close the connections of this event loop, and let other loops close theirs."""
        await self.aclose_here()
        with self._lock:
            others = list(self._by_loop.items())
            self._by_loop.clear()
        for loop, transport in others:
            if loop.is_running():
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
