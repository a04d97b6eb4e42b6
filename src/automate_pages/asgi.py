"""The pages as an ASGI application: for Starlette, FastAPI, and any other host that mounts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from urllib.parse import quote, unquote, urlsplit

from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.middleware import Middleware
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
from starlette.types import ASGIApp, Receive, Scope, Send

from automate_kernel.access.accounts import CONSENT_SECONDS
from automate_kernel.base.errors import AutomateError, ConfigError
from automate_kernel.kernel import Kernel
from automate_pages import formats
from automate_pages.auth import Auth
from automate_pages.browser import Browser
from automate_pages.exchange import HEADERS, FileAnswer, OrderAnswer, PageRequest, SentFields
from automate_pages.live import LivePart, LiveParts
from automate_pages.log_in import LogIn, LogInPages
from automate_pages.site import Site
from automate_pages.users import User

_THREADS = 8
_NOTICE, _KEPT = "notice", "kept"


def pages(
    kernel: Kernel,
    *,
    auth: Auth | LogIn,
    title: str = "automate",
    origins: Sequence[str] = (),
    log_in: str | None = None,
    operations: Sequence[str] = (),
    webhooks: str | None = None,
) -> Starlette:
    """
    Return the operators' pages of *kernel*, to be mounted anywhere in the application.

    *auth* says who asks: a `LogIn`, or a function of the application's own:
    ``lambda request: User("ada", ["operator"], tenant=None)``. Who is nobody for the function is
    sent to the address *log_in*, or gets status 401. An order is taken only from the pages' own
    origin: that of the request, or one of *origins*, such as ``https://ops.example.com`` behind a
    proxy that ends TLS. *operations* names those that authors may call by a form: names, or
    patterns such as ``slack.*``. *webhooks* is the address, or the path on the pages' own host,
    below which `webhook_app` answers: the pages show what to enter at a service. The kernel stays
    the caller's to close.
    """
    if not isinstance(auth, LogIn) and not callable(auth):
        raise ConfigError(
            "the pages need auth: a log-in, or a function that says who asks",
            hint="pages(kernel, auth=LogIn()), and make a token with automate tokens new",
        )
    return pages_of(
        Site(kernel, title, operations=operations, webhooks=webhooks),
        auth=auth,
        origins=origins,
        log_in=log_in,
    )


def pages_of(
    site: Site, *, auth: Auth | LogIn, origins: Sequence[str] = (), log_in: str | None = None
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
        ],
        middleware=[Middleware(_MountPath)],
    )
    app.state.live = live
    return app


class _MountPath:
    """Finds out where the pages are mounted if the host, as Litestar, takes that off the path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope.get("root_path"):
            path, whole = scope["path"], unquote((scope.get("raw_path") or b"").decode("latin-1"))
            end = path if whole.endswith(path) else path.rstrip("/")
            if end != whole and whole.endswith(end):
                root = whole[: len(whole) - len(end)]
                scope = {**scope, "root_path": root, "path": root + path}
        await self._app(scope, receive, send)


