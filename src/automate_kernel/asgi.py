"""
Receive webhooks and events over HTTP: an ASGI application, in no framework.

Serve it alone (``automate serve``) or mount it in a host's own application::

    app = FastAPI()
    app.mount("/automate", webhook_app(kernel))

========================================  =====================================================
``POST /webhooks/<connector>/<trigger>``  202; 200 if it came before; 401 if it proves nothing
``POST /events``                          202; for holders of *events_token* alone
``GET /healthz``                          200 while the process lives
``GET /readyz``                           200 while the database can be used, else 503
========================================  =====================================================
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from automate_kernel.storage.rows import Rows
from automate_kernel.storage.tables import PAUSE
from automate_kernel.webhooks import WebhookHeaders
from automate_kernel.webhooks.answers import REFUSED, HttpAnswer, answer_webhook, failure_answer

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel

__all__ = ["WebhookApp", "webhook_app"]

logger: logging.Logger = logging.getLogger(__name__)

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
    ) -> None:
        self.kernel = kernel
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
        match [scope["method"], *_path(scope).strip("/").split("/")]:
            case ["POST", "webhooks", connector, trigger]:
                return await self._webhook(connector, trigger, scope, receive)
            case ["POST", "events"]:
                return await self._event(scope, receive)
            case ["GET" | "HEAD", "healthz"]:
                return _Answer(200, {"status": "ok"})
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
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.max_body_bytes:
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
        if self.stopping:
            raise _Answer(503, {"status": "stopping"})
        try:
            await asyncio.wait_for(asyncio.to_thread(self._look), _READY_SECONDS)
        except Exception as error:
            logger.warning("not ready: %s", self.kernel.redactor.redact(str(error) or repr(error)))
            raise _Answer(503, {"status": "the database can't be used"}) from None
        return _Answer(200, {"status": "ready"})

    def _look(self) -> None:
        rows: Rows
        with self.kernel.storage.begin() as rows:
            rows.select(PAUSE, limit=1)


def webhook_app(
    kernel: Kernel, *, events_token: str | None = None, max_body_bytes: int = 1_000_000
) -> WebhookApp:
    """
    An ASGI application that accepts webhooks, and events, for *kernel*.

    Without *events_token* nobody can send events. A body of more than *max_body_bytes* is refused
    before it is read. The kernel stays the caller's to close.
    """
    return WebhookApp(kernel, events_token=events_token, max_body_bytes=max_body_bytes)


_CLOSE = ((b"connection", b"close"),)


def _path(scope: Scope) -> str:
    # Mounted, the path has the mount's in front, or doesn't: servers and frameworks differ.
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def _event_in(body: bytes) -> dict[str, Any]:
    def refuse(name: str) -> NoReturn:
        raise ValueError(name)  # NaN and Infinity are not JSON

    try:
        event = json.loads(body.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError):
        raise _Answer(400, {"error": "the body is not JSON"}) from None
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
