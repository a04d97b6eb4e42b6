"""The client behind proxies: theirs counts, and nothing that a client says of itself."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from automate_kernel import ConfigError
from automate_kernel.http.proxies import ForwardedApp, TrustedProxies, network_of
from automate_pages import header

PROXIES = TrustedProxies(["10.0.0.0/24", "::1"])


def seen(
    peer: str | None, *headers: tuple[str, str], proxies: TrustedProxies = PROXIES
) -> dict[str, Any]:
    """The scope that the application behind *proxies* has."""
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)

    scope = {
        "type": "http",
        "scheme": "http",
        "client": None if peer is None else (peer, 4711),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
    }
    asyncio.run(ForwardedApp(app, proxies)(scope, None, None))  # type: ignore[arg-type]
    return dict(scopes[0])


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("::1", ["203.0.113.7"], "203.0.113.7"),
        ("::ffff:10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["203.0.113.7:5123"], "203.0.113.7"),
        ("10.0.0.1", ["[2001:db8::7]:5123"], "2001:db8::7"),
        # A chain of ours, in one header or in several.
        ("10.0.0.1", ["203.0.113.7, 10.0.0.2"], "203.0.113.7"),
        ("10.0.0.1", ["203.0.113.7", "10.0.0.2"], "203.0.113.7"),
        # What the client sent itself stands in front of what our proxy saw.
        ("10.0.0.1", ["127.0.0.1, 203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["127.0.0.1", "203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["10.0.0.9, 203.0.113.7, 10.0.0.2"], "203.0.113.7"),
        # Nobody whom we know vouches for it.
        ("203.0.113.9", ["127.0.0.1"], "203.0.113.9"),
        ("203.0.113.9", ["10.0.0.1"], "203.0.113.9"),
        # Rubbish ends what is believed: the proxy that wrote it is who we know.
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.7, unknown, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", [","], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.7,"], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("testclient", ["203.0.113.7"], "testclient"),
    ],
)
def test_the_last_address_that_somebody_trusted_says_is_the_client(
    peer: str, forwarded: list[str], client: str
) -> None:
    """The chain is read from its end, as far as those are trusted who said it."""
    scope = seen(peer, *(("X-Forwarded-For", value) for value in forwarded))
    assert scope["client"][0] == client


@given(st.lists(st.text(st.characters(max_codepoint=255), max_size=40), max_size=5))
def test_a_client_chooses_no_address(sent: list[str]) -> None:
    """Whatever a client sends, behind a proxy that adds its address it has that address."""
    assert PROXIES.client_behind("10.0.0.1", [*sent, "203.0.113.7"]) == "203.0.113.7"
    assert PROXIES.client_behind("10.0.0.1", [", ".join([*sent, "203.0.113.7"])]) == "203.0.113.7"
    assert PROXIES.client_behind("203.0.113.7", sent) == "203.0.113.7"


def test_a_chain_without_an_end_is_read_for_a_while() -> None:
    """A header of many addresses costs no more than a few."""
    long = "203.0.113.7," + "10.0.0.2," * 9_999 + "10.0.0.3"
    assert PROXIES.client_behind("10.0.0.1", [long]) == "10.0.0.2"


@pytest.mark.parametrize(
    ("peer", "said", "scheme"),
    [
        ("10.0.0.1", ["https"], "https"),
        ("10.0.0.1", ["HTTPS"], "https"),
        ("10.0.0.1", ["http"], "http"),
        ("10.0.0.1", ["https", "https"], "http"),
        ("10.0.0.1", ["https,http"], "http"),
        ("10.0.0.1", ["javascript"], "http"),
        ("10.0.0.1", [], "http"),
        ("203.0.113.9", ["https"], "http"),
    ],
)
def test_a_scheme_counts_from_a_proxy(peer: str, said: list[str], scheme: str) -> None:
    """One proxy ends TLS, and says so once."""
    assert seen(peer, *(("X-Forwarded-Proto", each) for each in said))["scheme"] == scheme


def test_without_proxies_nothing_is_believed_and_it_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A forgotten setting shows in the log, and not as often as somebody likes."""
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)

    behind: Any = ForwardedApp(app, TrustedProxies([], "serve.proxies"))
    for peer in (("10.0.0.1", 1), ("10.0.0.1", 1), None):
        scope = {"type": "http", "client": peer, "headers": [(b"x-forwarded-for", b"1.2.3.4")]}
        with caplog.at_level(logging.WARNING):
            asyncio.run(behind(scope, None, None))
    assert [each["client"] for each in scopes] == [("10.0.0.1", 1), ("10.0.0.1", 1), None]
    assert [each.message for each in caplog.records if "serve.proxies" in each.message] == [
        "a request from 10.0.0.1 has X-Forwarded-For, which counts from serve.proxies alone: "
        "if that is your proxy, name it there"
    ]


@pytest.mark.parametrize("given_", [5, ["10.0.0.1/8"], ["proxy.internal"], [""]])
def test_an_address_that_is_none_is_an_error(given_: Any) -> None:
    """The server does not start with a proxy that it can't know."""
    with pytest.raises(ConfigError, match=r"serve\.proxies") as caught:
        TrustedProxies(given_, "serve.proxies")
    assert caught.value.hint


def test_a_user_in_a_header_comes_from_the_proxy_and_not_from_the_client_behind_it() -> None:
    """A client that has the address of a proxy in its X-Forwarded-For is nobody for it."""
    who = header("X-User", proxies=["10.0.0.1"])
    sent = ("X-User", "ada"), ("X-Forwarded-For", "203.0.113.7")
    both = TrustedProxies(["10.0.0.1", "10.0.0.2"])
    assert who(Request(seen("10.0.0.1", *sent, proxies=both)))
    assert who(Request(seen("10.0.0.1", *sent, proxies=TrustedProxies([]))))
    forged = ("X-User", "ada"), ("X-Forwarded-For", "10.0.0.1")
    assert who(Request(seen("10.0.0.2", *forged, proxies=both))) is None
    assert who(Request(seen("203.0.113.9", *forged, proxies=both))) is None
    assert who(Request(seen(None, *forged, proxies=both))) is None


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8::7", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix:", None),
    ],
)
def test_a_client_is_an_address_or_a_network(text: str, network: str | None) -> None:
    """Whoever has a /64 counts once."""
    assert network_of(text) == network
