"""What providers and connectors have in common: a key, a config, a context, errors, an end."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from automate_kernel.errors import ConfigError
from automate_kernel.operations.context import PluginContext
from automate_kernel.operations.error_mapping import normalize, normalizing
from automate_kernel.operations.schemas import (
    Problem,
    Schema,
    compile_schema,
    is_model,
    json_schema_of,
    open_model,
    validation_problems,
)
from automate_kernel.operations.spec import OperationSpec
from automate_kernel.secrets.tracebacks import log_error, mark

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["Plugin", "create"]

P = TypeVar("P", bound="Plugin")


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

    _noun: ClassVar[str] = "plugin"

    config: Mapping[str, Any]
    ctx: PluginContext

    @classmethod
    def config_schema(cls) -> type[BaseModel]:
        """The pydantic model of the configuration. By default anything is taken."""
        return open_model()

    @classmethod
    def config_json_schema(cls) -> dict[str, Any]:
        """The JSON Schema of the configuration, for forms and documentation."""
        return json_schema_of(cls.config_schema())

    @classmethod
    def parse_config(cls, config: Mapping[str, Any] | None) -> Any:
        """
        The checked configuration: an instance of the model that `config_schema` names.

        Raises `ConfigError` that names each wrong field and shows no value. Unlike an action's
        input it is read leniently (``"8080"`` for a number), since it may come from the
        environment.
        """
        schema: Schema = cls.config_schema()
        data = dict(config or {})
        if not is_model(schema):
            if isinstance(schema, Mapping) and (found := compile_schema(schema, cls.key)(data)):
                raise cls._wrong_config(found)
            return data
        from pydantic import ValidationError

        try:
            return schema.model_validate(data)  # type: ignore[union-attr]
        except ValidationError as error:
            problems = validation_problems(error, data)
        raise cls._wrong_config(problems)

    def normalize_error(self, exc: Exception) -> Exception:
        """
        The `AutomateError` to report for *exc*, whose code says whether to try again.

        By default time-outs, lost connections and HTTP statuses are told apart, and the rest is
        ``INTERNAL``. Override it for a service that says more.
        """
        ctx = getattr(self, "ctx", None)
        redact = ctx.redact if isinstance(ctx, PluginContext) else str
        return normalize(exc, what=self._title(), redact=redact)

    def check(self) -> Any:
        """
        Ask the service whether it can be used: a few words on what was found, or None for no test.

        Raises if it can't be used. May be ``async``. Ask for no more than the actions need, or a
        token that is good enough looks bad.
        """
        return None

    def close(self) -> Any:
        """Give back connections and the like. May be ``async``; may be called twice."""
        return None

    def __repr__(self) -> str:
        # Never the config: it may hold a password.
        return f"<{type(self).__name__} {self.key!r}>"

    def _perform(self, spec: OperationSpec, execute: Callable[[], Any]) -> Any:
        """The JSON value that *execute* gives, or an awaitable of it, with errors normalised."""
        with normalizing(self):
            result = execute()
            if not inspect.isawaitable(result):
                return spec.dump(result)
        return self._awaited(spec, result)

    async def _awaited(self, spec: OperationSpec, result: Awaitable[Any]) -> Any:
        with normalizing(self):
            return spec.dump(await result)

    @classmethod
    def _title(cls) -> str:
        return f"{cls._noun} {cls.key!r}"

    @classmethod
    def _wrong_config(cls, problems: list[Problem]) -> ConfigError:
        return ConfigError(
            f"the config of {cls._title()} is not valid: " + "; ".join(map(str, problems)),
            details={"problems": [{"field": p.field, "message": p.message} for p in problems]},
        )


def create(cls: type[P], config: Mapping[str, Any] | None, ctx: PluginContext) -> P:
    """
    An instance of *cls* with *config* checked, and completed with its defaults.

    Not a method of `Plugin`: an action may well be called ``create``.
    """
    parsed = cls.parse_config(config)
    complete = parsed if isinstance(parsed, dict) else parsed.model_dump(by_alias=True)
    try:
        return cls(complete, ctx=ctx)  # type: ignore[call-arg]
    except ConfigError:
        raise
    except Exception as error:
        # Not in the message, and no cause for a traceback to show: it may quote the config.
        raise _not_created(cls, error, ctx) from None


def _not_created(cls: type[Plugin], error: Exception, ctx: PluginContext) -> ConfigError:
    problem = ConfigError(
        f"{cls._noun} {ctx.key!r} could not be created: {type(error).__name__}",
        hint="the log says more; its config may name something that does not exist",
    )
    mark(problem, error, ctx.redact)
    text = ctx.redact(f"{type(error).__name__}: {error}")
    log_error(ctx.logger, logging.ERROR, "%s", text, trace=problem.trace)
    return problem
