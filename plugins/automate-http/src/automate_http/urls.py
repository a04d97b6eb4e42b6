"""The URL of a request, from the workflow's input."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import quote, unquote, unquote_plus, urlencode

import httpx

from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes
from automate_kernel.base.hosts import check_encrypted

Scalar = str | int | float | bool
Query = Mapping[str, Scalar | Sequence[Scalar]]

_MAX_LENGTH = 16_384
_LONGEST_HOST, _LONGEST_LABEL = 253, 63
_MAX_QUERY = 65_000  # httpx takes a few more


def parse_base_url(text: str) -> httpx.URL:
    """Parse a base URL. Raises `AutomateError`."""
    url = _parse(text)
    if not url.is_absolute_url or url.query or url.fragment:
        raise _wrong("a base_url has a scheme and a host, and no query", "https://api.example.com")
    return url


def require_encrypted(url: httpx.URL, *, allow_plain_http: bool) -> None:
    """Raise `ConfigError` if credentials for *url* could be read on their way."""
    try:
        check_encrypted(str(url), allow_plain_http=allow_plain_http)
    except ValueError as error:
        # Its host alone: a path may have a token in it.
        raise ConfigError(f"http://{url.host} is not https", hint=str(error)) from None


def full_url(text: str, query: Query, base: httpx.URL | None) -> httpx.URL:
    """
    Return the URL of *text*, below *base* if it is relative, with *query* added to its own.

    A relative one stays below *base*: ``..`` is refused, or a value from an event could lead to
    other parts of a service.
    """
    url = _parse(text)
    if not url.scheme:
        url = _below(url, base)
    return with_query(url, query).copy_with(fragment=None)


def with_query(url: httpx.URL, query: Query) -> httpx.URL:
    """
    Return *url* with *query* in place of its own parameters of these names.

    The others stay as they are written: a service may tell ``a,b`` from ``a%2Cb``.
    """
    if not query:
        return url
    path, _, before = url.raw_path.partition(b"?")
    kept = [each for each in before.split(b"&") if each and _name_of(each) not in query]
    pairs = [(utf8(name), utf8(text)) for name, value in query.items() for text in _texts(value)]
    added = urlencode(pairs, quote_via=quote).encode("ascii")
    joined = path + b"?" + b"&".join([*kept, *([added] if added else [])])
    if len(joined) > _MAX_QUERY:
        raise _wrong(f"with its query it is longer than {_MAX_QUERY} bytes", "send it as a body")
    return url.copy_with(raw_path=joined)


def _name_of(pair: bytes) -> str:
    return unquote_plus(pair.partition(b"=")[0].decode("ascii", "replace"))


def _parse(text: str) -> httpx.URL:
    if len(text) > _MAX_LENGTH:
        raise _wrong(f"it is longer than {_MAX_LENGTH} characters")
    try:
        return with_host(httpx.URL(text))
    except (httpx.InvalidURL, ValueError):
        # Its own text quotes the URL, which may hold a token.
        raise _wrong("it is not a URL") from None


def with_host(url: httpx.URL) -> httpx.URL:
    """Return *url*; raise ValueError if its host can't be a name, whoever would be asked for it."""
    name = url.raw_host.removesuffix(b".")
    labels = [] if not name or b":" in name else name.split(b".")
    if len(name) > _LONGEST_HOST or any(not 0 < len(each) <= _LONGEST_LABEL for each in labels):
        raise ValueError("no host name")
    for label in labels:  # httpx decodes no label but the first: xn--a stands for nothing
        _ = httpx.URL(scheme="http", host=label.decode("ascii")).host
    return url


def _below(url: httpx.URL, base: httpx.URL | None) -> httpx.URL:
    if base is None:
        raise _wrong("it has no scheme and host", "give all of it, or set base_url in the config")
    if url.host:
        raise _wrong("it has a host and no scheme", "put https: before it")
    path, _, query = url.raw_path.partition(b"?")
    if leads_up(path.decode("ascii")):
        raise _wrong("it leaves its base_url with '..'")
    joined = base.raw_path.rstrip(b"/") + b"/" + path.lstrip(b"/") if path.strip(b"/") else b""
    joined = joined or base.raw_path
    return base.copy_with(raw_path=joined + (b"?" + query if query else b""))


def leads_up(path: str) -> bool:
    """
    Return True if ``.`` or ``..`` is a part of *path* for some server, however it is written.

    Many unquote a path before they follow it, take a backslash for a slash, or leave out what comes
    after a semicolon.
    """
    parts = re.split(r"[/\\]", unquote(path))
    return any(part.partition(";")[0].rstrip("\0") in (".", "..") for part in parts)


def _texts(value: Scalar | Sequence[Scalar]) -> list[str]:
    values = [value] if isinstance(value, (str, int, float)) else list(value)
    return [str(each).lower() if isinstance(each, bool) else str(each) for each in values]


def utf8(text: str) -> bytes:
    """Return *text* as a request has it; raise ``INVALID_ARGUMENT`` if it has no such form."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT,
            "the request has half a surrogate pair, which is no text",
        ) from None


def _wrong(problem: str, hint: str | None = None) -> AutomateError:
    return AutomateError(
        ErrorCodes.INVALID_ARGUMENT, f"the URL can't be requested: {problem}", hint=hint
    )
