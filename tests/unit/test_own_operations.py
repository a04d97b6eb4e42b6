"""Operations that follow from a plugin's config: what its class can't know."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from automate_kernel import (
    BaseProvider,
    CapabilitySpec,
    Connector,
    Kernel,
    ProviderContext,
    action,
    capability,
    current_call,
)
from automate_kernel.plugins.connectors import ActionSpec
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.http.operations import ExposedOperations
from automate_kernel.monitoring.diagnosis import workflow_problems
from automate_kernel.operations.spec import OperationSpec, operation_from_function
from automate_testing.contracts.providers import ProviderContract
from defined import define

NUMBER = {
    "type": "object",
    "properties": {"value": {"type": "integer"}},
    "required": ["value"],
    "additionalProperties": False,
}


class Listed(BaseProvider):
    """Its config names the operations, and a service would be asked for them."""

    key = "listed"
    display_name = "Listed"
    asked = 0

    @capability
    def fixed(self) -> str:
        """Belong to the class."""
        return "fixed"

    async def own_operations(self) -> Mapping[str, OperationSpec]:
        type(self).asked += 1
        await asyncio.sleep(0)
        if self.config.get("down"):
            raise ConnectionError("refused")
        return {
            name: CapabilitySpec(name, NUMBER, read_only=True)
            for name in self.config.get("names", ())
        }

    async def execute_capability(self, name: str, input_data: dict[str, int]) -> object:
        if name == "fixed":
            return "fixed"
        return {self.find_own(name, await self.own_operations()).name: input_data["value"]}


class Documented(Connector):
    """Reads its operations from a document, each with the function that performs it."""

    key = "documented"
    display_name = "Documented"

    def own_operations(self) -> Mapping[str, OperationSpec]:
        def double(value: int) -> int:
            return 2 * value

        return {"double": operation_from_function(double), "ping": ActionSpec("ping")}

    @action
    def ping(self) -> str:
        """Win over the document's."""
        return "the class's"


@pytest.fixture
def kernel():
    Listed.asked = 0
    config = {"listed": {"names": ["first", "second"]}, "other": {"names": ["third"]}}
    with Kernel(plugins=[Listed, Documented], config=config, discover=False) as kernel:
        yield kernel


class TestListed(ProviderContract):
    """The contract counts them in."""

    example_inputs = {"first": {"value": 1}, "fixed": {}}

    @pytest.fixture
    def provider(self):
        return Listed({"names": ["first"]}, ctx=ProviderContext(key="listed"))


def test_they_are_called_like_any_other(kernel):
    """From plain code, from asynchronous code, and with a time limit."""
    assert kernel.invoke("listed.first", {"value": 3}) == {"first": 3}
    assert asyncio.run(kernel.ainvoke("listed.second", {"value": 4}, timeout=5)) == {"second": 4}
    assert kernel.invoke("listed.fixed") == "fixed"
    assert kernel.invoke("documented.double", {"value": 4}) == 8
    assert kernel.invoke("documented.ping") == "the class's"


def test_their_input_is_checked(kernel):
    """By the schema that the service gave."""
    with pytest.raises(AutomateError, match="'value' is required") as caught:
        kernel.invoke("listed.first", {})
    assert caught.value.code is ErrorCodes.INVALID_ARGUMENT


def test_an_unknown_one_is_told_with_the_names_that_there_are(kernel):
    """It is no fault of the service, and isn't tried again."""
    with pytest.raises(
        AutomateError, match=r"provider 'listed' has no capability 'frist'"
    ) as caught:
        kernel.invoke("listed.frist", {"value": 1})
    assert not caught.value.retryable
    assert "did you mean 'first'?" in str(caught.value)


def test_a_service_that_is_away_is_worth_another_attempt(kernel):
    """The failure to list them is normalized as that of a call."""
    kernel.operations.config["listed"]["down"] = True
    with pytest.raises(AutomateError) as caught:
        kernel.invoke("listed.first", {"value": 1})
    assert caught.value.code is ErrorCodes.UNAVAILABLE
    with pytest.raises(AutomateError) as caught:
        kernel.operation("listed.first")
    assert caught.value.code is ErrorCodes.UNAVAILABLE


