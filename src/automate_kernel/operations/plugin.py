"""The common base of providers and connectors: key, config, context, operations, errors."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from automate_kernel.base.errors import (
    AutomateError,
    ConfigError,
    ErrorCodes,
    PluginError,
    did_you_mean,
    type_name,
)
from automate_kernel.operations.context import NoSecrets, PluginContext
from automate_kernel.operations.error_mapping import normalize, normalizing
from automate_kernel.operations.plugin_config import PluginConfig
from automate_kernel.operations.schemas.checks import (
    FieldProblem,
    Schema,
    compile_schema,
    invalid,
    is_model,
    json_schema_of,
    open_model,
    validation_problems,
)
from automate_kernel.operations.schemas.unknown_fields import (
    config_schema_of,
    ignored_fields,
)
from automate_kernel.operations.spec import OperationSpec, operation_mark
from automate_kernel.secrets.tracebacks import log_error, mark

if TYPE_CHECKING:
    from pydantic import BaseModel

    from automate_kernel.operations.account import Account

__all__ = ["Plugin", "complete_config", "construct", "create"]

P = TypeVar("P", bound="Plugin")
# A service may have a thousand operations, and an error's hint is for a line.
_MOST_NAMES = 40


class Plugin:
    """
    The common part of `BaseProvider` and `Connector`.

    A subclass that has an ``__init__`` of its own need not call this class's: nothing here relies
    on the attributes that it sets.
    """

    key: ClassVar[str] = ""
    """The name that workflows use: lower-case letters, digits, ``_`` and ``-``."""

    display_name: ClassVar[str] = ""
    """The name for people."""

    automate_requires: ClassVar[str] = ""
    """The versions of automate-kernel that the plugin works with, such as ``>=0.1,<2``."""

    context_class: ClassVar[type[PluginContext]] = PluginContext
    """The class of `ctx`."""

    _noun: ClassVar[str] = "plugin"
    _operation_noun: ClassVar[str] = "operation"
    _lister: ClassVar[str] = "operation_specs"
    _performer: ClassVar[str] = "call_operation"
    _operation_index: ClassVar[Mapping[str, OperationSpec]]

    config: Mapping[str, Any]
    ctx: PluginContext

    @classmethod
    def operation_specs(cls) -> Sequence[OperationSpec]:
        """Return the specs of a connector's actions or a provider's capabilities."""
        return []

    def own_operations(
        self,
    ) -> Mapping[str, OperationSpec] | Awaitable[Mapping[str, OperationSpec]]:
        """
        Return the operations that follow from the config, by name: by default none.

        Override it (``def``, ``async def``) where the class can't know them, since a server or a
        document lists them. They come beside those of `operation_specs`, whose names win. It is
        called before each call of such an operation and when somebody asks for schemas. It is never
        called at the start of a kernel: keep what was read. With ``async def`` their calls are
        asynchronous too.
        """
        return {}

    @classmethod
    def is_own_operation(cls, name: str) -> bool:
        """Return True if *name* may be one of `own_operations`: the class has no such operation."""
        return cls.own_operations is not Plugin.own_operations and name not in cls._index()

    @classmethod
    def find_operation(cls, name: str) -> OperationSpec:
        """Return the spec of *name*, or raise ``INVALID_ARGUMENT`` with all names."""
        return cls._found(name, cls._index(), cls._title())

    @classmethod
    def _index(cls) -> Mapping[str, OperationSpec]:
        # Kept per class, not inherited: a subclass has operations of its own.
        index: dict[str, OperationSpec] | None = cls.__dict__.get("_operation_index")
        if index is None:
            index = {}
            for spec in cls.operation_specs():
                if spec.name in index:
                    problem = f"{cls._title()} declares {spec.name!r} twice"
                    raise PluginError(problem, hint="rename one of them")
                index[spec.name] = spec
            cls._operation_index = index
        return index

    @classmethod
    def _found(cls, name: str, index: Mapping[str, OperationSpec], title: str) -> OperationSpec:
        found = index.get(name)
        if found is not None:
            return found
        names = sorted(index)
        known = ", ".join(names[:_MOST_NAMES]) or "none"
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        if cls._has_method(name):
            more += cls._remedy_of(name)
        elif not names and cls._has_method(cls._performer):
            more += f"; {cls._performer}() performs those that {cls._lister}() lists: write it too"
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT,
            f"{title} has no {cls._operation_noun} {name!r}",
            hint=did_you_mean(name, names, also=f"it has: {known}{more}"),
        )

    @classmethod
    def _remedy_of(cls, name: str) -> str:
        """Return what the method *name* needs to be an operation, or to be called by its name."""
        method = inspect.getattr_static(cls, name)
        if found := operation_mark(method):
            return f"; its method {name}() is called {found[1]['name']!r}"
        more = f"; its method {name}() needs @{cls._operation_noun}, right above its def"
        if isinstance(method, (classmethod, staticmethod, property)):
            more += f", with self and without @{type(method).__name__}"
        return more

    @classmethod
    def _has_method(cls, name: str) -> bool:
        """Return True for a method of the author's own, who may have forgotten its decorator."""
        home = next((each for each in cls.__mro__ if name in vars(each)), object)
        own = not name.startswith("_") and home.__module__.partition(".")[0] != "automate_kernel"
        return own and home is not object

    def find_own(self, name: str, own: Mapping[str, OperationSpec]) -> OperationSpec:
        """Return the spec *name* of `own_operations`, or raise ``INVALID_ARGUMENT``."""
        return self._found(name, own, f"{self._noun} {self._context().key!r}")

    def call_operation(self, name: str, input_data: Mapping[str, Any]) -> Any:
        """
        Return the output of the operation *name* as a JSON value, or an awaitable of it.

        Raises nothing but `AutomateError`: before the call for invalid input, and after it the
        error that `normalize_error` returns.
        """
        raise NotImplementedError

    @classmethod
    def config_schema(cls) -> type[BaseModel]:
        """Return the pydantic model of the configuration. By default anything is taken."""
        return open_model()

    @classmethod
    def config_json_schema(cls) -> dict[str, Any]:
        """
        Return the JSON Schema of the configuration, for forms and documentation.

        It is closed (``additionalProperties: false``) where a misspelt option is an error.
        """
        schema: Schema = cls.config_schema()
        if is_model(schema):
            return config_schema_of(schema)  # type: ignore[arg-type]
        return json_schema_of(schema)

    @classmethod
    def parse_config(cls, config: Mapping[str, Any] | None) -> Any:
        """
        Return the checked configuration: an instance of the model that `config_schema` names.

        Raises `ConfigError` that names each wrong field and shows no value. Unlike an action's
        input it is read leniently (``"8080"`` for a number), since it may come from the
        environment.
        """
        schema: Schema = cls.config_schema()
        data, problems = dict(config or {}), []
        if is_model(schema):
            from pydantic import ValidationError

            try:
                return schema.model_validate(data)  # type: ignore[union-attr]
            except ValidationError as error:
                problems = validation_problems(error, data, schema)  # type: ignore[arg-type]
        elif isinstance(schema, Mapping):
            problems = compile_schema(schema, cls.key)(data)
        if problems:
            raise invalid(f"the config of {cls._title()}", problems, ConfigError)
        return data

    def normalize_error(self, exc: Exception) -> Exception:
        """
        Return the `AutomateError` to report for *exc*. Its code decides about another attempt.

        By default time-outs, lost connections and HTTP statuses have codes of their own, and the
        rest is ``INTERNAL``. Override it for a service that says more.
        """
        return normalize(exc, what=self._title(), redact=self._context().redact)

    def check(self) -> Any:
        """
        Try the service; returns a few words on the result, or None if there is no test.

        Raises if it can't be used. May be ``async``. Ask for no more than the actions need, or a
        token that is good enough looks bad.
        """
        return None

    def oauth(self) -> Account | None:
        """Return the account to connect with ``automate connect``; by default there is none."""
        return None

    def close(self) -> Any:
        """Give back connections and the like. May be ``async``; may be called twice."""
        return None

    def __repr__(self) -> str:
        # Never the config: it may hold a password.
        return f"<{type(self).__name__} {self.key!r}>"

    def _call(
        self, name: str, input_data: Mapping[str, Any], execute: Callable[..., Any], *, raw: bool
    ) -> Any:
        """Check the input, and *execute* the operation with it, or with the *raw* input."""
        if not self.is_own_operation(name):
            return self._perform(self.find_operation(name), input_data, execute, raw=raw)
        with normalizing(self):
            own = self.own_operations()
            if inspect.isawaitable(own):
                return self._perform_own(name, own, input_data, execute, raw=raw)
            self.require_own(own)
            return self._perform(self.find_own(name, own), input_data, execute, raw=raw)

    async def _perform_own(
        self,
        name: str,
        own: Awaitable[Mapping[str, OperationSpec]],
        input_data: Mapping[str, Any],
        execute: Callable[..., Any],
        *,
        raw: bool,
    ) -> Any:
        with normalizing(self):
            found = await own
            self.require_own(found)
            spec = self.find_own(name, found)
            result = self._perform(spec, input_data, execute, raw=raw)
            return await result if inspect.isawaitable(result) else result

    def require_own(self, own: Any) -> None:
        """Raise `PluginError` unless *own* is what `own_operations` has to return."""
        if not isinstance(own, Mapping):
            raise PluginError(
                f"own_operations() of {self._title()} returned {type_name(own)}",
                hint="return the specs by name: {spec.name: spec}",
            )

    def _perform(
        self,
        spec: OperationSpec,
        input_data: Mapping[str, Any],
        execute: Callable[..., Any],
        *,
        raw: bool,
    ) -> Any:
        called = f"{self._context().key}.{spec.name}"
        spec.require_written(input_data, called)
        value = spec.validate(input_data, called=called)
        with normalizing(self):
            if raw or not self.is_own_operation(spec.name):
                result = execute(spec.name, dict(input_data) if raw else value)
            else:  # its function is not the class's
                result = spec.call(value)
        if inspect.isawaitable(result):
            return self._awaited(spec, result, called)
        # Not in the plugin's words: it may take what can't be written for a failure of its service.
        return spec.dump(result, called=called)

    async def _awaited(self, spec: OperationSpec, result: Awaitable[Any], called: str) -> Any:
        with normalizing(self):
            output = await result
        return spec.dump(output, called=called)

    @classmethod
    def _title(cls) -> str:
        return f"{cls._noun} {cls.key!r}"

    def _context(self) -> PluginContext:
        """Return `ctx`, or a context without secrets where a subclass did not set it."""
        ctx = getattr(self, "ctx", None)
        return ctx if isinstance(ctx, PluginContext) else PluginContext(key=self.key)


