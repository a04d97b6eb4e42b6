"""URLs and headers of a request."""

from __future__ import annotations

import httpx
import pytest
from automate_http.guard import Guard
from automate_http.headers import check_headers, key_as_header
from automate_http.urls import full_url, parse_base_url
from automate_kernel.base.errors import AutomateError
from hypothesis import given
from hypothesis import strategies as st

BASE = parse_base_url("https://api.example.com/v1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("users/1", "https://api.example.com/v1/users/1"),
        ("/users/1", "https://api.example.com/v1/users/1"),
        ("?a=1", "https://api.example.com/v1?a=1"),
        ("users?a=1#part", "https://api.example.com/v1/users?a=1"),
        ("a%2Fb/ü", "https://api.example.com/v1/a%2Fb/%C3%BC"),
        ("https://other.example/x", "https://other.example/x"),
    ],
)
def test_relative_urls_are_below_the_base(text: str, expected: str) -> None:
    """As people expect, and not as a browser does: the base's own path stays."""
    assert str(full_url(text, {}, BASE)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "../x", "a/../../x", "%2e%2E/x", "a/%2e./x", "./x", "//evil.example/x",
        # As some servers read them.
        "..%2Fx", "a%2F..%2f..%2Fx", "..\\x", "a%5C..%5cx", "a/..;/x", "%2e%2e;v=1/x", "..%00/x",
    ],
)  # fmt: skip
def test_relative_urls_do_not_leave_the_base(text: str) -> None:
    """A value from an event, put into a path, leads to no other part of the service."""
    with pytest.raises(AutomateError, match="URL"):
        full_url(text, {}, BASE)


def test_query_is_added_to_the_urls_own() -> None:
    """Values are escaped, lists repeat, booleans are written as in JSON."""
    url = full_url("https://a.example/?x=1", {"q": "a&b=c", "n": [1, 2.5], "on": True}, None)
    assert url.query == b"x=1&q=a%26b%3Dc&n=1&n=2.5&on=true"


@pytest.mark.parametrize(
    "text", ["users", "", "http://[", "http://a:b", "x" * 20_000, "http://a\nb"]
)
def test_an_unusable_url_is_not_shown(text: str) -> None:
    """The message names the problem; the URL may hold a token."""
    with pytest.raises(AutomateError) as caught:
        Guard().check_url(full_url(text + "?token=hunter2", {}, None))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "file:///etc/passwd",
        "gopher://a.example/",
        "ftp://a.example",
        "unix:/x",
        "http:///x",
        "http://user@a.example/",
        "http://user:pass@a.example",
        "http://good.example\\@evil.example/",
        "http://a.example:99999/",
        "http://a.example:0/",
        "http://exa%6dple.com/",
        "http://[fe80::1%25eth0]/",
        "http://a b/",
    ],
)
def test_only_plain_web_urls_pass_the_guard(text: str) -> None:
    """One scheme or another, a password, a host that two readers may read as two."""
    with pytest.raises(AutomateError) as caught:
        Guard().check_url(httpx.URL(text))
    assert caught.value.code == "INVALID_ARGUMENT"
    assert "pass" not in caught.value.message.replace("password", "")


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("api.example.com", True),
        ("API.example.com.", True),
        ("a.hooks.example.org", True),
        ("b.a.hooks.example.org", True),
        ("hooks.example.org", False),
        ("evilhooks.example.org", False),
        ("example.com", False),
        ("api.example.com.evil.example", False),
    ],
)
def test_listed_hosts_are_the_only_ones(host: str, allowed: bool) -> None:
    """A list of hosts is the strongest guard, and has no holes at its edges."""
    guard = Guard(hosts=frozenset({"api.example.com", "*.hooks.example.org"}))
    if allowed:
        guard.check_url(httpx.URL(f"https://{host}/"))
    else:
        with pytest.raises(AutomateError, match="not one of those"):
            guard.check_url(httpx.URL(f"https://{host}/"))


@pytest.mark.parametrize(
    "headers",
    [
        {"X": "a\r\nY: b"},
        {"X": "a\nb"},
        {"X": "a\0"},
        {"X": "é"},
        {"X\r\n": "a"},
        {"X Y": "a"},
        {"": "a"},
        {"Host": "evil"},
        {"content-LENGTH": "1"},
        {"Transfer-Encoding": "chunked"},
        {"Connection": "close"},
        {"X-A": "1", "x-a": "2"},
        {"X:": "a"},
    ],
)
def test_headers_that_change_the_message_are_refused(headers: dict[str, str]) -> None:
    """No value becomes a second header or a second request."""
    with pytest.raises(AutomateError) as caught:
        check_headers(headers)
    assert caught.value.code == "INVALID_ARGUMENT"


def test_a_refused_headers_value_is_not_shown() -> None:
    """It may be a token with a line break at its end."""
    with pytest.raises(AutomateError) as caught:
        check_headers({"Authorization": "Bearer hunter2\n"})
    assert "hunter2" not in str(caught.value)
    assert "Authorization" in str(caught.value)


@given(st.text())
def test_any_key_can_be_sent_as_a_header(key: str) -> None:
    """An idempotency key that headers can't hold becomes its hash, always the same."""
    sent = key_as_header(key)
    check_headers({"Idempotency-Key": sent})
    assert sent == key_as_header(key)
    assert sent


@pytest.mark.parametrize(
    "host",
    ["xn--a", "xn--", "a.xn--a.example", "xn--zzzzzz", "a" * 64, "a..b", ".a", "a." * 127 + "b.c"],
)
def test_a_host_that_can_be_no_name_is_a_lasting_mistake(host: str) -> None:
    """It is the author's or a payload's, so another attempt would not help."""
    with pytest.raises(AutomateError, match="URL") as caught:
        full_url(f"https://{host}/", {}, None)
    assert caught.value.code == "INVALID_ARGUMENT"
    assert not caught.value.retryable


@pytest.mark.parametrize(
    "host", ["münchen.example", "xn--mnchen-3ya.example", "a.example.", "[::1]"]
)
def test_hosts_that_are_names_or_addresses_are_taken(host: str) -> None:
    """With letters of other languages, with the root's dot, and addresses."""
    assert full_url(f"https://{host}/x", {}, None).path == "/x"
