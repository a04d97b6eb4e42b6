"""The client for services."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import inspect
import json
import threading
import warnings
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from automate_http import (
    BasicAuth,
    BearerAuth,
    Cursor,
    HeaderAuth,
    HttpConnector,
    NextLink,
    Offset,
    PageNumber,
    QueryAuth,
    RateLimiter,
    ServiceClient,
)
from automate_kernel import AutomateError, ConfigError
from automate_kernel.operations.context import Call, ConnectorContext, calling
from automate_kernel.secrets import MemorySecretsBackend, SecretResolver
from pydantic import BaseModel

TOKEN = "tok-9f8e7d6c5b4a3210"


class User(BaseModel):
    id: int
    name: str


class Secrets:
    """A reader whose value a test changes."""

    def __init__(self, value: str = TOKEN) -> None:
        self.value = value

    def get(self, key: str) -> str:
        return self.value

    async def aget(self, key: str) -> str:
        return self.value


@pytest.fixture
def client(server: Any, request: Any) -> Callable[..., ServiceClient]:
    async def everything_is_here(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    def make(**options: Any) -> ServiceClient:
        options.setdefault("allow_private_networks", ["public.test"])
        options.setdefault("allow_plain_http", True)
        options.setdefault("ctx", ConnectorContext(key="crm", secrets=Secrets()))
        options.setdefault("resolver", everything_is_here)
        made = ServiceClient(server.url("/v1"), **options)
        request.addfinalizer(made.close)
        return made

    return make


@pytest.mark.parametrize(
    "host", ["crm.example", "10.0.0.7", "localhost.example", "169.254.169.254"]
)
def test_credentials_go_in_the_clear_to_this_machine_alone(host: str) -> None:
    """An address of a private network is no exception: others are on it."""
    url = f"http://{host}/hidden-path"
    options: dict[str, Any] = {"auth": BearerAuth("T"), "allow_private_networks": True}
    with pytest.raises(ConfigError, match="allow_plain_http") as caught:
        ServiceClient(url, **options)
    assert "hidden-path" not in str(caught.value)
    for allowed in (
        ServiceClient(url, **options, allow_plain_http=True),
        ServiceClient(url, allow_private_networks=True),
        ServiceClient(f"https://{host}", **options),
        ServiceClient("http://127.0.0.1:1", **options),
        ServiceClient("http://[::1]:1", **options),
        ServiceClient("http://localhost:1", **options),
    ):
        allowed.close()


def test_the_headers_of_a_config_are_not_sent_in_the_clear() -> None:
    config = {"base_url": "http://crm.example", "headers": {"X-Api-Key": "abc"}}
    with pytest.raises(ConfigError, match="base_url.*allow_plain_http"):
        HttpConnector(config)
    assert HttpConnector({**config, "allow_plain_http": True})
    assert HttpConnector({**config, "base_url": "http://127.0.0.1:1"})
    assert HttpConnector({"base_url": "http://crm.example"})


def answer(server: Any, path: str, value: Any, status: int = 200, **headers: str) -> None:
    server.answer(
        path, status, json.dumps(value).encode(), Content_Type="application/json", **headers
    )


def failure(work: Callable[[], Any]) -> AutomateError:
    with pytest.raises(AutomateError) as caught:
        work()
    return caught.value


def test_an_answer_is_of_the_type_that_was_asked_for(server: Any, client: Any) -> None:
    """A model, a list of them, text, bytes, or any JSON."""
    answer(server, "/v1/users/7", {"id": 7, "name": "Ada"})
    answer(server, "/v1/users", [{"id": 7, "name": "Ada"}])
    server.answer("/v1/empty", 204)
    service = client()
    assert service.get("/users/{id}", id=7, returns=User) == User(id=7, name="Ada")
    assert service.get("users", returns=list[User])[0].name == "Ada"
    assert service.get("/users")[0] == {"id": 7, "name": "Ada"}
    assert service.get("/users", returns=bytes).startswith(b"[{")
    assert service.get("/users", returns=str).startswith("[{")
    assert service.get("/empty") is None


def test_both_kinds_of_action_can_use_it(server: Any, client: Any) -> None:
    """From one instance: plain methods on a loop of its own, the others on the caller's."""
    answer(server, "/v1/me", {"id": 1, "name": "Ada"})
    service = client()

    async def both() -> User:
        return await service.aget("/me", returns=User)

    assert service.get("/me", returns=User) == asyncio.run(both())

    async def wrong() -> None:
        service.get("/me")

    assert "aget" in str(failure(lambda: asyncio.run(wrong())))


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("a/b", "/v1/users/a%2Fb"),
        ("...", "/v1/users/..."),
        ("x?y=1#z", "/v1/users/x%3Fy%3D1%23z"),
        ("%2e%2e", "/v1/users/%252e%252e"),
        ("ü", "/v1/users/%C3%BC"),
        (True, "/v1/users/true"),
    ],
)
def test_a_part_of_the_path_stays_one_part(server: Any, client: Any, value: Any, path: str) -> None:
    """A value from an event leads to no other part of the service."""
    client_error = failure(lambda: client().get("/users/{id}", id=value))
    assert client_error.code == "NOT_FOUND"
    assert server.last.path == path