def create(cls: type[P], config: Mapping[str, Any] | None, ctx: PluginContext) -> P:
    """
    Return an instance of *cls* with *config* checked, and completed with its defaults.

    Not a method of `Plugin`: an action may well be called ``create``.
    """
    return construct(cls, complete_config(cls, config), ctx)


def complete_config(cls: type[Plugin], config: Mapping[str, Any] | None) -> dict[str, Any]:
    """
    Return *config* checked, and completed with the defaults of the plugin *cls*.

    An option that its model doesn't know is wrong, unless the model says ``extra="ignore"`` or
    ``extra="allow"``: pydantic's default would pass over a misspelt option.
    """
    parsed = cls.parse_config(config)
    if problems := [
        FieldProblem(field, message, unknown=True)
        for field, message in ignored_fields(parsed, config)
    ]:
        raise invalid(f"the config of {cls._title()}", problems, ConfigError)
    if parsed is None:
        raise PluginError(
            f"a validator of the config of {cls._title()} returned None",
            hint="let it end with return self",
        )
    complete: dict[str, Any]
    complete = parsed if isinstance(parsed, dict) else parsed.model_dump(by_alias=True)
    return complete


def construct(cls: type[P], complete: dict[str, Any], ctx: PluginContext) -> P:
    """
    Return an instance of *cls* with its *complete* config.

    An ``__init__`` that passes on to ours neither of them, or not both, costs none.
    """
    if inspect.iscoroutinefunction(inspect.getattr_static(cls, "__init__")):
        raise ConfigError(
            f"{cls._noun} {ctx.key!r} could not be created: its __init__ is an async def",
            hint="make it a def, and connect at the first call",
        )
    complete = PluginConfig.of(complete)
    try:
        made = cls(complete, ctx=ctx)  # type: ignore[call-arg]
    except ConfigError:
        raise
    except Exception as error:
        problem = _not_created(cls, ctx.key, error, ctx.redact)
        mark(problem, error, ctx.redact)
        text = ctx.redact(f"{type(error).__name__}: {error}")
        log_error(ctx.logger, logging.ERROR, "%s", text, trace=problem.trace)
        # Not in the message, and no cause for a traceback to show: it may quote the config.
        raise problem from None
    kept: Mapping[str, Any] = getattr(made, "__dict__", {})
    for name, value, is_default in (
        ("config", complete, kept.get("config") == {}),
        ("ctx", ctx, isinstance(getattr(kept.get("ctx"), "secrets", None), NoSecrets)),
    ):
        # Its __init__ has not called ours, or called it without.
        if is_default or not hasattr(made, name):
            with suppress(AttributeError):
                setattr(made, name, value)
    return made


