"""Where a redirect leads, and what goes along."""

from __future__ import annotations

import httpx
import pytest
from automate_http.redirects import next_request
from automate_kernel.base.errors import AutomateError

CREDENTIALS = {
    "authorization": "Bearer t",
    "cookie": "a=b",
    "x-api-key": "k",
    "idempotency-key": "i",
    "accept": "text/plain",
    "user-agent": "me",
}


def redirect(
    status: int,
    location: str,
    method: str = "GET",
    url: str = "https://a.example/x",
    body: bytes = b"",
) -> httpx.Request | None:
    request = httpx.Request(method, url, headers=CREDENTIALS, content=body)
    return next_request(request, httpx.Response(status, headers={"location": location}))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_within_the_origin_everything_goes_along(status: int) -> None:
    """The headers of a GET request are kept at the same scheme, host and port."""
    following = redirect(status, "/y?q=1#part")
    assert following is not None
    assert str(following.url) == "https://a.example/y?q=1"
    assert CREDENTIALS.items() <= dict(following.headers).items()


@pytest.mark.parametrize(
    "location",
    [
        "https://b.example/",
        "//b.example/",
        "https://a.example:8443/",
        "https://a.example.:443/",
        "https://sub.a.example/",
    ],
)
def test_another_origin_sees_no_credentials(location: str) -> None:
    """Of the request's own headers only the harmless ones are kept, whatever they are called."""
    following = redirect(302, location)
    assert following is not None
    assert set(following.headers) == {"host", "accept", "user-agent"}
    assert following.headers["host"] == following.url.netloc.decode()


def test_no_redirect_drops_encryption() -> None:
    """Neither with credentials nor without."""
    with pytest.raises(AutomateError, match="without encryption"):
        redirect(302, "http://a.example/")


@pytest.mark.parametrize("status", [301, 302])
def test_a_post_does_not_become_a_get_unnoticed(status: int) -> None:
    """A moved API must not swallow what was sent and answer 200."""
    with pytest.raises(AutomateError, match="drops its body"):
        redirect(status, "/y", "POST", body=b"data")


def test_see_other_gets_the_result_of_a_post() -> None:
    """303 says so expressly; the body and what describes it stay behind."""
    following = redirect(303, "/result", "POST", body=b"data")
    assert following is not None
    assert following.method == "GET"
    assert following.content == b""
    assert "content-length" not in following.headers
    assert following.headers["authorization"] == "Bearer t"


@pytest.mark.parametrize("status", [307, 308])
def test_a_body_is_sent_again_only_within_the_origin(status: int) -> None:
    """It may hold credentials, as that of a request for a token does."""
    following = redirect(status, "/y", "POST", body=b"data")
    assert following is not None
    assert (following.method, following.content) == ("POST", b"data")
    assert following.headers["content-length"] == "4"
    with pytest.raises(AutomateError, match="another origin, https://b.example") as caught:
        redirect(status, "https://b.example/secret", "POST", body=b"data")
    assert "secret" not in str(caught.value)


def test_what_is_no_redirect_is_none() -> None:
    """Other statuses, and one without a target."""
    request = httpx.Request("GET", "https://a.example/")
    assert next_request(request, httpx.Response(200, headers={"location": "/"})) is None
    assert next_request(request, httpx.Response(304, headers={"location": "/"})) is None
    assert next_request(request, httpx.Response(302)) is None


@pytest.mark.parametrize("location", ["https://[::1", "https://a.example:port/", "\x00"])
def test_a_target_that_can_not_be_read_is_an_error(location: str) -> None:
    """And not an exception of the HTTP library's."""
    with pytest.raises(AutomateError, match="can't be read"):
        redirect(302, location)
