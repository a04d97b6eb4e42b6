"""Explain what went wrong in a template, without any of the values in it."""

from __future__ import annotations

import re
from typing import Any

from automate_kernel.errors import AutomateError, TemplateError

__all__ = ["explain"]

# The texts of Python's that name types, operators and parameters only.
_HARMLESS = re.compile(
    r"unsupported operand|bad operand type|can only concatenate|'[<>=!]+' not supported"
    r"|'\w+' object (?:is not|has no|can't|cannot|does not)|object of type '\w+' has no len"
    r"|\S+\(\) (?:missing|takes|got an unexpected|got multiple|expected)|cannot unpack"
    r"|[\w.]+ (?:expected|takes) (?:at (?:least|most) |exactly )?\d+ argument"
)


def explain(
    error: Exception, *, path: str, source: str, template: Any = None, pieces: Any = None
) -> TemplateError:
    """
    A `TemplateError` that says where and why, from *error*.

    *template* is Jinja's, and *pieces* its generator, which was stopped at the line in question
    if it wasn't the template's own code that failed.

    Raise it outside the ``except`` block: the original error holds values, and must not travel
    along as its context.
    """
    message, hint = _message(error)
    line = _line(error, template, pieces)
    several = line is not None and "\n" in source.rstrip("\n")
    where = f"{path or 'template'}, line {line}" if several else (path or "template")
    details = {"path": path, "line": line}
    problem = TemplateError(f"{where}: {message}", hint=hint, details=details)
    # Of a filter that an author wrote: where it failed.
    problem.trace, problem.group = getattr(error, "trace", None), getattr(error, "group", None)
    return problem


def _message(error: Exception) -> tuple[str, str | None]:
    if isinstance(error, AutomateError):
        return error.message, error.hint
    if isinstance(error, ZeroDivisionError):
        return "division by zero", None
    if isinstance(error, RecursionError):
        return "it is nested too deeply", None
    if isinstance(error, TypeError) and _HARMLESS.match(str(error)):
        return str(error), None
    from jinja2.exceptions import TemplateSyntaxError, UndefinedError

    from automate_kernel.templates.bounded_filters import FilterError

    if isinstance(error, TemplateSyntaxError):
        return error.message or "it is not valid", None
    if isinstance(error, UndefinedError):
        return error.message or "a value is missing", "use | default(...) if it may be missing"
    if str(error) == "cannot assign attribute on non-namespace object":  # Jinja's own words
        return "only a namespace's names can be set", "{% set ns = namespace(count=0) %}"
    if isinstance(error, FilterError):
        return error.message or "a filter failed", None
    return f"it failed with {type(error).__name__}", None


def _line(error: Exception, template: Any, pieces: Any) -> int | None:
    line: int | None = getattr(error, "lineno", None)  # a syntax error
    if isinstance(error, AutomateError) and "line" in error.details:
        line = error.details["line"]
    if line is not None or template is None:
        return line
    frame = getattr(pieces, "gi_frame", None)
    code_line = frame.f_lineno if frame is not None else None
    traceback = error.__traceback__
    while traceback is not None:
        if "__jinja_template__" in traceback.tb_frame.f_globals:
            code_line = traceback.tb_lineno
        traceback = traceback.tb_next
    return template.get_corresponding_lineno(code_line) if code_line else None
