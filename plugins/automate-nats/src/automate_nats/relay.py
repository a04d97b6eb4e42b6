"""A relay to NATS JetStream: each event as a message, which the server takes once by its id."""

from __future__ import annotations

import asyncio
import re
from urllib.parse import quote

from nats.js import errors as js_errors
from nats.js.api import Header, StreamConfig

from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes, PayloadError
from automate_kernel.base.forks import renew_in_children
from automate_kernel.relays.cloud_events import CONTENT_TYPE, CloudEvent
from automate_kernel.relays.relay import Relay
from automate_nats.connection import NatsConnection, reaching, refused

_PLACE = re.compile(r"\{(type|tenant)\}")
_PART = r"([A-Za-z0-9_-]+|\{type\}|\{tenant\})"
_HEADERS_ROOM = 1_000
_TOO_LARGE = 10054
"""JetStream's code for a message beyond the size that its stream takes."""


class NatsRelay(Relay):
    """
    Publishes each event on *subject*, in which ``{type}`` is its name and ``{tenant}`` its tenant.

    *stream* is made at the first use for these subjects, unless it is there or another stream has
    them. It keeps messages for *kept_seconds*, at most *most_bytes*. The server knows an event
    that comes again for *duplicate_seconds*: longer than a worker or the broker may be away. A
    message is a CloudEvent in the structured mode. Further options are those of `NatsConnection`.
    """

    def __init__(
        self,
        servers: str | list[str] = "nats://127.0.0.1:4222",
        *,
        subject: str = "events.{type}",
        stream: str = "AUTOMATE_EVENTS",
        kept_seconds: float = 7 * 86_400.0,
        duplicate_seconds: float = 3_600.0,
        most_bytes: int = 10_000_000_000,
        replicas: int = 1,
        credentials: str | None = None,
        nkey: str | None = None,
        user: str | None = None,
        password: str | None = None,
        token: str | None = None,
        tls: dict[str, str] | None = None,
    ) -> None:
        if not re.fullmatch(rf"{_PART}(\.{_PART})*", subject):
            raise ConfigError(
                f"{subject!r} is no subject of a relay",
                hint='for example subject = "shop.{type}"; {type} and {tenant} stand between dots',
            )
        if not 0 < duplicate_seconds <= kept_seconds:
            raise ConfigError("duplicate_seconds is above 0, and at most kept_seconds")
        self._subject = subject
        self._config = StreamConfig(
            name=stream, subjects=[_of_all(subject)], max_age=kept_seconds, max_bytes=most_bytes,
            duplicate_window=duplicate_seconds, num_replicas=replicas, allow_direct=True,
        )  # fmt: skip
        self._connection = NatsConnection(
            servers, name=f"automate relay {stream}", credentials=credentials, nkey=nkey,
            user=user, password=password, token=token, tls=tls,
        )  # fmt: skip
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Forget the connection, which is another process's."""
        self._connection.forget()
        self._ready = False
        self._starting: asyncio.Lock | None = None

    def __repr__(self) -> str:
        return f"NatsRelay({', '.join(self._connection.servers)}, subject={self._subject!r})"

    async def send(self, event: CloudEvent) -> None:
        """Publish an event; the server has it on its disk when this returns."""
        js = await self._connection.jetstream()
        await self._make_stream()
        client, text = await self._connection.client(), event.to_text().encode()
        if not client.is_connected:
            # It would be kept in the memory of this process, for as long as the server is away.
            raise AutomateError(ErrorCodes.UNAVAILABLE, f"{self._connection} is connecting again")
        if len(text) + _HEADERS_ROOM > client.max_payload:
            raise PayloadError(
                f"the event takes {len(text):,} bytes, and NATS no message of that size",
                hint="raise max_payload of the server, or send a reference to the data",
            )
        subject = _PLACE.sub(lambda found: _token(event, found[1]), self._subject)
        about = {Header.MSG_ID.value: event.id, "Content-Type": CONTENT_TYPE}
        try:
            with reaching(self._connection):
                await js.publish(subject, text, headers=about)
        except js_errors.APIError as error:
            if error.err_code == _TOO_LARGE:
                raise PayloadError("the stream takes no message of this size") from None
            raise refused(error) from None

    async def _make_stream(self) -> None:
        if self._ready:
            return
        self._starting = self._starting or asyncio.Lock()
        async with self._starting:
            if not self._ready:
                await self._connection.make_stream(self._config)
                self._ready = True

    async def problems(self) -> list[str]:
        """Return why no event can be published."""
        try:
            await self._make_stream()
            js, subject = await self._connection.jetstream(), (self._config.subjects or [""])[0]
            with reaching(self._connection):
                await js.find_stream_name_by_subject(subject)
        except js_errors.NotFoundError:
            return [f"no stream takes the subject {subject}"]
        except AutomateError as error:
            return [str(error)]
        return []

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()


def _of_all(subject: str) -> str:
    """Return the subject of all events: a name may have any number of dots, a tenant has none."""
    before, place, _ = subject.partition("{type}")
    return before.replace("{tenant}", "*") + (">" if place else "")


def _token(event: CloudEvent, place: str) -> str:
    if place == "tenant":
        return quote(event.tenant_id or "-", safe="-_").replace(".", "%2E")
    name = quote(event.type, safe="-_.")
    # A subject has no empty token.
    return name if all(name.split(".")) else name.replace(".", "%2E")
