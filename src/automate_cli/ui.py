"""The operators' pages of ``automate serve --ui``, with the log-in that the settings describe."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette

from automate_cli.session import Session
from automate_kernel.base.errors import ConfigError, did_you_mean
from automate_kernel.kernel import Kernel
from automate_pages import LogIn, Oidc, header, pages
from automate_pages.auth import Auth
from automate_pages.browser import LOOPBACK

UI = "/ui"
"""The path of the pages beside the webhooks and the events."""


def pages_for(session: Session) -> Starlette:
    """Return the pages. Raises `ConfigError` if the settings leave nobody who could log in."""
    public_url = session.settings["public_url"]
    parts = urlsplit(public_url or "")
    origins = [f"{parts.scheme}://{parts.netloc}"] if public_url else []
    return pages(
        session.kernel, auth=_auth(session), origins=origins, webhooks="/",
        operations=session.settings["serve.operations"],
    )  # fmt: skip


def _auth(session: Session) -> Auth | LogIn:
    settings = session.settings
    proxy, oidc, public_url = (
        settings[name] for name in ("serve.header", "serve.oidc", "public_url")
    )
    if proxy and oidc:
        raise ConfigError(
            "serve.header and serve.oidc are both set",
            hint="choose who logs people in: one of them",
        )
    if proxy:
        found: Auth = _called(header, "serve.header", proxy)
        return found
    host = settings["serve.host"]
    if not public_url and host not in LOOPBACK:
        raise ConfigError(
            f"--ui listens on {host}, and a log-in over plain http is safe on this machine alone",
            hint="let a proxy speak TLS, and set public_url to its address: https://ops.example.com",
        )
    address = f"{public_url.rstrip('/')}{UI}" if public_url else None
    if oidc:
        if address is None:
            raise ConfigError(
                "serve.oidc needs the address that people come back to",
                hint='public_url = "https://ops.example.com"',
            )
        return LogIn(_called(Oidc, "serve.oidc", oidc, public_url=address))
    if not _has_token(session.kernel):
        raise ConfigError(
            "--ui needs a log-in, and nobody could log in",
            hint="make a token: automate tokens new NAME --role admin; or set [serve.oidc] for "
            "OpenID Connect, or [serve.header] for a proxy that logs people in",
        )
    return LogIn(public_url=address)


def _has_token(kernel: Kernel) -> bool:
    after = ""
    while True:
        page = kernel.tokens.page(after=after)
        if any(each.roles and each.state == "usable" for each in page.tokens):
            return True
        if not page.after:
            return False
        after = page.after


def _called(make: Callable[..., Any], name: str, given: Mapping[str, Any], **more: Any) -> Any:
    """Return what *make* returns for the table *given*; its keys are the parameters."""
    parameters = inspect.signature(make).parameters
    known = [each for each in parameters if each not in more]
    for key in given:
        if key not in known:
            hint = did_you_mean(key, known, also=f"there are {', '.join(known)}")
            raise ConfigError(f"{name}: there is no {key!r}", hint=hint)
    missing = [
        key for key in known if parameters[key].default is inspect.Parameter.empty
        and key not in given
    ]  # fmt: skip
    if missing:
        raise ConfigError(f"{name}: {', '.join(missing)} must be given")
    return make(**given, **more)
