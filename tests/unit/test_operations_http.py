"""Operations by REST: an allow-list, a token, bounds, and problems that say whose fault it is."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from automate_kernel import Connector, Kernel, action, current_call
from automate_kernel.plugins.connectors import ActionSpec, options
from automate_kernel.base.errors import (
    AutomateError,
    ConfigError,
    ErrorCodes,
    SecretUnavailableError,
    StorageError,
)
from automate_kernel.http.app import webhook_app
from automate_kernel.http.operations import ExposedOperations, OperationProblem
from automate_kernel.operations.exposure import check_sent, shown_error
from automate_kernel.operations.spec import operation_from_function
from automate_kernel.secrets import Redactor
from waiting import within

TOKEN, SECRET = "an-operations-token", "s3cr3t-of-the-host-9f"
ALLOWED = ["chat.*", "chat.drop", "broken.x", "math.add", "missing.y"]


class Chat(Connector):
    key = "chat"
    display_name = "Chat"
    running = threading.Event()
    go_on = threading.Event()

    @action(read_only=True, title="Say")
    def say(self, text: str, api_token: str = "") -> str:
        """Say a text."""
        call = current_call()
        assert call is not None
        return f"{text} {api_token} {call.tenant_id} {call.idempotency_key}"

    @action
    async def fail(self, code: str, api_token: str = "") -> None:
        """Fail."""
        raise AutomateError(code, f"no {api_token}", retry_after=7 if code[0] == "R" else None)

    @action
    def invalid_inside(self) -> None:
        """Fail with the problems of another call."""
        raise AutomateError("INVALID_ARGUMENT", "x", details={"problems": [{"field": "q"}]})

    @action("lists/open/all")
    def open_lists(self) -> str:
        """List lists: services have names of their own."""
        return "all lists"

    @action
    def large(self, size: int) -> str:
        """Give much."""
        return "x" * size

    @action
    def wait(self) -> str:
        """Wait."""
        type(self).running.set()
        type(self).go_on.wait(20)
        return "done"

    @action(destructive=True)
    def drop(self) -> str:
        """Drop."""
        return "dropped"

    @action(destructive=True)
    def burn(self) -> str:
        """Burn."""
        return "burnt"

    @action
    def with_secret(self) -> str:
        """Show a secret."""
        return self.ctx.secrets.get("HOST")

    @action
    def store(self) -> None:
        """Fail in the database."""
        raise StorageError("no connection to db-7.internal")

    @options("text")
    def texts(self, search: str = "", api_token: str = "") -> list[str]:
        if search == "refused":
            raise ConnectionError(f"no texts for {api_token}")
        return [f"{search}!", SECRET]


class Broken(Connector):
    key = "broken"

    def __init__(self, *args: Any, **more: Any) -> None:
        raise RuntimeError(f"can't start with {SECRET}")

    @action
    def x(self) -> None:
        """Never."""


class Private(Connector):
    key = "private"
    imported = 0

    @classmethod
    def operation_specs(cls) -> Any:
        cls.imported += 1
        return []


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    Private.imported = 0
    Chat.running.clear()
    Chat.go_on.clear()
    plugins = [Chat, Broken, Private]
    with Kernel(discover=False, plugins=plugins, secrets={"HOST": SECRET}) as kernel:
        kernel.action("math.add")(add)
        yield kernel
        Chat.go_on.set()


def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


def app_of(kernel: Kernel, **more: Any) -> Any:
    exposed = ExposedOperations(kernel, ALLOWED, **{"seconds": 5.0, **more})
    return webhook_app(kernel, operations=exposed, operations_token=TOKEN)


def send(app: Any, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            content = body if isinstance(body, (bytes, type(None))) else json.dumps(body)
            return await client.request(
                method, path, content=content,
                headers={"Authorization": f"Bearer {TOKEN}", **headers},
            )  # fmt: skip

    response = asyncio.run(ask())
    assert SECRET not in response.text
    return response


def test_nothing_is_callable_by_default(kernel: Kernel) -> None:
    """Without an allow-list the paths lead nowhere; without a token nobody gets in."""
    assert send(webhook_app(kernel), "GET", "/operations").status_code == 404
    exposed = ExposedOperations(kernel, [])
    app = webhook_app(kernel, operations=exposed, operations_token=TOKEN)
    assert send(app, "POST", "/operations/math.add", {"input": {"a": 1}}).status_code == 404
    app = webhook_app(kernel, operations=ExposedOperations(kernel, ["math.add"]))
    response = send(app, "POST", "/operations/math.add", {"input": {"a": 1}})
    assert response.status_code == 403
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", "Bearer é"])
def test_the_token_is_asked_for_everywhere(kernel: Kernel, header: str) -> None:
    """Every path answers one and the same 401, before anything is looked up."""
    paths = [
        ("GET", "/operations"),
        ("GET", "/operations/nothing.here"),
        ("POST", "/operations/math.add"),
        ("POST", "/operations/chat.say/choices/text"),
    ]
    value = header.encode("latin-1").decode("latin-1")
    responses = [
        send(app_of(kernel), method, path, Authorization=value.encode("ascii", "replace").decode())
        for method, path in paths
    ]
    assert {each.status_code for each in responses} == {401}
    assert len({each.content for each in responses}) == 1
    assert responses[0].headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (float("nan"), "b[1] is NaN"),
        (float("-inf"), "b[1] is NaN or inf"),
        (10**5000, "b[1] is"),
        (-(2**1023), "b[1] is larger than the numbers that JSON readers take"),
        ("\ud83d", "b[1] holds a NUL character or half a surrogate pair"),
    ],
    ids=["NaN", "infinity", "digits", "large", "half"],
)
def test_an_output_that_json_has_not_is_told_and_not_written(
    kernel: Kernel, value: Any, place: str
) -> None:
    """Python writes NaN into an answer, which no other reader takes."""
    kernel.action("math.odd")(lambda: {"a": 1, "b": [2, value]})
    exposed = ExposedOperations(kernel, ["math.odd"])
    app = webhook_app(kernel, operations=exposed, operations_token=TOKEN)
    response = send(app, "POST", "/operations/math.odd", {"input": {}})
    assert (response.status_code, response.json()["code"]) == (422, "INVALID_ARGUMENT")
    assert f"the output of 'math.odd' can't be written: {place}" in response.json()["detail"]


def test_the_list_has_schemas_and_hints(kernel: Kernel) -> None:
    """What is allowed is listed, with what a form needs; plugins that can't be meant stay asleep."""
    found = send(app_of(kernel), "GET", "/operations").json()["operations"]
    by_name = {each["name"]: each for each in found}
    assert "chat.drop" in by_name
    assert "chat.burn" not in by_name
    assert by_name["math.add"]["input_schema"]["required"] == ["a"]
    say = by_name["chat.say"]
    assert (say["title"], say["description"]) == ("Say", "Say a text.")
    assert (say["read_only"], say["destructive"], say["choices"]) == (True, False, ["text"])
    assert send(app_of(kernel), "GET", "/operations/chat.say").json() == say
    assert Private.imported == 0


