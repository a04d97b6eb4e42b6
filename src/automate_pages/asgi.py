"""The pages as an ASGI application: for Starlette, FastAPI, and any other host that mounts."""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from automate_kernel.base.errors import ConfigError
from automate_kernel.kernel import Kernel
from automate_pages.exchange import OrderAnswer, PageRequest, SentFields
from automate_pages.live import LivePart, LiveParts
from automate_pages.site import Site
from automate_pages.users import User

Auth = Callable[[Request], "User | Awaitable[User | None] | None"]
"""The host's own log-in: the user of a request, or None for nobody."""

_MOST_BODY = 1_000_000
_THREADS = 8
_CSRF, _NOTICE = "automate_csrf", "automate_notice"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " img-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none';"
    " base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Vary": "Accept, Cookie, X-Automate-Part",
}  # fmt: skip


def pages(
    kernel: Kernel,
    *,
    auth: Auth,
    title: str = "automate",
    origins: Sequence[str] = (),
    log_in: str | None = None,
) -> Starlette:
    """
    Return the operators' pages of *kernel*, to be mounted anywhere in the application.

    *auth* says who asks: ``lambda request: User("ada", ["operator"], tenant=None)``. Who is nobody
    is sent to the address *log_in*, or gets status 401. An order is taken only from the pages' own
    origin: that of the request, or one of *origins*, such as ``https://ops.example.com`` behind a
    proxy that ends TLS. The kernel stays the caller's to close.
    """
    if not callable(auth):
        raise ConfigError(
            "the pages need auth, a function that says who asks",
            hint='pages(kernel, auth=lambda request: User("ada", ["viewer"], tenant=None))',
        )
    return pages_of(Site(kernel, title), auth=auth, origins=origins, log_in=log_in)


def pages_of(
    site: Site, *, auth: Auth, origins: Sequence[str] = (), log_in: str | None = None
) -> Starlette:
    """
    Return what `pages` returns, for a *site* of the caller's.

    A server that isn't plain uvicorn sets ``app.state.live.stopped`` when it stops, which ends the
    streams of live pages.
    """
    live = LiveParts(site)
    host = _Shell(site, live, auth, frozenset(origins), log_in)
    app = Starlette(
        routes=[
            Mount("/static", StaticFiles(packages=[("automate_pages", "static")])),
            Route("/{path:path}", host.answer, methods=["GET", "POST"]),
        ]
    )
    app.state.live = live
    return app


