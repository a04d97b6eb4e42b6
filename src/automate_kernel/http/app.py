"""
The ASGI application: webhooks, events, approvals, probes and metrics, in no framework.

Serve it alone (``automate serve``) or mount it in your own application::

    app = FastAPI()
    app.mount("/automate", webhook_app(kernel))
    app.mount("/metrics", metrics_app(kernel))

========================================  =====================================================
``POST /webhooks/<connector>/<trigger>``  202; 200 if it came before, or starts nothing; 401
                                          without a valid proof
``POST /events``                          202; for holders of *events_token*, or signed with
                                          *events_secrets*; takes CloudEvents too
``GET /operations``                       the operations that others may call, with schemas and
                                          hints; like the next three for holders of
                                          *operations_token*, and there if some are allowed
``GET /operations/<name>``                one of them
``POST /operations/<name>``               200 with its output, or a problem (RFC 9457)
``POST /operations/<name>/choices/<f>``   200 with what its field *f* may be
``/api/…``                                the API for clients, for holders of the kernel's tokens;
                                          there with *api*
``/approvals/<token>``                    the page of an approval, for holders of its link; there
                                          if the kernel has a signing key
``GET /healthz``                          200 while the process and its workers live, else 503
``GET /readyz``                           200 while the database can be used and, if it has
                                          workers, one of them works; else 503 and why
========================================  =====================================================

A path is taken as it stands: with a slash more, or an encoded one, it leads nowhere.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

from automate_kernel.http.answers import (
    REFUSED,
    HttpAnswer,
    HttpError,
    answer_webhook,
    bears,
    failure_answer,
    idempotency_key,
)
from automate_kernel.http.api.asgi import Api, ApiCall, of_request
from automate_kernel.http.approvals import answer_decision, answer_show
from automate_kernel.http.events import EventsEndpoint
from automate_kernel.http.operations import (
    ExposedOperations,
    OperationProblem,
    answer_call,
    answer_choices,
    answer_list,
    answer_operation,
)
from automate_kernel.http.pages import HttpPage, PageThread, health_pages, metrics_page
from automate_kernel.http.threads import BusyError, CallThreads
from automate_kernel.kernel import Kernel
from automate_kernel.monitoring.health import Probe, database_problems
from automate_kernel.triggers.webhooks import WebhookHeaders

__all__ = ["HttpApp", "Request", "metrics_app", "webhook_app"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_READ_SECONDS = 30.0
_CLOSE = {"Connection": "close"}
_DIGITS = re.compile("[0-9]+")
_MOST_DIGITS = 18
_MOST_CALLS = 16


class Request:
    """One request: its path in *parts*, its headers, and its body once that is asked for."""

    def __init__(self, scope: Scope, receive: Receive, max_body_bytes: int) -> None:
        self._scope, self._receive, self._most = scope, receive, max_body_bytes
        self.method: str = scope["method"]
        # Mounted, the path has the mount's in front, or doesn't: servers and frameworks differ.
        path, self.root = scope["path"], str(scope.get("root_path", "")).rstrip("/")
        inside = self.root and path.startswith(f"{self.root}/")
        self.path: str = path[len(self.root) :] if inside else path
        # A proxy that lets some paths through, and others not, must see the same path as we do.
        encoded = b"%2f" in (scope.get("raw_path") or b"").lower()
        first, *parts = self.path.split("/")
        self.parts: list[str] = [] if first or encoded else parts
        """The path's parts; none for a path that is written in another way than ours."""
        self.query: bytes = scope.get("query_string", b"")
        """The query, as it came."""

    @property
    def origin(self) -> str:
        """The scheme and the host that the client asked for."""
        scheme = self._scope.get("scheme", "http")
        return f"{scheme}://{self.headers.get('host', 'localhost')}"

    @cached_property
    def headers(self) -> WebhookHeaders:
        """The headers, as they came."""
        return WebhookHeaders(self._scope.get("headers", ()))

    async def body(self) -> bytes:
        """Read the body. Raises `HttpError` if it is too long or too slow."""
        length = self.headers.get("content-length", "0")
        # By its length first: Python refuses to read a number of thousands of digits.
        if len(length) > _MOST_DIGITS or int(length) > self._most:
            raise self._too_long()
        try:
            # Else a client that sends a byte now and then would hold a connection for ever.
            return await asyncio.wait_for(self._read(), _READ_SECONDS)
        except asyncio.TimeoutError:
            raise HttpError(408, "the body took too long", _CLOSE) from None

    def require_framing(self) -> None:
        """
        Raise `HttpError` if two servers may see the end of the request at two places.

        A proxy may have gone by the other header: what follows is then a request that it has not
        seen. So this comes before all else, and ends the connection.
        """
        lengths = self.headers.get_all("content-length")
        encodings = self.headers.get_all("transfer-encoding")
        if lengths and encodings:
            raise HttpError(400, "Content-Length with Transfer-Encoding", _CLOSE)
        if any(not _DIGITS.fullmatch(each) for each in lengths) or len(lengths) > 1:
            raise HttpError(400, "Content-Length is not one number", _CLOSE)
        if encodings and [each.strip().lower() for each in encodings] != ["chunked"]:
            raise HttpError(400, "Transfer-Encoding can be chunked only", _CLOSE)
        if len(self.headers.get_all("host")) > 1:
            raise HttpError(400, "more than one Host", _CLOSE)

    async def _read(self) -> bytes:
        body = bytearray()
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise HttpError(400, "the request was cut off")
            body += message.get("body", b"")
            if len(body) > self._most:
                raise self._too_long()
            if not message.get("more_body"):
                return bytes(body)

    def _too_long(self) -> HttpError:
        # The connection stays: closed while the client still sends, it would take the answer along.
        return HttpError(413, f"the body is longer than {self._most} bytes")


