"""Checks of what an operation returns against what its signature and its schema promise."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args

from automate_kernel.operations.schemas.checks import (
    FieldProblem,
    check_model,
    compile_schema,
    is_model,
    validation_problems,
)
from automate_kernel.operations.signature import type_hints
from automate_kernel.operations.spec import OperationSpec


def contradiction(spec: OperationSpec) -> str | None:
    """Return the contradiction between a function's annotation and its output schema, or None."""
    annotated, declared = _annotation(spec), spec.output_schema
    if not (is_model(annotated) and is_model(declared)) or issubclass(annotated, declared):  # type: ignore[arg-type]
        return None
    return (
        f"{spec.name!r} is annotated -> {annotated.__name__}, and its output_schema is"
        f" {declared.__name__}"  # type: ignore[union-attr]
    )


def broken_promise(spec: OperationSpec, output: Any) -> str | None:
    """
    Return in which way *output*, a JSON value, isn't what the operation promises; None if it is.

    The promise is the output schema, or else the annotation of what the function returns.
    """
    schema, annotated = spec.output_schema, _annotation(spec)
    if is_model(schema):
        promise, problems = schema.__name__, _of_model(schema, output)  # type: ignore[union-attr]
    elif isinstance(schema, Mapping):
        promise, problems = "its output_schema", compile_schema(schema, spec.name)(output)
    else:
        promise, problems = _worded(annotated), _of_type(annotated, output)
    if not problems:
        return None
    said = "; ".join(map(str, problems))
    return f"{spec.name!r} returned something else than {promise}: {said}"


def _annotation(spec: OperationSpec) -> Any:
    """Return the annotation of what the operation's function returns, else `Any`."""
    if spec.binding is None:
        return Any
    return type_hints(spec.binding.function).get("return", Any)


def _of_model(model: Any, output: Any) -> list[FieldProblem]:
    if isinstance(output, Mapping):
        # They are computed for the output, and no input takes them.
        computed = getattr(model, "model_computed_fields", {})
        names = {*computed, *(each.alias for each in computed.values())}
        output = {key: value for key, value in output.items() if key not in names}
    return check_model(model, output)[1]


def _of_type(annotated: Any, output: Any) -> list[FieldProblem]:
    from pydantic import PydanticUserError, TypeAdapter, ValidationError

    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotated)
    except (PydanticUserError, NameError):
        return []  # a class of its own, which says nothing of the JSON that is made of it
    try:
        adapter.validate_json(json.dumps(output), strict=True)
    except ValidationError as error:
        return validation_problems(error, output)
    return []


def _worded(annotated: Any) -> str:
    if annotated is type(None):
        return "None"
    if isinstance(annotated, type) and not get_args(annotated):
        return annotated.__name__
    return str(annotated).replace("typing.", "")