def test_a_call_gets_its_tenant_and_key(kernel: Kernel) -> None:
    """The output comes back; tenant and key reach the operation."""
    body = {"input": {"text": "hi"}, "tenant_id": "acme"}
    headers = {"Idempotency-Key": "k-1"}
    response = send(app_of(kernel), "POST", "/operations/chat.say", body, **headers)
    assert response.status_code == 200
    first = response.json()["output"]
    assert first.startswith("hi  acme ")
    # The same key again is the same for the service; another one, or another tenant's, is not.
    changes: list[dict[str, Any]] = [{}, {"idempotency_key": "k-2"}, {"tenant_id": "other"}]
    keys = [
        send(app_of(kernel), "POST", "/operations/chat.say", {**body, **change}, **headers)
        .json()["output"]
        .rpartition(" ")[2]
        for change in changes
    ]
    assert keys[0] == first.rpartition(" ")[2]
    assert len(set(keys)) == 3
    assert send(app_of(kernel), "POST", "/operations/math.add", {"input": {"a": 4}}).json() == {
        "output": 5
    }


@pytest.mark.parametrize("name", ["chat.burn", "chat.none", "private.x", "nobody.x", "missing.y"])
def test_what_is_not_offered_is_not_there(kernel: Kernel, name: str) -> None:
    """A destructive one that only a pattern names, an unknown one and a private one look alike."""
    for method, path in (
        ("GET", f"/operations/{name}"),
        ("POST", f"/operations/{name}"),
        ("POST", f"/operations/{name}/choices/x"),
    ):
        response = send(app_of(kernel), method, path, {} if method == "POST" else None)
        assert response.status_code == 404
        assert response.json()["detail"] == f"there is no operation {name!r} here"
    assert Private.imported == 0


def test_a_destructive_operation_is_named_in_full(kernel: Kernel) -> None:
    """Then it is callable."""
    assert send(app_of(kernel), "POST", "/operations/chat.drop").json() == {"output": "dropped"}