@pytest.mark.parametrize("value", ["", ".", "..", "../../admin", "a/../b", "..\\admin", "..;/x"])
def test_a_part_that_means_another_path_is_refused(server: Any, client: Any, value: str) -> None:
    """An empty id would delete the whole collection; some servers unquote before they look."""
    error = failure(lambda: client().request("DELETE", "/users/{id}", id=value))
    assert error.code == "INVALID_ARGUMENT"
    assert server.requests == []


def test_a_path_on_another_host_is_refused(server: Any, client: Any) -> None:
    """It would get the credentials."""
    error = failure(lambda: client(auth=BearerAuth("T")).get("http://evil.test/x"))
    assert error.code == "INVALID_ARGUMENT"
    assert server.requests == []


def test_parts_that_are_missing_are_the_authors_mistake(client: Any) -> None:
    with pytest.raises(TypeError, match="id"):
        client().get("/users/{id}")


@pytest.mark.parametrize(
    ("auth", "header", "value"),
    [
        (BearerAuth("T"), "authorization", f"Bearer {TOKEN}"),
        (BearerAuth("T", scheme="token"), "authorization", f"token {TOKEN}"),
        (BasicAuth("ada", "T"), "authorization", "Basic YWRhOnRvay05ZjhlN2Q2YzViNGEzMjEw"),
        (HeaderAuth("X-Api-Key", "T"), "x-api-key", TOKEN),
    ],
    ids=["bearer", "scheme", "basic", "header"],
)
def test_credentials_are_sent(server: Any, client: Any, auth: Any, header: str, value: str) -> None:
    answer(server, "/v1/me", {})
    client(auth=auth).get("/me")
    assert server.last.headers[header] == value


def test_a_key_in_the_query_is_sent_and_never_shown(server: Any, client: Any) -> None:
    answer(server, "/v1/me", {"message": f"no such key {TOKEN}"}, status=401)
    error = failure(lambda: client(auth=QueryAuth("key", "T")).get("/me", query={"a": 1}))
    assert server.last.path == f"/v1/me?a=1&key={TOKEN}"
    assert TOKEN not in f"{error!r} {error} {error.details}"
    assert "no such key [secret]" in str(error)
    assert "secret 'T'" in str(error)


