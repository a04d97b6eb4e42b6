"""Redirects: the next request, and the headers that it may have."""

from __future__ import annotations

import httpx

from automate_http.guard import origin
from automate_http.headers import SAFE_METHODS
from automate_http.urls import with_host
from automate_kernel.base.errors import AutomateError, ErrorCodes

REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Another origin gets only these. Any other header may be a credential, whatever its name.
_HARMLESS = frozenset({"accept", "accept-encoding", "accept-language", "user-agent"})


def next_request(request: httpx.Request, response: httpx.Response) -> httpx.Request | None:
    """
    Return the request to which *response* redirects, or None.

    A request that changes something is repeated only where the status asks for it (307, 308). It
    stays at the same origin, since its body may hold credentials. No redirect leads from https to
    http. Raises `AutomateError` for a redirect that breaks these rules.
    """
    if response.status_code not in REDIRECTS or "location" not in response.headers:
        return None
    target = _target(request, response)
    same_origin = origin(target) == origin(request.url)
    if request.url.scheme == "https" and target.scheme != "https":
        raise _refused(request, "to a URL without encryption")
    if response.status_code == 303 and request.method not in SAFE_METHODS:
        return _request("GET", target, request, same_origin=same_origin, body=False)
    if request.method in SAFE_METHODS:
        return _request(request.method, target, request, same_origin=same_origin, body=False)
    if response.status_code not in (307, 308):
        raise _refused(request, "in a way that drops its body")
    if not same_origin:
        raise _refused(request, f"with its body to another origin, {origin(target)}")
    return _request(request.method, target, request, same_origin=True, body=True)


def _target(request: httpx.Request, response: httpx.Response) -> httpx.URL:
    try:
        target = with_host(request.url.join(response.headers["location"]))
    except (httpx.InvalidURL, ValueError):
        raise _refused(request, "to a URL that can't be read") from None
    return target.copy_with(fragment=None)


def _request(
    method: str, url: httpx.URL, before: httpx.Request, *, same_origin: bool, body: bool
) -> httpx.Request:
    kept = []
    for name, value in before.headers.raw:
        lower = name.decode("ascii").lower()
        about_body = lower.startswith("content-") or lower == "transfer-encoding"
        if lower == "host" or (about_body and not body):
            continue
        if same_origin or lower in _HARMLESS:
            kept.append((name, value))
    content = before.content if body else None
    return httpx.Request(method, url, headers=kept, content=content, extensions=before.extensions)


def _refused(request: httpx.Request, how: str) -> AutomateError:
    return AutomateError(
        ErrorCodes.FAILED_PRECONDITION,
        f"{request.method} {origin(request.url)} was redirected {how}",
        hint="use the final URL, or follow_redirects: 0 to get the redirect itself",
    )