def test_their_specs_are_asked_for_only_by_who_needs_them(kernel):
    """A kernel, a worker and a check of workflows start nobody's server."""
    define(kernel, {"id": "a", "action": "listed.first"})
    assert workflow_problems(kernel, kernel.workflows["w"]) == []
    assert kernel.operations.absence("listed.first") is None
    assert kernel.operations.is_async("listed.first")
    assert not kernel.operations.is_transactional("listed.first")
    assert kernel.operations.spec_at_hand("listed.first").json_schema() == {"type": "object"}
    assert kernel.operations.plugin_problems() == {}
    kernel.worker()
    assert Listed.asked == 0
    assert kernel.operation("listed.first").json_schema() == NUMBER
    assert kernel.operation("listed.first").read_only
    assert Listed.asked == 2


def test_all_of_a_plugin_are_listed_by_their_full_names(kernel):
    """Those of the class and those of the config."""
    matching = kernel.operations.matching
    assert list(matching("listed.*")) == ["listed.first", "listed.fixed", "listed.second"]
    assert list(matching("documented.d*")) == ["documented.double"]
    assert matching("documented.ping")["documented.ping"].binding is not None
    assert list(matching("listed.nothing")) == list(matching("nobody.*")) == []


def test_one_that_cant_list_them_is_left_out_of_a_list_of_all(kernel, caplog):
    """The others are there. Who names it is told."""
    kernel.operations.config["listed"]["down"] = True
    kernel.action("host.own")(lambda: None)
    names = ["documented.double", "documented.ping", "host.own"]
    assert list(kernel.operations.matching("*")) == names
    assert "'listed' are left out" in caplog.text
    with pytest.raises(AutomateError, match="refused"):
        kernel.operations.matching("listed.*")


def test_a_workflow_calls_one(kernel):
    """Its step is asynchronous, and has the checked output."""
    define(
        kernel,
        {"id": "a", "action": "listed.first", "input": {"value": 7}},
        output="{{ steps.a.output }}",
    )
    assert kernel.run("w").output == {"first": 7}


def test_a_fake_takes_the_place_of_one_without_its_service(kernel):
    """A test of a workflow needs no server."""
    with kernel.replace("listed.first", {"faked": True}):
        assert kernel.invoke("listed.first", {"value": 1}) == {"faked": True}
    assert Listed.asked == 0


def test_one_class_serves_several_keys(kernel):
    """Each with its own config: two servers, two documents."""
    kernel.register(Listed, key="other")
    kernel.register(f"third={__name__}:Listed")
    assert kernel.invoke("other.third", {"value": 1}) == {"third": 1}
    assert list(kernel.operations.matching("third.*")) == ["third.fixed"]
    with pytest.raises(AutomateError, match="provider 'other' has no capability 'first'"):
        kernel.invoke("other.first", {"value": 1})


class OfTenants(BaseProvider):
    """A service that shows each of its clients other operations."""

    key = "tenants"
    display_name = "Of tenants"

    async def own_operations(self) -> Mapping[str, OperationSpec]:
        call = current_call()
        whose = call.tenant_id if call is not None else None
        return {f"of_{whose}": CapabilitySpec(f"of_{whose}", NUMBER, read_only=True)}

    async def execute_capability(self, name: str, input_data: dict[str, int]) -> object:
        return self.find_own(name, await self.own_operations()).name


def test_a_tenants_are_asked_for_with_its_account():
    """Whoever asks for one tenant: to call, to check an input, to choose, over HTTP."""
    with Kernel(plugins=[OfTenants], discover=False) as kernel:
        name, given = "tenants.of_acme", {"value": 1}
        assert kernel.operation(name, tenant_id="acme").name == "of_acme"
        assert kernel.preview(name, given, tenant_id="acme") == given
        assert kernel.invoke(name, given, tenant_id="acme") == "of_acme"
        with pytest.raises(AutomateError, match="has no choices"):
            kernel.options(name, "value", tenant_id="acme")
        exposed = ExposedOperations(kernel, ["tenants.*"])
        assert exposed.call(name, given, tenant_id="acme") == "of_acme"
        for refused in (kernel.operation, kernel.preview, kernel.invoke):
            with pytest.raises(AutomateError, match="it has: of_None"):
                refused(name)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_own_operations_that_are_no_mapping_are_told(asynchronous: bool) -> None:
    """It looked like a defect of the kernel: a list has no attribute get."""

    async def later(self: Any) -> Any:
        return self.listed()

    class Listed(BaseProvider):
        key = "listed"
        display_name = "Listed"

        def listed(self) -> Any:
            return [CapabilitySpec("x")]

        own_operations = later if asynchronous else listed  # type: ignore[assignment]

    with Kernel(plugins=[Listed], discover=False) as kernel:
        for call in (kernel.invoke, kernel.operation):
            with pytest.raises(AutomateError, match="returned a list .return the specs by name"):
                call("listed.x")