def test_a_rotated_secret_counts_at_once(server: Any, client: Any) -> None:
    answer(server, "/v1/me", {})
    secrets = Secrets()
    service = client(auth=BearerAuth("T"), ctx=ConnectorContext(key="crm", secrets=secrets))
    service.get("/me")
    secrets.value = "another-token-123456"
    service.get("/me")
    assert server.last.headers["authorization"] == "Bearer another-token-123456"


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (400, "INVALID_ARGUMENT", False),
        (401, "UNAUTHENTICATED", False),
        (403, "PERMISSION_DENIED", False),
        (404, "NOT_FOUND", False),
        (409, "ABORTED", True),
        (429, "RESOURCE_EXHAUSTED", True),
        (500, "UNAVAILABLE", True),
        (502, "UNAVAILABLE", True),
        (503, "UNAVAILABLE", True),
        (504, "DEADLINE_EXCEEDED", True),
    ],
)
def test_a_status_has_its_code(
    server: Any, client: Any, status: int, code: str, retryable: bool
) -> None:
    answer(server, "/v1/me", {"error": {"message": "the service's words"}}, status=status)
    error = failure(lambda: client().get("/me"))
    assert (error.code, error.retryable) == (code, retryable)
    assert error.message.endswith(": the service's words")
    assert error.details == {"status": status}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"message": "a"}, "a"),
        ({"error": "invalid_grant", "error_description": "expired"}, "expired"),
        ({"title": "Bad", "detail": "too long"}, "too long"),
        ({"errors": [{"message": "a"}, {"message": "b"}]}, "a; b"),
        (
            {
                "message": "Validation Failed",
                "errors": [{"resource": "Issue", "field": "title", "code": "missing_field"}],
            },
            "Validation Failed (title: missing_field)",
        ),
        (
            {"title": "Bad", "errors": [{"pointer": "#/a", "detail": "too long"}]},
            "Bad (#/a: too long)",
        ),
        ({"detail": [{"loc": ["body", "n"], "msg": "Field required"}]}, "body.n: Field required"),
        ({"ok": False, "error": "channel_not_found"}, "channel_not_found"),
        ({"x": 1}, '{"x": 1}'),
        ({"message": "é\n\u202e" + "x" * 900}, "é " + "x" * 197 + "…"),
    ],
    ids=[
        "message",
        "oauth",
        "problem",
        "list",
        "github",
        "fields",
        "fastapi",
        "slack",
        "other",
        "long",
    ],
)
def test_the_services_words_are_found_and_bounded(
    server: Any, client: Any, body: Any, words: str
) -> None:
    answer(server, "/v1/me", body, status=400)
    assert failure(lambda: client().get("/me")).message.partition("Request: ")[2] == words


@pytest.mark.parametrize("name", ["Stripe-Should-Retry", "X-Should-Retry"])
def test_a_service_says_whether_to_try_again(server: Any, client: Any, name: str) -> None:
    """Against the status, in both directions; other words say nothing."""
    for status, told, retryable in (
        (409, "false", False), (500, "false", False), (400, "true", True),
        (500, "maybe", True), (400, "maybe", False),
    ):  # fmt: skip

        def send(handler: Any, status: int = status, told: str = told) -> None:
            handler.send_response_only(status)
            handler.send_header(name, told)
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        server.answers["/v1/me"] = send
        assert failure(lambda: client().get("/me")).retryable is retryable


def test_a_wait_is_taken_from_a_date_or_a_reset(server: Any, client: Any) -> None:
    """Against the service's own clock."""
    date = "Thu, 26 Nov 2026 10:00:00 GMT"
    for headers, wait in (
        ({"Retry-After": "30"}, 30),
        ({"Retry-After": "Thu, 26 Nov 2026 10:02:00 GMT", "Date": date}, 120),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1795687260", "Date": date}, 60),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "45"}, 45),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "9999999"}, 86_400),
    ):

        def send(handler: Any, headers: Any = headers) -> None:
            handler.send_response_only(429)
            for name, value in {**headers, "Content-Length": "0"}.items():
                handler.send_header(name, value)
            handler.end_headers()

        server.answers["/v1/me"] = send
        found = failure(lambda: client(rate_limit=RateLimiter()).get("/me"))
        assert found.retry_after == wait


def test_json_that_is_none_may_be_tried_again(server: Any, client: Any) -> None:
    """A proxy's page, or a body that was cut."""
    for body in (b'{"id": 7, "na', b"<html>", b"[" * 100_000, b"NaN"):
        server.answer("/v1/me", 200, body)
        error = failure(lambda: client().get("/me", returns=User))
        assert (error.code, error.retryable) == ("UNAVAILABLE", True)


def test_json_of_another_shape_is_named_and_not_shown(server: Any, client: Any) -> None:
    answer(server, "/v1/me", {"id": "hunter2", "nome": "x"})
    error = failure(lambda: client().get("/me", returns=User))
    assert (error.code, error.retryable) == ("FAILED_PRECONDITION", False)
    assert "id: int_parsing; name: missing" in error.message
    assert "hunter2" not in str(error)


