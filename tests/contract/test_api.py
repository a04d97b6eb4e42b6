"""The API for clients, as `automate serve` has it."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from automate_kernel import Connector, Kernel, action
from automate_kernel.access.roles import ROLES, scopes_of
from automate_kernel.access.tokens import scope_allowed
from automate_kernel.http.api.routes import ROUTES
from automate_kernel.http.app import webhook_app
from automate_kernel.http.operations import ExposedOperations
from automate_kernel.storage import MemoryStorage
from automate_kernel.workflows import StoredWorkflows
from suites.api import ApiContract

WORKFLOWS = Path(__file__).parents[1] / "django_project" / "workflows"


class Chat(Connector):
    key = "chat"
    display_name = "Chat"

    @action(idempotent=True)
    def post_message(self, channel: str, text: str) -> dict[str, Any]:
        """Say *text* in *channel*."""
        return {"channel": channel, "text": text}


class Answered:
    """An answer, as Django's test client has it."""

    def __init__(self, response: httpx.Response) -> None:
        self.status_code, self.content, self.json = (
            response.status_code, response.content, response.json,
        )  # fmt: skip
        self._headers = response.headers

    def __contains__(self, name: str) -> bool:
        return name in self._headers

    def __getitem__(self, name: str) -> str:
        return self._headers[name]


class AsgiClient:
    """A client of the ASGI application, with the methods of Django's."""

    def __init__(self, app: Any, text: str | None = None) -> None:
        self._app = app
        self._headers = {} if text is None else {"Authorization": f"Bearer {text}"}

    def get(self, path: str, query: Any = None, **headers: str) -> Answered:
        return self._ask("GET", path, headers, params=query or None)

    def post(
        self,
        path: str,
        body: Any = None,
        *,
        format: str = "",
        content_type: str = "",
        **headers: str,
    ) -> Answered:
        if format:
            body, content_type = json.dumps(body).encode(), "application/json"
        more = {"Content-Type": content_type} if content_type else {}
        return self._ask("POST", path, headers, content=body, more=more)

    def _ask(self, method: str, path: str, headers: Any, more: Any = None, **options: Any) -> Any:
        names = {name[5:].replace("_", "-"): value for name, value in headers.items()}

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
                given: Any = {**self._headers, **names, **(more or {})}
                given = {name: value.encode() for name, value in given.items()}
                return await client.request(method, path, headers=given, **options)

        return Answered(asyncio.run(ask()))


class TestServe(ApiContract):
    @pytest.fixture
    def kernel(self) -> Iterator[Kernel]:
        storage = MemoryStorage()
        with Kernel(
            storage, plugins=[Chat], workflows=[WORKFLOWS], discover=False,
            workflow_source=StoredWorkflows(storage),
        ) as kernel:  # fmt: skip

            @kernel.action("orders.total")
            def total(lines: list[dict[str, Any]]) -> dict[str, Any]:
                return {"total": sum(line["price"] * line["quantity"] for line in lines)}

            yield kernel

    @pytest.fixture
    def app(self, kernel: Kernel) -> Any:
        return webhook_app(kernel, api=True, max_body_bytes=2_000_000)

    @pytest.fixture
    def token(self, kernel: Kernel, app: Any) -> Callable[..., Any]:
        def make(*scopes: str, text: str = "", all_tenants: bool = False, **options: Any) -> Any:
            assert text or all_tenants or options
            if not text:
                _, text = kernel.tokens.new("test", scopes=scopes, **options)
            return AsgiClient(app, text)

        return make

    @pytest.fixture
    def stranger(self, app: Any) -> AsgiClient:
        return AsgiClient(app)

    def test_a_users_token_opens_nothing(self, kernel: Kernel, app: Any) -> None:
        """Only the project that has the users knows what this one may do now."""
        _, text = kernel.tokens.new("ada", scopes=["*"], user_id="7")
        assert AsgiClient(app, text).get("/api/outbox").status_code == 401

    @pytest.mark.parametrize("role", ROLES)
    def test_a_role_opens_what_it_gives(self, kernel: Kernel, app: Any, role: str) -> None:
        """Each route, by the scopes that the role has; for a tenant no operator's route."""
        clients = {
            tenant: AsgiClient(app, kernel.tokens.new("x", roles=[role], tenant_id=tenant)[1])
            for tenant in (None, "acme")
        }
        for (tenant, client), route in itertools.product(clients.items(), ROUTES):
            path = "/api/" + "/".join("x" if part[0] == "{" else part for part in route.parts)
            ask = client.get if route.method == "GET" else client.post
            may = scope_allowed(route.scope, scopes_of([role]))
            closed = not may or (route.operator and tenant is not None)
            assert (ask(path).status_code == 403) is closed, (route.name, tenant)

    def test_without_the_option_there_is_no_api(self, kernel: Kernel) -> None:
        _, text = kernel.tokens.new("ci", roles=["admin"])
        assert AsgiClient(webhook_app(kernel), text).get("/api/outbox").status_code == 404

    def test_a_long_body_and_a_long_query(self, acme: Any) -> None:
        long = acme.post("/api/events", b"x" * 2_000_001, content_type="application/json")
        assert (long.status_code, long.json()["code"]) == (413, "PAYLOAD_TOO_LARGE")
        assert acme.get("/api/outbox?kind=" + "x" * 30_000).status_code == 400
        assert acme.get("/api/outbox?" + "&".join(f"a{n}=" for n in range(200))).status_code == 400

    def test_too_many_calls_are_told_to_come_again(self, kernel: Kernel) -> None:
        """A call that takes its time holds no list up; one too many waits in no line."""
        going, go_on = threading.Semaphore(0), threading.Event()

        @kernel.action("slow.call")
        def slow() -> str:
            going.release()
            go_on.wait(20)
            return "done"

        _, text = kernel.tokens.new("ci", roles=["admin"])
        operations = ExposedOperations(kernel, ["slow.call"])
        client = AsgiClient(webhook_app(kernel, api=True, operations=operations), text)

        def call(_: int = 0) -> int:
            return client.post("/api/operations/slow.call", {}, format="json").status_code

        with ThreadPoolExecutor(16) as pool:
            calls = [pool.submit(call) for _ in range(16)]
            try:
                assert all(going.acquire(timeout=20) for _ in calls)
                assert call() == 503
                assert client.get("/api/executions").status_code == 200
            finally:
                go_on.set()
            assert {each.result() for each in calls} == {200}