class _Shell:
    """Answers requests: who asks, and whether the order is theirs; the rest is the site's."""

    def __init__(
        self,
        site: Site,
        live: LiveParts,
        auth: Auth,
        origins: frozenset[str],
        log_in: str | None,
    ) -> None:
        self._site, self._live = site, live
        self._auth, self._origins, self._log_in = auth, origins, log_in
        # Fewer than a pool has connections: Starlette's own 40 threads would wait for each other.
        self._threads = CapacityLimiter(_THREADS)

    async def answer(self, request: Request) -> Response:
        user = self._auth(request)
        if user is not None and not isinstance(user, User):
            user = await user
        if user is None:
            return self._stranger(request)
        form = SentFields()
        if request.method == "POST":
            problem = self._foreign(request)
            if problem is None:
                form, problem = await self._form(request)
            if problem is not None:
                return PlainTextResponse(problem, 403, headers=_HEADERS)
        asked = PageRequest(
            self._site.kernel,
            user,
            request.path_params["path"],
            base=_base(request),
            method="POST" if request.method == "POST" else "GET",
            query=SentFields(request.query_params.multi_items()),
            form=form,
            part=request.headers.get("x-automate-part") == "1",
        )
        if request.method == "GET" and "text/event-stream" in request.headers.get("accept", ""):
            return self._stream(request, asked)
        work = partial(self._respond, request, asked)
        return await to_thread.run_sync(work, limiter=self._threads)

    def _stream(self, request: Request, asked: PageRequest) -> Response:
        # Below a2wsgi a stream would hold one of the server's few threads.
        if "wsgi_environ" in request.scope or self._live.full:
            return Response(status_code=204, headers=_HEADERS)  # the page polls, then

        async def look() -> LivePart:
            return await to_thread.run_sync(self._live.part, asked, "", limiter=self._threads)

        headers = {**_HEADERS, "X-Accel-Buffering": "no"}
        stream = self._live.stream(asked, look)
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

    def _stranger(self, request: Request) -> Response:
        if self._log_in is None or request.method == "POST":
            return PlainTextResponse("Log in first.", 401, headers=_HEADERS)
        # Two slashes at its beginning would lead to another host.
        back = f"{_base(request)}/{quote(request.path_params['path'].lstrip('/'))}"
        if request.url.query:
            back += f"?{request.url.query}"
        mark = "&" if "?" in self._log_in else "?"
        return RedirectResponse(
            f"{self._log_in}{mark}next={quote(back, safe='/')}", 303, headers=_HEADERS
        )

    def _respond(self, request: Request, asked: PageRequest) -> Response:
        csrf = request.cookies.get(_CSRF) or secrets.token_urlsafe(32)
        if asked.part and asked.method == "GET":
            part = self._live.part(asked, csrf)
            response = HTMLResponse(part.html, part.status, headers=_HEADERS)
            response.headers["X-Automate-Part"] = "live" if part.live else "ended"
            return response
        found = self._site.answer(asked)
        if asked.method == "POST":
            self._live.forget()
        if isinstance(found, OrderAnswer):
            moved = RedirectResponse(found.url, 303, headers=_HEADERS)
            if found.notice:
                self._keep(request, moved, _NOTICE, _cookie_text(found), max_age=60)
            return moved
        notice = _notice(request)
        body = self._site.render(asked, found, csrf=csrf, notice=notice)
        response = HTMLResponse(body, found.status, headers=_HEADERS)
        self._keep(request, response, _CSRF, csrf)
        if notice is not None:
            response.delete_cookie(_NOTICE, path=_base(request) or "/")
        return response

    def _keep(
        self, request: Request, response: Response, name: str, value: str, **options: Any
    ) -> None:
        response.set_cookie(
            name, value, path=_base(request) or "/", secure=request.url.scheme == "https",
            httponly=True, samesite="strict", **options,
        )  # fmt: skip

    def _foreign(self, request: Request) -> str | None:
        """Return why an order isn't from these pages; None if its browser says that it is."""
        origin = request.headers.get("origin")
        if origin is None:
            return None  # then the token in the form decides alone
        own = f"{request.url.scheme}://{request.headers.get('host', '')}"
        if origin == own or origin in self._origins:
            return None
        return (
            f"This order came from {origin}. Give that origin to pages(origins=[…]) if it is yours."
        )

    async def _form(self, request: Request) -> tuple[SentFields, str | None]:
        kind = request.headers.get("content-type", "").partition(";")[0].strip()
        if kind != "application/x-www-form-urlencoded":
            return SentFields(), "Send a form."
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MOST_BODY:
                return SentFields(), "The form is too large."
        text = body.decode("utf-8", "replace")
        try:
            form = SentFields(parse_qsl(text, keep_blank_values=True, max_num_fields=500))
        except ValueError:
            return SentFields(), "The form has too many fields."
        sent, kept = form.pop("csrf", ""), request.cookies.get(_CSRF, "")
        if not kept or not hmac.compare_digest(sent.encode(), kept.encode()):
            return SentFields(), "The form is too old. Go back, reload the page, and send it again."
        return form, None


def _base(request: Request) -> str:
    """Return the path that the pages are mounted at, for addresses and the paths of cookies."""
    # A part that the host leaves open (/{shop}/ops) may hold a semicolon, which ends a cookie's.
    path = quote(request.scope.get("root_path", "").strip("/"), safe="/:@!$&'()*+,=")
    return f"/{path}" if path else ""


def _cookie_text(answer: OrderAnswer) -> str:
    """Return the notice of *answer* within the 4 KB that a browser keeps of a cookie."""
    texts = (quote(json.dumps([answer.notice[:most], answer.tone])) for most in (500, 200))
    return next((text for text in texts if len(text) < 3_500), "")


def _notice(request: Request) -> dict[str, str] | None:
    text = request.cookies.get(_NOTICE)
    if not text:
        return None
    try:
        words, tone = json.loads(unquote(text))
    except ValueError:
        return None
    return {"text": str(words)[:500], "tone": str(tone)}


def loopback(user: User) -> Auth:
    """
    Return an *auth* for a server on this machine alone: whoever reaches it is *user*.

    Only names of this machine count in ``Host`` and in ``Origin``. So a page from elsewhere is
    refused, also if its name was made to lead here (DNS rebinding).
    """

    def auth(request: Request) -> User | None:
        origin = request.headers.get("origin")
        ours = _is_loopback(f"//{request.headers.get('host', '')}")
        return user if ours and (origin is None or _is_loopback(origin)) else None

    return auth


def _is_loopback(address: str) -> bool:
    try:
        return urlsplit(address).hostname in ("127.0.0.1", "localhost", "::1")
    except ValueError:  # half an address, such as "["
        return False