def test_a_body_is_sent(server: Any, client: Any) -> None:
    answer(server, "/v1/users", {"id": 1, "name": "Ada"})
    service = client()
    assert service.post("/users", json=User(id=1, name="Ada"), returns=User).id == 1
    assert json.loads(server.last.body) == {"id": 1, "name": "Ada"}
    service.post("/users", form={"a": "1 2", "b": [True, 2]})
    assert server.last.body == b"a=1+2&b=true&b=2"


def test_another_attempt_of_a_step_carries_the_same_key(server: Any, client: Any) -> None:
    """And two requests of one attempt carry two."""
    answer(server, "/v1/a", {})
    service = client(idempotency_header="Idempotency-Key")
    keys = []
    for body in (1, 1, 2):
        with calling(Call("crm.x", idempotency_key="k-1")):
            service.post("/a", json=body)
        keys.append(server.last.headers["idempotency-key"])
    assert keys[0] == keys[1] != keys[2]
    with calling(Call("crm.x", idempotency_key="k-1")):
        service.get("/a")
    assert "idempotency-key" not in server.last.headers


def pages_of(server: Any, contents: list[Any], *, param: str, field: str | None = None) -> None:
    """Serve *contents* one after the other, by the query parameter *param*."""

    def send(handler: Any) -> None:
        from urllib.parse import parse_qs, urlsplit

        query = parse_qs(urlsplit(handler.path).query)
        place = int(query.get(param, ["0"])[0])
        found = contents[place] if place < len(contents) else []
        body = json.dumps(found).encode()
        handler.send_response(found if isinstance(found, int) else 200)
        if field == "link" and place + 1 < len(contents):
            handler.send_header(
                "Link",
                f'<x>; rel="prev", <{handler.path.partition("?")[0]}?{param}={place + 1}>; rel="next"',
            )
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    server.answers["/v1/users"] = send


def test_links_lead_to_the_next_page(server: Any, client: Any) -> None:
    pages_of(server, [[1, 2], [3], []], param="page", field="link")
    assert list(client().items("/users", pages=NextLink())) == [1, 2, 3]
    assert len(server.requests) == 3


def test_a_cursor_leads_to_the_next_page(server: Any, client: Any) -> None:
    contents = [
        {"data": [{"id": 1, "name": "a"}], "meta": {"next": 1}},
        {"data": [{"id": 2, "name": "b"}], "meta": {"next": ""}},
    ]
    pages_of(server, contents, param="cursor")
    pages = Cursor("meta.next", items="data")
    found = list(client().items("/users", pages=pages, query={"q": "x"}, returns=User))
    assert [each.id for each in found] == [1, 2]
    assert server.last.path == "/v1/users?q=x&cursor=1"


def test_numbers_and_offsets_lead_to_the_next_page(server: Any, client: Any) -> None:
    pages_of(server, [[], [1, 2], [3]], param="page")
    assert list(client().items("/users", pages=PageNumber(size=2))) == [1, 2, 3]
    # The service has a bound of its own for the size of a page.
    pages_of(server, [[], [1, 2], [3, 4], [5]], param="page")
    assert list(client().items("/users", pages=PageNumber(size=100))) == [1, 2, 3, 4, 5]
    pages_of(server, [[], [1], []], param="page")
    assert list(client().items("/users", pages=PageNumber(size=100))) == [1]
    # Others refuse a page after the last one.
    pages_of(server, [[], [1, 2], 404], param="page")
    assert list(client().items("/users", pages=PageNumber(size=100))) == [1, 2]
    with pytest.raises(AutomateError, match="404"):
        list(client().items("/users", pages=PageNumber(size=2)))
    pages_of(server, [[1, 2], None, [3], []], param="offset")
    assert list(client().items("/users", pages=Offset(limit=100))) == [1, 2, 3]


@pytest.mark.parametrize("pages", [NextLink("next", items="data"), Cursor("next", items="data")])
@pytest.mark.parametrize(("told", "is_last"), [({"href": "/users?page=2"}, False), ([2], False),
                                              (True, False), (None, True), ("", True), (False, True),
                                              ([], True), ({}, True)])  # fmt: skip