def test_text_of_others_is_literal(kernel: Kernel) -> None:
    """A reference to a secret and a template are just text."""
    for text in ("$secret:HOST", "{{ secrets.HOST }}", "${secret:HOST}", "$env:PATH", "{{"):
        body = {"input": {"text": text}}
        response = send(app_of(kernel), "POST", "/operations/chat.say", body)
        assert response.json()["output"].startswith(text)


def test_secrets_come_back_from_nowhere(kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the host's secrets, nor those that a caller has given, are in answers or logs."""
    given = "caller-token-77aa11"
    app = app_of(kernel)
    body: Any = {"input": {"text": f"it is {given}", "api_token": given}}
    assert given not in send(app, "POST", "/operations/chat.say", body).text
    body = {"input": {"code": "INTERNAL", "api_token": given}}
    response = send(app, "POST", "/operations/chat.fail", body)
    assert (response.status_code, given in response.text) == (500, False)
    send(app, "POST", "/operations/chat.with_secret", {})
    response = send(app, "POST", "/operations/broken.x", {})
    assert (response.status_code, response.json()["detail"]) == (
        500,
        "It failed. The log of the service says why.",
    )
    found = send(app, "POST", "/operations/chat.say/choices/text", {"search": "a"}).json()
    assert found == {"choices": [{"value": "a!", "label": "a!"}]}
    body = {"search": "refused", "values": {"api_token": given}}
    refused = send(app, "POST", "/operations/chat.say/choices/text", body)
    assert (refused.status_code, given in refused.text) == (503, False)
    assert "no texts for" in refused.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "the body is refused"),
        (b"[]", "the body must be an object"),
        (b'{"inputs": {}}', "did you mean 'input'?"),
        (b'{"input": []}', "input must be an object"),
        (b'{"tenant_id": 5}', "tenant_id must be text"),
        (b'{"input": {"a": 1}, "tenant_id": ""}', "tenant_id"),
        (b'{"input": {"a": 1}, "idempotency_key": ""}', "idempotency_key"),
        (b"[" * 100_000, "the body is refused"),
    ],
)
def test_a_wrong_body_is_a_problem(kernel: Kernel, body: bytes, said: str) -> None:
    """Problem details say what is wrong with the body."""
    response = send(app_of(kernel), "POST", "/operations/math.add", body)
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"
    assert said in response.json()["detail"]


def test_wrong_fields_are_pointed_at(kernel: Kernel) -> None:
    """Each wrong field has its pointer, and no value is shown."""
    body = {"input": {"a": "hunter2", "c": 1}}
    response = send(app_of(kernel), "POST", "/operations/math.add", body)
    assert response.status_code == 400
    assert {each["pointer"] for each in response.json()["errors"]} == {"#/input/a", "#/input/c"}
    assert "hunter2" not in response.text


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("UNAUTHENTICATED", 502),
        ("PERMISSION_DENIED", 502),
        ("NOT_FOUND", 422),
        ("INVALID_ARGUMENT", 422),
        ("RESOURCE_EXHAUSTED", 429),
        ("UNAVAILABLE", 503),
        ("DEADLINE_EXCEEDED", 504),
        ("INTERNAL", 500),
        ("ABORTED", 409),
    ],
)
def test_a_failure_of_the_service_is_not_one_of_ours(
    kernel: Kernel, code: str, status: int
) -> None:
    """A service's 401 isn't a 401 of ours; the code, and if to try again, are in the body."""
    response = send(app_of(kernel), "POST", "/operations/chat.fail", {"input": {"code": code}})
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.json()["retryable"] is ErrorCodes(code).retryable
    assert ("retry-after" in response.headers) is (code == "RESOURCE_EXHAUSTED")


