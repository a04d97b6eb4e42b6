"""Browsers as the pages meet them: cookies, the origin and the form of an order."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Collection
from typing import Any, Literal
from urllib.parse import parse_qsl, quote, urlsplit

from starlette.requests import Request
from starlette.responses import Response

from automate_pages.exchange import SentFields

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""The names of this machine in ``Host``."""
# A workflow's text has 256 KiB at most, of which each byte may be sent as %XX.
_MOST_BODY = 1_000_000
_CSRF = "csrf"


def host_of(address: str) -> tuple[str, int | None]:
    """Return the name and the port in an address or an origin; the name is empty if it has none."""
    try:
        parts = urlsplit(address)
        return parts.hostname or "", parts.port
    except ValueError:  # half an address, such as "["
        return "", None


class Browser:
    """
    The browser that sent *request*: its cookies, and whether an order is from our own pages.

    *origins* are other origins of the pages than the request's own. With *secure* cookies are for
    https, whatever the hop from a proxy uses.
    """

    def __init__(
        self, request: Request, origins: Collection[str] = (), *, secure: bool = False
    ) -> None:
        self._request, self._origins = request, origins
        self.secure = secure or request.scope.get("scheme") == "https"
        """True if the browser speaks https."""
        name, self._port = host_of(f"//{request.headers.get('host', '')}")
        self.host: str = name
        """The name of the host that the browser asked."""
        # A part that the host leaves open (/{shop}/ops) may hold a semicolon: a cookie's end.
        root = request.scope.get("root_path", "").strip("/")
        path = quote(root, safe="/:@!$&'()*+,=")
        self.base = f"/{path}" if path else ""
        """The path that the pages are mounted at, for addresses and the paths of cookies."""

    def _named(self, name: str) -> str:
        if self.secure:
            # No path of its own tells two of them on one host apart, so their names do.
            mark = f"_{hashlib.sha256(self.base.encode()).hexdigest()[:8]}" if self.base else ""
            return f"__Host-automate_{name}{mark}"
        # Cookies know no ports, and on a desk many servers are 127.0.0.1.
        return f"automate_{name}" + ("" if self._port is None else f"_{self._port}")

    def cookie(self, name: str) -> str:
        """Return the cookie *name* of the pages; empty if there is none."""
        return self._request.cookies.get(self._named(name), "")

    def keep(
        self,
        response: Response,
        name: str,
        value: str,
        *,
        samesite: Literal["lax", "strict"] = "strict",
        max_age: int | None = None,
    ) -> None:
        """Let the browser keep the cookie *name*; no script can read it."""
        response.set_cookie(
            self._named(name), value, path=self._path, secure=self.secure, httponly=True,
            samesite=samesite, max_age=max_age,
        )  # fmt: skip

    def forget(self, response: Response, name: str) -> None:
        """Let the browser forget the cookie *name*."""
        response.delete_cookie(
            self._named(name), path=self._path, secure=self.secure, httponly=True, samesite="lax"
        )

    @property
    def _path(self) -> str:
        return "/" if self.secure else self.base or "/"

    @property
    def csrf(self) -> str:
        """The token of the forms: the browser's, or a new one."""
        return self.cookie(_CSRF) or secrets.token_urlsafe(32)

    def keep_csrf(self, response: Response, token: str | None = None) -> None:
        """Let the browser keep the token of the forms; a new one, if none is given."""
        # Lax: a link from elsewhere to the pages must not make the forms of other tabs old.
        self.keep(response, _CSRF, token or secrets.token_urlsafe(32), samesite="lax")

    @property
    def origin(self) -> str:
        """The scheme and the host of these pages, as the browser has them."""
        sent = self._request.headers.get("origin")
        if sent is not None and self.foreign() is None:
            return sent
        return next(iter(self._origins)) if len(self._origins) == 1 else self._own

    @property
    def _own(self) -> str:
        return f"{self._request.scope.get('scheme')}://{self._request.headers.get('host', '')}"

    def foreign(self) -> str | None:
        """Return why an order isn't from these pages; None if its browser says that it is."""
        origin = self._request.headers.get("origin")
        if origin is None:
            return None  # then the token in the form decides alone
        if origin == self._own or origin in self._origins:
            return None
        return (
            f"This order came from {origin}. Give that origin to pages(origins=[…]) if it is yours."
        )

    async def form(self) -> tuple[SentFields, str | None]:
        """Return the form of an order, or why it isn't taken."""
        problem = self.foreign()
        kind = self._request.headers.get("content-type", "").partition(";")[0].strip()
        if problem is not None or kind != "application/x-www-form-urlencoded":
            return SentFields(), problem or "Send a form."
        body = bytearray()
        async for chunk in self._request.stream():
            body += chunk
            if len(body) > _MOST_BODY:
                return SentFields(), "The form is too large."
        text = body.decode("utf-8", "replace")
        try:
            form = SentFields(parse_qsl(text, keep_blank_values=True, max_num_fields=500))
        except ValueError:
            return SentFields(), "The form has too many fields."
        sent, kept = form.pop("csrf", ""), self.cookie(_CSRF)
        if not kept or not hmac.compare_digest(sent.encode(), kept.encode()):
            return SentFields(), "The form is too old. Go back, reload the page, and send it again."
        return form, None

    def inside(self, address: Any) -> str:
        """Return *address* if it is a path of these pages, else that of their first page."""
        text = str(address or "")
        below = text.startswith(f"{self.base}/") and not text.startswith("//")
        # A browser reads a backslash as a slash, and takes line breaks and tabs out.
        return text if below and text.isprintable() and "\\" not in text else f"{self.base}/"