def test_a_next_page_that_is_told_in_another_way_is_no_last_page(
    server: Any, client: Any, pages: Any, told: Any, is_last: bool
) -> None:
    """A list that is cut in silence would be taken for the whole."""
    server.answer("/v1/users", 200, json.dumps({"data": [1], "next": told}).encode())
    found = client().items("/users", pages=pages)
    if is_last:
        assert list(found) == [1]
    else:
        with pytest.raises(AutomateError, match="'next' is not") as caught:
            list(found)
        assert not caught.value.retryable


def test_an_iterator_gets_no_page_that_nobody_asked_for(server: Any, client: Any) -> None:
    pages_of(server, [[1, 2], [3, 4], [5]], param="page", field="link")

    async def first() -> list[Any]:
        service = client()
        found = [each async for each in service.aitems("/users", pages=NextLink(), max_items=2)]
        await service.aclose()
        return found

    assert asyncio.run(first()) == [1, 2]
    assert len(server.requests) == 1


@pytest.mark.parametrize("returns", [None, User])
def test_an_answer_with_half_a_character_is_not_lost(
    server: Any, client: Any, returns: Any
) -> None:
    """It was one of another shape, or the step failed as it was stored: after the call was made."""
    server.answer("/v1/me", 200, b'{"id": 1, "name": "a\\u0000\\ud83d"}')
    found = client().post("/me", returns=returns)
    assert (found if returns is None else found.model_dump()) == {"id": 1, "name": "a\ufffd\ufffd"}


def test_a_list_that_is_too_long_is_an_error(server: Any, client: Any) -> None:
    """A list that is cut in silence would be taken for the whole."""
    pages_of(server, [[1], [2], [3]], param="page", field="link")
    with pytest.raises(AutomateError, match="more than 2 pages"):
        list(client().items("/users", pages=NextLink(), max_pages=2))


@pytest.mark.parametrize(
    ("following", "problem"),
    [
        ("http://evil.test/users", "another host"),
        ("//evil.test/users", "another host"),
        ("https://public.test/users", "another host"),
        ("http://user:pw@public.test/", "another host"),
        ("http://a b/", "can.t be read|another host"),
        ("", None),
        ("?", "there before"),
    ],
)
def test_the_next_page_is_on_the_same_host(
    server: Any, client: Any, following: str, problem: str | None
) -> None:
    """Elsewhere it would get the credentials; in a circle it would never end."""
    answer(server, "/v1/users", {"items": [1], "next": following})
    items = client(auth=BearerAuth("T")).items("/users", pages=NextLink("next", items="items"))
    assert next(items) == 1
    if problem is None:
        assert list(items) == []
    else:
        with pytest.raises(AutomateError, match=problem):
            list(items)
    assert len(server.requests) <= 2


def test_a_page_of_another_shape_is_named(server: Any, client: Any) -> None:
    answer(server, "/v1/users", {"users": 3})
    with pytest.raises(AutomateError, match="'users' is not a list"):
        list(client().items("/users", pages=Cursor("next", items="users")))


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_pace_is_kept_for_each_key() -> None:
    clock = Clock()
    limit = RateLimiter(2, 1.0, burst=2, max_wait_seconds=1.0, clock=clock)
    assert [limit.reserve() for _ in range(4)] == [0.0, 0.0, 0.5, 1.0]
    with pytest.raises(AutomateError) as caught:
        limit.reserve()
    assert (caught.value.code, caught.value.retry_after) == ("RESOURCE_EXHAUSTED", 1.5)
    assert limit.reserve("another") == 0.0
    clock.now += 60
    assert [limit.reserve() for _ in range(3)] == [0.0, 0.0, 0.5]


def test_the_services_own_limit_is_heeded() -> None:
    clock = Clock()
    limit = RateLimiter(max_wait_seconds=10, clock=clock)
    limit.observe(200, {"x-ratelimit-remaining": "3", "x-ratelimit-reset": "60"})
    assert limit.reserve() == 0.0
    limit.observe(200, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "8"})
    assert limit.reserve() == 8.0
    limit.observe(429, {"retry-after": "30"})
    with pytest.raises(AutomateError) as caught:
        limit.reserve()
    assert caught.value.retry_after == 30.0
    clock.now += 30
    assert limit.reserve() == 0.0


