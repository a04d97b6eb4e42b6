"""Slips of authors of plugins: each message says what is wrong, and how to mend it."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, BinaryIO

import pytest
from automate_kernel import (
    AutomateError,
    BaseProvider,
    ConfigError,
    Connector,
    ErrorCodes,
    Kernel,
    PayloadError,
    PluginError,
    SecretError,
    SecretsBackend,
    action,
    capability,
)
from automate_kernel.plugins.connectors import (
    ActionSpec,
    ConnectorContext,
    PollResult,
    TriggerSpec,
    poll,
)
from automate_kernel.operations.exposure import check_tools
from automate_kernel.operations.plugin_config import PluginConfig
from automate_kernel.outbox import SkipLockedClaimOutboxStore
from automate_kernel.storage.values import encode_json
from automate_kernel.triggers.webhooks import HmacSignature
from pydantic import BaseModel, SecretStr, model_validator


class Settings(BaseModel):
    """A config."""


def test_a_method_without_its_decorator_is_named() -> None:
    """It is there, and the list of actions alone doesn't say why it isn't one."""

    class Forgetful(Connector):
        key = "forgetful"

        def greet(self, name: str) -> str:
            return name

        @staticmethod
        @action
        def wrong_way_round(name: str) -> str:
            return name

    class Quiet(BaseProvider):
        key = "quiet"

        def say(self) -> None: ...

        @capability
        def hush(self) -> None: ...

    kernel = Kernel(plugins=[Forgetful, Quiet], discover=False)
    for call, words in (
        ("forgetful.greet", "its method greet() needs @action, right above its def"),
        ("forgetful.wrong_way_round", "wrong_way_round() needs @action, right above its def"),
        ("quiet.say", "it has: hush; its method say() needs @capability"),
    ):
        with pytest.raises(AutomateError) as caught:
            kernel.invoke(call, {})
        assert words in str(caught.value.hint)
    for call in ("forgetful.check", "forgetful.gone", "forgetful.__init__", "forgetful.triggers"):
        with pytest.raises(AutomateError) as caught:
            kernel.invoke(call, {})
        assert "needs @" not in str(caught.value.hint)


@pytest.mark.parametrize("name", ["config_schema", "triggers", "polls"])
def test_a_class_method_without_its_decorator_is_named(name: str) -> None:
    """The call would fail for want of a self, deep in the kernel."""
    slip = type("Slip", (Connector,), {"key": "slip", name: lambda self: [TriggerSpec("x")]})
    with pytest.raises(PluginError, match=rf"{name}\(\) of .* must be a class method") as caught:
        Kernel(plugins=[slip], discover=False)
    assert caught.value.hint == f"write @classmethod above def {name}(cls)"

    class Right(Connector):
        key = "right"

        @classmethod
        def config_schema(cls) -> type[Settings]:
            return Settings

        @action
        def greet(self) -> str:
            return "hello"

    assert Kernel(plugins=[Right], discover=False).invoke("right.greet") == "hello"


def test_a_method_without_self_is_named() -> None:
    """Its first parameter would be the connector, and the input unknown."""

    def bare(name: str) -> str:
        return name

    def empty() -> None: ...

    def listed(names: list[str]) -> None: ...

    def modelled(settings: Settings) -> None: ...

    for function in (bare, empty, listed, modelled):
        with pytest.raises(PluginError, match="takes no self") as caught:
            _specs_with(function)
        assert caught.value.hint == "write self as its first parameter"

    def unusual(this: Any, name: str) -> str:
        return name

    _specs_with(unusual)


def _specs_with(function: Any) -> None:
    made = type("Made", (Connector,), {"key": "made", "act": action(function)})
    assert list(made.operation_specs())


def test_a_misspelt_tool_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The client would see one tool less, and nobody would know why."""
    kernel = Kernel(discover=False)
    kernel.action("shop.price")(lambda: 1)
    check_tools(kernel.operations, ["shop.price", "shop.*", "shop.prise"])
    (record,) = caplog.records
    assert "'shop.prise' is on the list of tools, and isn't there yet" in record.getMessage()
    assert "shop.price" in record.getMessage()


