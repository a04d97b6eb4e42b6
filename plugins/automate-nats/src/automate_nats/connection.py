"""One connection to NATS: its servers and credentials, and its errors in the kernel's words."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nats
from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import StreamConfig
from nats.js.errors import (
    APIError,
    FetchTimeoutError,
    NoStreamResponseError,
    NotFoundError,
    ServiceUnavailableError,
)

from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes, PayloadError

logger = logging.getLogger(__name__)

REQUEST_SECONDS = 5.0
"""A server that has not answered by then counts as away."""

_IS_THERE, _OVERLAPS = 10058, 10065
STREAM_IS_FULL = 10077
"""JetStream's code for a stream that takes no more."""

_AWAY = (
    errors.TimeoutError, errors.ConnectionClosedError, errors.NoServersError,
    errors.NoRespondersError, errors.ConnectionReconnectingError, errors.OutboundBufferLimitError,
    errors.StaleConnectionError, errors.ConnectionDrainingError, NoStreamResponseError,
    ServiceUnavailableError, OSError, asyncio.TimeoutError,
)  # fmt: skip


class NatsConnection:
    """
    A connection that is made at its first use, and again whenever it breaks.

    *servers* are addresses such as ``nats://127.0.0.1:4222``. *credentials* is the path of a
    ``.creds`` file, *nkey* that of a seed; else *user* with *password*, or *token*. *tls* holds the
    paths ``ca``, ``certificate`` and ``key``. It belongs to the event loop that uses it first.
    """

    def __init__(
        self,
        servers: str | Sequence[str] = "nats://127.0.0.1:4222",
        *,
        name: str = "automate",
        credentials: str | None = None,
        nkey: str | None = None,
        user: str | None = None,
        password: str | None = None,
        token: str | None = None,
        tls: dict[str, str] | None = None,
    ) -> None:
        self.servers: list[str] = [servers] if isinstance(servers, str) else list(servers)
        """The addresses of the cluster's servers."""
        if not self.servers or not all(isinstance(each, str) and each for each in self.servers):
            raise ConfigError(
                "NATS needs the address of a server",
                hint='for example servers = ["nats://nats-1:4222", "nats://nats-2:4222"]',
            )
        if any("@" in each for each in self.servers):
            raise ConfigError(
                "the address of a NATS server holds a user or a token",
                hint="write them as user and password, or token, each as $secret:KEY",
            )
        self._name = name
        self._options: dict[str, Any] = {
            "user_credentials": _file(credentials, "credentials"),
            "nkeys_seed": _file(nkey, "nkey"),
            "user": user,
            "password": password,
            "token": token,
            "tls": None if tls is None else _tls(tls),
        }
        self._lock: asyncio.Lock | None = None
        self._client: Client | None = None
        self._jetstream: tuple[Client, JetStreamContext] | None = None

    def __repr__(self) -> str:
        return f"NatsConnection({', '.join(self.servers)})"

    def forget(self) -> None:
        """Forget the connection, which is another process's."""
        self._lock = self._client = self._jetstream = None

    async def client(self) -> Client:
        """Return the connected client; raises ``UNAVAILABLE`` if no server can be reached."""
        if self._client is not None and not self._client.is_closed:
            return self._client
        self._lock = self._lock or asyncio.Lock()
        async with self._lock:
            if self._client is None or self._client.is_closed:
                with reaching(self):
                    self._client = await asyncio.wait_for(self._connected(), REQUEST_SECONDS)
            return self._client

    async def jetstream(self) -> JetStreamContext:
        """Return JetStream's side of it."""
        client = await self.client()
        if self._jetstream is None or self._jetstream[0] is not client:
            # One for all: each has a subscription of its own for what the server answers.
            self._jetstream = client, client.jetstream(timeout=REQUEST_SECONDS)
        return self._jetstream[1]

    async def make_stream(self, config: StreamConfig) -> None:
        """Make a stream, unless an operator has made it otherwise: theirs counts."""
        js = await self.jetstream()
        try:
            with reaching(self):
                await js.add_stream(config)
        except APIError as error:
            if error.err_code not in (_IS_THERE, _OVERLAPS):
                raise refused(error) from None

    async def _connected(self) -> Client:
        given = {key: value for key, value in self._options.items() if value is not None}
        return await nats.connect(
            self.servers, name=self._name, connect_timeout=2, max_reconnect_attempts=-1,
            reconnect_time_wait=0.5, ping_interval=20, error_cb=_note, **given,
        )  # fmt: skip

    async def close(self) -> None:
        """Close it; the next use connects again."""
        client, self._client = self._client, None
        if client is not None and not client.is_closed:
            try:
                await asyncio.wait_for(client.drain(), 2)
            except Exception:
                await client.close()


def refused(error: APIError) -> AutomateError:
    """Return the error for a request that JetStream does not do, now or later."""
    return AutomateError(
        ErrorCodes.FAILED_PRECONDITION,
        f"JetStream refuses: {error.description or type(error).__name__} ({error.err_code})",
        hint="look at the rights of the account, and at the stream",
    )


async def fetched(consumer: Any, most: int) -> list[Msg]:
    """Return messages of a pull consumer; none if none comes within a second."""
    try:
        messages: list[Msg] = await consumer.fetch(most, timeout=1)
    except (asyncio.TimeoutError, FetchTimeoutError):
        return []
    return messages


@contextmanager
def reaching(connection: NatsConnection) -> Iterator[None]:
    """Raise NATS's errors as the kernel's: what may pass has the code ``UNAVAILABLE``."""
    try:
        yield
    except NotFoundError:
        raise
    except errors.MaxPayloadError:
        raise PayloadError(
            "NATS takes no message of this size", hint="raise max_payload, or give an output_store"
        ) from None
    except errors.AuthorizationError:
        raise AutomateError(
            ErrorCodes.UNAVAILABLE,
            "NATS refuses the credentials",
            hint="look at credentials, nkey, user and password, or token",
        ) from None
    except APIError as error:
        if error.err_code == STREAM_IS_FULL:
            raise AutomateError(
                ErrorCodes.RESOURCE_EXHAUSTED,
                "the stream is full",
                hint="let more be taken out of it, or raise its bounds",
            ) from None
        if isinstance(error, ServiceUnavailableError) or error.code in (500, 503):
            raise _away(connection, error) from None
        raise
    except _AWAY as error:
        raise _away(connection, error) from None


def _away(connection: NatsConnection, error: BaseException) -> AutomateError:
    servers = ", ".join(connection.servers)
    return AutomateError(
        ErrorCodes.UNAVAILABLE, f"NATS can't be reached at {servers}: {type(error).__name__}"
    )


async def _note(error: Exception) -> None:
    # The texts of nats-py may show an address with what stands in it.
    logger.debug("NATS: %s", type(error).__name__)


def _file(path: str | None, option: str) -> str | None:
    if path is not None and not Path(path).is_file():
        raise ConfigError(f"{option} names no file: {path}")
    return path


def _tls(paths: dict[str, str]) -> Any:
    import ssl

    unknown = sorted(set(paths) - {"ca", "certificate", "key"})
    if unknown:
        raise ConfigError(f"tls doesn't take {unknown[0]!r}", hint="it takes ca, certificate, key")
    context = ssl.create_default_context(cafile=_file(paths.get("ca"), "tls.ca"))
    if "certificate" in paths:
        context.load_cert_chain(
            _file(paths["certificate"], "tls.certificate") or "", _file(paths.get("key"), "tls.key")
        )
    return context
