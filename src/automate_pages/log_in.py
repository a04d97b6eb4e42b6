"""The log-in of the pages: a token or OpenID Connect begins a session, kept on the server."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote, unquote

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from automate_kernel.access.audit import AuditLog, Outcome
from automate_kernel.access.sessions import (
    IDLE_SECONDS,
    LIFETIME_SECONDS,
    SessionStore,
)
from automate_kernel.access.tokens import AccessToken, prefix_of, shown_token
from automate_kernel.base.arguments import check_address
from automate_kernel.base.errors import AutomateError, ConfigError
from automate_kernel.http.proxies import network_of
from automate_kernel.secrets.logs import get_logger
from automate_kernel.storage.query import Now
from automate_kernel.storage.values import read_json
from automate_pages.browser import LOOPBACK, Browser
from automate_pages.exchange import HEADERS, SentFields
from automate_pages.live import Lookers
from automate_pages.openid import CodeFlow, Oidc, OidcError
from automate_pages.site import Site
from automate_pages.users import User

logger: logging.Logger = get_logger(__name__)

_SESSION, _FLOW = "session", "oidc"
_FLOW_SECONDS = 600
_MOST_OF_ADDRESS, _MOST_IN_ALL, _FAILED_SECONDS = 10, 100, 300.0
_WRONG = "This token is not valid here. It may have ended, or be another installation's."
_PROVIDER = "The log-in didn't succeed. Try again, or ask who runs this server: its log says why."


class LogIn:
    """
    The log-in of the pages' own: ``pages(kernel, auth=LogIn())``.

    People log in with a token that has a role, as ``automate tokens new ada --role operator`` makes
    it, and by *oidc*, a provider of OpenID Connect. With *tokens* False by the provider alone.
    *public_url* is the address of the pages where a proxy ends TLS; an `Oidc` has one. A session
    ends after *idle_seconds* without a request, and after *lifetime_seconds*. Raises `ConfigError`.
    """

    def __init__(
        self,
        oidc: Oidc | None = None,
        *,
        tokens: bool = True,
        public_url: str | None = None,
        idle_seconds: float = IDLE_SECONDS,
        lifetime_seconds: float = LIFETIME_SECONDS,
    ) -> None:
        if oidc is None and not tokens:
            raise ConfigError("nobody could log in", hint="LogIn(), or LogIn(Oidc(…))")
        self.oidc, self.tokens = oidc, tokens
        self.public_url: str | None = check_address(public_url, "public_url") or (
            None if oidc is None else oidc.public_url
        )
        self.idle_seconds, self.lifetime_seconds = idle_seconds, lifetime_seconds


class FailedLogIns:
    """
    The log-ins that failed, of all processes: those that *audit* has.

    After ten from an address (or a network of IPv6) in five minutes, or a hundred from anywhere,
    the next has to wait. These aren't written down any more, so that guessing fills no database.
    A log-in that may be right is refused for its own address alone: else whoever guesses from ten
    addresses locks everybody out.
    """

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit

    def wait(self, address: str, *, alone: bool = False) -> float:
        """
        Return the seconds until a log-in from *address* may fail again; 0 if it may now.

        With *alone* those from other addresses don't count.
        """
        own = self._seconds(_MOST_OF_ADDRESS, actor=network_of(address) or address)
        return own if own or alone else self._seconds(_MOST_IN_ALL)

    def _seconds(self, most: int, actor: str | None = None) -> float:
        # The time of the database, which has all of theirs.
        since: Any = Now(-_FAILED_SECONDS)
        found = self._audit.page(
            action="log-in", model="session", outcome="refused", created_after=since, limit=most,
            actor=actor,
        ).records  # fmt: skip
        if len(found) < most:
            return 0.0
        passed = (datetime.now(timezone.utc) - found[-1].created_at).total_seconds()
        return min(max(_FAILED_SECONDS - passed, 1.0), _FAILED_SECONDS)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A log-in that is tried: from which address, and where it leads to."""

    browser: Browser
    address: str
    agent: str
    back: str


