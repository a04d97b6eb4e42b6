"""Services that misbehave, and plugins that are not ready for them."""

from __future__ import annotations

import threading
import tracemalloc
from typing import Any, ClassVar

import httpx
import pytest
from automate_http import BearerAuth, HttpConnector, QueryAuth, ServiceClient
from automate_kernel import Connector, action
from automate_testing import HostileAnswersContract
from automate_testing.contracts.hostile_service import HostileService, hostile_service
from pydantic import BaseModel


class User(BaseModel):
    id: int
    name: str


class CrmConfig(BaseModel):
    base_url: str
    timeout_seconds: float = 30
    allow_private_networks: list[str] = []


class Crm(Connector):
    """A plugin as an author writes it, with the client."""

    key = "crm"
    display_name = "CRM"
    auth: ClassVar[Any] = BearerAuth("CRM_TOKEN")

    @classmethod
    def config_schema(cls) -> type[BaseModel]:
        return CrmConfig

    def __init__(self, config: Any = None, *, ctx: Any = None) -> None:
        super().__init__(config, ctx=ctx)
        self.client = ServiceClient(ctx=self.ctx, auth=self.auth, **self.config)

    @action
    async def get_user(self, id: int) -> User:
        return await self.client.aget("/users/{id}", id=id, returns=User)

    @action
    def find_user(self, id: int) -> User:
        return self.client.post("/users", json={"id": id}, returns=User)

    def close(self) -> None:
        self.client.close()


class CrmWithKey(Crm):
    auth = QueryAuth("key", "CRM_KEY")


class TestCrmAgainstHostileAnswers(HostileAnswersContract):
    plugin, operation, example_input = Crm, "get_user", {"id": 7}
    answer = {"id": 7, "name": "Ada"}

    def config(self, url: str) -> dict[str, Any]:
        return {
            "base_url": url,
            "allow_private_networks": ["127.0.0.1"],
            "timeout_seconds": self.timeout_seconds,
        }


class TestPlainFunctionAgainstHostileAnswers(TestCrmAgainstHostileAnswers):
    operation = "find_user"


class TestKeyInQueryAgainstHostileAnswers(TestCrmAgainstHostileAnswers):
    plugin = CrmWithKey


class TestHttpConnectorAgainstHostileAnswers(HostileAnswersContract):
    plugin, operation, example_input = HttpConnector, "get", {"url": "users/7"}
    reads_json = False

    def config(self, url: str) -> dict[str, Any]:
        return {
            "base_url": url,
            "headers": {"Authorization": "Bearer $secret:T"},
            "allow_private_networks": ["127.0.0.1"],
            "timeout_seconds": self.timeout_seconds,
        }


class Careless(Connector):
    """A plugin as it is often written."""

    key = "careless"
    display_name = "Careless"

    @action
    def get_user(self, id: int) -> Any:
        with httpx.Client(follow_redirects=True, timeout=30) as client:
            token = self.ctx.secrets.get("TOKEN")
            response = client.get(f"{self.config['base_url']}/users/{id}?token={token}")
            response.raise_for_status()
            return response.json()


class CarelessSuite(HostileAnswersContract):
    plugin, operation, example_input = Careless, "get_user", {"id": 7}
    most_seconds = 3.0

    def config(self, url: str) -> dict[str, Any]:
        return {"base_url": url}


@pytest.fixture
def service() -> Any:
    with hostile_service(lambda method, path: {}) as found:
        yield found
    # What a careless plugin still reads is no later test's memory.
    for thread in threading.enumerate():
        if thread.name == "automate-hostile-answers":
            thread.join(20)
            assert not thread.is_alive()


@pytest.mark.parametrize(
    ("manner", "problem"),
    [("right", "secret is shown"), ("dripping", "was not done"), ("huge", "MiB|was not done")],
)
def test_a_careless_plugin_fails(
    service: HostileService, caplog: Any, manner: str, problem: str
) -> None:
    """The suite finds it, and says what is wrong."""
    service.manner = manner
    suite = CarelessSuite()
    if manner == "right":
        suite.most_seconds = 30.0  # its time is none of what is wrong with it
    with pytest.raises(AssertionError, match=problem):
        suite._outcome(caplog, service.url)
    assert not tracemalloc.is_tracing(), "later tests would measure this one's memory"


def test_a_redirect_that_a_careless_plugin_follows_is_found(
    service: HostileService, caplog: Any
) -> None:
    suite = CarelessSuite()
    suite.most_seconds = 30.0  # its time is none of what is wrong with it
    with pytest.raises(AssertionError):
        suite.test_a_redirect_leads_to_no_private_address(service, caplog)
    assert service.reached
