"""
The spec of an operation, an action or a capability: name, input and output, often a function.

An operation's input is always a JSON object. Its shape is a pydantic model, a plain JSON Schema,
or read from the annotations of a function.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from automate_kernel.base.errors import (
    AutomateError,
    ErrorCodes,
    PayloadError,
    PluginError,
    did_you_mean,
    type_name,
)
from automate_kernel.operations.annotated import Results
from automate_kernel.operations.context import Call, current_call
from automate_kernel.operations.outputs import MOST_VALUES, json_output, output_error
from automate_kernel.operations.schemas.checks import (
    Check,
    FieldProblem,
    Schema,
    check_model,
    compile_schema,
    invalid,
    is_model,
    json_schema_of,
    schema_of_type,
)
from automate_kernel.operations.signature import Binding, bind
from automate_kernel.storage.values import is_plain

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["OperationOptions", "OperationSpec", "marked_operations", "operation_from_function"]

S = TypeVar("S", bound="OperationSpec")
F = TypeVar("F", bound=Callable[..., Any])

_FLAGS = ("idempotent", "read_only", "destructive", "transactional")
_LONGEST_NAME = 200
_UNFIT = re.compile(r"[^A-Za-z0-9_.-]+")
NAME_PATTERN = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_./-]{{0,{_LONGEST_NAME - 1}}}")


@dataclass(frozen=True, slots=True)
class OperationSpec:
    """
    The input and output of one action or capability.

    *input_schema* and *output_schema* are pydantic models or JSON Schemas; without the first any
    object is taken. An *idempotent* operation may be called again where it is unknown whether the
    last call reached the service. A *read_only* one changes nothing, and so is idempotent. A
    *destructive* one deletes, pays, or does something else that can't be taken back: who calls it
    for a model asks a person first. A *transactional* one writes in `Call.transaction`, which
    commits together with the checkpoint of the step; it can't be an ``async def``.
    """

    name: str
    input_schema: Schema = field(default=None, hash=False)
    output_schema: Schema = field(default=None, hash=False)
    idempotent: bool = False
    title: str = ""
    description: str = ""
    read_only: bool = field(default=False, kw_only=True)
    destructive: bool = field(default=False, kw_only=True)
    transactional: bool = field(default=False, kw_only=True)
    binding: Binding | None = field(default=None, repr=False, compare=False, kw_only=True)
    is_step: bool = field(default=False, repr=False, compare=False, kw_only=True)
    """True for a function that is no action: its results are read in the annotation's type."""
    is_unread: bool = field(default=False, repr=False, compare=False, kw_only=True)
    """True if nobody reads its output: what can't be stored of it is left out."""
    _check: Check | None = field(default=None, init=False, repr=False, compare=False)
    _written: tuple[str, ...] | None = field(default=None, init=False, repr=False, compare=False)
    _results: Results | None = field(default=None, init=False, repr=False, compare=False)
    _plain: bool = field(default=True, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not NAME_PATTERN.fullmatch(self.name):
            raise PluginError(
                f"{self.name!r} is no name for an operation",
                hint="use letters, digits and _ . / - without spaces",
            )
        for label in ("input_schema", "output_schema"):
            schema = getattr(self, label)
            if schema is not None and not is_model(schema) and not isinstance(schema, Mapping):
                raise PluginError(
                    f"{label} of {self.name!r} is {type_name(schema)}",
                    hint="give a pydantic model class or a JSON Schema as a dict",
                )
        _require_flags({label: getattr(self, label) for label in _FLAGS}, f" of {self.name!r}")
        if self.read_only and (self.destructive or self.transactional):
            other = "destructive" if self.destructive else "transactional"
            raise PluginError(
                f"the operation {self.name!r} can't be read_only and {other}",
                hint="a read_only one changes nothing; leave one of them out",
            )
        if self.read_only:
            object.__setattr__(self, "idempotent", True)
        if self.transactional and self.asynchronous:
            raise PluginError(
                f"the operation {self.name!r} is an async def, and can't be transactional",
                hint="make it a plain function: its transaction is that of its thread",
            )

    @property
    def asynchronous(self) -> bool:
        """True if an ``async def`` performs it."""
        function = inspect.unwrap(self.binding.function) if self.binding else None
        return inspect.iscoroutinefunction(function)

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the input."""
        return json_schema_of(self.input_schema)

    def output_json_schema(self) -> dict[str, Any] | None:
        """Return the JSON Schema of the output, or None if nothing is known of it."""
        if self.output_schema is None:
            returns = self.binding.returns if self.binding else None
            return None if returns is None else schema_of_type(returns)
        return json_schema_of(self.output_schema, output=True)

    def validate(self, data: Any, *, called: str = "") -> Any:
        """
        Return the input made of *data*: an instance of the model, or a dict without a model.

        Raises `AutomateError` with ``INVALID_ARGUMENT`` that names each wrong field and shows
        none of the values. *called* is the operation's whole name (``slack.post``), for that error.
        """
        what = f"input of {(called or self.name)!r}"
        if is_model(self.input_schema):
            value, problems = check_model(self.input_schema, data)  # type: ignore[arg-type]
        elif isinstance(data, Mapping):
            value = dict(data)
            if self.input_schema and self._check is None:
                check = compile_schema(self.input_schema, what)  # type: ignore[arg-type]
                object.__setattr__(self, "_check", check)
            problems = self._check(value) if self._check else []
        else:
            value, problems = None, [FieldProblem("", "it must be an object with named fields")]
        if problems:
            raise invalid(what, problems)
        return value

    @property
    def written_fields(self) -> tuple[str, ...]:
        """The fields of the input that are marked ``x-written``: an author has to write them."""
        if self._written is None:
            fields: Mapping[str, Any] = self.json_schema().get("properties", {})
            marked = (
                name
                for name, known in fields.items()
                if isinstance(known, Mapping) and known.get("x-written")
            )
            object.__setattr__(self, "_written", tuple(marked))
        return self._written or ()

    def require_written(self, data: Any, operation: str) -> None:
        """
        Refuse fields that are marked ``x-written`` and that a template or a model made.

        It counts in the call of *operation* alone, which is this one's full name: what the code of
        another operation hands on, it has written itself.
        """
        call = current_call()
        if call is None or call.written is None or call.operation != operation:
            return
        for name in self.written_fields:
            call.require_written(name, data.get(name) if isinstance(data, Mapping) else data)

    def call(self, data: Any, *instance: Any) -> Any:
        """
        Call the operation's function with *data* as input; an awaitable if it is async.

        Only for an operation that was made from a function. An operation that was made from a
        method needs the *instance*.
        """
        if self.binding is None:
            raise AutomateError(
                ErrorCodes.UNIMPLEMENTED,
                f"{self.name!r} is declared, but no function performs it",
                hint="mark a method of that name, or override execute_action or execute_capability",
            )
        value = self.validate(data)
        return self.binding(value, current_call() or Call(self.name), *instance)

    def dump(self, output: Any, *, called: str = "") -> Any:
        """
        Return *output* as a JSON value, in which every value keeps its type.

        Models and dataclasses become what pydantic writes for them; dates, times, UUIDs, decimals
        and paths become text. What else JSON has not, such as keys that are no text, is written as
        the annotation of the function says. Raises `OutputError` where it doesn't; *called* is the
        operation's whole name in it.
        """
        if self._plain and is_plain(output, most=MOST_VALUES):
            return output
        try:
            return self._dumped(output, called or self.name)
        except PayloadError as error:
            raise output_error(error) from None

    def _dumped(self, output: Any, called: str) -> Any:
        if self.is_unread:
            try:
                return json_output(output, called)
            except PayloadError:
                return None
        if self.is_step:
            return self.results().write(output)
        try:
            return json_output(output, f"output of {called!r}", returned=True)
        except PayloadError:
            results = self._written_results()
            if results is None:
                raise
        return results.named(f"the output of {called!r}").write(output)

    def results(self) -> Results:
        """
        Return what writes and reads the function's results, in the type of its annotation.

        Raises `WorkflowError` for a type that is not made from JSON.
        """
        results = self._results
        if results is None:
            binding, what = self.binding, f"the output of {self.name!r}"
            if self.is_step and binding is not None:
                what = f"the result of {getattr(binding.function, '__name__', self.name)}()"
            results = Results(None if binding is None else binding.returned, what)
            object.__setattr__(self, "_results", results)
            object.__setattr__(self, "_plain", not self.is_step or results.are_plain)
        return results

    def _written_results(self) -> Results | None:
        """Return the same for what is no JSON; None if no annotation says how to write it."""
        try:
            return None if self.binding is None else self.results()
        except AutomateError:
            return None


def _require_flags(given: Mapping[str, Any], of: str) -> None:
    """Raise `PluginError` for options of an operation that are neither True nor False."""
    for label in _FLAGS:
        if not isinstance(value := given.get(label, False), bool):
            # Any text counts as true: "no" would allow what it forbids.
            raise PluginError(
                f"{label}{of} is True or False, and can't be {type_name(value)}",
                hint=f"write {label}=True or {label}=False",
            )


class OperationOptions(TypedDict, total=False):
    """The options of an action or a capability that is made from a function or a method."""

    idempotent: bool
    read_only: bool
    destructive: bool
    transactional: bool
    title: str
    description: str | None
    input_schema: Schema
    output_schema: Schema


_MARK = "__automate_operation__"
_BASES = {"action": "Connector", "capability": "BaseProvider"}
# The methods that the kernel itself calls on a plugin.
_TAKEN = {
    "call_operation",
    "check",
    "close",
    "config_schema",
    "find_operation",
    "find_own",
    "is_own_operation",
    "normalize_error",
    "operation_specs",
    "own_operations",
    "parse_config",
}


def _mark(function: Any, *, noun: str, **options: Any) -> None:
    if not inspect.isfunction(function):
        raise TypeError("decorate a plain method; put this decorator innermost")
    mark = {**options, "name": options["name"] or function.__name__}
    setattr(function, _MARK, (noun, mark))


def decorating(
    name: Any, options: OperationOptions, noun: str, take: Callable[..., None] | None = None
) -> Any:
    """
    Return what the decorator *noun* returns, with parentheses or, where *name* is a function, not.

    *take* gets the decorated function, and by keywords its name and the *options*. By default it
    notes them on a method, for `marked_operations`.
    """
    known = OperationOptions.__annotations__
    for option in options:
        if option not in known:
            meant = did_you_mean(option, known) or f"it has {', '.join(known)}"
            if option == "name":
                meant = f'the name comes first and alone, as in @{noun}("send")'
            raise TypeError(f"{noun}() has no option {option!r}: {meant}")
    _require_flags(options, f" in {noun}()")
    decorated = callable(name) or hasattr(name, "__get__")  # a property, a classmethod
    if not (name is None or isinstance(name, str) or decorated):
        raise TypeError(f"the name in {noun}() must be text, not {type(name).__name__}")
    take = functools.partial(_mark, noun=noun) if take is None else take

    def decorate(function: F) -> F:
        take(function, name=None if decorated else name, **options)
        return function

    return decorate(name) if decorated else decorate


def operation_mark(value: object) -> tuple[str, Mapping[str, Any]] | None:
    """Return the noun and the options of the decorator that marked a method; None without one."""
    found = getattr(value, _MARK, None)
    return found if isinstance(found, tuple) else None


def require_noun(method: str, used: str, noun: str) -> None:
    """Raise `PluginError` if *method* has the decorator *used* of another kind than *noun*'s."""
    if used != noun:
        raise PluginError(
            f"{method}() is marked with @{used}, and its class takes @{noun}",
            hint=f"write @{noun} above its def, or derive the class from {_BASES[used]}",
        )


def marked_operations(owner: type, spec: type[S], noun: str) -> list[S]:
    """
    Return the specs of the methods of *owner* that *noun* marked, base classes' first.

    A method that overrides a marked method stays an operation without being marked again; ``None``
    takes it away. Raises `PluginError` for a method with the decorator of another kind of plugin.
    """
    marks: dict[str, Mapping[str, Any]] = {}
    for base in reversed(owner.__mro__):
        for attribute, value in vars(base).items():
            if found := operation_mark(value):
                used, mark = found
                require_noun(f"{owner.__name__}.{attribute}", used, noun)
                if attribute in _TAKEN:
                    raise PluginError(
                        f"{owner.__name__}.{attribute}() is what the kernel calls for its own ends",
                        hint=f"rename the method, and mark it with the name {mark['name']!r}",
                    )
                marks[attribute] = mark
    methods = ((getattr(owner, attribute), mark) for attribute, mark in marks.items())
    return [_made(spec, each, True, **mark) for each, mark in methods if callable(each)]


def operation_from_function(
    function: Callable[..., Any], *, name: str | None = None, **options: Unpack[OperationOptions]
) -> OperationSpec:
    """
    Return the spec of a function, ``def`` or ``async def``, which `OperationSpec.call` calls.

    The input goes to one parameter annotated with a pydantic model, or to typed parameters, one for
    each field. A parameter annotated `Call` gets the call. The description defaults to the
    docstring's first paragraph.
    """
    return _made(OperationSpec, function, False, name=name, **options)


def step_operation(function: Callable[..., Any]) -> OperationSpec:
    """
    Return the spec of any function that a workflow in code calls as a step.

    Its name is the function's own: ``shop.flows.reserve``. A parameter without a type takes any
    value.
    """
    qualified = str(getattr(function, "__qualname__", type(function).__name__))
    name = f"{getattr(function, '__module__', '')}.{qualified.replace('<locals>.', '')}"
    binding = bind(function, untyped=True)
    fit = _UNFIT.sub("", name)[-_LONGEST_NAME:].lstrip(".-")
    return OperationSpec(fit, binding.input_schema, binding=binding, is_step=True)


def _made(
    spec: type[S],
    function: Callable[..., Any],
    method: bool,
    *,
    name: str | None,
    description: str | None = None,
    input_schema: Schema = None,
    output_schema: Schema = None,
    **options: Any,
) -> S:
    binding = bind(function, method=method, input_schema=input_schema, output_schema=output_schema)
    if description is None:
        description = (inspect.getdoc(function) or "").split("\n\n")[0].replace("\n", " ")
    return spec(
        name or str(getattr(function, "__name__", "")),
        input_schema=binding.input_schema,
        output_schema=binding.output_schema,
        description=description,
        binding=binding,
        **options,
    )
