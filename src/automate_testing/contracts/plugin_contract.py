"""The tests that `ProviderContract` and `ConnectorContract` share."""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NoReturn

import pytest

from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes, type_name
from automate_kernel.operations.plugin import Plugin, create
from automate_kernel.operations.schemas.checks import is_model
from automate_kernel.operations.spec import OperationSpec
from automate_kernel.plugins.declarations import options_problems
from automate_kernel.plugins.kinds import Kind, kind_of_class
from automate_testing.contracts.blocking_calls import run_watched
from automate_testing.contracts.connection_tests import require_refusal, unreachable_configs
from automate_testing.contracts.packages import require_example, require_no_drift
from automate_testing.contracts.promised_types import broken_promise, contradiction

_SHORTEST_SECRET = 4


def finished(result: Any) -> Any:
    """Return *result*, awaited if it can be."""
    if not inspect.isawaitable(result):
        return result

    async def wait() -> Any:
        return await result

    return asyncio.run(wait())


def require_unique(names: list[str]) -> None:
    """Fail for a name that is there twice."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    assert not twice, f"these names are there twice: {', '.join(twice)}"


def require_json(value: Any) -> None:
    """Fail unless *value* is a JSON value."""
    json.dumps(value, allow_nan=False)


def require_json_schema(schema: Any) -> None:
    """Fail unless *schema* is a JSON Schema; a full check needs the extra ``jsonschema``."""
    assert isinstance(schema, Mapping)
    json.dumps(schema)
    try:
        import jsonschema
    except ImportError:
        return
    jsonschema.validators.validator_for(
        schema, default=jsonschema.Draft202012Validator
    ).check_schema(schema)


def require_defaults(spec: OperationSpec) -> None:
    """Fail for a default that its field doesn't take; needs the extra ``jsonschema``."""
    try:
        from jsonschema import Draft202012Validator
    except ImportError:
        return
    schema = spec.json_schema()
    for name, field in schema.get("properties", {}).items():
        if isinstance(field, Mapping) and "default" in field:
            whole = {"$defs": schema.get("$defs", {}), **field}
            if not Draft202012Validator(whole).is_valid(field["default"]):
                remedy = "None is one of a field with | None" if field["default"] is None else ""
                pytest.fail(
                    f"{spec.name!r}: the default of the field {name!r} is no value of it"
                    + (f" ({remedy})" if remedy else ""),
                    pytrace=False,
                )


def fail_for_fixture(name: str, test: str, otherwise: str = "") -> NoReturn:
    """Fail, and say where the fixture *name* of the class *test* belongs."""
    pytest.fail(
        f"{otherwise}override the fixture `{name}` in class {test}"
        f" (it takes precedence over a fixture `{name}` outside of the class)",
        pytrace=False,
    )


class AnySecret:
    """A reader of secrets in which every key has the same made-up value, good for each scheme."""

    value: ClassVar[str] = "whsec_" + base64.b64encode(b"a-made-up-secret-for-tests").decode()

    def get(self, key: str) -> str:
        """Return the value."""
        return self.value

    async def aget(self, key: str) -> str:
        """Return the value."""
        return self.value


def specs_of(plugin: Plugin) -> list[OperationSpec]:
    """Return the operations of the plugin's class, and those that follow from its config."""
    own: Mapping[str, OperationSpec] = finished(plugin.own_operations())
    assert all(name == spec.name for name, spec in own.items())
    return [*plugin.operation_specs(), *own.values()]