@pytest.mark.parametrize(
    ("code", "named"),
    [("the city is unknown", "NOT_FOUND"), ("UNAUTHENTICATE", "UNAUTHENTICATED")],
)
def test_a_message_in_the_place_of_a_code(code: str, named: str) -> None:
    """Enum's own words told of a class that the author had not used."""
    with pytest.raises(ValueError, match="is no code of an error, which comes first") as caught:
        AutomateError(code)
    assert f"AutomateError(ErrorCodes.{named}, " in str(caught.value)


def test_a_signed_time_without_its_pattern() -> None:
    with pytest.raises(ConfigError) as caught:
        HmacSignature("$secret:HOOK", header="X-Signature", timestamp_header="X-Timestamp")
    assert "signed='{timestamp}.{body}'" in str(caught.value)


class Loose(Connector):
    """A connector with a mistake in each action."""

    key = "loose"
    display_name = "Loose"

    def __init__(self, config: Any = None, *, ctx: Any = None) -> None:
        self.made = True

    @action
    def settings(self) -> Any:
        return [self.config["a"], self.ctx.key]

    @classmethod
    @action
    def of_the_class(cls) -> str:
        return "x"

    async def helper(self) -> int:
        return 1

    @action
    async def unawaited(self) -> dict[str, Any]:
        return {"x": self.helper()}

    @action
    def generated(self) -> Iterator[int]:
        yield 1

    @action
    async def agenerated(self) -> AsyncIterator[int]:
        yield 1


@pytest.fixture
def kernel() -> Kernel:
    return Kernel(plugins=[Loose], config={"loose": {"a": 1}}, discover=False)


def test_an_init_that_calls_no_other_costs_no_config(kernel: Kernel) -> None:
    assert kernel.invoke("loose.settings") == [1, "loose"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "of_the_class",
            "of_the_class() needs @action, right above its def, with self and without @classmethod",
        ),
        ("unawaited", "x is a coroutine, which nobody has awaited (await it)"),
        ("generated", "which can be read once (return a list of what it gives)"),
        ("agenerated", "which can be read once (return a list of what it gives)"),
    ],
)
def test_what_is_no_action_or_no_output(kernel: Kernel, name: str, says: str) -> None:
    with pytest.raises(AutomateError) as caught:
        kernel.invoke(f"loose.{name}")
    assert caught.value.code is ErrorCodes.INVALID_ARGUMENT
    assert says in str(caught.value)


def test_a_refused_coroutine_is_closed() -> None:
    """Python would warn of it later, at a place that has nothing to do with it."""

    async def helper() -> int:
        return 1

    made = [helper() for _ in range(3)]
    with pytest.raises(PayloadError, match=r"\[0\] is a coroutine, which nobody has awaited"):
        encode_json(made, "payload")
    assert [each.cr_frame for each in made] == [None] * 3
    shared: list[Any] = [helper()]
    for _ in range(60):
        shared = [shared, shared]
    with pytest.raises(PayloadError, match="nobody has awaited"):
        encode_json(shared, "payload")
    mixed = {"a": {1}, "b": helper()}
    with pytest.raises(PayloadError, match="a is a set"):
        encode_json(mixed, "payload")
    mixed["b"].close()  # type: ignore[union-attr]  # it may still be awaited


def test_an_init_that_reads_the_config_before_it_is_there() -> None:
    class Early(Connector):
        key = "early"
        display_name = "Early"

        def __init__(self, config: Any = None, *, ctx: Any = None) -> None:
            self.url = self.config["url"]

        @action
        def go(self) -> str:
            return str(self.url)

    with pytest.raises(ConfigError) as caught:
        Kernel(plugins=[Early], discover=False).invoke("early.go")
    assert "begin with super().__init__(config, ctx=ctx)" in str(caught.value)


