"""Every way in has the same rules, and says what is wrong before anything is written."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from automate_kernel import capability
from automate_kernel.http.app import webhook_app
from automate_kernel.plugins.connectors import action
from automate_kernel.base.errors import AutomateError, ConfigError, PayloadError
from automate_kernel.kernel import Kernel
from automate_testing.contracts.values import KEPT, REFUSED, each_value, is_json, nested, same
from automate_kernel.workflows.execution import ExecutionStatus

TOKEN = "an-events-token"
RUNNING = {
    "name": "w",
    "trigger": {"type": "event", "event": "e"},
    "steps": [{"id": "give", "action": "give"}],
    "output": "{{ steps.give.output }}",
}

WRONG: dict[str, dict[str, Any]] = {
    "no name": {"name": ""},
    "a blank name": {"name": " "},
    "a name that is no text": {"name": 1},
    "a long name": {"name": "n" * 5000},
    "spaces around the name": {"name": "order.created "},
    "a name in two lines": {"name": "order\ncreated"},
    "NUL in the name": {"name": "order\0"},
    "a negative delay": {"delay": -1},
    "an endless delay": {"delay": 1e300},
    "an empty key": {"idempotency_key": ""},
    "a blank key": {"idempotency_key": "  "},
    "a long key": {"idempotency_key": "k" * 256},
    "an empty tenant": {"tenant_id": ""},
    "a blank source": {"source": " "},
    "a long source": {"source": "s" * 201},
    "a high priority": {"priority": 10**9},
    "a priority that is true": {"priority": True},
}


def by_emit(kernel: Kernel, name: Any, options: dict[str, Any]) -> None:
    kernel.emit(name, **options)


def by_aemit(kernel: Kernel, name: Any, options: dict[str, Any]) -> None:
    asyncio.run(kernel.aemit(name, **options))


def by_http(kernel: Kernel, name: Any, options: dict[str, Any]) -> None:
    async def send() -> httpx.Response:
        app = webhook_app(kernel, events_token=TOKEN)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post(
                "/events",
                content=json.dumps({"name": name, **options}),
                headers={"Authorization": f"Bearer {TOKEN}"},
            )

    response = asyncio.run(send())
    if response.status_code == 400:
        raise PayloadError(response.json()["error"])
    assert response.status_code == 202


def by_command(kernel: Kernel, name: Any, options: dict[str, Any]) -> None:
    from automate_cli.commands.events import emit

    class Session:
        storing = kernel

    class Context:
        session = Session()

    given = {key.replace("tenant_id", "tenant"): value for key, value in options.items()}
    if "delay" in given:
        given["delay"] = str(given["delay"])
    parameters = list(inspect.signature(emit).parameters.values())[2:]
    defaults = {each.name: getattr(each.default, "default", None) for each in parameters}
    emit(Context(), name, **{**defaults, **given})  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("door", [by_emit, by_aemit, by_http, by_command])
def test_every_door_refuses_the_same(
    kernel: Kernel,
    door: Callable[..., None],
    wrong: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An event that one door refuses comes by no other, and leaves nothing behind."""
    monkeypatch.setattr("automate_cli.commands.events.require_shared", lambda kernel: None)
    options = {"name": "order.created", **WRONG[wrong]}
    with pytest.raises((PayloadError, ConfigError)) as caught:
        door(kernel, options.pop("name"), options)
    assert len(str(caught.value)) < 300
    assert kernel.outbox.find() == []


def test_a_blank_idempotency_header_is_refused(kernel: Kernel) -> None:
    """A client that sends an empty key means one, and would get no second event."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(webhook_app(kernel, events_token=TOKEN))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            headers = {"Authorization": f"Bearer {TOKEN}", "Idempotency-Key": ""}
            return await client.post("/events", content='{"name": "e"}', headers=headers)

    assert asyncio.run(send()).status_code == 400
    assert kernel.outbox.find() == []


@pytest.mark.parametrize("tenant_id", ["", " ", "t" * 201, 7])
def test_what_is_no_tenant_starts_and_calls_nothing(kernel: Kernel, tenant_id: Any) -> None:
    """A blank tenant is no tenant, and not everybody's."""
    kernel.add_workflow(RUNNING)
    kernel.action("give")(lambda: None)
    with pytest.raises(PayloadError):
        kernel.start("w", tenant_id=tenant_id)
    with pytest.raises(PayloadError):
        kernel.invoke("give", tenant_id=tenant_id)
    assert kernel.executions.find() == []


@pytest.mark.parametrize("key", ["", " ", 7])
def test_a_call_has_a_key_or_none(kernel: Kernel, key: Any) -> None:
    """A service would take calls with one blank key for one call."""
    kernel.action("give")(lambda: None)
    with pytest.raises(PayloadError):
        kernel.invoke("give", idempotency_key=key)
    with pytest.raises(PayloadError):
        asyncio.run(kernel.ainvoke("give", idempotency_key=key))