class _Shell:
    """Answers requests: who asks, and whether the order is theirs; the rest is the site's."""

    def __init__(
        self,
        site: Site,
        live: LiveParts,
        auth: Auth | LogIn,
        origins: frozenset[str],
        log_in: str | None,
    ) -> None:
        self._site, self._live = site, live
        # Fewer than a pool has connections: Starlette's own 40 threads would wait for each other.
        self._threads = CapacityLimiter(_THREADS)
        self._auth, self._log_in = auth, log_in
        self._origins, self._secure = origins, False
        self._own: LogInPages | None = None
        if isinstance(auth, LogIn):
            self._own = LogInPages(site, auth, self._threads)
            if auth.public_url is not None:
                parts = urlsplit(auth.public_url)
                self._origins |= {f"{parts.scheme}://{parts.netloc}"}
                self._secure = parts.scheme == "https"

    async def answer(self, request: Request) -> Response:
        browser = Browser(request, self._origins, secure=self._secure)
        try:
            found = await self._who(request, browser)
        except AutomateError as error:
            return self._away(browser, error)
        if isinstance(found, Response):
            return found
        user, session = found
        if user is None:
            return self._stranger(request, browser)
        form = SentFields()
        if request.method == "POST":
            form, problem = await browser.form()
            if problem is not None:
                return PlainTextResponse(problem, 403, headers=HEADERS)
        asked = PageRequest(
            self._site.kernel,
            user,
            request.path_params["path"],
            base=browser.base,
            method="POST" if request.method == "POST" else "GET",
            query=SentFields(request.query_params.multi_items()),
            form=form,
            part=_is_part(request),
            session=session,
            origin=browser.origin,
            kept=browser.cookie(_KEPT),
        )
        if request.method == "GET" and _wants_stream(request):
            return self._stream(request, asked)
        work = partial(self._respond, browser, asked)
        return await to_thread.run_sync(work, limiter=self._threads)

    async def _who(self, request: Request, browser: Browser) -> Response | tuple[User | None, str]:
        """Return the user and the session, or the answer of the log-in's own pages."""
        if self._own is not None:
            answer = await self._own.answer(request, browser)
            if answer is not None:
                return answer
            looks = request.method == "GET" and (_is_part(request) or _wants_stream(request))
            find = partial(self._own.user_of, browser, looks=looks)
            found = await to_thread.run_sync(find, limiter=self._threads)
            return (None, "") if found is None else found
        assert not isinstance(self._auth, LogIn)  # noqa: S101 - then there are pages of its own
        user = self._auth(request)
        if user is not None and not isinstance(user, User):
            user = await user
        return user, ""

    def _away(self, browser: Browser, error: AutomateError) -> Response:
        text = f"{formats.shown_text(self._site.kernel, error.message, 300)}."
        html = self._site.render_alone(
            "log_in.html", browser.base, heading="The database is away", problem=text, tokens=False,
            provider=None,
        )  # fmt: skip
        return HTMLResponse(html, 503, headers=HEADERS)

    def _stream(self, request: Request, asked: PageRequest) -> Response:
        # Below a2wsgi a stream would hold one of the server's few threads.
        if "wsgi_environ" in request.scope or self._live.full:
            return Response(status_code=204, headers=HEADERS)  # the page polls, then

        async def look() -> LivePart:
            return await to_thread.run_sync(self._live.part, asked, "", limiter=self._threads)

        headers = {**HEADERS, "X-Accel-Buffering": "no"}
        stream = self._live.stream(asked, look)
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

    def _stranger(self, request: Request, browser: Browser) -> Response:
        log_in = self._log_in if self._own is None else f"{browser.base}/log-in"
        part = "x-automate-part" in request.headers
        if log_in is None or request.method == "POST" or part:
            return PlainTextResponse("Log in first.", 401, headers=HEADERS)
        # Two slashes at its beginning would lead to another host.
        back = f"{browser.base}/{quote(request.path_params['path'].lstrip('/'))}"
        if request.url.query:
            back += f"?{request.url.query}"
        mark = "&" if "?" in log_in else "?"
        return RedirectResponse(f"{log_in}{mark}next={quote(back, safe='/')}", 303, headers=HEADERS)

    def _respond(self, browser: Browser, asked: PageRequest) -> Response:
        csrf = browser.csrf
        if asked.part and asked.method == "GET":
            part = self._live.part(asked, csrf)
            response = HTMLResponse(part.html, part.status, headers=HEADERS)
            response.headers["X-Automate-Part"] = "live" if part.live else "ended"
            return response
        found = self._site.answer(asked)
        if asked.method == "POST":
            self._live.forget()
        if isinstance(found, OrderAnswer):
            moved = RedirectResponse(found.url, 303, headers=HEADERS)
            if found.notice:
                browser.keep(moved, _NOTICE, _cookie_text(found), max_age=60)
            return moved
        if isinstance(found, FileAnswer):
            headers = {**HEADERS, **found.headers}
            return StreamingResponse(found.parts, media_type=found.media_type, headers=headers)
        notice = _notice(browser.cookie(_NOTICE))
        body = self._site.render(asked, found, csrf=csrf, notice=notice)
        response = HTMLResponse(body, found.status, headers=HEADERS)
        browser.keep_csrf(response, csrf)
        if found.kept:
            # Lax: a service's answer leads here from elsewhere.
            browser.keep(response, _KEPT, found.kept, samesite="lax", max_age=CONSENT_SECONDS)
        if notice is not None:
            browser.forget(response, _NOTICE)
        return response


def _is_part(request: Request) -> bool:
    return request.headers.get("x-automate-part") == "1"


def _wants_stream(request: Request) -> bool:
    return "text/event-stream" in request.headers.get("accept", "")


def _cookie_text(answer: OrderAnswer) -> str:
    """Return the notice of *answer* within the 4 KB that a browser keeps of a cookie."""
    texts = (quote(json.dumps([answer.notice[:most], answer.tone])) for most in (500, 200))
    return next((text for text in texts if len(text) < 3_500), "")


def _notice(text: str) -> dict[str, str] | None:
    if not text:
        return None
    try:
        words, tone = json.loads(unquote(text))
    except ValueError:
        return None
    return {"text": str(words)[:500], "tone": str(tone)}
