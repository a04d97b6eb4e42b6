"""Actions and workflows that are written before there is a kernel."""

from __future__ import annotations

import sys
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
        # What each module has added, by its name and file, with the globals that it did it in.
        self._added: dict[tuple[Any, Any], tuple[dict[str, Any], list[tuple[list[Any], Any]]]] = {}

    @overload
    def action(self, name: F) -> F: ...
    @overload
    def action(
        self, name: str | None = None, **options: Unpack[OperationOptions]
    ) -> Callable[[F], F]: ...
    def action(self, name: Any = None, **options: Any) -> Any:
        """Make a function an action; see `Kernel.action`."""

        def decorate(function: F) -> F:
            bare = callable(name)
            entry = (function, None if bare else name, options)
            self._add(self.actions, entry, above=2 if bare else 1)
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
        above = 1 if function is None else 2

        def decorate(function: F) -> F:
            self._add(self.workflows, (function, options), above=above)
            return function

        return decorate if function is None else decorate(function)

    def add_workflow(self, workflow: Workflow | Mapping[str, Any] | str | Path) -> None:
        """
        Add a workflow, or those of a file or folder; see `Kernel.add_workflow`.

        They are read and checked once a kernel takes them, since they may call any of its actions.
        """
        self._add(self.definitions, workflow, above=1)

    def _add(self, place: list[Any], entry: Any, *, above: int) -> None:
        """
        Add *entry* to *place* for the module that calls so many frames *above* this one's caller.

        Python executes a module anew whose import has failed: what that had added, goes.
        """
        names = sys._getframe(1 + above).f_globals
        key = (names.get("__name__"), names.get("__file__"))
        former, added = self._added.get(key, (names, []))
        if former is not names:
            for where, one in added:
                where[:] = [each for each in where if each is not one]
            added = []
        added.append((place, entry))
        self._added[key] = (names, added)
        place.append(entry)
