"""Names and addresses of machines and services."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit


def is_loopback(host: str | None) -> bool:
    """Return True if *host*, a name or an address without a port, is this machine."""
    if not host:
        return False
    try:
        return host.lower() == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def is_plain_http(url: str) -> bool:
    """Return True if *url* sends what all between can read: by http, to another machine."""
    try:
        parts = urlsplit(url)
        return parts.scheme == "http" and not is_loopback(parts.hostname)
    except ValueError:  # brackets that hold no address; it leads nowhere
        return False


def check_encrypted(url: str, *, allow_plain_http: bool = False, what: str = "") -> None:
    """
    Raise `ValueError`, for a validator of pydantic, if *url* would send credentials in the clear.

    Over http they go to this machine alone, unless *allow_plain_http*, the option of that name in
    the config of a plugin. *what* names the option with the URL, for a validator of all of them.
    """
    if not allow_plain_http and is_plain_http(url):
        place = f"{what}: " if what else ""
        raise ValueError(
            f"{place}use https://, or credentials and content could be read on their way; "
            "allow_plain_http = true lets http:// pass, for a network of your own"
        )


def check_endpoint(url: str) -> str:
    """
    Return *url*, the address of a service, without a slash at its end.

    Raises `ValueError`, for a validator of pydantic, if it isn't http or https, or has more than a
    scheme, a host, a port and a path: a password, say.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("it is no address: write https://HOST or https://HOST:PORT")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("it has more than a scheme, a host, a port and a path")
    return url.rstrip("/")