@pytest.mark.parametrize("name", KEPT)
def test_a_value_goes_all_the_way(kernel: Kernel, name: str) -> None:
    """As a payload into a workflow, as an output of a step and of the workflow: it stays itself."""
    value, seen = KEPT[name], []
    kernel.add_workflow(RUNNING)
    kernel.action("give")(lambda: value)
    kernel.handler("seen")(lambda item: seen.append(item.payload))
    kernel.emit("e", value)
    kernel.outbox.enqueue("seen", value)
    kernel.run_until_idle()
    (found,) = kernel.executions.find()
    execution = kernel.executions.get(found.id)
    assert execution.status is ExecutionStatus.COMPLETED, execution.error
    assert same(execution.event.payload, value)
    assert same(execution.step("give").output, value)
    assert same(execution.output, value)
    assert same(seen, [value])


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_json_goes_nowhere(kernel: Kernel, name: str) -> None:
    """Every way in refuses it by its place and reason; as an output it fails its step, once."""
    value, calls = REFUSED[name], []

    def give() -> Any:
        calls.append(1)
        return value

    kernel.add_workflow({**RUNNING, "steps": [{**RUNNING["steps"][0], "retry": {"attempts": 5}}]})
    kernel.action("give")(give)
    for enter in (
        lambda: kernel.emit("e", {"order": value}),
        lambda: asyncio.run(kernel.aemit("e", {"order": value})),
        lambda: kernel.start("w", {"order": value}),
        lambda: kernel.outbox.enqueue("k", {"order": value}),
    ):
        with pytest.raises(PayloadError, match="payload can't be stored: order") as caught:
            enter()
        assert caught.value.hint
    assert kernel.outbox.find() == []
    execution = kernel.run("w")
    assert (execution.status, len(calls)) == (ExecutionStatus.FAILED, 1)
    assert execution.error_code == "INVALID_ARGUMENT"
    assert "output of" in execution.error


def test_the_levels_that_count_are_the_callers(kernel: Kernel) -> None:
    """What the kernel puts around a payload takes nothing from what may be in it."""
    kernel.add_workflow(RUNNING)
    for enter in (kernel.emit, kernel.start, kernel.outbox.enqueue):
        enter("w", nested(100))
        with pytest.raises(PayloadError, match="deeper than 100 levels"):
            enter("w", nested(101))


def test_one_conversion(kernel: Kernel) -> None:
    """Subclasses and tuples become what JSON has; it is the same for payloads and outputs."""
    import enum
    from collections import OrderedDict
    from types import MappingProxyType

    class Size(str, enum.Enum):
        SMALL = "s"

    class Level(enum.IntEnum):
        LOW = 1

    class Price(float):
        pass

    given = {
        "size": Size.SMALL,
        Size.SMALL: Level.LOW,
        "price": Price(1.5),
        "pair": (1, (2,)),
        "ordered": OrderedDict(a=1),
        "view": MappingProxyType({"a": -0.0}),
    }
    kept = {"size": "s", "s": 1, "price": 1.5, "pair": [1, [2]], "ordered": {"a": 1},
            "view": {"a": -0.0}}  # fmt: skip
    kernel.action("give")(lambda: given)
    item_id = kernel.outbox.enqueue("k", given)
    assert same(kernel.outbox.get(item_id).payload, kept)
    assert same(kernel.invoke("give"), kept)


def test_outputs_are_json_or_refused(kernel: Kernel) -> None:
    """Whatever an action returns: what it gives is JSON of the same types, or an error."""
    given: list[Any] = [None]
    kernel.action("give")(lambda: given[0])

    def check(value: Any) -> None:
        given[0] = value
        try:
            output = kernel.invoke("give")
        except PayloadError:
            assert not is_json(value)
        except AutomateError as error:
            assert not is_json(value), error
        else:
            assert same(output, value) or not is_json(value)

    each_value(check)


# -- decorators -----------------------------------------------------------------------------------


def test_decorators_without_parentheses(kernel: Kernel) -> None:
    """Actions and filters are called as their functions are; of a handler the kind is asked."""

    @kernel.action
    def count(n: int) -> int:
        return n + 1

    @kernel.filter
    def doubled(text: str) -> str:
        return text * 2

    assert (count(1), doubled("x")) == (2, "xx")
    assert kernel.invoke("count", {"n": 1}) == 2
    assert kernel.filters.get("doubled") is doubled
    with pytest.raises(ConfigError, match="kind") as caught:

        @kernel.handler
        def mail(item: Any) -> None: ...

    assert '@kernel.handler("mail")' in str(caught.value)


@pytest.mark.parametrize("kind", ["", " ", 7, None])
def test_a_handler_has_a_kind(kernel: Kernel, kind: Any) -> None:
    """One that no item can have would never be called."""
    with pytest.raises(PayloadError, match="kind"):
        kernel.handler(kind)


def test_a_misspelt_option_is_told_of_the_function_that_was_called(kernel: Kernel) -> None:
    """The error names what the caller wrote, and not what it calls in its turn."""
    for wrong, name in (
        (lambda: kernel.action("a", idempotnt=True), "Kernel.action"),
        (lambda: kernel.handler("a", transactionl=True), "Kernel.handler"),
        (lambda: kernel.emit("a", idempotncy_key="k"), "Kernel.emit"),
        (lambda: asyncio.run(kernel.aemit("a", idempotncy_key="k")), "Kernel.aemit"),
        (lambda: kernel.start("a", tenant="t"), "Kernel.start"),
        (lambda: kernel.invoke("a", time_out=1), "Kernel.invoke"),
        (lambda: Kernel(plugin=[]), "Kernel.__init__"),
        (lambda: action(idempotnt=True), r"action\(\) has no option 'idempotnt': did you mean"),
        (lambda: capability("a", idempotnt=True), r"capability\(\) has no option"),
    ):
        with pytest.raises(TypeError, match=name):
            wrong()