def test_a_filter_that_is_registered_later_is_there(kernel: Kernel) -> None:
    """It was taken without a word, and no template found it."""

    @kernel.action("echo")
    def echo(text: str) -> str:
        return text

    def shout(text: str, times: int = 1) -> str:
        return text + "!" * times

    kernel.register(shout, "filter", key="shout")
    assert kernel.invoke("echo", {"text": "{{ 'a' | shout(2) }}"}) == "a!!"


def test_a_key_of_a_filter_is_told_by_its_own_rule(kernel: Kernel) -> None:
    with pytest.raises(AutomateError, match="use letters, digits and _, and no digit first"):
        kernel.register(str.upper, "filter", key="my-shout")


class Odd(Connector):
    """A connector that reads its config, and is given the wrong things."""

    key = "odd"
    display_name = "Odd"

    @classmethod
    def config_schema(cls) -> type[BaseModel]:
        return Place

    @action
    def attribute(self) -> Any:
        return self.config.url  # type: ignore[attr-defined]

    @action
    def misspelt(self) -> Any:
        return self.config["uri"]

    @action
    def context(self) -> Any:
        return self.ctx.secret  # type: ignore[attr-defined]

    @action
    def made(self) -> Place:
        return Place  # type: ignore[return-value]

    @action("renamed")
    def named(self, place: Place) -> set[int]:
        return {1}

    @action
    def bad(self) -> Any:
        return {1}

    @property
    @action
    def over(self) -> int:
        return 1


class Place(BaseModel):
    url: str = "https://x.example"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "attribute",
            "the config is a dict, and has no attribute 'url': write ['url'] in place of .url",
        ),
        ("misspelt", "the config has no option 'uri' (did you mean 'url'? it has: url)"),
        ("context", "has no attribute 'secret' (did you mean 'secrets'?)"),
        ("made", "the output of 'odd.made' can't be stored: it is the class Place (return what it"),
        ("bad", "the output of 'odd.bad' can't be stored: it is a set"),
        ("named", "its method named() is called 'renamed'"),
        ("over", "needs @action, right above its def, with self and without @property"),
    ],
)
def test_what_an_action_reads_or_gives(name: str, says: str) -> None:
    with pytest.raises(AutomateError) as caught:
        Kernel(plugins=[Odd], discover=False).invoke(f"odd.{name}")
    assert says in str(caught.value)
    with pytest.raises(AutomateError, match=r"input of 'odd\.renamed' is not valid: url: "):
        Kernel(plugins=[Odd], discover=False).invoke("odd.renamed", {"url": 1})


def test_the_config_is_a_dict_for_those_who_ask() -> None:
    config = PluginConfig(url="u", **{"dashed-name": 1})
    assert (config, config.get("x"), hasattr(config, "url")) == ({**config}, None, False)
    assert (
        copy.deepcopy(config)
        == pickle.loads(pickle.dumps(config))
        == json.loads(json.dumps(config))
    )
    with pytest.raises(KeyError, match="has no option 'x'"):
        config["x"]
    with pytest.raises(
        AttributeError, match=r"write \['uri'\] in place of \.uri \(did you mean 'url'"
    ):
        _ = config.uri


class Nested(BaseModel):
    place: Place = Place()
    places: list[Place] = [Place()]


class Unfinished(BaseModel):
    region: str = "eu"

    @model_validator(mode="after")
    def known(self) -> Any:
        """Forget to return."""


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (Nested, "has no attribute 'url': write ['url'] in place of .url"),
        (
            Unfinished,
            "a validator of the config of connector 'slip' returned None (let it end with",
        ),
        (None, "has a model with the type 'Nirvana', which is not defined"),
    ],
)
def test_a_config_with_an_odd_model(schema: Any, says: str) -> None:
    def go(self: Any) -> Any:
        return self.config["places"][0].url

    schema = schema or Unready
    members = {"config_schema": classmethod(lambda cls: schema), "go": action("go")(go)}
    slip = type("Slip", (Connector,), {"key": "slip", **members})
    with pytest.raises(AutomateError) as caught:
        Kernel(plugins=[slip], config={"slip": {}}, discover=False).invoke("slip.go")
    assert says in str(caught.value)


