"""Actions and workflows that are written before there is a kernel."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, overload

if TYPE_CHECKING:
    from datetime import timedelta
    from pathlib import Path

    from typing_extensions import Unpack

    from automate_kernel.operations.spec import OperationOptions
    from automate_kernel.workflows.code.workflow import On
    from automate_kernel.workflows.definition.model import Workflow

__all__ = ["Automation"]

F = TypeVar("F", bound=Callable[..., Any])


class Automation:
    """
    Actions and workflows of a module, for kernels that are made later.

    Its decorators are those of `Kernel`; `Kernel.include` adds what they have collected.
    """

    def __init__(self) -> None:
        self.actions: list[tuple[Callable[..., Any], str | None, dict[str, Any]]] = []
        """The functions that are actions, with their names and options."""
        self.workflows: list[tuple[Callable[..., Any], dict[str, Any]]] = []
        """The functions that are workflows, with their options."""
        self.definitions: list[Workflow | Mapping[str, Any] | str | Path] = []
        """The other workflows, or the files and folders that have them."""

    @overload
    def action(self, name: F) -> F: ...
    @overload
    def action(
        self, name: str | None = None, **options: Unpack[OperationOptions]
    ) -> Callable[[F], F]: ...
    def action(self, name: Any = None, **options: Any) -> Any:
        """Make a function an action; see `Kernel.action`."""

        def decorate(function: F) -> F:
            self.actions = [each for each in self.actions if not _anew(each[0], function)]
            self.actions.append((function, None if callable(name) else name, options))
            return function

        return decorate(name) if callable(name) else decorate

    @overload
    def workflow(self, function: F) -> F: ...
    @overload
    def workflow(
        self,
        *,
        on: On = None,
        name: str | None = None,
        title: str | None = None,
        description: str | None = None,
        version: int = 1,
        timeout: float | str | timedelta | None = None,
        waits: Mapping[str, str] | None = None,
    ) -> Callable[[F], F]: ...
    def workflow(self, function: Any = None, **options: Any) -> Any:
        """Make a function a workflow; see `Kernel.workflow`."""
        # Here, where the author sees it, and not where a kernel takes what was collected.
        from automate_kernel.workflows.code.workflow import check_options

        check_options(options)

        def decorate(function: F) -> F:
            self.workflows = [each for each in self.workflows if not _anew(each[0], function)]
            self.workflows.append((function, options))
            return function

        return decorate if function is None else decorate(function)

    def add_workflow(self, workflow: Workflow | Mapping[str, Any] | str | Path) -> None:
        """
        Add a workflow, or those of a file or folder; see `Kernel.add_workflow`.

        They are read and checked once a kernel takes them, since they may call any of its actions.
        """
        if workflow not in self.definitions:
            self.definitions.append(workflow)


def _anew(former: Callable[..., Any], function: Callable[..., Any]) -> bool:
    """
    Return True if *function* is *former*, of a module that is executed anew.

    Python does that with one whose import has failed, which can't take back what it has collected.
    """
    one, other = inspect.unwrap(former), inspect.unwrap(function)
    named = [(each.__module__, getattr(each, "__qualname__", None)) for each in (one, other)]
    places = [getattr(each, "__globals__", None) for each in (one, other)]
    return named[0] == named[1] and places[0] is not places[1]
