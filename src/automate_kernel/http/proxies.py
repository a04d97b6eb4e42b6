"""Proxies that are trusted: the client behind them, as they say it in ``X-Forwarded-For``."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import islice
from typing import TYPE_CHECKING, Any

from automate_kernel.base.arguments import check_texts
from automate_kernel.base.errors import ConfigError
from automate_kernel.secrets.logs import get_logger

if TYPE_CHECKING:
    from automate_kernel.http.app import Application, Receive, Scope, Send

logger: logging.Logger = get_logger(__name__)

_PEER = "automate.peer"
_MOST_HOPS = 32
# A home or a server has a whole /64 to choose its addresses from.
_NETWORK_BITS = 64
_SCHEMES = (b"http", b"https")


def ip_of(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address in *text*, with or without a port; None if there is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    else:
        text = text.partition(":")[0] if text.count(":") == 1 else text.partition("%")[0]
    try:
        address = ip_address(text)
    except ValueError:  # a socket's path, or a test's name
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def network_of(text: str) -> str | None:
    """Return what one client may have many of: an address, or of IPv6 its ``/64``."""
    address = ip_of(text)
    if isinstance(address, IPv6Address):
        return str(ip_network((address, _NETWORK_BITS), strict=False))
    return None if address is None else str(address)


class TrustedProxies:
    """
    The *addresses* and networks of proxies, such as ``10.0.0.2`` and ``10.0.0.0/24``.

    Raises `ConfigError` for anything else; *what* names the setting in it.
    """

    def __init__(self, addresses: Iterable[str], what: str = "proxies") -> None:
        given = check_texts(addresses, what, f'{what}=["10.0.0.2"]')
        self._networks: list[IPv4Network | IPv6Network] = [_network(each, what) for each in given]

    def __bool__(self) -> bool:
        """Return True if there are some."""
        return bool(self._networks)

    def __contains__(self, address: str) -> bool:
        """Return True if *address* is one of theirs."""
        found = ip_of(address)
        return found is not None and any(found in network for network in self._networks)

    def client_behind(self, peer: str, forwarded: Iterable[str]) -> str:
        """
        Return the address of the client of a connection from *peer*.

        *forwarded* are the values of ``X-Forwarded-For``, in order. Each proxy adds at the end the
        address that called it, so they are read from there, as long as who said them is trusted.
        What a client wrote itself stands in front, and is never reached.
        """
        client = peer
        for hop in islice(_hops_from_the_end(list(forwarded)), _MOST_HOPS):
            address = ip_of(hop) if client in self else None
            if address is None:
                break
            client = str(address)
        return client


class ForwardedApp:
    """
    The ASGI application *app* behind *proxies*: it sees the client and the scheme that they report.

    ``X-Forwarded-For`` and ``X-Forwarded-Proto`` count from a connection of theirs alone. From
    anybody else they mean nothing, which is logged once.
    """

    def __init__(self, app: Application, proxies: TrustedProxies) -> None:
        self._app, self._proxies = app, proxies
        self._warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            scope = {**scope, **self._seen(scope)}
        await self._app(scope, receive, send)

    def _seen(self, scope: Scope) -> Mapping[str, Any]:
        """Return what differs from *scope* for who believes the proxies."""
        client = scope.get("client")
        forwarded = [each.decode("latin-1") for each in _values(scope, b"x-forwarded-for")]
        if not client or client[0] not in self._proxies:
            if forwarded and not self._warned:
                self._warned = True
                logger.warning(
                    "a request from %s has X-Forwarded-For, which counts from serve.proxies alone: "
                    "if that is your proxy, name it there",
                    client[0] if client else "a socket",
                )
            return {}
        seen: dict[str, Any] = {_PEER: client[0]}
        behind = self._proxies.client_behind(client[0], forwarded)
        if behind != client[0]:
            seen["client"] = (behind, 0)
        schemes = _values(scope, b"x-forwarded-proto")
        if len(schemes) == 1 and (scheme := schemes[0].strip().lower()) in _SCHEMES:
            seen["scheme"] = scheme.decode()
        return seen


def peer_of(scope: Mapping[str, Any]) -> str | None:
    """Return the address that the connection of a request comes from, whoever is behind it."""
    client = scope.get("client")
    found = scope.get(_PEER) or (client[0] if client else None)
    return None if found is None else str(found)


def _values(scope: Scope, name: bytes) -> list[bytes]:
    return [value for key, value in scope.get("headers", ()) if key == name]


def _hops_from_the_end(values: list[str]) -> Iterator[str]:
    for value in reversed(values):
        left = value
        while left:
            left, _, hop = left.rpartition(",")
            yield hop


def _network(text: str, what: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise ConfigError(
            f"{what}: {text[:60]!r} is no address or network: {error}",
            hint='write "10.0.0.2", "10.0.0.0/24" or "::1"',
        ) from None