def test_a_decorator_of_the_other_kind_is_refused() -> None:
    """It was taken, or did nothing, in silence."""

    class Mixed(Connector):
        key = "mixed"

        @capability
        def say(self) -> int:
            return 1

    class Odder(BaseProvider):
        key = "odder"

        @action
        def say(self) -> int:
            return 1

    class Polled(BaseProvider):
        key = "polled"

        @poll("rows", every="1m")
        def rows(self, cursor: Any) -> PollResult:
            return PollResult([], cursor)

    for slip, words in (
        (Mixed, "write @action above its def, or derive the class from BaseProvider"),
        (Odder, "write @capability above its def, or derive the class from Connector"),
        (Polled, "derive the class from Connector"),
    ):
        with pytest.raises(PluginError) as caught:
            Kernel(plugins=[slip], discover=False)
        assert caught.value.hint == words
    with pytest.raises(PluginError, match=r"Mixed\.say\(\) is marked with @capability"):
        Mixed.actions()


@dataclass
class Plain:
    url: str = ""


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (classmethod(lambda cls: None), "returned None, and no model"),
        (classmethod(lambda cls: Plain), "returned the class Plain, and no model"),
        (classmethod(lambda cls: Place()), "returned a Place, and no model"),
        (Place, "is the class Place, and no class method"),
    ],
)
def test_a_config_schema_that_is_no_model(schema: Any, says: str) -> None:
    """No config was checked by it, and no default filled in."""
    slip = type("Slip", (Connector,), {"key": "slip", "config_schema": schema})
    with pytest.raises(PluginError) as caught:
        Kernel(plugins=[slip], discover=False)
    assert says in str(caught.value)
    assert "a subclass of pydantic.BaseModel" in str(caught.value.hint)


def test_a_decorator_in_the_wrong_order_or_with_a_name() -> None:
    with pytest.raises(TypeError, match="decorate a plain method"):
        action(property(lambda self: 1))  # type: ignore[type-var]
    with pytest.raises(TypeError, match=r'the name comes first and alone, as in @action\("send"\)'):
        action(name="x")  # type: ignore[call-arg]


class Unready(BaseModel):
    x: Nirvana  # type: ignore[name-defined]  # noqa: F821


def test_what_no_input_can_be_is_refused_before_the_call() -> None:
    def called(self: Any, x: Callable[[int], int]) -> None: ...

    def context(self: Any, ctx: ConnectorContext) -> None: ...

    def optional(self: Any, done: Callable[[], None] | None = None) -> None: ...

    def unready(self: Any, x: Unready) -> None: ...

    def untyped(self, x): ...  # type: ignore[no-untyped-def]

    def calling(self, call): ...  # type: ignore[no-untyped-def]

    def wrong(self: Any, x: "int | 'x' | 3") -> None: ...  # type: ignore[valid-type]  # noqa: UP037

    def filed(self: Any, name: str, file: BinaryIO) -> None: ...

    def walked(self: Any, name: str, rows: Iterator[int]) -> None: ...

    for function, says in (
        (filed, "the parameter 'file' of "),
        (filed, "(take bytes, which are base64 in JSON, or the path of a file)"),
        (walked, "the parameter 'rows' of "),
        (called, "takes a function as 'x', which is not made from JSON"),
        (optional, "takes a function as 'done'"),
        (context, "leave it out, and read self.ctx"),
        (unready, "has a model with the type 'Nirvana', which is not defined"),
        (untyped, "write x: str, or another type"),
        (calling, "write call: Call, and import Call from automate_kernel"),
        (wrong, "has an annotation that can't be resolved"),
    ):
        with pytest.raises(PluginError) as caught:
            _specs_with(function)
        assert says in str(caught.value)


