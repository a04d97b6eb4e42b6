"""The registry of template filters, and the filters that are always there."""

from __future__ import annotations

import inspect
import re
import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, overload

from automate_kernel.errors import ConfigError
from automate_kernel.templates.builtin import BUILTIN_FILTERS, JINJA_FILTERS

__all__ = ["Filter", "FilterRegistry", "default_filters", "register_filter"]

Filter = Callable[..., Any]
F = TypeVar("F", bound=Filter)

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class FilterRegistry:
    """
    Template filters by name.

    What is not found here is looked for in *parent*, then asked of *find*, which plugins use to
    load a filter at its first use. All methods may be called from several threads.
    """

    def __init__(
        self,
        parent: FilterRegistry | None = None,
        *,
        find: Callable[[str], Filter | None] | None = None,
    ) -> None:
        self._parent = parent
        self._find = find
        self._own: dict[str, Filter] = {}
        self._lock = threading.RLock()

    @overload
    def register(self, name: F, /) -> F: ...
    @overload
    def register(
        self, name: str | None = None, /, *, replace: bool = False
    ) -> Callable[[F], F]: ...
    @overload
    def register(self, name: str | None, function: F, /, *, replace: bool = False) -> F: ...
    def register(
        self,
        name: Any = None,
        function: Filter | None = None,
        /,
        *,
        replace: bool = False,
    ) -> Any:
        """
        Add a filter: ``@register("name")``, ``@register`` or ``register("name", function)``.

        The function gets the value to filter, then the arguments in the template. It runs
        whenever a step is rendered, again after a crash, so it should depend on its arguments
        only. A name that is taken is refused unless *replace* is given.
        """
        if callable(name):
            return self._add(None, name, replace=replace)
        if function is not None:
            return self._add(name, function, replace=replace)
        return lambda decorated: self._add(name, decorated, replace=replace)

    def _add(self, name: str | None, function: Filter, *, replace: bool) -> Filter:
        name = function.__name__ if name is None else name
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigError(f"{name!r} can't be a filter's name", hint="use letters, digits, _")
        if inspect.iscoroutinefunction(function):
            hint = "do the waiting in a step of the workflow"
            raise ConfigError(f"filter {name!r} is async, and templates are not", hint=hint)
        with self._lock:
            taken = self._taken(name)
            if not replace and taken not in {"", _where(function)}:
                message = f"filter {name!r} exists already: {taken}"
                raise ConfigError(message, hint="choose another name, or pass replace=True")
            self._own[name] = function
        return function

    def _taken(self, name: str) -> str:
        if name in self._own:
            return _where(self._own[name])
        if self._parent is not None:
            return self._parent._taken(name)
        return "built in" if name in BUILTIN_FILTERS or name in JINJA_FILTERS else ""

    def get(self, name: str) -> Filter | None:
        """The filter called *name*, or None."""
        found = self._registered(name)
        return BUILTIN_FILTERS.get(name) if found is None else found

    def _registered(self, name: str) -> Filter | None:
        found = self._own.get(name)
        if found is None and self._parent is not None:
            found = self._parent._registered(name)
        if found is None and self._find is not None:
            found = self._find(name)
        return found

    def __contains__(self, name: str) -> bool:
        return name in JINJA_FILTERS or self.get(name) is not None

    def names(self) -> list[str]:
        """All names, sorted, without those that plugins would still have to load."""
        inherited = self._parent.names() if self._parent else [*BUILTIN_FILTERS, *JINJA_FILTERS]
        return sorted({*self._own, *inherited})


def _where(function: Filter) -> str:
    # A module that is loaded twice makes two functions of one filter.
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', '?')}.{name}"


class _Registering(Protocol):
    # The type of `FilterRegistry.register` of one registry.
    @overload
    def __call__(self, name: F, /) -> F: ...
    @overload
    def __call__(
        self, name: str | None = None, /, *, replace: bool = False
    ) -> Callable[[F], F]: ...
    @overload
    def __call__(self, name: str | None, function: F, /, *, replace: bool = False) -> F: ...


default_filters: FilterRegistry = FilterRegistry()
"""The filters that every engine has unless it is given others."""

register_filter: _Registering = default_filters.register
"""
Add a filter to `default_filters`, for all kernels of the process::

    @register_filter("format_currency")
    def format_currency(value, currency="USD"):
        return f"{currency} {value:,.2f}"
"""
