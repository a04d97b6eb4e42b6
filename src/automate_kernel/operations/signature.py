"""The signature of a Python function, read as the input of an operation."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

from automate_kernel.base.errors import PluginError
from automate_kernel.operations.context import Call, PluginContext
from automate_kernel.operations.schemas.checks import Schema, is_model, readable_types
from automate_kernel.operations.schemas.core import unmade_inputs

if TYPE_CHECKING:
    from pydantic import BaseModel


# Options of pydantic: as base64 any bytes can be written, and not text alone.
BYTES_AS_BASE64: Mapping[str, Any] = {"ser_json_bytes": "base64", "val_json_bytes": "base64"}


@dataclass(frozen=True, slots=True)
class Binding:
    """
    A function and how to call it with validated input.

    *whole* names the parameter that takes all the input; otherwise *fields* maps parameters to
    fields of the input model. *call* names the parameter that takes the `Call`. *returns* is the
    type of the output, where that and no *output_schema* says what it holds.
    """

    function: Callable[..., Any]
    input_schema: Schema
    output_schema: Schema = None
    whole: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    call: str | None = None
    returns: Any = None
    returned: Any = None
    """The annotation of what the function returns."""

    def __call__(self, value: Any, call: Call, *instance: Any) -> Any:
        """Call the function (as a method of *instance*, if there is one) with the input *value*."""
        if self.whole is not None:
            arguments = {self.whole: value}
        else:
            arguments = {name: getattr(value, field) for name, field in self.fields.items()}
            arguments.update(getattr(value, "model_extra", None) or {})
        if self.call is not None:
            arguments[self.call] = call
        return self.function(*instance, **arguments)


def bind(
    function: Callable[..., Any],
    *,
    method: bool = False,
    input_schema: Schema = None,
    output_schema: Schema = None,
    untyped: bool = False,
) -> Binding:
    """
    Return the binding of *function* to its input.

    A parameter annotated with a pydantic model takes all of the input, if there is no other
    parameter. With an *input_schema* the only parameter takes it. Otherwise each parameter is a
    field, and needs a type; bytes are base64, as in outputs. With *untyped* a parameter without a
    type takes any value: only code calls it. A parameter annotated `Call` gets the call. With
    *method* the first parameter is the instance's.
    """
    parameters = _parameters(function)
    hints = type_hints(function)
    if method:
        _require_self(function, parameters, hints)
        del parameters[0]
    call = next((p.name for p in parameters if hints.get(p.name) is Call), None)
    rest = [p for p in parameters if p.name != call]
    _require_input(function, rest, hints)
    output, returned = output_schema, hints.get("return")
    if output is None and is_model(returned):
        output = returned
    returns = returned if output is None and _says_all(returned) else None
    if input_schema is not None:
        if len(rest) != 1:
            raise _wrong(function, "has an input_schema, so it must take one parameter for it")
        return Binding(
            function, input_schema, output, whole=rest[0].name, call=call, returns=returns,
            returned=returned,
        )  # fmt: skip
    if len(rest) == 1 and is_model(hints.get(rest[0].name)):
        return Binding(
            function, hints[rest[0].name], output, whole=rest[0].name, call=call, returns=returns,
            returned=returned,
        )  # fmt: skip
    if untyped:
        hints = {**dict.fromkeys((p.name for p in rest), Any), **hints}
    model, fields = _build_model(function, rest, hints, untyped=untyped)
    return Binding(
        function, model, output, fields=fields, call=call, returns=returns, returned=returned
    )


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except ValueError:  # int, or another that is written in C
        raise _wrong(function, "tells no parameters: write a function that calls it") from None


def _require_self(
    function: Callable[..., Any], parameters: list[inspect.Parameter], hints: Mapping[str, Any]
) -> None:
    """Raise `PluginError` for a method whose first parameter is plainly a field of the input."""
    first = parameters[0].name if parameters else ""
    hint = hints.get(first) if first != "self" else None
    if not first or hint in (str, int, float, bool) or get_origin(hint) or is_model(hint):
        shown = f": {first!r} would be the plugin" if first else ""
        raise _wrong(function, f"takes no self{shown}", hint="write self as its first parameter")


def _require_input(
    function: Callable[..., Any], parameters: list[inspect.Parameter], hints: Mapping[str, Any]
) -> None:
    """Raise `PluginError` for parameters that can't be input, whatever is sent."""
    for name in (parameter.name for parameter in parameters):
        hint = hints.get(name)
        if isinstance(hint, type) and issubclass(hint, PluginContext):
            problem = f"takes a {hint.__name__} as {name!r}, which is no input"
            raise _wrong(function, problem, hint="leave it out, and read self.ctx")
        if isinstance(hint, type) and not getattr(hint, "__pydantic_complete__", True):
            with readable_types(f"the parameter {name!r} of {_name_of(function)}()"):
                hint.model_rebuild()  # type: ignore[attr-defined]