def test_an_error_without_words_has_those_of_its_code() -> None:
    """They were the description of the class, for people who read its source."""
    assert str(AutomateError(ErrorCodes.NOT_FOUND)) == "not found"
    assert str(AutomateError()) == "internal"
    assert str(ConfigError()) == "The configuration is wrong."
    assert str(type("MyError", (AutomateError,), {})()) == "internal"


def test_a_normalize_error_that_returns_no_error() -> None:
    async def later(self: Any, exc: Exception) -> Exception:
        return exc

    def fails(self: Any) -> None:
        raise OSError("x")

    for method, says in (
        (lambda self, exc: None, "its normalize_error() returned None"),
        (later, "its normalize_error() returned a coroutine"),
        (lambda self, exc: 1 / 0, "its normalize_error() raised it, on OSError"),
    ):
        members = {"key": "slip", "go": action("go")(fails), "normalize_error": method}
        slip = type("Slip", (Connector,), members)
        with pytest.raises(AutomateError) as caught:
            Kernel(plugins=[slip], discover=False).invoke("slip.go")
        assert says in str(caught.value)


def test_actions_that_nobody_lists_or_performs() -> None:
    class Alone(Connector):
        key = "alone"

        def execute_action(self, action: str, input_data: dict[str, Any]) -> Any:
            return 1

    class Listed(Connector):
        key = "listed"

        @classmethod
        def actions(cls) -> list[ActionSpec]:
            return [ActionSpec("go")]

    with Kernel(plugins=[Alone, Listed], discover=False) as kernel:
        with pytest.raises(AutomateError, match=r"those that actions\(\) lists: write it too"):
            kernel.invoke("alone.go")
        with pytest.raises(AutomateError, match="or override execute_action"):
            kernel.invoke("listed.go")


def test_an_init_that_passes_nothing_on_costs_nothing() -> None:
    """Its action was called without the config, and without secrets."""

    class Bare(Connector):
        key = "bare"

        def __init__(self, config: Any = None, *, ctx: Any = None) -> None:
            super().__init__()

        @action
        def go(self) -> Any:
            return [self.config["a"], len(self.ctx.secrets.get("KEY"))]

    class BareProvider(BaseProvider):
        key = "bare"

        def __init__(self, config: Any, *, ctx: Any) -> None:
            super().__init__()  # type: ignore[call-arg]

        @capability
        def go(self) -> int:
            return 1

    class Later(Connector):
        key = "later"

        async def __init__(self, config: Any = None, *, ctx: Any = None) -> None: ...  # type: ignore[misc]

        @action
        def go(self) -> int:
            return 1

    secrets = {"KEY": "a-long-value"}
    kernel = Kernel(plugins=[Bare], config={"bare": {"a": 1}}, secrets=secrets, discover=False)
    assert kernel.invoke("bare.go") == [1, 12]
    with pytest.raises(ConfigError, match=r"write super\(\).__init__\(config, ctx=ctx\)"):
        Kernel(plugins=[BareProvider], discover=False).invoke("bare.go")
    with pytest.raises(ConfigError, match="its __init__ is an async def"):
        Kernel(plugins=[Later], discover=False).invoke("later.go")


