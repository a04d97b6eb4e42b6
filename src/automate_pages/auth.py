"""Users that need no log-in of ours: those of a proxy, of this machine, or anybody who reads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

from starlette.requests import Request

from automate_kernel.base.arguments import check_texts
from automate_kernel.base.errors import ConfigError
from automate_kernel.http.proxies import TrustedProxies, peer_of
from automate_pages.browser import LOOPBACK, host_of
from automate_pages.users import User, roles_from

Auth = Callable[[Request], "User | Awaitable[User | None] | None"]
"""The host's own log-in: the user of a request, or None for nobody."""
_LONGEST = 200


def loopback(user: User) -> Auth:
    """
    Return an *auth* for a server on this machine alone: whoever reaches it is *user*.

    Only names of this machine count in ``Host`` and in ``Origin``. So a page from elsewhere is
    refused, also if its name was made to lead here (DNS rebinding).
    """
    return _on_hosts(LOOPBACK, user)


def read_only(hosts: Collection[str], *, tenant: str | None = None) -> Auth:
    """
    Return an *auth* without users: whoever reaches the pages sees everything, and changes nothing.

    *hosts* are the names that the pages have, as in ``Host``; others are refused (DNS rebinding).
    With *tenant* they show the rows of this tenant alone.
    """
    names = check_texts(hosts, "hosts", 'hosts=["ops.internal"]')
    if not names:
        raise ConfigError("read_only needs the names of the host", hint='hosts=["ops.internal"]')
    return _on_hosts([name.lower() for name in names], User("", ["viewer"], tenant))


def _on_hosts(names: Collection[str], user: User) -> Auth:
    def auth(request: Request) -> User | None:
        own, origin = f"//{request.headers.get('host', '')}", request.headers.get("origin")
        ours = all(host_of(each)[0] in names for each in (own, origin or own))
        return user if ours else None

    return auth


def header(
    name: str,
    *,
    proxies: Iterable[str],
    roles: Iterable[str] | Mapping[str, str] = ("viewer",),
    roles_header: str | None = None,
    tenant_header: str | None = None,
) -> Auth:
    """
    Return an *auth* for pages behind a proxy that logs people in and sends the user in a header.

    *name* is the header (``X-Forwarded-User``), and *proxies* are the addresses or networks that it
    counts from: the header of anybody else is ignored. Each user has *roles*; with *roles_header*
    (``X-Forwarded-Groups``, commas between) *roles* maps its values to ours. With *tenant_header* a
    user sees the rows of that tenant alone, and nobody is let in without one. Raises `ConfigError`.
    """
    trusted = TrustedProxies(proxies)
    if not trusted:
        raise ConfigError(
            "header needs the addresses of the proxies that may send it",
            hint='proxies=["10.0.0.2"], or a network: "10.0.0.0/24"',
        )
    if roles_header is not None and not isinstance(roles, Mapping):
        raise ConfigError(
            "roles maps the values of the roles_header to ours", hint='roles={"ops": "operator"}'
        )
    if roles_header is None and isinstance(roles, Mapping):
        raise ConfigError(
            "roles maps values of a header, which is not given", hint='roles=["operator"]'
        )

    def auth(request: Request) -> User | None:
        # Not the client that a proxy reports: what counts is who sent the header.
        peer = peer_of(request.scope)
        if peer is None or peer not in trusted:
            return None
        user = _only(request, name)
        tenant = None if tenant_header is None else _only(request, tenant_header)
        if not user or tenant == "":
            return None
        if roles_header is None or not isinstance(roles, Mapping):
            return User(user, roles_from(roles), tenant)
        sent = request.headers.getlist(roles_header)
        values = [each.strip() for line in sent for each in line.split(",")]
        return User(user, roles_from(values, roles), tenant)

    return auth


def _only(request: Request, name: str) -> str:
    """Return the one value of a header; empty if it is missing, sent twice or no plain text."""
    values = request.headers.getlist(name)
    # Of two a proxy may have added only one.
    text = values[0].strip() if len(values) == 1 else ""
    return text if len(text) <= _LONGEST and text.isprintable() else ""
