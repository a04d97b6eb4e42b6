"""Where a request came from, as far as that can be known."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import Any

__all__ = ["client_address"]

# A home or a server has a whole /64 to choose its addresses from.
_NETWORK_BITS = 64


def client_address(request: Any, trusted_proxies: int = 0) -> str:
    """
    The address to hold *request* against.

    ``X-Forwarded-For`` is what the client says of itself, but for what proxies of the host's own
    have added at its end: with *trusted_proxies* of them, the address that the outermost saw.
    Without any it is not looked at. An IPv6 client is its /64 network.
    """
    peer = str(request.META.get("REMOTE_ADDR") or "")
    if trusted_proxies > 0:
        hops = [hop.strip() for hop in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")]
        # Fewer than there are proxies: it did not come through them, so nobody vouches for it.
        if len(hops) >= trusted_proxies:
            return _normal(hops[-trusted_proxies]) or _normal(peer) or peer
    return _normal(peer) or peer


def _normal(text: str) -> str | None:
    try:
        address = ip_address(_without_port(text))
    except ValueError:
        return None
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    shift = 128 - _NETWORK_BITS
    return f"{IPv6Address(int(address) >> shift << shift)}/{_NETWORK_BITS}"


def _without_port(text: str) -> str:
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text.partition("%")[0]