def test_filters_that_are_called_with_the_wrong_arguments(kernel: Kernel) -> None:
    """The step failed with a bare TypeError, when it ran."""

    @kernel.action("echo")
    def echo(text: Any) -> Any:
        return text

    def clip(value: str, length: int, *, ending: str = "…") -> str:
        return value[:length] + ending

    kernel.register(clip, "filter", key="clip")
    kernel.register(lambda: 1, "filter", key="nothing")
    kernel.register(lambda value, *more, **names: [value, *more], "filter", key="anything")
    as_it_is = "(write it as | clip(length, *, ending='…'))"
    for text, says in (
        ("'a' | clip", f"filter 'clip': missing a required argument: 'length' {as_it_is}"),
        ("'a' | clip(1, '!')", f"filter 'clip': too many positional arguments {as_it_is}"),
        ("'a' | clip(1, end='!')", f"got an unexpected keyword argument 'end' {as_it_is}"),
        ("['a'] | map('clip') | list", f"missing a required argument: 'length' {as_it_is}"),
        ("1 | nothing", "the first parameter of its function is what is filtered"),
        ("clip('a', 1)", "'clip' is a filter, and no function (write what it filters before it"),
        ("upper('a')", "'upper' is a filter, and no function"),
        ("'a' | replace('b')", "(write it as | replace(old, new, count=None))"),
    ):
        steps = [{"id": "one", "action": "echo", "input": {"text": f"{{{{ {text} }}}}"}}]
        with pytest.raises(AutomateError) as caught:
            kernel.add_workflow({"name": "w", "trigger": {"type": "manual"}, "steps": steps})
        assert says in str(caught.value)
    for text, says in (
        ("5 | clip(1)", "filter 'clip' failed: TypeError (it was given: number, number)"),
        ("'a' | clip('x', ending=none)", "(it was given: text, text, ending: null)"),
        ("'a' | clip(*[])", f"missing a required argument: 'length' {as_it_is}"),
    ):
        with pytest.raises(AutomateError) as caught:
            kernel.invoke("echo", {"text": f"{{{{ {text} }}}}"})
        assert says in str(caught.value)
    for text, gives in (
        ("{{ 'abc' | clip(1, ending='!') }}", "a!"),
        ("{{ 'abc' | clip(*[2], **{'ending': '?'}) }}", "ab?"),
        ("{{ 1 | anything(2, three=3) }}", [1, 2]),
        ("{% macro clip(x) %}{{ x }}!{% endmacro %}{{ clip('a') }}", "a!"),
    ):
        assert kernel.invoke("echo", {"text": text}) == gives


class Drawer(SecretsBackend):
    """A secrets backend whose constructor needs a file."""

    def __init__(self, file: str, *, lease_seconds: float = 60) -> None:
        self.file = file

    def get_secret(self, key: str) -> str:
        return f"the-value-of-{key}"

    def aget_secret(self, key: str) -> str:  # type: ignore[override]
        return self.get_secret(key)


def test_options_of_a_secrets_backend_are_named() -> None:
    """Who names it in a file can't pass an instance."""
    path = f"{__name__}:Drawer"
    for given, says in (
        (path, f'write {{"backend": "{path}", "file": …}}; it takes: file, lease_seconds'),
        ({"backend": path, "fil": "x"}, f'did you mean \'file\'? write {{"backend": "{path}"'),
        ("writable_file", 'write {"backend": "writable_file", "directory": …}'),
        (Drawer, "pass an instance; it takes: file, lease_seconds"),
    ):
        with pytest.raises(ConfigError) as caught:
            Kernel(secrets=[given], discover=False)
        assert says in str(caught.value.hint)
    kernel = Kernel(secrets=[{"backend": path, "file": "x"}], discover=False)
    with pytest.raises(SecretError, match=r"aget_secret of .* is no async def \(write async def"):
        asyncio.run(kernel.secrets.aget("KEY"))


