"""A slip in what a plugin's class declares is named as it is loaded, with what to write."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from automate_kernel import (
    ActionSpec,
    AutomateError,
    BaseProvider,
    Connector,
    ErrorCodes,
    Kernel,
    PluginError,
    SecretsBackend,
    TriggerSpec,
    action,
    capability,
    options,
)
from automate_kernel.base.errors import ConfigError
from automate_kernel.operations.spec import OperationSpec
from automate_kernel.secrets import SecretResolver


def _connector(**members: Any) -> type[Connector]:
    return type("Hub", (Connector,), {"key": "hub", "display_name": "Hub", **members})


def _kernel(plugin: type[Any]) -> Kernel:
    return Kernel(plugins=[plugin], secrets={}, discover=False)


@pytest.mark.parametrize("method", ["triggers", "actions", "polls"])
@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (TriggerSpec("push"), "a TriggerSpec, and no list"),
        (ActionSpec("push"), "an ActionSpec, and no list"),
        (["push"], "a list with a str in it"),
        ("push", "a str, and no list"),
        ({"push": TriggerSpec("push")}, "a dict, and no list"),
        (None, "None, and no list"),
    ],
)
def test_what_is_no_list_of_specs_is_named(method: str, returned: Any, words: str) -> None:
    """Where the specs were asked for, it was an error from deep inside."""
    plugin = _connector(**{method: classmethod(lambda cls: returned)})
    with pytest.raises(PluginError, match=rf"{method}\(\) of .*Hub returned {words}") as caught:
        _kernel(plugin)
    assert caught.value.hint.startswith("write return [")


def test_a_providers_capabilities_are_a_list_too() -> None:
    """They are what the actions of a connector are."""

    class Sums(BaseProvider):
        key = "sums"

        @classmethod
        def capabilities(cls) -> Any:
            return OperationSpec("add")

    with pytest.raises(PluginError, match="an OperationSpec, and no list"):
        _kernel(Sums)


def test_specs_may_come_one_by_one() -> None:
    """A generator gives them anew at each call."""
    plugin = _connector(triggers=classmethod(lambda cls: (each for each in [TriggerSpec("push")])))
    assert _kernel(plugin).connector("hub").find_trigger("push").name == "push"


def test_a_name_of_a_trigger_is_text() -> None:
    """It stands in the address of the webhook."""
    with pytest.raises(ConfigError, match="its name can't be an int"):
        TriggerSpec(5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="its name can't be empty"):
        TriggerSpec("")


class _Post:
    @action
    def post(self, channel: str) -> str:
        return channel


@pytest.mark.parametrize(
    ("field", "of", "words"),
    [
        ("chanel", (), "lists() names 'chanel', which is no field (did you mean 'channel'?"),
        ("channel", "psot", "lists() is for 'psot', which isn't there (did you mean 'post'?"),
    ],
)
def test_a_misspelt_field_of_options_is_named(field: str, of: Any, words: str) -> None:
    """Nobody would ever be offered these choices."""

    @options(field, of=of)
    def lists(self: Any) -> list[str]:
        return ["general"]

    plugin = _connector(post=_Post.post, lists=lists)
    with pytest.raises(PluginError) as caught:
        _kernel(plugin)
    assert words in str(caught.value)


def test_a_parameter_of_options_that_is_no_field_is_named() -> None:
    """It would have to be chosen first, and nobody could."""

    @options("channel")
    def lists(self: Any, worksapce: str) -> list[str]:
        return [worksapce]

    with pytest.raises(PluginError, match="names 'worksapce', which is no field"):
        _kernel(_connector(post=_Post.post, lists=lists))


def test_options_of_operations_that_follow_from_a_config_are_left_alone() -> None:
    """The class can't know their fields."""

    class Late(BaseProvider):
        key = "late"

        def own_operations(self) -> dict[str, OperationSpec]:
            return {}

        @options("table")
        def tables(self) -> list[str]:
            return ["orders"]

    assert _kernel(Late).provider("late")


