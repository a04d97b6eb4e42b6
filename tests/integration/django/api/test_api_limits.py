"""Rate limits: exact under a race, and not fooled about who asks."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from automate_django.api import client_address
from automate_django.api.bases.rate_limit import count_request
from django.core.cache import caches
from django.db import connections
from django.test import RequestFactory, override_settings
from rest_framework.test import APIClient

LIMITED = "/service/limited"
pytestmark = pytest.mark.usefixtures("noon")


def get(times: int, **headers: Any) -> list[int]:
    """What so many requests get."""
    client = APIClient(raise_request_exception=False)
    return [client.get(LIMITED, **headers).status_code for _ in range(times)]


def test_one_too_many_is_told_when_to_come_again() -> None:
    """429, with what is left, and for how long."""
    client = APIClient()
    responses = [client.get(LIMITED) for _ in range(6)]
    assert [response.status_code for response in responses] == [200] * 5 + [429]
    assert [response["RateLimit-Remaining"] for response in responses] == list("432100")
    assert {response["RateLimit-Limit"] for response in responses} == {"5"}
    last = responses[-1]
    assert (last["Retry-After"], last["RateLimit-Reset"]) == ("48", "48")
    assert last.json()["code"] == "RESOURCE_EXHAUSTED"


def test_the_next_minute_is_another(noon: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window ends by the clock."""
    assert get(6)[-1] == 429
    monkeypatch.setattr("automate_django.api.bases.rate_limit.time.time", lambda: noon + 60)
    assert get(1) == [200]


def test_a_race_lets_exactly_the_limit_through() -> None:
    """Fifty of four hundred requests at once, from sixteen threads."""
    barrier = threading.Barrier(16)

    def ask(_: int) -> int:
        barrier.wait()
        counts = [count_request("race", "one", 50) for _ in range(25)]
        return sum(count is not None and not count.exceeded for count in counts)

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(ask, range(16))) == 50


def test_requests_that_race_are_counted_exactly() -> None:
    """The same through views."""
    barrier = threading.Barrier(4)

    def ask(_: int) -> int:
        barrier.wait()
        try:
            return get(5).count(200)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(ask, range(4))) == 5


def test_a_rotating_forwarded_header_is_no_new_client() -> None:
    """Without a trusted proxy it is what the client says of itself."""
    client = APIClient(raise_request_exception=False)
    found = [client.get(LIMITED, HTTP_X_FORWARDED_FOR=f"10.0.0.{n}").status_code for n in range(6)]
    assert found == [200] * 5 + [429]


def test_behind_a_trusted_proxy_clients_are_told_apart() -> None:
    """The last address is the proxy's word, whatever the client wrote before it."""
    with override_settings(AUTOMATE_API={"TRUSTED_PROXIES": 1}):
        assert get(6, HTTP_X_FORWARDED_FOR="6.6.6.6, 203.0.113.7") == [200] * 5 + [429]
        assert get(1, HTTP_X_FORWARDED_FOR="7.7.7.7, 203.0.113.7") == [429]
        assert get(1, HTTP_X_FORWARDED_FOR="203.0.113.8") == [200]


@pytest.mark.parametrize(
    ("forwarded", "proxies", "expected"),
    [
        ("", 0, "192.0.2.1"),
        ("203.0.113.7", 0, "192.0.2.1"),
        ("203.0.113.7", 1, "203.0.113.7"),
        ("6.6.6.6, 203.0.113.7, 10.0.0.1", 2, "203.0.113.7"),
        ("203.0.113.7", 2, "192.0.2.1"),  # it came past one of them
        ("not an address", 1, "192.0.2.1"),
        ("", 1, "192.0.2.1"),
        ("203.0.113.7:4711", 1, "203.0.113.7"),
        ("[2001:db8:1:2:3:4:5:6]:443", 1, "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", 1, "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.7", 1, "203.0.113.7"),
    ],
)
def test_where_a_request_came_from(forwarded: str, proxies: int, expected: str) -> None:
    """An IPv6 client has a whole network to change its address in."""
    request = RequestFactory().get("/", REMOTE_ADDR="192.0.2.1", HTTP_X_FORWARDED_FOR=forwarded)
    assert client_address(request, proxies) == expected


def test_tokens_and_users_have_limits_of_their_own(world: Any, token: Any) -> None:
    """Two tokens behind one address don't share."""
    first, second = token(), token()
    assert [first.get(LIMITED).status_code for _ in range(6)] == [200] * 5 + [429]
    assert second.get(LIMITED).status_code == 200
    assert world.client().get(LIMITED).status_code == 200


def test_guessing_tokens_is_limited() -> None:
    """Refused tokens count for where they came from."""
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION="Bearer atk_000000000000_guess")
    found = [client.get(LIMITED).status_code for _ in range(6)]
    assert found == [401] * 5 + [429]


def test_a_refused_session_is_limited(world: Any) -> None:
    """A request without its CSRF token counts for where it came from."""
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(world.alice)
    assert [client.post(LIMITED).status_code for _ in range(6)] == [403] * 5 + [429]


class Failing:
    """A cache that is down."""

    def __getattr__(self, name: str) -> Any:
        raise ConnectionError("redis01 refused")


@pytest.mark.parametrize(("path", "status"), [(LIMITED, 200), (f"{LIMITED}-closed", 503)])
def test_while_the_cache_fails(
    path: str, status: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Open by default, and closed for a view that says so; the log has it either way."""
    monkeypatch.setattr("automate_django.api.bases.rate_limit.caches", {"default": Failing()})
    response = APIClient().get(path)
    assert response.status_code == status
    assert not response.has_header("RateLimit-Limit")
    assert "can't count requests" in caplog.text
    assert b"redis01" not in response.content


def test_a_cache_that_keeps_nothing_is_a_failing_one() -> None:
    """Django's dummy cache, in a project's development settings."""
    dummy = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
    with override_settings(CACHES=dummy):
        assert count_request("x", "y", 5) is None


def test_keys_of_counts_hold_no_names() -> None:
    """An address or a token's number does not show in the cache."""
    count_request("api", "address:203.0.113.7", 5)
    keys = list(caches["default"]._cache)
    assert len(keys) == 1
    assert "203.0.113.7" not in keys[0]