def _says_all(returned: Any) -> bool:
    """Return True for None, and for a list of models."""
    return returned is type(None) or (
        get_origin(returned) is list and is_model(get_args(returned)[0])
    )


def type_hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the resolved annotations of *function*; raises `PluginError` if one can't be."""
    hinted = inspect.unwrap(function)
    if not inspect.isroutine(hinted):
        hinted = type(hinted).__call__  # an object that can be called
    names = None
    if sys.version_info < (3, 11):
        # There a default of None would hide in an Optional what an annotation says of the field.
        names = getattr(hinted, "__globals__", {})
        hinted = SimpleNamespace(__annotations__=getattr(hinted, "__annotations__", {}))
    try:
        return get_type_hints(hinted, names, include_extras=True)
    except Exception as error:  # an annotation is code: it may raise anything
        raise _wrong(
            function,
            f"has an annotation that can't be resolved: {error}",
            hint="define the types that it names at the top level of its module"
            if isinstance(error, NameError)
            else "correct the annotation",
        ) from None


def _build_model(
    function: Callable[..., Any],
    parameters: list[inspect.Parameter],
    hints: Mapping[str, Any],
    *,
    untyped: bool,
) -> tuple[type[BaseModel], dict[str, str]]:
    from pydantic import ConfigDict, PydanticUserError, create_model

    extra = "forbid"
    definitions: dict[str, Any] = {}
    fields: dict[str, str] = {}
    for parameter in parameters:
        if parameter.kind is parameter.VAR_KEYWORD:
            extra = "allow"
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            raise _wrong(
                function,
                f"takes {parameter.name!r} by position; input has only names",
                hint="write a function with named parameters that calls it",
            )
        if parameter.name not in hints:
            is_call = parameter.name == "call"
            raise _wrong(
                function,
                f"does not say the type of its parameter {parameter.name!r}",
                hint="write call: Call, and import Call from automate_kernel"
                if is_call
                else f"write {parameter.name}: str, or another type, such as a pydantic model",
            )
        default = ... if parameter.default is parameter.empty else parameter.default
        name, annotation = _field(parameter.name, hints[parameter.name])
        fields[parameter.name] = name
        definitions[name] = (annotation, default)
    config = ConfigDict(extra=extra, protected_namespaces=(), **BYTES_AS_BASE64)  # type: ignore[typeddict-item]
    words = getattr(function, "__name__", type(function).__name__).split("_")
    title = "".join(map(str.capitalize, words)) or "Operation"
    try:
        model = create_model(f"{title}Input", __config__=config, **definitions)
    except PydanticUserError:
        for given, name in fields.items():  # each alone, to show which it is
            with readable_types(f"the parameter {given!r} of {_name_of(function)}()"):
                create_model("One", __config__=config, **{name: definitions[name]})
        raise
    for name, what in () if untyped else unmade_inputs(model.__pydantic_core_schema__):
        raise _wrong(
            function,
            f"takes {what} as {name!r}, which is not made from JSON",
            hint="take a name, and look it up in the function",
        )
    return model, fields


def _field(name: str, annotation: Any) -> tuple[str, Any]:
    """Return the name of the model's field for a parameter, and its annotation."""
    from pydantic import BaseModel, Field

    if not name.startswith("_") and not hasattr(BaseModel, name):
        return name, annotation
    # A parameter called `json` or `copy` would hide a method of the model.
    return f"field_{name.strip('_')}", Annotated[annotation, Field(alias=name)]


def _wrong(function: Callable[..., Any], problem: str, hint: str | None = None) -> PluginError:
    return PluginError(f"{_name_of(function)}() {problem}", hint=hint)


def _name_of(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", repr(function)))
