"""Whether a text is a workflow that can be saved, and if not, why and on which line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from automate_kernel.errors import ConfigError, PayloadError, WorkflowError
from automate_kernel.outbox.item import encode_json
from automate_kernel.workflows.definition.document import LARGEST, read_json, read_yaml
from automate_kernel.workflows.definition.loader import loads

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel
    from automate_kernel.workflows.definition.model import Workflow

__all__ = ["FORMATS", "Format", "Told", "advice", "checked", "name_problem", "told"]

Format = Literal["yaml", "json"]
FORMATS: tuple[Format, ...] = get_args(Format)


@dataclass(frozen=True, slots=True)
class Told:
    """One thing that is wrong with a text: where, what, and what to do."""

    message: str
    line: int | None = None
    field: str = ""
    hint: str | None = None

    def __str__(self) -> str:
        place = f"Line {self.line}" if self.line else ""
        said = ": ".join(part for part in (place, self.field, self.message) if part)
        return f"{said} ({self.hint})" if self.hint else said


def checked(text: str, format: str, kernel: Kernel) -> Workflow:
    """The workflow that *text* says; raises `WorkflowError` with everything that is wrong."""
    known = next((each for each in FORMATS if each == format), None)
    if known is None:
        raise WorkflowError(f"the format must be one of {', '.join(FORMATS)}")
    leaks = list(_secrets(text, kernel))
    if leaks:
        raise refused(*leaks)
    try:
        workflow = loads(text, known, source="", check=kernel.workflows.check)
        encode_json([text, workflow.to_dict()], "the workflow", 8 * LARGEST)
    except (ConfigError, PayloadError) as error:  # PyYAML is not installed, or NUL is in a text
        raise WorkflowError(error.message, hint=error.hint) from None
    return workflow


def _secrets(text: str, kernel: Kernel) -> Iterator[Told]:
    """The lines that hold the value of a secret, which would be stored and shown to people."""
    if kernel.redactor.redact(text) == text:
        return
    hint = "write $secret:KEY in its place"
    found = False
    for number, line in enumerate(text.splitlines(), 1):
        if kernel.redactor.redact(line) != line:
            found = True
            yield Told("it holds the value of a secret", number, hint=hint)
    if not found:
        yield Told("the text holds the value of a secret, over several lines", hint=hint)


def refused(*problems: Told) -> WorkflowError:
    """The error that tells *problems*, in the form in which the kernel's loader does."""
    details = [
        {
            "source": "",
            "line": each.line,
            "field": each.field,
            "message": each.message,
            "hint": each.hint,
        }
        for each in problems
    ]
    return WorkflowError("\n".join(map(str, problems)), details={"problems": details})


def name_problem(text: str, format: Format, message: str, hint: str) -> WorkflowError:
    """An error about the workflow's name, with the line on which it stands."""
    document = read_json(text) if format == "json" else read_yaml(text)[0]
    return refused(Told(message, document.line(("name",)), "name", hint))


def told(error: WorkflowError) -> list[Told]:
    """Everything that *error* tells, for a page."""
    problems: list[dict[str, Any]] = error.details.get("problems", [])
    if not problems:
        return [Told(error.message, hint=error.hint)]
    return [Told(one["message"], one["line"], one["field"] or "", one["hint"]) for one in problems]


def advice(workflow: Workflow, kernel: Kernel) -> list[str]:
    """
    What would go wrong when it runs here: an action that is not installed, a missing field.

    It does not keep the workflow from being saved: a worker may have what this process lacks.
    """
    from automate_kernel.monitoring.diagnosis import workflow_problems

    return [kernel.redactor.redact(problem) for problem in workflow_problems(kernel, workflow)]
