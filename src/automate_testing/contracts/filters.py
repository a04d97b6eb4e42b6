"""
The contract of a template filter, as tests that its author inherits.

::

    class TestInitials(FilterContract):
        filter = staticmethod(initials)
        examples = {"{{ 'Ada Lovelace' | initials }}": "AL"}
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import deepcopy
from typing import Any, ClassVar

import pytest

from automate_kernel.plugins.kinds import FILTER
from automate_kernel.templates import FilterRegistry, TemplateContext, TemplateEngine
from automate_testing.contracts.packages import require_example, require_no_drift

__all__ = ["FilterContract"]

_ODD: tuple[Any, ...] = (None, "text", -1, 2.5, True, [], ["b", "a"], [3, 1, 2], {"a": {"b": []}})


class FilterContract:
    """
    Subclass it and say *filter* and *examples*: templates, and what they give.

    The filter is called by *name*: by default its function's name.
    """

    kind = FILTER
    filter: ClassVar[Callable[..., Any]]
    name: ClassVar[str] = ""
    examples: ClassVar[Mapping[str, Any]] = {}

    @pytest.fixture
    def plugin(self) -> Callable[..., Any]:
        """Return the filter under test."""
        return self._function

    @pytest.fixture
    def render(self, plugin: Callable[..., Any]) -> Callable[[Any], Any]:
        """Return a function that renders a template in which the filter is known."""
        filters = FilterRegistry()
        filters.register(self._name, plugin)
        engine = TemplateEngine(filters)
        return lambda text: engine.compile(text).render(TemplateContext())

    @property
    def _function(self) -> Callable[..., Any]:
        # Not self.filter: a plain function would be a method, whose value is this class.
        found = inspect.getattr_static(type(self), "filter")
        function: Callable[..., Any] = getattr(found, "__func__", found)
        return function

    @property
    def _name(self) -> str:
        return self.name or self._function.__name__

    def test_templates_can_call_it(self, plugin: Callable[..., Any]) -> None:
        """Its name can be written in a template, and it is no ``async def``."""
        problem = f"{self._name!r} is no name for a filter: give it a def, or say name = …"
        assert self.kind.takes_key(self._name), problem
        FilterRegistry().register(self._name, plugin)

    def test_examples_give_what_they_should(self, render: Callable[[Any], Any]) -> None:
        """Each template gives its value, which is JSON, and gives it again."""
        assert self.examples, "examples are the filter's documentation: write at least one"
        for template, expected in self.examples.items():
            assert render(template) == render(template) == expected
            json.dumps(expected, allow_nan=False)

    def test_it_leaves_its_value_as_it_was(self, plugin: Callable[..., Any]) -> None:
        """Other steps read the same value: a filter gives a new value."""
        for value in _ODD:
            given = deepcopy(value)
            with suppress(Exception):  # of which a template makes an error of its own
                plugin(given)
            assert given == value

    def test_it_says_what_it_gives(self, plugin: Callable[..., Any]) -> None:
        """Its docstring is what an author of workflows reads of it."""
        assert (plugin.__doc__ or "").strip(), f"the function of {self._name!r} has no docstring"

    def test_its_manifest_says_the_same(self, plugin: Callable[..., Any]) -> None:
        """If the package has an ``automate.json``, it agrees with the code."""
        require_no_drift(plugin)

    def test_its_example_runs(self, plugin: Callable[..., Any]) -> None:
        """An ``example.yaml`` in the package runs to its end."""
        require_example(plugin)