def _not_created(
    cls: type[Plugin], key: str, error: Exception, redact: Callable[[str], str]
) -> ConfigError:
    what = f"{cls._noun} {key!r} could not be created"
    if isinstance(error, AutomateError):  # made for people, as other texts are not
        return ConfigError(
            f"{what}: {redact(error.message)}", hint=error.hint and redact(error.hint)
        )
    if isinstance(error, AttributeError) and error.name in ("config", "ctx"):
        return ConfigError(
            f"{what}: its __init__ reads self.{error.name}, which is not there yet",
            hint="let it begin with super().__init__(config, ctx=ctx)",
        )
    if isinstance(error, TypeError):
        signature = inspect.signature(cls)
        try:
            signature.bind({}, ctx=None)
        except TypeError:
            names = ", ".join(signature.parameters)
            return ConfigError(
                f"{what}: its __init__ takes ({names}), and is called with (config, ctx=…)",
                hint="write def __init__(self, config, *, ctx); what it needs, it reads of config",
            )
        for base in cls.__mro__[1:]:
            if str(error).startswith(f"{base.__qualname__}.__init__() "):  # Python's own words
                return ConfigError(
                    f"{what}: its __init__ calls that of {base.__name__} without what it takes",
                    hint="write super().__init__(config, ctx=ctx)",
                )
    return ConfigError(
        f"{what}: {type(error).__name__}",
        hint="the log says more; its config may name something that does not exist",
    )
