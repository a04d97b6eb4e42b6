"""Filters as they run in a template: counted, bounded, and unable to see a secret."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from jinja2.exceptions import TemplateRuntimeError
from jinja2.filters import FILTERS, make_attrgetter
from jinja2.runtime import Context, Undefined
from jinja2.utils import pass_context

from automate_kernel.errors import AutomateError, TemplateError
from automate_kernel.secrets.handles import Sealed, SecretRef
from automate_kernel.templates import builtin
from automate_kernel.templates.builtin import BOUNDED_FILTERS, JINJA_FILTERS
from automate_kernel.templates.filters import Filter, FilterRegistry
from automate_kernel.templates.limits import Budget, Counted
from automate_kernel.templates.members import Method, bounded
from automate_kernel.templates.syntax import COUNTED
from automate_kernel.tracebacks import group_of, trace_of

_LARGE = 1000
# Whose filters are nobody's to mend: what fails in them is what they were given.
_GIVEN = frozenset({"automate_kernel", "jinja2", "markupsafe", "builtins"})
_LAZY = frozenset({"map", "reject", "rejectattr", "select", "selectattr"})

__all__ = ["FilterError", "RenderContext", "RunningFilters"]


class RenderContext(Context):
    """The variables of one rendering, with its budget. The code of templates calls its methods."""

    budget: Budget

    def tick(self) -> bool:
        """True, unless the budget is spent."""
        self.budget.spend()
        self.budget.look_at_clock()
        return True

    def made(self, value: Any) -> Any:
        """*value* itself, if it is not too large."""
        return self.budget.weigh(value)

    def concat(self, pieces: Iterable[Any]) -> str | Sealed:
        """The *pieces* as text; sealed if there is a secret among them."""
        budget = self.budget
        texts: list[Any] = []
        sealed = False
        for piece in pieces:
            text = piece if type(piece) is str else self._text(piece)
            if type(text) is str:
                budget.allow(len(text))
            else:
                sealed = True
            texts.append(text)
        if sealed:
            return Sealed(*texts)
        budget.allow(sum(map(len, texts)))
        return "".join(texts)

    def _text(self, piece: Any) -> str | Sealed | SecretRef:
        if isinstance(piece, (SecretRef, Sealed)):
            return piece
        if isinstance(piece, Method):
            raise TemplateError(f"{piece.name!r} is a method", hint=f"write {piece.name}()")
        if isinstance(piece, (list, tuple, Mapping)):
            self.budget.weigh(piece)
        elif hasattr(piece, "__next__") or isinstance(piece, Counted):
            piece = self.budget.weigh(list(piece))
        return str.__str__(str(piece))


class FilterError(TemplateRuntimeError):
    """A filter failed; the message names it, without the text of its error."""

    trace: str | None = None
    group: str | None = None


class RunningFilters(dict[str, Any]):
    """The registry's filters as Jinja asks for them, each wrapped at its first use."""

    def __init__(self, registry: FilterRegistry) -> None:
        super().__init__()
        self._registry = registry

    def get(self, name: str, default: Any = None) -> Any:
        """The filter called *name*, or *default*."""
        try:
            return self[name]
        except KeyError:
            return default

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __getitem__(self, name: str) -> Any:
        known = super().get(name)
        if name == COUNTED:
            return _counted
        function = self._registry.get(name)
        if function is None and name in JINJA_FILTERS:
            function = _JINJA[name]
        if function is None:
            raise KeyError(name)
        if known is None or known.function is not function:
            known = _wrapped(name, function)
            self[name] = known
        return known


@pass_context
def _counted(context: RenderContext, items: Any) -> Any:
    if isinstance(items, (Undefined, SecretRef, Sealed)):
        list(items)  # type: ignore[arg-type]  # raises, saying why
    return Counted(items, context.budget)


def _wrapped(name: str, function: Filter) -> Any:
    passed = getattr(getattr(function, "jinja_pass_arg", None), "name", "")
    budgeted = function in BOUNDED_FILTERS
    takes_undefined = name in {"default", "d"}

    @pass_context
    def call(context: RenderContext, *args: Any, **kwargs: Any) -> Any:
        budget = context.budget
        budget.spend()
        for arg in (*args, *kwargs.values()):
            if isinstance(arg, Undefined) and not takes_undefined:
                str(arg)  # raises, saying what is missing
            elif isinstance(arg, (SecretRef, Sealed)):
                raise TemplateError(f"a secret can't go through filter {name!r}")
            elif isinstance(arg, (str, list)) and len(arg) > _LARGE:
                budget.look_at_clock()
        if name in _LAZY and args:
            # They may go over much without giving anything that could be counted.
            args = (Counted(args[0], budget), *args[1:])
        try:
            result = function(*_first(context, passed, budgeted=budgeted), *args, **kwargs)
        except (AutomateError, TemplateRuntimeError):
            raise
        except Exception as error:
            _fail(name, function, error)
        if hasattr(result, "__next__"):
            return iter(Counted(result, budget))
        return budget.weigh(result)

    call.function = function  # type: ignore[attr-defined]
    return call


def _first(context: RenderContext, passed: str, *, budgeted: bool) -> tuple[Any, ...]:
    if budgeted:
        return (context.budget,)
    if not passed:
        return ()
    environment = context.environment
    return ({"context": context, "environment": environment}.get(passed, context.eval_ctx),)


def _fail(name: str, function: Any, error: Exception) -> NoReturn:
    # The text of the error may show a value.
    failure = FilterError(f"filter {name!r} failed: {type(error).__name__}")
    if (getattr(function, "__module__", None) or "").partition(".")[0] not in _GIVEN:
        # Of an author's own. Without source lines, since nothing here knows the secrets.
        failure.trace, failure.group = trace_of(error, source=False), group_of(error)
    raise failure from None


def _sum(context: RenderContext, items: Any, attribute: Any = None, start: Any = 0) -> Any:
    if attribute is not None:
        items = map(make_attrgetter(context.environment, attribute), items)
    total = start
    for item in items:
        if isinstance(item, (str, list, tuple)) or isinstance(total, (str, list, tuple)):
            raise TemplateError("sum adds numbers", hint="use | join for text")
        context.budget.spend()
        total = bounded(context.budget, total + item)
    return total


def _join(context: RenderContext, items: Any, separator: str = "", attribute: Any = None) -> str:
    if attribute is not None:
        items = map(make_attrgetter(context.environment, attribute), items)
    return builtin.join(context.budget, separator, Counted(items, context.budget))


def _string(context: RenderContext, value: Any) -> Any:
    return context.concat((value,))


_JINJA: dict[str, Filter] = {name: FILTERS[name] for name in JINJA_FILTERS} | {
    "join": pass_context(_join),
    "string": pass_context(_string),
    "sum": pass_context(_sum),
}
