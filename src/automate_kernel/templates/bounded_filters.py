"""Filters and tests as they run in a template: counted, bounded, without sight of a secret."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, cast

from jinja2.exceptions import TemplateRuntimeError
from jinja2.filters import (
    FILTERS,
    _GroupTuple,
    do_urlencode,
    ignore_case,
    make_attrgetter,
    make_multi_attrgetter,
)
from jinja2.runtime import Context, Undefined
from jinja2.tests import TESTS
from jinja2.utils import pass_context

from automate_kernel.base.errors import AutomateError, TemplateError
from automate_kernel.secrets.handles import Sealed, SecretRef
from automate_kernel.secrets.tracebacks import group_of, trace_of
from automate_kernel.templates import filters as builtin
from automate_kernel.templates.filters import (
    JINJA_FILTERS,
    JINJA_TESTS,
    Filter,
    FilterRegistry,
    wrong_arguments,
)
from automate_kernel.templates.limits import Budget, CountedItems, contained, sorting
from automate_kernel.templates.members import INNER, bounded, check_values, compare, sliced
from automate_kernel.templates.syntax import COUNTED
from automate_kernel.templates.values import stripped, text_of, unfit

_LARGE = 1000
_MAX_PARTS = 32
# Errors in these packages' filters come from their arguments: nobody can mend the code.
_GIVEN = frozenset({"automate_kernel", "jinja2", "markupsafe", "builtins"})


class RenderContext(Context):
    """The variables and the budget of one rendering. The code of templates calls its methods."""

    budget: Budget

    def compare(self, name: str, left: Any, right: Any) -> Any:
        """Do the comparison *name*."""
        self.budget.spend()
        return compare(self.budget, name, left, right)

    def compare_chain(self, left: Any, steps: tuple[tuple[str, Callable[[], Any]], ...]) -> Any:
        """Do ``a < b < c``, which ends with the first comparison that is false."""
        result: Any = True
        for name, make in steps:
            right = make()
            result = self.compare(name, left, right)
            if not result:
                break
            left = right
        return result

    def slice(self, value: Any, *parts: Any) -> Any:
        """Return a slice of *value*."""
        if isinstance(value, Undefined):
            str(value)  # raises, saying what is missing
        return sliced(self.budget, value, parts)

    def made(self, value: Any) -> Any:
        """Return *value*, a new container, if it is not too large and holds values only."""
        items = (*value, *value.values()) if isinstance(value, dict) else value
        for item in items:
            if isinstance(item, INNER):
                raise unfit(item)
        return self.budget.weigh(value)

    def concat(self, pieces: Iterable[Any]) -> str | Sealed:
        """Join the *pieces* as text, sealed if there is a secret among them."""
        budget = self.budget
        texts: list[Any] = []
        sealed, total = False, 0
        for piece in pieces:
            text = piece if type(piece) is str else self._text(piece)
            size = len(text) if type(text) is str else Sealed(text).size
            sealed = sealed or type(text) is not str
            total += size
            budget.allow(size)
            texts.append(text)
        budget.allow(total)
        if sealed:
            return Sealed(*texts)
        return "".join(texts)

    def _text(self, piece: Any) -> str | Sealed | SecretRef:
        if isinstance(piece, (SecretRef, Sealed)):
            return piece
        if isinstance(piece, Undefined):
            str(piece)  # raises, saying what is missing
        if isinstance(piece, INNER):
            raise unfit(piece)
        return text_of(self.budget, piece)


class FilterError(TemplateRuntimeError):
    """An error of a filter; the message has its name, without the text of the error."""

    trace: str | None = None
    group: str | None = None
    hint: str | None = None


class BoundedFilters(dict[str, Any]):
    """The registry's filters for Jinja, each wrapped at its first use."""

    def __init__(self, registry: FilterRegistry) -> None:
        super().__init__()
        self._registry = registry

    def get(self, name: str, default: Any = None) -> Any:
        """Return the filter called *name*, or *default*."""
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
    return CountedItems(items, context.budget)


def _wrapped(name: str, function: Filter) -> Any:
    known = function is builtin.BUILTIN_FILTERS.get(name) or function is _JINJA.get(name)
    price = builtin.FILTER_PRICES[name] if known else bounded_sizes
    passed = getattr(getattr(function, "jinja_pass_arg", None), "name", "")
    budgeted = function in builtin.BOUNDED_FILTERS
    takes_undefined = name in {"default", "d"}
    lazy = name in builtin.LAZY_FILTERS and price is not bounded_sizes
    shown = f"filter {name!r}"

    @pass_context
    def call(context: RenderContext, *args: Any, **kwargs: Any) -> Any:
        budget = context.budget
        budget.spend()
        check_values(shown, (*args, *kwargs.values()))
        for arg in (*args, *kwargs.values()):
            if isinstance(arg, Undefined) and not takes_undefined:
                str(arg)  # raises, saying what is missing
            elif isinstance(arg, (str, list)) and len(arg) > _LARGE:
                budget.look_at_clock()
        if not lazy:
            args = tuple(_settled(arg, budget) for arg in args)
            kwargs = {key: _settled(arg, budget) for key, arg in kwargs.items()}
        elif args and not takes_undefined:
            # They may go over many items without yielding any that could be counted.
            args = (CountedItems(args[0], budget), *args[1:])
        try:
            budget.charge(shown, price(budget, *args, **kwargs))
            result = function(*_first(context, passed, budgeted=budgeted), *args, **kwargs)
        except (AutomateError, TemplateRuntimeError):
            raise
        except Exception as error:
            _fail(name, function, error, args, kwargs)
        if hasattr(result, "__next__"):
            return iter(CountedItems(result, budget))
        return budget.weigh(result)

    call.function = function  # type: ignore[attr-defined]
    return call


