"""
Receive webhooks and events over HTTP: an ASGI application, in no framework.

Serve it alone (``automate serve``) or mount it in a host's own application::

    app = FastAPI()
    app.mount("/automate", webhook_app(kernel))

========================================  =====================================================
``POST /webhooks/<connector>/<trigger>``  202; 200 if it came before, or starts nothing; 401 if
                                          it proves nothing
``POST /events``                          202; for holders of *events_token* alone
``GET /healthz``                          200 while the process and its workers live, else 503
``GET /readyz``                           200 while the database can be used and, if it has
                                          workers, one of them works; else 503 and why
========================================  =====================================================

A path is taken as it stands: with a slash more, or with one that is encoded, it leads nowhere.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from automate_kernel.http.answers import REFUSED, HttpAnswer, answer_webhook, failure_answer
from automate_kernel.secrets.logs import get_logger
from automate_kernel.storage.rows import Rows
from automate_kernel.storage.tables import PAUSE
from automate_kernel.webhooks import WebhookHeaders
from automate_kernel.webhooks.request import BodyError, parse_json

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel
    from automate_kernel.monitoring.health import Probe

__all__ = ["WebhookApp", "webhook_app"]

logger: logging.Logger = get_logger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_READ_SECONDS = 30.0
_READY_SECONDS = 5.0
_EVENT_FIELDS: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "payload": (object,),
    "source": (str,),
    "tenant_id": (str,),
    "delay": (int, float),
    "priority": (int,),
    "idempotency_key": (str,),
    "labels": (dict,),
}


@dataclass(eq=False)
class _Answer(Exception):  # noqa: N818 - an answer, and how it gets out of a call
    """What to send back."""

    status: int
    body: Mapping[str, Any]
    headers: tuple[tuple[bytes, bytes], ...] = ()


class WebhookApp:
    """The application that `webhook_app` makes."""

    def __init__(
        self,
        kernel: Kernel,
        *,
        events_token: str | None = None,
        max_body_bytes: int = 1_000_000,
        workers: Probe | None = None,
    ) -> None:
        self.kernel = kernel
        self._workers = workers
        self.max_body_bytes = max_body_bytes
        self.stopping = False
        """Set while the server winds down: it is alive, and no longer ready."""
        self._token = events_token.encode() if events_token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] != "http":
            await receive()
            await send({"type": "websocket.close", "code": 1000})
            return
        try:
            answer = await self._answer(scope, receive)
        except _Answer as given:
            answer = given
        except Exception as error:
            answer = _told(failure_answer(error, _path(scope)))
        await _reply(answer, send, head=scope["method"] == "HEAD")

    async def _answer(self, scope: Scope, receive: Receive) -> _Answer:
        match [scope["method"], *_segments(scope)]:
            case ["POST", "webhooks", connector, trigger]:
                return await self._webhook(connector, trigger, scope, receive)
            case ["POST", "events"]:
                return await self._event(scope, receive)
            case ["GET" | "HEAD", "healthz"]:
                return _verdict("ok", self.live())
            case ["GET" | "HEAD", "readyz"]:
                return await self._ready()
            case [_, "webhooks", _, _] | [_, "events"]:
                raise _Answer(405, {"error": "use POST"}, ((b"allow", b"POST"),))
            case [_, "healthz" | "readyz"]:
                raise _Answer(405, {"error": "use GET"}, ((b"allow", b"GET, HEAD"),))
        raise _Answer(404, {"error": "there is nothing here"})

    async def _webhook(
        self, connector: str, trigger: str, scope: Scope, receive: Receive
    ) -> _Answer:
        headers = WebhookHeaders(scope["headers"])
        body = await self._body(headers, receive)
        accept = self.kernel.receive_webhook
        return _told(
            await asyncio.to_thread(answer_webhook, accept, connector, trigger, headers, body)
        )

    async def _event(self, scope: Scope, receive: Receive) -> _Answer:
        headers = WebhookHeaders(scope["headers"])
        self._authorize(headers)
        event = _event_in(await self._body(headers, receive))
        key = headers.get("idempotency-key")
        if key is not None:
            event.setdefault("idempotency_key", key)
        name, payload = event.pop("name"), event.pop("payload", None)
        item_id = await asyncio.to_thread(self._emit, name, payload, event)
        return _Answer(202, {"id": item_id})

    def _emit(self, name: str, payload: Any, options: dict[str, Any]) -> str:
        return self.kernel.emit(name, payload, **options)

    def _authorize(self, headers: WebhookHeaders) -> None:
        if self._token is None:
            raise _Answer(403, {"error": "events are not accepted here: no token is configured"})
        scheme, _, given = headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode("latin-1", "replace"), self._token)
        if not (right and scheme.lower() == "bearer"):
            raise _Answer(401, REFUSED, ((b"www-authenticate", b"Bearer"),))

    async def _body(self, headers: WebhookHeaders, receive: Receive) -> bytes:
        lengths = headers.get_all("content-length")
        if lengths and headers.get_all("transfer-encoding"):
            # Whoever is in front may have gone by the other one: what follows is then a request
            # that it has not seen.
            raise _Answer(400, {"error": "Content-Length with Transfer-Encoding"}, _CLOSE)
        if any(not _DIGITS.fullmatch(each) for each in lengths) or len(set(lengths)) > 1:
            raise _Answer(400, {"error": "Content-Length is no number"}, _CLOSE)
        # By its length first: Python refuses to read a number of thousands of digits.
        if lengths and (len(lengths[0]) > _MOST_DIGITS or int(lengths[0]) > self.max_body_bytes):
            self._too_long()
        try:
            # Else a client that sends a byte now and then would hold a connection for ever.
            return await asyncio.wait_for(self._read(receive), _READ_SECONDS)
        except asyncio.TimeoutError:
            raise _Answer(408, {"error": "the body took too long"}, _CLOSE) from None

    async def _read(self, receive: Receive) -> bytes:
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Answer(400, {"error": "the request was cut off"})
            body += message.get("body", b"")
            if len(body) > self.max_body_bytes:
                self._too_long()
            if not message.get("more_body"):
                return bytes(body)

    def _too_long(self) -> NoReturn:
        text = f"the body is longer than {self.max_body_bytes} bytes"
        raise _Answer(413, {"error": text}, _CLOSE)

    async def _ready(self) -> _Answer:
        try:
            problems = await asyncio.wait_for(asyncio.to_thread(self.ready), _READY_SECONDS)
        except asyncio.TimeoutError:
            problems = ["the database doesn't answer"]
        return _verdict("ready", problems)

    def live(self) -> list[str]:
        """Why a new process is needed; nothing if it isn't. Never blocks."""
        return self._workers.live() if self._workers is not None else []

    def ready(self) -> list[str]:
        """Why it does not do all of its work now; nothing if it does. Asks the database."""
        if self.stopping:
            return ["it is stopping"]
        problems = self._workers.ready() if self._workers is not None else []
        try:
            rows: Rows
            with self.kernel.storage.begin() as rows:
                rows.select(PAUSE, limit=1)
        except Exception as error:
            # What exactly is for the log: whoever may ask a probe need not know the database.
            logger.warning("not ready: %s", self.kernel.redactor.redact(str(error) or repr(error)))
            problems = [*problems, "the database can't be used"]
        return problems