class LogInPages:
    """Answers the requests to log in and out of *site*, and knows the users of sessions."""

    def __init__(self, site: Site, config: LogIn, threads: CapacityLimiter) -> None:
        self._site, self._config, self._kernel = site, config, site.kernel
        self._threads, self._failed = threads, FailedLogIns(site.kernel.audit)
        self._sessions = SessionStore(
            site.kernel.storage,
            idle_seconds=config.idle_seconds,
            lifetime_seconds=config.lifetime_seconds,
        )
        self._lookers = Lookers(self._users)

    def user_of(self, browser: Browser, *, looks: bool = False) -> tuple[User, str] | None:
        """
        Return the user of the browser's session and the session's id; None for nobody.

        For who only *looks* again at a live page it may be four seconds old.
        """
        secret = browser.cookie(_SESSION)
        return self._lookers.find(secret) if looks else self._users([secret]).get(secret)

    def _users(self, secrets: Collection[str]) -> dict[str, tuple[User, str]]:
        sessions = self._sessions.find_many(secrets)
        tokens = self._kernel.tokens.by_ids(
            each.token_id for each in sessions.values() if each.token_id is not None
        )
        found = {}
        for secret, session in sessions.items():
            user: User | None = User(session.user_name, session.roles, session.tenant_id)
            if session.token_id is not None:
                token = tokens.get(session.token_id)
                user = None if token is None else _user_of(token)
            if user is None:
                self._sessions.end(session.id)
            else:
                found[secret] = (user, session.id)
        return found

    async def answer(self, request: Request, browser: Browser) -> Response | None:
        """Answer a request to log in or out; None if it is for another page."""
        place = request.path_params["path"].strip("/")
        routes: dict[tuple[str, str], Callable[..., Response]] = {
            ("GET", "log-in"): self._show,
            ("POST", "log-in"): self._enter,
            ("POST", "log-out"): self._leave,
        }
        if self._config.oidc is not None:
            routes["GET", "log-in/oidc"] = self._to_provider
            routes["GET", "log-in/oidc/callback"] = self._from_provider
        method = "POST" if request.method == "POST" else "GET"
        work = routes.get((method, place))
        if work is None:
            return None
        form = SentFields()
        if method == "POST":
            form, problem = await browser.form()
            if problem is not None:
                return PlainTextResponse(problem, 403, headers=HEADERS)
        else:
            form = SentFields(request.query_params.multi_items())
        attempt = _Attempt(
            browser,
            request.client.host if request.client else "",
            request.headers.get("user-agent", ""),
            browser.inside(form.get("next")),
        )
        if not (browser.secure or browser.host in LOOPBACK):
            text = "Log in over https, or set public_url if a proxy ends TLS: nothing else is safe."
            return self._page(attempt, text, 403)
        return await to_thread.run_sync(self._carefully, work, attempt, form, limiter=self._threads)

    def _carefully(
        self, work: Callable[..., Response], attempt: _Attempt, form: SentFields
    ) -> Response:
        try:
            return work(attempt, form)
        except AutomateError as error:
            logger.warning("a log-in failed: %s", error)
            text = "The log-in doesn't work now. Try again; the server's log says why it doesn't."
            return self._page(attempt, text, 503)

    # -- pages --

    def _show(self, attempt: _Attempt, form: SentFields) -> Response:
        if self.user_of(attempt.browser) is not None:
            return RedirectResponse(attempt.back, 303, headers=HEADERS)
        return self._page(attempt)

    def _page(self, attempt: _Attempt, problem: str = "", status: int = 200) -> Response:
        browser, oidc = attempt.browser, self._config.oidc
        csrf = browser.csrf
        html = self._site.render_alone(
            "log_in.html", browser.base, csrf=csrf, problem=problem, next=attempt.back,
            tokens=self._config.tokens, provider=None if oidc is None else oidc.label,
        )  # fmt: skip
        response = HTMLResponse(html, status, headers=HEADERS)
        browser.keep_csrf(response, csrf)
        return response

    # -- a token --

    def _enter(self, attempt: _Attempt, form: SentFields) -> Response:
        if not self._config.tokens:
            return self._page(attempt, "No token opens these pages.", 403)
        text = form.get("token", "").strip()
        prefix = prefix_of(text) or ""
        token = self._kernel.tokens.find(text)
        user = None if token is None else _user_of(token)
        # The right token always opens, however many wrong ones came before it.
        if token is None or user is None:
            wait = self._failed.wait(attempt.address)
            if wait:
                return self._too_many(attempt, wait)
            known = shown_token(prefix) if prefix else None
            self._refuse(attempt, known, method="token")
            wrong = _WRONG if token is None else "This token has no role: it opens the API alone."
            return self._page(attempt, wrong, 401)
        return self._begin(attempt, user, token.shown, method="token", token=token)

    def _too_many(self, attempt: _Attempt, wait: float) -> Response:
        minutes = f"{wait / 60:.0f} minutes" if wait > 90 else "a minute"
        page = self._page(attempt, f"Too many log-ins failed. Try again in {minutes}.", 429)
        page.headers["Retry-After"] = f"{wait:.0f}"
        return page

    def _refuse(self, attempt: _Attempt, actor_id: str | None, **details: str) -> None:
        # Nobody is known but the address, by which they are counted.
        name = network_of(attempt.address) or attempt.address
        self._write(attempt, "log-in", "refused", name, actor_id, None, **details)

    def _begin(
        self, attempt: _Attempt, user: User, actor_id: str, *, method: str,
        token: AccessToken | None = None,
    ) -> Response:  # fmt: skip
        # A new id, whatever the browser came with, which may be known to somebody else.
        former = self._sessions.find(attempt.browser.cookie(_SESSION))
        with self._kernel.storage.begin() as rows:
            if former is not None:
                self._sessions.leave(former.id, transaction=rows.native)
            secret = self._sessions.begin(
                user.name, roles=user.roles, tenant_id=user.tenant, method=method, token=token,
                address=attempt.address, agent=attempt.agent, transaction=rows.native,
            )  # fmt: skip
            self._write(
                attempt, "log-in", "done", user.name, actor_id, user.tenant, rows.native,
                method=method,
            )  # fmt: skip
        response = RedirectResponse(attempt.back, 303, headers=HEADERS)
        lifetime = int(self._config.lifetime_seconds)
        # Lax, so that a link from a chat, or the way back from a provider, finds the session.
        attempt.browser.keep(response, _SESSION, secret, samesite="lax", max_age=lifetime)
        attempt.browser.keep_csrf(response)
        return response

    def _leave(self, attempt: _Attempt, form: SentFields) -> Response:
        browser = attempt.browser
        found = self.user_of(browser)
        if found is not None:
            user, session_id = found
            with self._kernel.storage.begin() as rows:
                self._sessions.leave(session_id, transaction=rows.native)
                self._write(attempt, "log-out", "done", user.name, None, user.tenant, rows.native)
        response = RedirectResponse(f"{browser.base}/log-in", 303, headers=HEADERS)
        browser.forget(response, _SESSION)
        browser.keep_csrf(response)
        return response

    # -- OpenID Connect --

    def _to_provider(self, attempt: _Attempt, form: SentFields) -> Response:
        assert self._config.oidc is not None  # noqa: S101 - else there is no such page
        secret = secrets.token_urlsafe(32)
        try:
            address = self._config.oidc.begin(self._kernel, CodeFlow(secret))
        except OidcError as error:
            logger.warning("the OpenID provider can't be used: %s", error)
            return self._page(attempt, _PROVIDER, 502)
        response = RedirectResponse(address, 303, headers=HEADERS)
        kept = quote(json.dumps([secret, attempt.back[:1_500]]))
        browser = attempt.browser
        browser.keep(response, _FLOW, kept, samesite="lax", max_age=_FLOW_SECONDS)
        return response

    def _from_provider(self, attempt: _Attempt, query: SentFields) -> Response:
        assert self._config.oidc is not None  # noqa: S101 - else there is no such page
        browser = attempt.browser
        secret, back = _flow_of(browser.cookie(_FLOW))
        attempt = _Attempt(browser, attempt.address, attempt.agent, browser.inside(back))
        try:
            if not secret:
                raise OidcError("this browser has begun no log-in, or too long ago")
            wait = self._failed.wait(attempt.address, alone=True)
            if wait:  # before the provider is asked
                return self._too_many(attempt, wait)
            person = self._config.oidc.finish(self._kernel, CodeFlow(secret), query)
        except OidcError as error:
            logger.warning("a log-in by OpenID Connect was refused: %s", error)
            if secret and not self._failed.wait(attempt.address):
                self._refuse(attempt, None, method="oidc", reason=str(error)[:300])
            response = self._page(attempt, _PROVIDER, 401)
        else:
            response = self._begin(attempt, person.user, person.subject, method="oidc")
        browser.forget(response, _FLOW)
        return response

    def _write(
        self, attempt: _Attempt, action: str, outcome: Outcome, name: str, actor_id: str | None,
        tenant: str | None, transaction: Any = None, **details: str,
    ) -> None:  # fmt: skip
        self._kernel.audit.write(
            action, actor=name, actor_id=actor_id, model="session", tenant_id=tenant,
            outcome=outcome, details={**details, "address": attempt.address},
            transaction=transaction,
        )  # fmt: skip


def _user_of(token: AccessToken) -> User | None:
    """Return the user of the pages that a token is; None if it opens none."""
    # A token of Django without a tenant is bound to what Django says, which isn't known here.
    bound = token.tenant_id is None and not token.all_tenants
    if bound or token.user_id is not None:
        return None
    user = User(token.name, token.roles, None if token.all_tenants else token.tenant_id)
    return user if user.may("view") else None


def _flow_of(cookie: str) -> tuple[str, str]:
    try:
        secret, back = read_json(unquote(cookie))
    except (ValueError, TypeError):
        return "", ""
    return (secret, back) if isinstance(secret, str) and isinstance(back, str) else ("", "")