def test_a_limit_of_a_part_of_the_service_stops_nothing_else() -> None:
    """As GitHub's of its search: the step that searches gets the wait by its error."""
    limit = RateLimiter(clock=Clock())
    used_up = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "60"}
    limit.observe(403, {**used_up, "x-ratelimit-resource": "search"})
    assert limit.reserve() == 0.0
    limit.observe(403, {**used_up, "x-ratelimit-resource": "core"})
    with pytest.raises(AutomateError):
        limit.reserve()


def test_clients_with_the_same_credentials_share_what_the_service_allows(
    server: Any, client: Any
) -> None:
    """A service counts the requests of a token, and not those of an object."""
    server.answer("/v1/me", 429, Retry_After="60")
    failure(lambda: client(auth=BearerAuth("TOKEN")).get("/me"))
    answer(server, "/v1/me", {"id": 1})
    error = failure(lambda: client(auth=BearerAuth("TOKEN")).get("/me"))
    assert (error.code, len(server.requests)) == ("RESOURCE_EXHAUSTED", 1)
    another = ConnectorContext(key="crm", secrets=Secrets("tok-of-somebody-else"))
    assert client(auth=BearerAuth("TOKEN"), ctx=another).get("/me") == {"id": 1}
    with_its_own = client(auth=BearerAuth("TOKEN"), rate_limit=RateLimiter())
    assert with_its_own.get("/me") == {"id": 1}


def test_what_is_kept_of_a_token_shows_nothing_of_it() -> None:
    used = asyncio.run(BearerAuth("TOKEN").credentials(Secrets()))
    assert used.limit_key() == asyncio.run(BearerAuth("TOKEN").credentials(Secrets())).limit_key()
    assert TOKEN not in used.limit_key()
    assert used.limit_key() != hashlib.blake2b(TOKEN.encode(), digest_size=16).hexdigest()


def test_after_a_429_nothing_is_sent_until_the_service_allows_it(server: Any, client: Any) -> None:
    server.answer("/v1/me", 429, Retry_After="60")
    service = client()
    failure(lambda: service.get("/me"))
    error = failure(lambda: service.get("/me"))
    assert len(server.requests) == 1
    assert error.code == "RESOURCE_EXHAUSTED"
    assert 50 < (error.retry_after or 0) <= 60


def test_it_is_closed_from_anywhere(server: Any, client: Any) -> None:
    """On the loop of an application that ends, too, and twice; it opens again."""
    answer(server, "/v1/me", {})
    service = client()

    async def end() -> None:
        await service.aget("/me")
        service.close()
        service.close()
        await service.aclose()

    service.get("/me")
    asyncio.run(end())
    assert service.get("/me") == {}


def test_it_closes_the_connections_of_plain_methods_too(server: Any, client: Any) -> None:
    """All of them, from another loop than the one that they belong to."""
    gc.collect()  # what other tests have left open is none of these
    together = threading.Barrier(4)

    def send(handler: Any) -> None:
        together.wait(30)
        handler.send_response(204)
        handler.end_headers()

    server.answers["/v1/me"] = send
    service = client()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: service.get("/me"), range(4)))
    asyncio.run(service.aclose())
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", ResourceWarning)
        gc.collect()
    assert [str(each.message) for each in found if "unclosed" in str(each.message)] == []


def test_loops_that_have_ended_are_not_kept(server: Any, client: Any) -> None:
    """A host that calls asyncio.run() for each action would gather them without end."""
    answer(server, "/v1/me", {})
    service = client()
    loops: list[Any] = []

    async def once() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await service.aget("/me")

    for _ in range(3):
        asyncio.run(once())
    gc.collect()
    assert [each() is not None for each in loops] == [False, False, True]


