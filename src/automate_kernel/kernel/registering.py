"""What a host brings: plugins, actions, handlers, filters and workflows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from automate_kernel.errors import AutomateError, ErrorCodes
from automate_kernel.kernel.assembly import Assembly
from automate_kernel.operations import operation_from_function
from automate_kernel.outbox import Backoff, Limit
from automate_kernel.outbox.handlers import Handler
from automate_kernel.schemas import json_schema_of
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

    def action(self, name: str, *, idempotent: bool = False, **options: Any) -> Callable[[F], F]:
        """
        Make a function, ``def`` or ``async def``, an action that steps can call as *name*.

        Its typed parameters, or its one pydantic parameter, are the schema of its input.
        """

        def decorate(function: F) -> F:
            self._invoker.add(
                operation_from_function(function, name=name, idempotent=idempotent, **options)
            )
            return function

        return decorate

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

    def filter(self, name: str) -> Callable[[F], F]:
        """Make a function a template filter of this kernel alone; `register_filter` is for all."""

        def decorate(function: F) -> F:
            self.filters.register(name, function)
            return function

        return decorate

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