def webhook_app(
    kernel: Kernel,
    *,
    events_token: str | None = None,
    max_body_bytes: int = 1_000_000,
    workers: Probe | None = None,
) -> WebhookApp:
    """
    An ASGI application that accepts webhooks, and events, for *kernel*.

    Without *events_token* nobody can send events. A body of more than *max_body_bytes* is refused
    before it is read. *workers* tells how the workers are that the same server looks after: while
    none of them works it isn't ready. The kernel stays the caller's to close.
    """
    return WebhookApp(
        kernel, events_token=events_token, max_body_bytes=max_body_bytes, workers=workers
    )


_CLOSE = ((b"connection", b"close"),)
_DIGITS = re.compile("[0-9]+")
_MOST_DIGITS = 18


def _verdict(word: str, problems: list[str]) -> _Answer:
    if problems:
        return _Answer(503, {"status": f"not {word}", "problems": problems})
    return _Answer(200, {"status": word})


def _segments(scope: Scope) -> list[str]:
    """The path's parts; nothing that leads anywhere for one that is written in another way."""
    # A proxy that lets some paths through, and others not, must see the same path as we do.
    if b"%2f" in (scope.get("raw_path") or b"").lower():
        return []
    first, *parts = _path(scope).split("/")
    return parts if not first else []


def _path(scope: Scope) -> str:
    # Mounted, the path has the mount's in front, or doesn't: servers and frameworks differ.
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def _event_in(body: bytes) -> dict[str, Any]:
    try:
        event = parse_json(body)
    except BodyError as error:
        raise _Answer(400, {"error": f"the body is refused: {error}"}) from None
    if not isinstance(event, dict) or not isinstance(event.get("name"), str) or not event["name"]:
        raise _Answer(400, {"error": 'the body must be an object with a "name"'})
    for field, value in event.items():
        types = _EVENT_FIELDS.get(field)
        if types is None:
            known = ", ".join(_EVENT_FIELDS)
            raise _Answer(400, {"error": f"unknown field {field[:40]!r}; there are {known}"})
        if not isinstance(value, types) or (isinstance(value, bool) and object not in types):
            wanted = "text" if str in types else "a number"
            raise _Answer(400, {"error": f"{field} must be {wanted}"})
    return event


def _told(answer: HttpAnswer) -> _Answer:
    headers = tuple((k.lower().encode(), v.encode()) for k, v in answer.headers.items())
    return _Answer(answer.status, answer.body, headers)


async def _reply(answer: _Answer, send: Send, *, head: bool) -> None:
    body = json.dumps(answer.body, separators=(",", ":")).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        *answer.headers,
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else body})


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