def test_a_twin_has_the_signature_and_words_of_its_own(client: Any) -> None:
    for plain, other in (
        (ServiceClient.get, ServiceClient.aget),
        (ServiceClient.post, ServiceClient.apost),
        (ServiceClient.request, ServiceClient.arequest),
        (ServiceClient.send, ServiceClient.asend),
    ):
        assert inspect.signature(plain) == inspect.signature(other)
        assert (plain.__name__, f"a{plain.__name__}") == (other.__name__[1:], other.__name__)
        assert other.__name__ in (plain.__doc__ or "")


def test_a_replys_repr_shows_no_credential(server: Any, client: Any) -> None:
    answer(server, "/v1/me", {"token": TOKEN})
    reply = client(auth=QueryAuth("key", "T")).send("GET", "/me")
    assert TOKEN in str(reply.url)
    assert TOKEN not in repr(reply)


def test_nothing_of_the_config_is_in_its_repr(client: Any) -> None:
    shown = repr(client(auth=BearerAuth("T"), headers={"X": "hunter2"}))
    assert shown.startswith("<ServiceClient of http://public.test:")
    assert "hunter2" not in shown


def test_a_kernels_secrets_are_used(server: Any, client: Any) -> None:
    answer(server, "/v1/me", {"token": "swordfish-123456"})
    secrets = SecretResolver(MemorySecretsBackend({"T": "swordfish-123456"}))
    client(auth=BearerAuth("T"), ctx=ConnectorContext(key="crm", secrets=secrets)).get("/me")
    assert server.last.headers["authorization"] == "Bearer swordfish-123456"
    with pytest.raises(AutomateError, match="no secrets"):
        client(auth=BearerAuth("T"), ctx=ConnectorContext(key="crm")).get("/me")


def test_bytes_are_sent_and_the_reply_comes_as_it_is(server: Any, client: Any) -> None:
    """From both kinds of action."""
    server.answer("/v1/photo", 201, b"\x89PNG", Content_Type="image/png")
    service = client(auth=BearerAuth("T"))
    for reply in (
        service.send("PUT", "/photo", content=b"\x00\x01", headers={"Content-Type": "a/b"}),
        asyncio.run(service.asend("PUT", "/photo", content=b"\x00\x01")),
    ):
        assert (reply.status, reply.content) == (201, b"\x89PNG")
        assert reply.headers["content-type"] == "image/png"
    first = server.requests[0]
    assert (first.method, first.body, first.headers["content-type"]) == ("PUT", b"\x00\x01", "a/b")
    server.answer("/v1/photo", 404, b"which one?")
    assert service.send("GET", "/photo", answers={404}).content == b"which one?"
    assert failure(lambda: service.send("GET", "/photo")).code == "NOT_FOUND"


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("ids=a%2Cb,c&x=1", "ids=a%2Cb,c&x=1&key=k%26%20"),
        ("key=old&x=1", "x=1&key=k%26%20"),
        ("", "key=k%26%20"),
    ],
    ids=["kept", "replaced", "alone"],
)
def test_a_key_in_the_query_leaves_the_rest_as_it_is(
    server: Any, client: Any, query: str, wanted: str
) -> None:
    """A service may tell a comma in an item from one between items."""
    answer(server, "/v1/x", {})
    secrets = ConnectorContext(key="crm", secrets=Secrets("k& "))
    client(auth=QueryAuth("key", "T"), ctx=secrets).send("GET", f"/x?{query}")
    assert server.last.path == f"/v1/x?{wanted}"


def test_cookies_of_a_request_and_of_its_credentials_are_sent(server: Any, client: Any) -> None:
    answer(server, "/v1/x", {})
    service = client(auth=HeaderAuth("Cookie", "T"))
    service.send("GET", "/x", headers={"Cookie": "flavour=oat"})
    assert server.last.headers["cookie"] == f"flavour=oat; {TOKEN}"


def test_each_page_is_asked_for_with_the_same_headers(server: Any, client: Any) -> None:
    answer(server, "/v1/x", {"data": [1], "next": "b"})
    service = client()
    found = service.items(
        "/x", pages=Cursor("next", items="data"), headers={"X-Trace": "t"}, max_items=1
    )
    assert list(found) == [1]
    assert server.last.headers["x-trace"] == "t"
