"""The guard below the HTTP client: it checks each address where the connection is made."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpcore
import httpx

from automate_http.addresses import AddressPolicy, normal_host
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.secrets.logs import get_logger

logger: logging.Logger = get_logger(__name__)

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""A function from host and port to all addresses, as text."""

_MAX_ADDRESSES = 8
_HOST = re.compile(r"[a-z0-9._-]{1,253}|[0-9a-f:.]{2,45}")


async def resolve(host: str, port: int) -> list[str]:
    """Return all addresses of *host* that the system's resolver knows, each once."""
    found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True, slots=True)
class Guard:
    """
    The hosts and addresses that may be requested.

    *hosts*, if given, are the only ones: exact names, or ``*.example.com`` for all below one.
    """

    policy: AddressPolicy = field(default_factory=AddressPolicy)
    hosts: frozenset[str] | None = None
    resolver: Resolver = resolve

    def check_url(self, url: httpx.URL) -> None:
        """Raise `AutomateError` if *url* can't be requested, wherever its host may be."""
        if url.scheme not in ("http", "https"):
            raise _bad_url(f"the scheme {url.scheme!r} is not supported", "use http or https")
        if url.userinfo:
            # It would stand in every log that shows the URL.
            raise _bad_url("it has a user name or password", "send an Authorization header")
        host = url.raw_host.decode("ascii", "replace")
        if not _HOST.fullmatch(host) or not (url.port is None or 0 < url.port < 65536):
            raise _bad_url("its host or port can't be read")
        if self.hosts is not None and not _is_listed(normal_host(host), self.hosts):
            raise AutomateError(
                ErrorCodes.PERMISSION_DENIED,
                f"host {host!r} is not one of those that may be requested",
                hint="add it to allowed_hosts in the connector's config",
            )

    async def addresses(self, host: str, port: int) -> list[str]:
        """
        Return the addresses to connect to for *host*.

        One refused address refuses the host: a name that is public and private at once is an
        attack or a mistake.
        """
        found = list(await self.resolver(host, port))
        if not found:
            raise OSError(f"{host} has no address")
        for address in found:
            if kind := self.policy.refusal(host, address):
                # The address is for the operator; to others the answer would map the network.
                logger.warning("refused to connect to %s: %s is %s", host, address, kind)
                raise AutomateError(
                    ErrorCodes.PERMISSION_DENIED,
                    f"host {host!r} is at a {kind} address, which is not allowed",
                    hint="see allow_private_networks in the connector's config",
                )
        return found[:_MAX_ADDRESSES]


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """
    Opens connections to addresses that a `Guard` has checked, and to nothing else.

    The name is resolved once, and the connection goes to the checked address: a name that resolves
    to another address a moment later gains nothing by it. All layers above see the name, so the
    Host header, SNI and the certificate's check are as always.
    """

    def __init__(self, guard: Guard, network: httpcore.AsyncNetworkBackend | None = None) -> None:
        self._guard = guard
        self._network = network or httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first of the host's addresses that answers."""
        try:
            addresses = await self._guard.addresses(host, port)
        except OSError as error:
            raise httpcore.ConnectError(f"{host} could not be resolved") from error
        except UnicodeError as error:  # a label that is too long, for one
            raise httpcore.ConnectError(f"{host} is no host name") from error
        each = None if timeout is None else timeout / len(addresses)
        problem: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                return await self._network.connect_tcp(
                    address, port, each, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                problem = error
        raise problem

    async def connect_unix_socket(self, path: str, *_: Any, **__: Any) -> Any:
        """Refuse: a socket file is never a target."""
        raise httpcore.UnsupportedProtocol("Unix sockets are not supported")

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self._network.sleep(seconds)


def _is_listed(host: str, listed: frozenset[str]) -> bool:
    parents = (host.split(".", n)[-1] for n in range(1, host.count(".") + 1))
    return host in listed or any(f"*.{parent}" in listed for parent in parents)


def origin(url: httpx.URL) -> str:
    """
    Return scheme, host and port of *url*, which may be shown.

    Path and query can hold tokens, as the webhooks of chat services do.
    """
    host = f"[{url.host}]" if ":" in url.host else url.host
    return f"{url.scheme}://{host}" + (f":{url.port}" if url.port is not None else "")


def _bad_url(problem: str, hint: str | None = None) -> AutomateError:
    return AutomateError(
        ErrorCodes.INVALID_ARGUMENT, f"the URL can't be requested: {problem}", hint=hint
    )