def bounded_sizes(budget: Budget, *args: Any, **kwargs: Any) -> float:
    """Charge nothing for an author's filter, but refuse it values over the limit."""
    largest = max(map(budget.size, (*args, *kwargs.values())), default=0)
    return math.inf if largest > budget.limits.output else 0.0


def _settled(value: Any, budget: Budget) -> Any:
    # A lazy value is made first, so that its size is known.
    return list(CountedItems(value, budget)) if hasattr(value, "__next__") else value


def _first(context: RenderContext, passed: str, *, budgeted: bool) -> tuple[Any, ...]:
    if budgeted:
        return (context.budget,)
    if not passed:
        return ()
    environment = context.environment
    return ({"context": context, "environment": environment}.get(passed, context.eval_ctx),)


def _fail(
    name: str, function: Any, error: Exception, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> NoReturn:
    # The text of the error may show a value; types show none.
    failure = FilterError(f"filter {name!r} failed: {type(error).__name__}")
    problem = wrong_arguments(name, function, len(args) - 1, kwargs)
    if problem is not None and isinstance(error, TypeError):
        failure = FilterError(problem[0])
        failure.hint = problem[1]
    else:
        given = [*map(_kind, args), *(f"{key}: {_kind(value)}" for key, value in kwargs.items())]
        failure.hint = f"it was given: {', '.join(given)}"
    if (getattr(function, "__module__", None) or "").partition(".")[0] not in _GIVEN:
        # An author's own. Without source lines, since nothing here knows the secrets.
        failure.trace, failure.group = trace_of(error, source=False), group_of(error)
    raise failure from None


def _kind(value: Any) -> str:
    """Return the type of a value, in the words of JSON."""
    known = _KINDS.get(type(value))
    return known or ("mapping" if isinstance(value, Mapping) else type(value).__name__)


_KINDS = {
    str: "text", bool: "boolean", int: "number", float: "number", list: "list", type(None): "null",
}  # fmt: skip


# -- Jinja's filters, written again so that each item is counted ------------------------------


def _path(attribute: Any) -> Any:
    if isinstance(attribute, str) and attribute.count(".") + attribute.count(",") > _MAX_PARTS:
        raise TemplateError(f"an attribute has at most {_MAX_PARTS} parts")
    return attribute


def _items(context: RenderContext, items: Any, attribute: Any) -> Iterable[Any]:
    if attribute is None:
        return cast("Iterable[Any]", items)
    return map(make_attrgetter(context.environment, _path(attribute)), items)


def _key(context: RenderContext, attribute: Any, case_sensitive: bool) -> Callable[[Any], Any]:
    case = None if case_sensitive else ignore_case
    return make_attrgetter(context.environment, _path(attribute), postprocess=case)


def _keys(context: RenderContext, items: Iterable[Any], getter: Callable[[Any], Any]) -> list[Any]:
    keys = []
    for item in CountedItems(items, context.budget):
        key = getter(item)
        if isinstance(key, str):
            # Making it from a long text, perhaps by folding the case, takes as long as many short
            # keys.
            context.budget.spend(len(key) // _LARGE)
        keys.append(key)
    return keys


def _sum(context: RenderContext, items: Any, attribute: Any = None, start: Any = 0) -> Any:
    total = start
    for item in _items(context, items, attribute):
        if isinstance(item, (str, list, tuple)) or isinstance(total, (str, list, tuple)):
            raise TemplateError("sum adds numbers", hint="use | join for text")
        context.budget.spend()
        total = bounded(context.budget, total + item)
    return total


def _join(context: RenderContext, items: Any, separator: str = "", attribute: Any = None) -> str:
    return builtin.join(context.budget, separator, _items(context, items, attribute))


def _string(context: RenderContext, value: Any) -> Any:
    return context.concat((value,))


def _ordered(context: RenderContext, name: str, keys: list[Any], *, reverse: bool) -> list[int]:
    context.budget.charge(f"filter {name!r}", sorting(context.budget, keys))
    return sorted(range(len(keys)), key=keys.__getitem__, reverse=reverse)


def _sort(
    context: RenderContext,
    items: Any,
    reverse: bool = False,
    case_sensitive: bool = False,
    attribute: Any = None,
) -> list[Any]:
    values = list(items)
    case = None if case_sensitive else ignore_case
    getter = make_multi_attrgetter(context.environment, _path(attribute), postprocess=case)
    keys = _keys(context, values, getter)
    return [values[index] for index in _ordered(context, "sort", keys, reverse=bool(reverse))]


def _dictsort(
    context: RenderContext,
    value: Mapping[Any, Any],
    case_sensitive: bool = False,
    by: str = "key",
    reverse: bool = False,
) -> list[Any]:
    if by not in {"key", "value"}:
        raise TemplateError('dictsort sorts by "key" or "value"')
    pairs = list(value.items())
    position = 0 if by == "key" else 1
    keys = _keys(
        context,
        (pair[position] for pair in pairs),
        (lambda key: key) if case_sensitive else ignore_case,
    )
    return [pairs[index] for index in _ordered(context, "dictsort", keys, reverse=bool(reverse))]


def _groupby(
    context: RenderContext,
    items: Any,
    attribute: Any,
    default: Any = None,
    case_sensitive: bool = False,
) -> list[Any]:
    values = list(items)
    own = make_attrgetter(context.environment, _path(attribute), default=default)
    keys = _keys(context, values, own)
    folded = keys if case_sensitive else _keys(context, keys, ignore_case)
    order = _ordered(context, "groupby", folded, reverse=False)
    groups: list[Any] = []
    previous: Any = None
    for index in order:
        context.budget.spend()
        if not groups or not compare(context.budget, "eq", previous, folded[index]):
            groups.append(_GroupTuple(keys[index], []))
        previous = folded[index]
        groups[-1].list.append(values[index])
    return groups


def _outermost(name: str, choose: Callable[..., int]) -> Filter:
    def filtered(
        context: RenderContext, items: Any, case_sensitive: bool = False, attribute: Any = None
    ) -> Any:
        values = list(items)
        if not values:
            return context.environment.undefined("No aggregated item, sequence was empty.")
        keys = _keys(context, values, _key(context, attribute, case_sensitive))
        context.budget.charge(f"filter {name!r}", sorting(context.budget, keys))
        return values[choose(range(len(keys)), key=keys.__getitem__)]

    return pass_context(filtered)


def _unique(
    context: RenderContext, items: Any, case_sensitive: bool = False, attribute: Any = None
) -> Iterator[Any]:
    getter = _key(context, attribute, case_sensitive)
    seen: set[Any] = set()
    for item in items:
        key = getter(item)
        context.budget.charge("filter 'unique'", contained(context.budget, key, {}))
        if key not in seen:
            seen.add(key)
            yield item


def _map(context: RenderContext, items: Any, *args: Any, **kwargs: Any) -> Any:
    _path(kwargs.get("attribute"))
    return FILTERS["map"](context, items, *args, **kwargs)


def _by_attribute(name: str) -> Filter:
    def filtered(context: RenderContext, items: Any, attribute: Any, *args: Any, **kw: Any) -> Any:
        return FILTERS[name](context, items, _path(attribute), *args, **kw)

    return pass_context(filtered)


def _trim(context: RenderContext, value: Any, chars: str | None = None) -> str:
    return stripped(text_of(context.budget, value), chars)


def _of_text(name: str) -> Filter:
    def filtered(context: RenderContext, value: Any) -> Any:
        return FILTERS[name](text_of(context.budget, value))

    return pass_context(filtered)


def _urlencode(context: RenderContext, value: Any) -> str:
    if not isinstance(value, str):
        text = text_of(context.budget, value)  # refuses what has none
        value = value if isinstance(value, (list, tuple, Mapping)) else text
    return do_urlencode(value)


_JINJA: dict[str, Filter] = {name: FILTERS[name] for name in JINJA_FILTERS} | {
    "dictsort": pass_context(_dictsort),
    "groupby": pass_context(_groupby),
    "join": pass_context(_join),
    "map": pass_context(_map),
    "max": _outermost("max", max),
    "min": _outermost("min", min),
    "rejectattr": _by_attribute("rejectattr"),
    "selectattr": _by_attribute("selectattr"),
    "sort": pass_context(_sort),
    "string": pass_context(_string),
    "sum": pass_context(_sum),
    "trim": pass_context(_trim),
    "unique": pass_context(_unique),
    "urlencode": pass_context(_urlencode),
    **{name: _of_text(name) for name in ("capitalize", "lower", "title", "upper", "wordcount")},
}


# -- tests ------------------------------------------------------------------------------------


def _tested(name: str) -> Any:
    comparison = builtin.COMPARING.get(name)
    if comparison is not None:

        @pass_context
        def compared(context: RenderContext, value: Any, other: Any) -> Any:
            return context.compare(comparison, value, other)

        return compared
    function: Any = TESTS[name]
    price = builtin.TEST_PRICES[name]

    @pass_context
    def asked(context: RenderContext, value: Any, *args: Any) -> Any:
        context.budget.spend()
        context.budget.charge(f"test {name!r}", price(context.budget, value, *args))
        return function(value, *args)

    return asked


BOUNDED_TESTS: dict[str, Any] = {name: _tested(name) for name in JINJA_TESTS}
"""The tests, each at its price: ``is even``."""
