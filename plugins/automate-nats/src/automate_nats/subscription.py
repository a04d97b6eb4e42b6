"""A subscription to NATS JetStream: each message of a stream becomes an event once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from nats.aio.msg import Msg
from nats.js import errors as js_errors
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, Header

from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes, PayloadError
from automate_kernel.base.forks import renew_in_children
from automate_kernel.relays.cloud_events import CloudEvent
from automate_kernel.relays.subscriptions import EventSubscription
from automate_kernel.secrets.logs import get_logger
from automate_kernel.storage.values import read_json
from automate_nats.connection import NatsConnection, fetched, reaching, refused

logger = get_logger(__name__)

_CONSUMER_IS_OTHER = (10013, 10148)
_AT_ONCE = 500
_AGAIN_SECONDS = 2.0


class NatsSubscription(EventSubscription):
    """
    Takes the messages of *stream* with *subject*, by the durable consumer *durable*.

    The consumer is made at the first use, unless it is there: from the first message that the
    stream keeps, or with *since* ``new`` from the next. A message is acknowledged once its event is
    stored; one whose worker is silent for *ack_seconds* goes to another worker. Messages are
    CloudEvents; with *event* any other JSON or text becomes the payload of an event of that name,
    in which ``{subject}`` is the message's subject. With *ordered* one message at a time is under
    way, so that their order is kept over all workers. Further options are those of
    `NatsConnection`.
    """

    def __init__(
        self,
        servers: str | list[str] = "nats://127.0.0.1:4222",
        *,
        stream: str = "AUTOMATE_EVENTS",
        subject: str | None = None,
        durable: str = "automate",
        since: str = "all",
        event: str | None = None,
        ordered: bool = False,
        ack_seconds: float = 30.0,
        credentials: str | None = None,
        nkey: str | None = None,
        user: str | None = None,
        password: str | None = None,
        token: str | None = None,
        tls: dict[str, str] | None = None,
    ) -> None:
        if since not in ("all", "new"):
            raise ConfigError(f"since can't be {since!r}", hint='use "all" or "new"')
        if ack_seconds <= 0:
            raise ConfigError("ack_seconds must be above 0")
        self._stream, self._durable, self._event = stream, durable, event
        self._at_once = 1 if ordered else _AT_ONCE
        self._config = ConsumerConfig(
            durable_name=durable, filter_subject=subject, ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ack_seconds, max_ack_pending=1 if ordered else 10 * _AT_ONCE, max_deliver=-1,
            deliver_policy=DeliverPolicy.ALL if since == "all" else DeliverPolicy.NEW,
        )  # fmt: skip
        self._connection = NatsConnection(
            servers, name=f"automate subscription {durable}", credentials=credentials, nkey=nkey,
            user=user, password=password, token=token, tls=tls,
        )  # fmt: skip
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Forget the connection, which is another process's."""
        self._connection.forget()

    def __repr__(self) -> str:
        return f"NatsSubscription({', '.join(self._connection.servers)}, stream={self._stream!r})"

    async def deliver(self, take: Callable[[CloudEvent], Awaitable[None]]) -> None:
        """Hand over messages of the stream, and acknowledge what was taken."""
        js = await self._connection.jetstream()
        await self._make_consumer()
        with reaching(self._connection):
            consumer = await js.pull_subscribe_bind(self._durable, self._stream)
        running: set[asyncio.Task[None]] = set()
        try:
            while True:
                with reaching(self._connection):
                    found = await fetched(consumer, self._at_once - len(running))
                for message in found:
                    # Begun in their order, in which they are stored.
                    running.add(taking := asyncio.create_task(self._take(message, take)))
                    taking.add_done_callback(running.discard)
                if len(running) >= self._at_once:
                    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for taking in running:
                taking.cancel()
            with suppress(Exception):
                await consumer.unsubscribe()

    async def _take(self, message: Msg, take: Callable[[CloudEvent], Awaitable[None]]) -> None:
        """Take one message, or let it come again."""
        try:
            await take(self._event_of(message))
        except AutomateError as error:
            if error.code is ErrorCodes.INVALID_ARGUMENT:
                logger.warning("stream %s: message %s: %s", self._stream, message.reply, error)
                work = message.term()
            else:
                work = message.nak(delay=_AGAIN_SECONDS)
        except asyncio.CancelledError:
            # Another worker has it at once; what was stored meanwhile is known there.
            with suppress(Exception):
                await asyncio.shield(asyncio.wait_for(message.nak(), 1))
            raise
        except Exception:
            work = message.nak(delay=_AGAIN_SECONDS)
        else:
            work = message.ack()
        with suppress(Exception):  # it comes again, and is known
            await work

    def _event_of(self, message: Msg) -> CloudEvent:
        headers = {name.lower(): value for name, value in (message.headers or {}).items()}
        data = _data_of(message)
        if "ce-specversion" in headers:
            given = {name[3:]: text for name, text in headers.items() if name.startswith("ce-")}
            return CloudEvent.from_json({**given, "data": data})
        if isinstance(data, Mapping) and "specversion" in data:
            return CloudEvent.from_json(data)
        if self._event is None:
            raise PayloadError(
                "a message is no CloudEvent", hint="name the event that such messages become: event"
            )
        about = message.metadata
        own = headers.get(Header.MSG_ID.value.lower())
        return CloudEvent(
            # A stream that is made anew counts from 1 again.
            id=own or f"{about.sequence.stream}@{about.timestamp.isoformat()}",
            source=f"nats/{self._stream}", type=self._event.replace("{subject}", message.subject),
            data=data, time=about.timestamp.isoformat(),
        )  # fmt: skip

    async def _make_consumer(self) -> None:
        js = await self._connection.jetstream()
        try:
            with reaching(self._connection):
                await js.add_consumer(self._stream, self._config)
        except js_errors.NotFoundError:
            raise AutomateError(
                ErrorCodes.NOT_FOUND, f"there is no stream {self._stream}",
                hint="name the stream that has the events; who sends them makes it",
            ) from None  # fmt: skip
        except js_errors.APIError as error:
            if error.err_code not in _CONSUMER_IS_OTHER:
                raise refused(error) from None

    async def problems(self) -> list[str]:
        """Return why no message comes."""
        try:
            await self._make_consumer()
        except AutomateError as error:
            return [str(error)]
        return []

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()


def _data_of(message: Msg) -> Any:
    """Return the JSON value of a message, or its text."""
    if not message.data:
        return None
    try:
        text = message.data.decode()
    except UnicodeDecodeError:
        raise PayloadError("a message is no text") from None
    try:
        return read_json(text)
    except ValueError:
        return text