def test_a_failure_of_the_database_is_in_the_log_alone(
    kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where the operation itself has met it."""
    response = send(app_of(kernel), "POST", "/operations/chat.store", {})
    assert (response.status_code, response.json()["code"]) == (503, "UNAVAILABLE")
    assert response.json()["retryable"]  # the database may be back by then
    assert "db-7" not in response.text
    assert "db-7" in caplog.text


def test_a_service_is_asked_once_for_the_whole_list() -> None:
    """However many operations it has."""
    asked = []

    class Listing(Connector):
        key = "listing"

        def own_operations(self) -> dict[str, ActionSpec]:
            asked.append(1)
            return {name: ActionSpec(name) for name in ("a", "b", "c")}

    with Kernel(discover=False, plugins=[Listing], secrets={}) as kernel:
        found = ExposedOperations(kernel, ["listing.*"]).described()
    assert [each["name"] for each in found] == ["listing.a", "listing.b", "listing.c"]
    assert len(asked) == 1


def test_a_service_that_lists_its_operations_and_is_away_is_no_404() -> None:
    """A client that gets 404 gives the operation up; 503 comes again."""

    class Listing(Connector):
        key = "listing"

        def own_operations(self) -> dict[str, ActionSpec]:
            raise AutomateError("UNAVAILABLE", "the service is away", retry_after=9)

    with Kernel(discover=False, plugins=[Listing], secrets={}) as kernel:
        exposed = ExposedOperations(kernel, ["listing.*"])
        app = webhook_app(kernel, operations=exposed, operations_token=TOKEN)
        response = send(app, "POST", "/operations/listing.a", {})
        assert (response.status_code, response.headers["retry-after"]) == (503, "9")
        assert send(app, "POST", "/operations/other.a", {}).status_code == 404


@pytest.mark.parametrize(
    ("error", "code", "retryable"),
    [
        (RuntimeError("the words of a bug"), "INTERNAL", False),
        (AutomateError("INTERNAL", "the words of a bug"), "INTERNAL", True),
        (ConfigError("no such table: bug"), "INTERNAL", False),
        (SecretUnavailableError("the bug is in the vault"), "UNAVAILABLE", True),
    ],
    ids=["exception", "internal", "config", "secrets away"],
)
def test_the_words_of_a_bug_and_of_the_set_up_are_for_the_log(
    error: Exception, code: str, retryable: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """By one rule for all doors; whether another attempt can help is told."""
    shown = shown_error(error, "a call")
    assert (shown.code.value, shown.retryable) == (code, retryable)
    assert "bug" not in str(shown)
    assert "bug" in caplog.text
    assert OperationProblem.of(error, "a call").code == code


def test_the_log_has_the_place_of_a_bug_once_and_no_secret(
    kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller sees nothing of it, so the operator has to."""
    hidden = Redactor(["canary-7Qm2xVb91tZk"])

    def broken(token: str) -> None:
        raise RuntimeError(f"refused {token}")

    try:
        broken("canary-7Qm2xVb91tZk")
    except RuntimeError as error:
        shown_error(error, "a call")
    assert "in broken" in caplog.text
    assert 'raise RuntimeError(f"refused {token}")' in caplog.text
    assert hidden.redact(caplog.text) == caplog.text
    caplog.clear()

    @kernel.action("broken.now")
    def now() -> None:
        broken("x")

    app = webhook_app(
        kernel, operations=ExposedOperations(kernel, ["broken.*"]), operations_token=TOKEN
    )
    assert send(app, "POST", "/operations/broken.now", {}).status_code == 500
    assert caplog.text.count("in broken") == 1


@pytest.mark.parametrize(
    "text",
    [
        "550e8400-e29b-41d4-a716-446655440000",
        "pi_3MtwBwLkdIwHu7ix28a3tqPa",
        "0f36a3a6e1a5d18b4b0bd0f2b1ea87e7c7a7d1b7",
        "task-force-2026-report",
        "reports/2026/c4d5e6f7a8b9c0d1e2f3.csv",
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
        "https://ann:s3cr3t-pass@files.example.com",
    ],
)
def test_ids_come_back_as_they_were_sent_and_credentials_do_not(kernel: Kernel, text: str) -> None:
    """An id is as random as a key; only a field or a shape says that a text is secret."""
    is_credential = text.startswith(("ghp_", "https"))
    response = send(app_of(kernel), "POST", "/operations/chat.say", {"input": {"text": text}})
    assert (text in response.json()["output"]) is not is_credential


def test_a_name_may_hold_slashes(kernel: Kernel) -> None:
    """As a service's own names do; written as they are, for proxies that look at paths."""
    app, path = app_of(kernel), "/operations/chat.lists/open/all"
    assert send(app, "GET", path).json()["name"] == "chat.lists/open/all"
    assert send(app, "POST", path, {}).json() == {"output": "all lists"}
    assert send(app, "POST", f"{path}/choices/none", {}).status_code == 422
    assert send(app, "GET", "/operations/chat.lists%2Fopen%2Fall").status_code == 404
    for wrong in ("/operations/", "/operations/chat.lists//open/all", "/operations/chat.say/x"):
        assert send(app, "POST", wrong, {}).status_code == 404


def test_problems_of_an_inner_call_are_not_the_callers(kernel: Kernel) -> None:
    """Only a wrong input of the request itself is a 400."""
    response = send(app_of(kernel), "POST", "/operations/chat.invalid_inside", {})
    assert response.status_code == 422
    assert "errors" not in response.json()


def test_sizes_are_bounded(kernel: Kernel) -> None:
    """A large body is refused before it is read, a large output before it is sent."""
    app = app_of(kernel, max_output_bytes=1000)
    assert send(app, "POST", "/operations/chat.large", {"input": {"size": 900}}).status_code == 200
    response = send(app, "POST", "/operations/chat.large", {"input": {"size": 2000}})
    assert (response.status_code, response.json()["retryable"]) == (429, False)
    assert "ask for less" in response.json()["detail"]
    body = b'{"input": {"text": "' + b"x" * 1_000_001 + b'"}}'
    refused = send(app, "POST", "/operations/chat.say", body)
    assert refused.headers["content-type"] == "application/problem+json"
    problem = refused.json()
    assert (refused.status_code, problem["code"]) == (413, "PAYLOAD_TOO_LARGE")
    assert "longer than" in problem["detail"] and not problem["retryable"]


def test_a_body_whose_end_is_unknown_is_refused_before_it_has_a_route(kernel: Kernel) -> None:
    """And the connection ends with it."""
    response = send(
        app_of(kernel), "POST", "/operations/chat.say", b"{}", **{"Content-Length": "x"}
    )
    assert response.status_code == 400
    assert response.headers["connection"] == "close"


def test_time_is_bounded(kernel: Kernel) -> None:
    """A call that takes too long ends for its client."""
    app = app_of(kernel, seconds=0.2)
    response = within(5, lambda: send(app, "POST", "/operations/chat.wait", {}))
    assert (response.status_code, response.json()["code"]) == (504, "DEADLINE_EXCEEDED")


def test_the_number_of_calls_is_bounded(kernel: Kernel) -> None:
    """Beyond it a call is turned away at once, and webhooks and probes go on."""
    app = app_of(kernel, seconds=20.0)

    async def flood() -> tuple[list[httpx.Response], httpx.Response]:
        transport = httpx.ASGITransport(app)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://t", headers=headers, timeout=30
        ) as client:
            calls = [asyncio.create_task(client.post("/operations/chat.wait")) for _ in range(20)]
            while sum(call.done() for call in calls) < 4:
                await asyncio.sleep(0.01)
            alive = await client.get("/healthz")
            Chat.go_on.set()
            return await asyncio.gather(*calls), alive

    responses, alive = asyncio.run(flood())
    statuses = sorted(each.status_code for each in responses)
    assert statuses == [200] * 16 + [503] * 4
    assert alive.status_code == 200
    assert next(r for r in responses if r.status_code == 503).headers["retry-after"] == "1"


