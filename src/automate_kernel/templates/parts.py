"""What a tree of author's text is compiled into: parts that render themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from automate_kernel.errors import TemplateError
from automate_kernel.secrets.handles import Sealed, SecretRef
from automate_kernel.templates.context import EnvironmentResolver, TemplateContext
from automate_kernel.templates.limits import Budget, Limits
from automate_kernel.templates.marks import EnvMark
from automate_kernel.templates.problems import explain
from automate_kernel.templates.values import json_copy

if TYPE_CHECKING:
    from automate_kernel.templates.running import RenderContext
    from automate_kernel.templates.sandbox import Sandbox

__all__ = ["Constant", "Expression", "Items", "Marked", "Part", "Program", "Rendering", "Tree"]


class Rendering:
    """One rendering of a template: what it sees, and what it may still use."""

    __slots__ = ("budget", "context", "variables")

    def __init__(self, context: TemplateContext, limits: Limits) -> None:
        self.context: TemplateContext = context
        self.budget: Budget = Budget(limits)
        # Made by the first part that needs them.
        self.variables: dict[str, Any] | None = None


class Part(Protocol):
    """A piece of a compiled tree."""

    def render(self, rendering: Rendering) -> Any:
        """The piece's value."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A value without templates, or a reference to a secret."""

    value: Any

    def render(self, rendering: Rendering) -> Any:
        """The value."""
        return self.value


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    parts: tuple[Part, ...]

    def render(self, rendering: Rendering) -> Any:
        """A new list of the rendered items."""
        return [part.render(rendering) for part in self.parts]


@dataclass(frozen=True, slots=True)
class Tree:
    """A mapping, whose keys may be templates too."""

    pairs: tuple[tuple[str | Program | Marked, Part], ...]
    path: str

    def render(self, rendering: Rendering) -> Any:
        """A new mapping of the rendered values."""
        result: dict[str, Any] = {}
        for key, part in self.pairs:
            name = key if isinstance(key, str) else self._name(key.render(rendering), result)
            result[name] = part.render(rendering)
        return result

    def _name(self, name: Any, taken: dict[str, Any]) -> str:
        where = self.path or "template"
        if not isinstance(name, str):
            raise TemplateError(f"{where}: a key is text, not {type(name).__name__}")
        if name in taken:
            raise TemplateError(f"{where}: two keys are the same once rendered")
        return name


@dataclass(frozen=True, slots=True)
class Marked:
    """Text with ``$secret:`` or ``$env:`` in it, and nothing of Jinja's."""

    pieces: tuple[str | SecretRef | EnvMark, ...]
    path: str

    def render(self, rendering: Rendering) -> Any:
        """The text, sealed if there is a secret in it."""
        env = rendering.context.env or EnvironmentResolver()
        pieces = [self._known(piece, env) for piece in self.pieces]
        rendering.budget.emit(sum(len(piece) for piece in pieces if isinstance(piece, str)))
        if all(isinstance(piece, str) for piece in pieces):
            return "".join(map(str, pieces))
        return pieces[0] if len(pieces) == 1 else Sealed(*pieces)

    def _known(self, piece: str | SecretRef | EnvMark, env: EnvironmentResolver) -> str | SecretRef:
        if not isinstance(piece, EnvMark):
            return piece
        try:
            value = env.get(piece.name)
            if value is None:
                raise TemplateError(f"environment variable {piece.name!r} is not set")
            return value
        except TemplateError as error:
            problem = explain(error, path=self.path, source="")
        raise problem


class Program:
    """A compiled Jinja template that gives text."""

    __slots__ = ("_environment", "_path", "_root", "_source", "_template")

    def __init__(self, environment: Sandbox, template: Any, *, path: str, source: str) -> None:
        self._environment = environment
        self._template = template
        self._root: Callable[[Any], Iterator[Any]] = template.root_render_func
        self._path = path
        self._source = source

    def render(self, rendering: Rendering) -> Any:
        """The text, sealed if there is a secret in it."""
        pieces: Iterator[Any] | None = None
        try:
            scope = self._scope(rendering)
            pieces = self._root(scope)
            return json_copy(self.value(pieces, scope), rendering.budget)
        except Exception as error:
            problem = explain(
                error, path=self._path, source=self._source, template=self._template, pieces=pieces
            )
        # Not in the handler: the error it handles, with the values in its frames, would be kept
        # as this one's context.
        raise problem

    def value(self, pieces: Iterator[Any], scope: RenderContext) -> Any:
        """What the *pieces* make."""
        return scope.concat(pieces)

    def _scope(self, rendering: Rendering) -> RenderContext:
        if rendering.variables is None:
            rendering.variables = self._environment.variables(rendering.context)
        return self._environment.scope(rendering.variables, rendering.budget)


class Expression(Program):
    """A single ``{{ expression }}``, whose value keeps its type."""

    __slots__ = ()

    def value(self, pieces: Iterator[Any], scope: RenderContext) -> Any:
        """The one piece that there is."""
        return next(pieces)