def test_a_class_in_the_place_of_an_outbox() -> None:
    with pytest.raises(
        ConfigError, match="an outbox can't be the class SkipLockedClaimOutboxStore"
    ):
        Kernel(outbox=SkipLockedClaimOutboxStore, discover=False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("method", "given", "written"),
    [
        (
            "verify_webhook",
            lambda self, trigger, headers, raw_body: True,
            "self, headers, raw_body",
        ),
        ("parse_webhook", lambda self, headers, raw_body: {}, "self, trigger, headers, raw_body"),
        ("normalize_error", lambda exc: exc, "self, exc"),
        ("close", lambda self, force: None, "self"),
        ("check", lambda self, *, url: "ok", "self"),
        ("execute_action", lambda self, **given: 1, "self, action, input_data"),
    ],
)
def test_a_method_with_other_parameters_is_named(method: str, given: Any, written: str) -> None:
    """Its call failed where nobody looks: each webhook was refused, with a line in the log."""
    slip = type("Slip", (Connector,), {"key": "slip", method: given})
    with pytest.raises(PluginError, match=rf"{method}\(\) of .* can't be called with") as caught:
        Kernel(plugins=[slip], discover=False)
    assert caught.value.hint == f"write def {method}({written})"
    fine = {method: lambda self, *arguments, **names: None, "close": lambda self, force=True: None}
    Kernel(plugins=[type("Fine", (Connector,), {"key": "fine", **fine})], discover=False)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"signature": HmacSignature}, 'write HmacSignature("$secret:KEY")'),
        ({"signature": "hmac"}, "its signature can't be a str (give a scheme, such as"),
        ({"payload_schema": "object"}, "its payload_schema can't be a str (give a pydantic model"),
        ({"payload_schema": Settings()}, "its payload_schema can't be a Settings"),
    ],
)
def test_what_a_trigger_can_not_use_is_told_as_it_is_made(
    options: dict[str, Any], says: str
) -> None:
    """Each request was refused as one that somebody had forged."""
    with pytest.raises(ConfigError) as caught:
        TriggerSpec("received", **options)
    assert says in str(caught.value)
    TriggerSpec(
        "received", payload_schema=Settings, signature=HmacSignature("$secret:A", header="X")
    )


def test_an_action_of_a_name_that_is_taken(kernel: Kernel) -> None:
    kernel.action("echo")(lambda: 1)
    with pytest.raises(AutomateError, match=r"there is an action 'echo' already \(give one of"):
        kernel.action("echo")(lambda: 2)


@pytest.mark.parametrize(
    ("gives", "says"),
    [
        ({1}, "it gives a set, which is not JSON (let the filter that made it return a list)"),
        (object(), "which is not JSON (let the filter that made it return text, numbers, lists or"),
        (b"x", "(use | b64encode)"),
    ],
)
def test_a_filter_that_gives_no_json(kernel: Kernel, gives: Any, says: str) -> None:
    kernel.register(lambda value: gives, "filter", key="odd")
    with pytest.raises(AutomateError) as caught:
        kernel.invoke("loose.settings", {"x": "{{ 1 | odd }}"})
    assert says in str(caught.value)


def test_an_async_filter_is_named_once(kernel: Kernel) -> None:
    async def later(value: Any) -> Any:
        return value

    kernel.register(later, "filter", key="later")
    with pytest.raises(AutomateError, match=r"input\.x: filter 'later' is async"):
        kernel.invoke("loose.settings", {"x": "{{ 1 | later }}"})


class Mixed(Connector):
    """A connector that mixes def and async def, and takes a SecretStr for its text."""

    key = "mixed"

    @classmethod
    def config_schema(cls) -> type[BaseModel]:
        return Guarded

    async def helper(self) -> list[int]:
        return [1]

    def plain(self) -> int:
        return 1

    @action
    async def added(self) -> Any:
        with closing(self.helper()) as found:
            return found + [1]  # type: ignore[operator]

    @action
    async def asked(self) -> Any:
        with closing(self.helper()) as found:
            return found.sort()  # type: ignore[attr-defined]

    @action
    async def awaited(self) -> Any:
        return await self.plain()  # type: ignore[misc]

    @action
    def joined(self) -> Any:
        return "Bearer " + self.config["token"]

    @action
    def encoded(self) -> Any:
        return self.config["token"].encode()


class Guarded(BaseModel):
    token: SecretStr = SecretStr("a-token-of-tests")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("added", "(a value is a coroutine: write await before the call that gives it)"),
        ("asked", "(a value is a coroutine: write await before the call that gives it)"),
        ("awaited", "(what it waits for is none: leave await out)"),
        ("joined", "(the text of a SecretStr is its .get_secret_value())"),
        ("encoded", "(the text of a SecretStr is its .get_secret_value())"),
    ],
)
def test_a_value_that_is_taken_for_another(name: str, says: str) -> None:
    with pytest.raises(AutomateError) as caught:
        Kernel(plugins=[Mixed], discover=False).invoke(f"mixed.{name}")
    assert says in str(caught.value)