class PluginContract:
    """The tests that providers and connectors share. Subclass one of their contracts instead."""

    kind: ClassVar[Kind]
    _spec_class: ClassVar[type[OperationSpec]]
    example_inputs: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    plugin_class: ClassVar[type[Plugin] | None] = None
    """The class under test. Its instance is made with *config*, and any secret that it reads."""

    config: ClassVar[Mapping[str, Any]] = {}

    def _make(self) -> Any:
        """Return an instance of *plugin_class*."""
        cls, test = self.plugin_class, type(self).__name__
        if cls is None:
            fail_for_fixture(self.kind.name, test, "say plugin_class = …, or ")
        if not isinstance(cls, type):
            pytest.fail(f"plugin_class of {test} is {type_name(cls)}, and no class", pytrace=False)
        kind = kind_of_class(cls)
        if kind is not self.kind:
            pytest.fail(
                f"{cls.__name__} is a {kind}, and {test} has the contract of a {self.kind}",
                pytrace=False,
            )
        failure = None
        try:
            return create(cls, self.config, cls.context_class(key=cls.key, secrets=AnySecret()))
        except ConfigError as error:
            failure = str(error)
        try:
            cls.parse_config(self.config)
        except ConfigError:
            failure += f"; say config = {{…}} in class {test}"
        pytest.fail(failure, pytrace=False)  # outside of `except`, or pytest says it twice

    @pytest.fixture
    def plugin(self, request: pytest.FixtureRequest) -> Plugin:
        """Return the fixture `connector` or `provider`, for the tests that both have."""
        plugin: Plugin = request.getfixturevalue(self.kind.name)
        return plugin

    def _execute(self, plugin: Any, name: str) -> Any:
        """Call what the plugin's author may have overridden, with an empty input."""
        raise NotImplementedError

    def test_operations_have_unique_names_and_valid_schemas(self, plugin: Plugin) -> None:
        """Each action or capability has its own name, and schemas that are JSON Schema."""
        specs = specs_of(plugin)
        assert all(isinstance(spec, self._spec_class) for spec in specs)
        require_unique([spec.name for spec in specs])
        for spec in specs:
            require_json_schema(spec.json_schema())
            require_defaults(spec)
            if (output := spec.output_json_schema()) is not None:
                require_json_schema(output)

    def test_an_unknown_operation_is_an_invalid_argument(self, plugin: Plugin) -> None:
        """An action or capability that does not exist is refused, and not tried again."""
        with pytest.raises(AutomateError) as caught:
            finished(self._execute(plugin, "no_such_thing"))
        assert caught.value.code is ErrorCodes.INVALID_ARGUMENT
        assert not caught.value.retryable

    def test_input_that_is_no_object_is_refused(self, plugin: Plugin) -> None:
        """Nothing is called with something that is not an object."""
        for spec in specs_of(plugin):
            with pytest.raises(AutomateError) as caught:
                finished(plugin.call_operation(spec.name, ["no", "object"]))  # type: ignore[arg-type]
            assert caught.value.code is ErrorCodes.INVALID_ARGUMENT

    blocking_seconds: ClassVar[float] = 0.1
    """The longest that an ``async def`` operation may hold the event loop in a test."""

    bad_configs: ClassVar[Sequence[Mapping[str, Any]]] = ()
    """Configs with which `check` must raise: a wrong address, a token that isn't valid."""

    check_seconds: ClassVar[float] = 10.0
    """The time that `check` has to find out."""

    def test_examples_give_json(self, plugin: Plugin) -> None:
        """The output for each example is JSON of the promised type; no call blocks the loop."""
        specs = {spec.name: spec for spec in specs_of(plugin)}
        for name, example in self.example_inputs.items():
            if name not in specs:
                known = ", ".join(sorted(specs)) or "none"
                text = f"example_inputs has {name!r}, and the operations are: {known}"
                pytest.fail(text, pytrace=False)
            result = plugin.call_operation(name, example)
            blocking: list[str] = []
            if inspect.isawaitable(result):
                result, blocking = run_watched(result, seconds=self.blocking_seconds)
            require_json(result)
            broken = broken_promise(specs[name], result)
            if broken is not None:
                pytest.fail(broken, pytrace=False)
            if blocking:
                pytest.fail(f"{name!r}: " + "; ".join(blocking), pytrace=False)

    def test_annotations_agree_with_output_schemas(self, plugin: Plugin) -> None:
        """An operation isn't annotated with another model than its output schema."""
        found = [contradiction(spec) for spec in specs_of(plugin)]
        assert not list(filter(None, found))

    def test_options_are_those_of_fields(self, plugin: Plugin) -> None:
        """A method that gives options names a field, and takes the values of fields alone."""
        found = options_problems(type(plugin), specs_of(plugin))
        assert not [f"{text} ({hint})" for text, hint in found]

    def test_its_connection_test_refuses_a_bad_config(self, plugin: Plugin) -> None:
        """With an address where nothing answers, and with *bad_configs*, `check` raises in time."""
        if type(plugin).check is Plugin.check:
            assert not self.bad_configs, "bad_configs needs a check() that tries the config"
            return
        for config in (*self.bad_configs, *unreachable_configs(getattr(plugin, "config", None))):
            require_refusal(plugin, config, seconds=self.check_seconds)

    def test_it_has_a_key_and_a_name(self, plugin: Plugin) -> None:
        """The key can be written in a workflow, and there is a name for people."""
        assert isinstance(plugin.key, str)
        assert self.kind.takes_key(plugin.key), "lower-case letters, digits, _ and -"
        assert isinstance(plugin.display_name, str)
        assert plugin.display_name.strip()

    def test_its_config_has_a_schema(self, plugin: Plugin) -> None:
        """The configuration is described by a pydantic model, or by a JSON Schema."""
        schema: Any = plugin.config_schema()
        assert is_model(schema) or isinstance(schema, Mapping)
        require_json_schema(plugin.config_json_schema())

    def test_its_repr_shows_no_config(self, plugin: Plugin) -> None:
        """No value of the configuration is in the repr, since it may be a secret."""
        shown = repr(plugin) + str(plugin)
        for value in _texts(getattr(plugin, "config", None)):
            assert value in (plugin.key, plugin.display_name) or value not in shown

    @pytest.mark.parametrize(
        "error", [ValueError("x"), TimeoutError(), ConnectionError("refused"), KeyError("k")]
    )
    def test_it_normalizes_any_error(self, plugin: Plugin, error: Exception) -> None:
        """Any exception becomes one to report; it is returned, and not raised."""
        assert isinstance(plugin.normalize_error(error), Exception)

    def test_it_leaves_automate_errors_their_code(self, plugin: Plugin) -> None:
        """An error with a code keeps it, or becomes another error with a code."""
        normal = plugin.normalize_error(AutomateError("NOT_FOUND", "gone"))
        assert isinstance(normal, AutomateError)

    def test_its_manifest_says_the_same(self, plugin: Plugin) -> None:
        """If the package has an ``automate.json``, it agrees with the code."""
        require_no_drift(type(plugin))

    def test_its_example_runs(self, plugin: Plugin) -> None:
        """An ``example.yaml`` in the package runs to its end."""
        require_example(type(plugin))

    def test_it_can_be_closed_twice(self, plugin: Plugin) -> None:
        """Closing again does no harm."""
        finished(plugin.close())
        finished(plugin.close())


def _texts(value: Any) -> Iterator[str]:
    if hasattr(value, "model_dump"):
        value = value.model_dump()
    if hasattr(value, "get_secret_value"):
        value = value.get_secret_value()
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, str) and len(value) >= _SHORTEST_SECRET:
        yield value
    elif isinstance(value, (list, tuple, set)):
        for inner in value:
            yield from _texts(inner)
