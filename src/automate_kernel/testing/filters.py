"""
The contract of a template filter, as tests that its author inherits.

::

    class TestInitials(FilterContract):
        filter = staticmethod(initials)
        examples = {"{{ 'Ada Lovelace' | initials }}": "AL"}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest

from automate_kernel.errors import TemplateError
from automate_kernel.plugins.kinds import FILTER
from automate_kernel.templates import FilterRegistry, TemplateContext, TemplateEngine
from automate_kernel.testing.packages import require_example, require_no_drift

__all__ = ["FilterContract"]

_ODD: tuple[Any, ...] = (None, "", "é" * 1000, -1, 2.5, True, [], ["a", 1], {}, {"a": {"b": None}})


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
        return self.filter

    @pytest.fixture
    def render(self, plugin: Callable[..., Any]) -> Callable[[Any], Any]:
        """Return a function that renders a template in which the filter is known."""
        filters = FilterRegistry()
        filters.register(self._name, plugin)
        engine = TemplateEngine(filters)
        return lambda text: engine.compile(text).render(TemplateContext(extra={"odd": _ODD}))

    @property
    def _name(self) -> str:
        return self.name or self.filter.__name__

    def test_templates_can_call_it(self, plugin: Callable[..., Any]) -> None:
        """Its name can be written in a template, and it is no ``async def``."""
        assert self.kind.takes_key(self._name), "letters, digits and _"
        FilterRegistry().register(self._name, plugin)

    def test_examples_give_what_they_should(self, render: Callable[[Any], Any]) -> None:
        """Each template gives its value, which is JSON, and gives it again."""
        assert self.examples, "examples are the filter's documentation: write at least one"
        for template, expected in self.examples.items():
            assert render(template) == render(template) == expected
            json.dumps(expected, allow_nan=False)

    def test_odd_values_end_well(self, render: Callable[[Any], Any]) -> None:
        """For any value it gives JSON, or fails as a template does: never with another error."""
        for index in range(len(_ODD)):
            try:
                json.dumps(render(f"{{{{ odd[{index}] | {self._name} }}}}"))
            except TemplateError:
                continue

    def test_it_says_what_it_gives(self, plugin: Callable[..., Any]) -> None:
        """Its docstring is what an author of workflows reads of it."""
        assert (plugin.__doc__ or "").strip()

    def test_its_manifest_says_the_same(self, plugin: Callable[..., Any]) -> None:
        """The package's ``automate.json``, if there is one, says of it what its code says."""
        require_no_drift(plugin)

    def test_its_example_runs(self, plugin: Callable[..., Any]) -> None:
        """The workflow in the package's ``example.yaml``, if there is one, runs to its end."""
        require_example(plugin)