def test_a_cancelled_request_keeps_the_place_of_its_call(kernel: Kernel) -> None:
    """Its call goes on: as many new ones beside it would be more than the bound."""
    app = app_of(kernel, seconds=20.0)

    async def flood() -> tuple[int, int]:
        transport = httpx.ASGITransport(app)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://t", headers=headers, timeout=30
        ) as client:
            calls = [asyncio.create_task(client.post("/operations/chat.wait")) for _ in range(17)]
            while not any(call.done() for call in calls):
                await asyncio.sleep(0.01)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            during = await client.get("/operations/math.add")
            Chat.go_on.set()
            while (after := await client.get("/operations/math.add")).status_code != 200:
                await asyncio.sleep(0.01)
            return during.status_code, after.status_code

    assert asyncio.run(asyncio.wait_for(flood(), 30)) == (503, 200)


def test_the_allow_list_is_checked(kernel: Kernel) -> None:
    """An entry that is no name is a mistake in the settings."""
    with pytest.raises(ConfigError, match="a list of names"):
        ExposedOperations(kernel, [""])
    assert list(ExposedOperations(kernel, "math.add").specs()) == ["math.add"]


@pytest.mark.parametrize("number", [10**400, float("inf"), float("nan")])
def test_a_number_that_json_has_not_is_no_input(number: float) -> None:
    """Whatever the schema takes: it would reach the operation as an infinite one."""

    def scale(ratio: float) -> float:
        return ratio

    spec = operation_from_function(scale)
    with pytest.raises(
        AutomateError, match=r"input of 'math.scale' is not valid: ratio: "
    ) as error:
        check_sent("math.scale", spec, {"ratio": number})
    assert error.value.code is ErrorCodes.INVALID_ARGUMENT
    check_sent("math.scale", spec, {"ratio": 1e308})


@pytest.mark.parametrize(
    ("status", "title"), [(404, "Not Found"), (422, "Unprocessable Content"), (499, "Error")]
)
def test_a_problem_has_a_title_whatever_its_status(status: int, title: str) -> None:
    assert OperationProblem(status, "CODE", "detail").body()["title"] == title