@pytest.mark.parametrize("flag", ["idempotent", "read_only", "destructive", "transactional"])
def test_a_flag_is_true_or_false(flag: str) -> None:
    """Any text counts as true: "no" allowed what it forbids."""
    words = rf"{flag} .* is True or False, and can't be a str \(write {flag}=True or"
    for declare in (action, capability, Kernel(secrets={}, discover=False).action):
        with pytest.raises(PluginError, match=words):
            declare("send", **{flag: "no"})(lambda self: None)
    with pytest.raises(PluginError, match=words):
        ActionSpec("send", **{flag: "no"})


@pytest.mark.parametrize("name", [5, None, ["hub.post"], b"hub.post", _Post.post])
@pytest.mark.parametrize("ask", ["operation", "invoke", "preview", "options"])
def test_an_operation_is_called_by_its_name(ask: str, name: Any) -> None:
    """It was an error from deep inside."""
    given = {"operation": (), "invoke": ({},), "preview": ({},), "options": ("channel",)}
    kernel = _kernel(_connector(post=_Post.post))
    with pytest.raises(AutomateError, match="an operation is called by its name, not by") as caught:
        getattr(kernel, ask)(name, *given[ask])
    assert caught.value.code is ErrorCodes.INVALID_ARGUMENT


class _Init:
    def __init__(self, url: str) -> None:
        pass


class _Broken:
    def __init__(self, config: Any, *, ctx: Any) -> None:
        len(5)  # type: ignore[arg-type]


def test_an_init_that_takes_other_arguments_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """It was a TypeError alone, and its config seemed to be wrong."""
    plugin = _connector(__init__=_Init.__init__, post=_Post.post)
    with pytest.raises(ConfigError) as caught:
        _kernel(plugin).invoke("hub.post", {"channel": "c"})
    assert "its __init__ takes (url), and is called with (config, ctx=…)" in str(caught.value)
    assert "write def __init__(self, config, *, ctx)" in str(caught.value.hint)


def test_a_type_error_within_an_init_is_the_plugins_own(caplog: pytest.LogCaptureFixture) -> None:
    """The arguments are not to blame for it."""
    plugin = _connector(__init__=_Broken.__init__, post=_Post.post)
    with pytest.raises(ConfigError, match="could not be created: TypeError") as caught:
        _kernel(plugin).invoke("hub.post", {"channel": "c"})
    assert "__init__" not in str(caught.value)
    assert any(each.levelno == logging.ERROR for each in caplog.records)


class _Drawer(SecretsBackend):
    def get_secret(self, key: str) -> str:
        return f"the-value-of-{key}"


class _Vault(_Drawer):
    def __init__(self, url: str) -> None:
        pass


def test_a_backend_may_be_given_as_its_class() -> None:
    """As a plugin is: one that needs no arguments is made."""
    for given in (_Drawer, [_Drawer], _Drawer()):
        assert Kernel(secrets=given, discover=False).secrets.get("A") == "the-value-of-A"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (_Vault, "_Vault needs arguments: missing 1 required"),
        ([5], "a secrets backend can't be an int"),
        (Kernel, "a secrets backend can't be the class Kernel"),
    ],
)
def test_what_is_no_backend_is_named(given: Any, words: str) -> None:
    """The message says what may stand there."""
    with pytest.raises(ConfigError, match=words):
        Kernel(secrets=given, discover=False)


def test_a_resolver_takes_no_class() -> None:
    """It can't know the arguments."""
    with pytest.raises(ConfigError, match=r"pass an instance: _Drawer\(…\)"):
        SecretResolver(_Drawer)  # type: ignore[arg-type]


def test_a_trigger_that_is_there_twice_is_named() -> None:
    """The second was passed over, and its webhooks were proved by the first's secret."""
    twice = [TriggerSpec("push"), TriggerSpec("pull"), TriggerSpec("push")]
    plugin = _connector(triggers=classmethod(lambda cls: twice))
    with pytest.raises(PluginError, match="'push' twice .rename one of them"):
        Kernel(plugins=[plugin], discover=False)
