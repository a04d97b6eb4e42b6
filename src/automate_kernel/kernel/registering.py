"""What a host brings: plugins, actions, handlers, filters and workflows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, overload

from automate_kernel.errors import AutomateError, ConfigError, ErrorCodes
from automate_kernel.kernel.assembly import Assembly
from automate_kernel.operations import operation_from_function
from automate_kernel.outbox import Backoff, Limit
from automate_kernel.outbox.handlers import Handler
from automate_kernel.outbox.payloads import check_text
from automate_kernel.schemas import Schema, json_schema_of
from automate_kernel.workflows.model import Workflow

__all__ = ["Registering"]

F = TypeVar("F", bound=Callable[..., Any])


class Registering(Assembly):
    """The part of `Kernel` that takes in what a host brings."""

    _handlers: dict[str, Handler]

    def register(self, plugin: Any, kind: str | None = None, *, key: str | None = None) -> None:
        """Add a plugin: a class or its dotted path; see `Plugins.register`."""
        self.plugins.register(plugin, kind, key=key)

    def plugin_problems(self) -> dict[tuple[str, str], AutomateError]:
        """
        What keeps connectors and providers from being used, by kind and key.

        Each is imported, made with its config and the secrets in it, and its actions,
        capabilities and triggers are read; no service is asked. Other plugins are imported; those
        that can't be are in `Plugins.records`.
        """
        found: dict[tuple[str, str], AutomateError] = {}
        self.plugins.load_all()
        for kind in ("connector", "provider"):
            for key in self.plugins.keys(kind):
                try:
                    _read_specs(self._invoker.instance(kind, key))
                except KeyboardInterrupt:
                    raise
                except BaseException as error:  # SystemExit too: a plugin must not end its host
                    found[kind, key] = self._invoker.clean_error(error, f"{kind} {key!r}")
        return found

    @overload
    def action(self, name: F) -> F: ...
    @overload
    def action(
        self,
        name: str | None = None,
        *,
        idempotent: bool = False,
        title: str = "",
        description: str | None = None,
        input_schema: Schema = None,
        output_schema: Schema = None,
    ) -> Callable[[F], F]: ...
    def action(
        self,
        name: Any = None,
        *,
        idempotent: bool = False,
        title: str = "",
        description: str | None = None,
        input_schema: Schema = None,
        output_schema: Schema = None,
    ) -> Any:
        """
        Make a function, ``def`` or ``async def``, an action that steps can call as *name*.

        Its typed parameters, or its one pydantic parameter, are the schema of its input. Without a
        *name*, as in ``@kernel.action`` alone, the action is called as the function is.
        """
        if not (name is None or isinstance(name, str) or callable(name)):
            raise TypeError(f"an action's name must be text, not {type(name).__name__}")

        def decorate(function: F) -> F:
            self._invoker.add(
                operation_from_function(
                    function,
                    name=name if isinstance(name, str) else None,
                    idempotent=idempotent,
                    title=title,
                    description=description,
                    input_schema=input_schema,
                    output_schema=output_schema,
                )
            )
            return function

        return decorate(name) if callable(name) else decorate

    def handler(
        self,
        kind: str,
        *,
        transactional: bool = False,
        inline: bool = False,
        backoff: Backoff | None = None,
        concurrency: int | None = None,
        rate: int | None = None,
        per_seconds: float = 1.0,
        burst: int | None = None,
    ) -> Callable[[F], F]:
        """
        Make a function the handler of outbox items of *kind*.

        It is called with the item; see `automate_kernel.outbox.handlers.Handler` for the options.
        At most *concurrency* of them run at once and *rate* start per *per_seconds*, *burst* at
        once after a lull, over all workers, unless an operator sets another limit; see
        `OutboxStore.limit`.
        """
        if callable(kind):
            raise ConfigError(
                "Kernel.handler() was not told which kind of items the function handles",
                hint=f'write @kernel.handler("{getattr(kind, "__name__", "kind")}")',
            )
        check_text(kind, "kind", hint='for example "mail.send"')
        limited = concurrency is not None or rate is not None
        limit = Limit(kind, concurrency, rate, per_seconds, burst) if limited else None

        def decorate(function: F) -> F:
            self._add_handler(
                Handler(kind, function, transactional, inline, backoff or Backoff(), limit)
            )
            return function

        return decorate

    @property
    def kinds(self) -> list[str]:
        """The kinds of outbox items that have a handler."""
        return sorted(self._handlers)

    def _add_handler(self, handler: Handler) -> None:
        if handler.kind in self._handlers:
            raise AutomateError(
                ErrorCodes.ALREADY_EXISTS, f"items of kind {handler.kind!r} have a handler already"
            )
        self._handlers[handler.kind] = handler

    @overload
    def filter(self, name: F) -> F: ...
    @overload
    def filter(self, name: str | None = None) -> Callable[[F], F]: ...
    def filter(self, name: Any = None) -> Any:
        """
        Make a function a template filter of this kernel alone; `register_filter` is for all.

        Without a *name*, as in ``@kernel.filter`` alone, it is called as the function is.
        """
        return self.filters.register(name)

    def add_workflow(self, workflow: Workflow | Mapping[str, Any] | str | Path) -> list[Workflow]:
        """
        Add a workflow, or those of a file or folder; returns them.

        Its templates are checked at once. Raises `WorkflowError` or `TemplateError`.
        """
        return self.workflows.add(workflow)


def _read_specs(plugin: Any) -> None:
    for what in ("actions", "capabilities"):
        for spec in getattr(plugin, what, list)():
            spec.json_schema()
    for trigger in getattr(plugin, "triggers", list)():
        json_schema_of(trigger.payload_schema)