Handle = Callable[[Request], Awaitable[HttpAnswer]]


class HttpApp:
    """
    The application that `webhook_app` and `metrics_app` make.

    It is the `Probe` of its process too: of itself, and of the *workers* that it looks after.
    """

    def __init__(
        self, kernel: Kernel, *, max_body_bytes: int = 1_000_000, workers: Probe | None = None
    ) -> None:
        self.kernel = kernel
        self.max_body_bytes = max_body_bytes
        self.stopping = False
        """Set while the server winds down: it is alive, and no longer ready."""
        self._workers = workers
        self._routes: list[tuple[str, tuple[str, ...] | None, Handle]] = []
        self._mounted: tuple[str, Application | None] = "", None
        self._pages = PageThread()
        self.closing: list[Callable[[], None]] = [self._pages.close]
        """Functions that are called when the server has ended."""

    def add(self, method: str, parts: tuple[str, ...] | None, handle: Handle) -> None:
        """
        Answer requests of *method* for a path of these *parts* by *handle*.

        GET stands for HEAD too, and ``*`` for every method. A part of ``*`` is any part, and ``**``
        is any number of parts from 1 on. Without parts it is every path.
        """
        self._routes.append((method, parts, handle))

    def add_page(self, path: str | None, page: HttpPage) -> None:
        """Add a page at *path*, or at every path."""

        async def handle(request: Request) -> HttpAnswer:
            return await self._pages.aanswer(page)

        self.add("GET", None if path is None else tuple(path.split("/")[1:]), handle)

    def mount(self, path: str, app: Application) -> None:
        """Have the ASGI application *app* answer at *path* and below; ``/`` leads there, too."""
        self._mounted = path, app

        async def lead_there(request: Request) -> HttpAnswer:
            root: str = request.root
            return HttpAnswer(303, "", {"Location": f"{root}{path}/", "Content-Type": "text/plain"})

        for parts in (("",), (path.strip("/"),)):
            self.add("GET", parts, lead_there)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["type"] != "http":
            await receive()
            await send({"type": "websocket.close", "code": 1000})
            return
        request = Request(scope, receive, self.max_body_bytes)
        path, mounted = self._mounted
        inside = mounted is not None and request.path.startswith(f"{path}/")
        answer = None
        try:
            request.require_framing()
            if not inside:
                answer = await self._handle_of(request)(request)
        except Exception as error:
            answer = failure_answer(error, request.path)
        if answer is None and mounted is not None:
            inner = {"path": f"{request.root}{request.path}", "root_path": f"{request.root}{path}"}
            await mounted({**scope, **inner}, receive, send)
        elif answer is not None:
            await self._send(request, answer, send)

    async def _send(self, request: Request, answer: HttpAnswer, send: Send) -> None:
        headers, body = answer.encoded()
        encoded = [(k.lower().encode(), v.encode()) for k, v in headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": encoded})
        body = b"" if request.method == "HEAD" else body
        await send({"type": "http.response.body", "body": body})

    def _handle_of(self, request: Request) -> Handle:
        able: dict[str, None] = {}
        for method, parts, handle in self._routes:
            if parts is None or _leads(parts, request.parts):
                if method in ("*", request.method) or (request.method, method) == ("HEAD", "GET"):
                    return handle
                able[method] = None
        if not able:
            raise HttpError(404, "there is nothing here")
        text = f"use {' or '.join(sorted(able))}"
        able |= {"HEAD": None} if "GET" in able else {}
        raise HttpError(405, text, {"Allow": ", ".join(sorted(able))})

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            try:
                message = await receive()
            except asyncio.CancelledError:  # a server that is stopped at once says nothing more
                message = {}
            else:
                await send({"type": f"{message['type']}.complete"})
            if message.get("type") != "lifespan.startup":
                for close in self.closing:
                    close()
                return

    def live(self) -> list[str]:
        """Return the reasons why a new process is needed. Never blocks."""
        return self._workers.live() if self._workers is not None else []

    def ready(self) -> list[str]:
        """Return the reasons why it can't do all of its work now. Asks the database."""
        if self.stopping:
            return ["it is stopping"]
        problems = self._workers.ready() if self._workers is not None else []
        return [*problems, *database_problems(self.kernel)]


def webhook_app(
    kernel: Kernel,
    *,
    events_token: str | None = None,
    events_secrets: Sequence[str] = (),
    max_body_bytes: int = 1_000_000,
    workers: Probe | None = None,
    operations: ExposedOperations | None = None,
    operations_token: str | None = None,
    api: bool = False,
) -> HttpApp:
    """
    Return the ASGI application that accepts webhooks and events for *kernel*, with its probes.

    It answers the links of approvals too, if the kernel has ``signing_keys``. A
    sender of events needs *events_token*, or a signature by Standard Webhooks with a secret whose
    key is in *events_secrets*. Without *operations_token* nobody can call
    *operations*. With *api* holders of the kernel's tokens have the API for clients below ``/api``,
    with the same *operations*. A body of more than *max_body_bytes* is refused
    before it is read. *workers* is the probe of the workers that the same server looks after:
    while none of them works it isn't ready. The kernel stays the caller's to close.
    """
    app = HttpApp(kernel, max_body_bytes=max_body_bytes, workers=workers)
    endpoint = EventsEndpoint(kernel, events_token, events_secrets)
    app.add("POST", ("webhooks", "*", "*"), partial(_webhook, kernel))
    app.add("POST", ("events",), partial(_event, endpoint))
    if kernel.approvals.signer.able:
        app.add("GET", ("approvals", "*"), partial(_approval, kernel))
        app.add("POST", ("approvals", "*"), partial(_decision, kernel))
    if operations is not None and operations.allowed:
        _add_operations(app, operations, operations_token)
    if api:
        _add_api(app, Api(kernel, operations))
    for path, page in health_pages(app).items():
        app.add_page(path, page)
    return app


def metrics_app(kernel: Kernel) -> HttpApp:
    """
    Return the ASGI application that answers GET with the metrics of *kernel*, whatever the path.

    It asks nobody who they are: mount it where only your monitoring can reach it.
    """
    app = HttpApp(kernel)
    app.add_page(None, metrics_page(kernel))
    return app


def _leads(own: Sequence[str], given: Sequence[str]) -> bool:
    if "**" in own:
        at, spare = own.index("**"), len(given) - len(own)
        own = (*own[:at], *["*"] * max(1, spare + 1), *own[at + 1 :])
    return len(own) == len(given) and all(
        part in ("*", other) for part, other in zip(own, given, strict=True)
    )


async def _webhook(kernel: Kernel, request: Request) -> HttpAnswer:
    (_, connector, trigger), body = request.parts, await request.body()
    receive = partial(answer_webhook, kernel.receive_webhook, connector, trigger)
    return await asyncio.to_thread(receive, request.headers, body)


async def _approval(kernel: Kernel, request: Request) -> HttpAnswer:
    return await asyncio.to_thread(answer_show, kernel.approvals, request.parts[1])


async def _decision(kernel: Kernel, request: Request) -> HttpAnswer:
    body = await request.body()
    answer = partial(answer_decision, kernel.approvals, request.parts[1])
    return await asyncio.to_thread(answer, request.headers, body)


def _add_api(app: HttpApp, api: Api) -> None:
    app.closing.append(api.close)

    async def handle(request: Request) -> HttpAnswer:
        try:
            body = b"" if request.method in ("GET", "HEAD") else await request.body()
        except HttpError as error:
            return of_request(error)
        return await api.aanswer(
            ApiCall(
                request.method, request.parts[1:], request.query, request.headers, body,
                origin=request.origin, base=f"{request.root}/api",
            )
        )  # fmt: skip

    app.add("*", ("api", "**"), handle)


def _add_operations(app: HttpApp, exposed: ExposedOperations, token: str | None) -> None:
    """Answer requests for operations; their calls have threads of their own."""
    secret = token.encode() if token else None
    threads = CallThreads("automate-operations", _MOST_CALLS)
    app.closing.append(threads.close)

    def guarded(answer: Callable[..., HttpAnswer], *, takes_body: bool) -> Handle:
        async def handle(request: Request) -> HttpAnswer:
            if secret is None:
                text = "operations can't be called here: no token is configured"
                return OperationProblem(403, "PERMISSION_DENIED", text).answer()
            if not bears(request.headers, secret):
                refused = OperationProblem(401, "UNAUTHENTICATED", "The token is not valid.")
                answered = refused.answer()
                return replace(answered, headers={**answered.headers, "WWW-Authenticate": "Bearer"})
            arguments: list[Any] = _operation_in(request.parts, answer is answer_choices)
            try:
                if takes_body:
                    arguments.append(await request.body())
                if answer is answer_call:
                    arguments.append(idempotency_key(request.headers))
            except HttpError as error:
                return OperationProblem.of_request(error).answer()
            try:
                return await threads.run(answer, exposed, *arguments)
            except BusyError:
                text = "Too many calls are under way."
                return OperationProblem(503, "UNAVAILABLE", text, True, 1.0).answer()

        return handle

    one = ("operations", "**")
    app.add("GET", ("operations",), guarded(answer_list, takes_body=False))
    app.add("POST", (*one, "choices", "*"), guarded(answer_choices, takes_body=True))
    app.add("GET", one, guarded(answer_operation, takes_body=False))
    app.add("POST", one, guarded(answer_call, takes_body=True))


def _operation_in(parts: Sequence[str], has_field: bool) -> list[str]:
    """Return the name of the operation in a path, which may hold slashes, and the field."""
    if has_field:
        return ["/".join(parts[1:-2]), parts[-1]]
    return ["/".join(parts[1:])] if len(parts) > 1 else []


async def _event(endpoint: EventsEndpoint, request: Request) -> HttpAnswer:
    if not endpoint.open:
        raise HttpError(403, "events are not accepted here: no token is configured")
    headers, refused = request.headers, HttpAnswer(401, REFUSED, {"WWW-Authenticate": "Bearer"})
    admitted = endpoint.admits(headers)
    if not admitted and not endpoint.may_be_signed(headers):
        return refused
    body = await request.body()
    if not admitted and not await asyncio.to_thread(endpoint.is_signed, headers, body):
        return refused
    return await asyncio.to_thread(endpoint.answer, headers, body)
