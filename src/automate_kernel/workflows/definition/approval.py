"""
Approvals: what a step asks a person, who may answer, and the form that comes with the answer.

`Approval` is what an author writes. `FormField` is one field of its form, and `read_form` checks
what a person has filled in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from math import ceil, floor
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    create_model,
    model_validator,
)
from pydantic_core import PydanticCustomError

from automate_kernel.base.durations import OptionalDuration, format_duration
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.workflows.definition.fields import (
    DefinitionModel,
    Identifier,
    JsonTree,
    OperationName,
    PlainText,
    StepInput,
    refused,
)

LINKS: dict[str, Literal["approve", "reject"] | None] = {
    "link": None, "approve_link": "approve", "reject_link": "reject",
}  # fmt: skip
"""The links that a notice sees below ``approval``, and what each decides."""

MOST_FIELDS = 50
MOST_PEOPLE = 100
MOST_TITLE = 500
MOST_DESCRIPTION = 5_000
_MOST_FORM = 200_000  # bytes of its definition
# What a JSON reader of any language keeps as it is.
_WHOLE = 2**53
_ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NUMBER = re.compile(r"\s*[+-]?([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?\s*", re.ASCII)

FieldType = Literal["text", "number", "integer", "boolean", "date", "choice"]


class FormField(DefinitionModel):
    """One field of an approval's form."""

    name: Identifier
    """Its name in the output: ``steps.<id>.output.form.<name>``."""
    type: FieldType = "text"
    """The kind of value; ``choice`` is one of its `choices`."""
    label: PlainText | None = None
    """Its name for people."""
    help: PlainText | None = None
    """A line that explains it."""
    required: bool = False
    """True if an approval needs it. A rejection never does."""
    default: JsonTree = None
    """Its value before anybody changes it, and where it is left out."""
    choices: Annotated[Sequence[PlainText], Field(max_length=200), AfterValidator(tuple)] = ()
    """The texts to choose from."""
    max_length: int = Field(default=1_000, ge=1, le=10_000)
    """The number of characters that a text may have."""
    minimum: float | None = None
    """The least number."""
    maximum: float | None = None
    """The greatest number."""

    @model_validator(mode="after")
    def _fits(self) -> FormField:
        given = self.model_fields_set
        if self.type == "choice" and not self.choices:
            raise refused("form", "a choice has choices", "add choices: [small, large]")
        if self.type != "choice" and "choices" in given:
            raise refused("form", f"choices mean nothing for {self.type}", "set type: choice")
        if self.type != "text" and "max_length" in given:
            raise refused("form", "max_length is for text", "take it out")
        if self.type not in ("number", "integer") and {"minimum", "maximum"} & given:
            raise refused("form", "minimum and maximum are for numbers", "take them out")
        if self.default is not None:
            try:
                read_form([self], {self.name: self.default})
            except AutomateError as error:
                problem = error.details["fields"][self.name]
                raise refused("form", f"its default {problem}", "correct the default") from None
        return self

    @property
    def title(self) -> str:
        """Its name for people, whether it has a label or not."""
        return self.label or self.name.replace("_", " ").capitalize()


def _check_people(value: Any) -> Any:
    if isinstance(value, str) and "{{" in value:
        return value
    people = [value] if isinstance(value, str) else value
    if isinstance(people, (list, tuple)) and all(is_person(each) for each in people):
        return tuple(people)
    hint = 'for example by: [ann, "role:managers"], or one template that gives a list'
    raise refused("approval", "by must name people, and roles as role:NAME", hint)


def is_person(value: object) -> bool:
    """Return True if *value* can be an entry of an approval's ``by``."""
    return isinstance(value, str) and bool(value) and value == value.strip() and len(value) <= 200


class Notice(DefinitionModel):
    """A call that tells people of an approval, made once it waits."""

    action: OperationName
    """``connector.action``, ``provider.capability``, or an action of the host."""
    input: StepInput = Field(default_factory=dict)
    """The action's fields. Templates see ``approval`` beside the usual names: its ``link``,
    ``approve_link``, ``reject_link``, ``title``, ``description``, ``expires_at``, ``position`` (of
    an element of ``for_each``, else -1), and ``to``, the entry of `by` that is told."""
    once: bool = False
    """True for a place that all of `by` read: the call is made once, and ``to`` is null. If `by`
    names people there are no links, as each is for one of them: a workflow that reads one is
    refused."""


class Approval(DefinitionModel):
    """
    A question to people: the step waits until one of them approves or rejects.

    Its output is ``{"approved": …, "by": …, "comment": …, "form": {…}, "at": …, "timed_out": …}``.
    """

    title: Annotated[str, Field(min_length=1, max_length=MOST_TITLE)]
    """The question in one line; a template."""
    description: Annotated[str, Field(max_length=MOST_DESCRIPTION)] | None = None
    """The facts that people need to decide; a template."""
    by: Annotated[
        Any,
        BeforeValidator(_check_people),
        Field(max_length=MOST_PEOPLE * 200),
        WithJsonSchema({"anyOf": [{"type": "array", "items": {"type": "string"}},
                                  {"type": "string"}]}),
    ] = ()  # fmt: skip
    """Those who may decide: people, and roles as ``role:NAME``; or a template that gives such a
    list. Without it anybody may whom the application lets in."""
    form: Annotated[Sequence[FormField], Field(max_length=MOST_FIELDS), AfterValidator(tuple)] = ()
    """The fields that come with an approval."""
    timeout: OptionalDuration = None  # type: ignore[assignment]
    """Seconds until it is too late to decide; None waits for ever."""
    on_timeout: Literal["fail", "continue", "approve", "reject"] = "fail"
    """The end of the step then: it fails, or completes with ``approved: false`` and
    ``timed_out: true``, or it counts as an approval or a rejection."""
    on_reject: Literal["fail", "continue"] = "fail"
    """The meaning of a rejection: the step fails, or it completes with ``approved: false``."""
    notify: Notice | None = None
    """The call that tells people. It is made once for each entry of `by`, or once without any."""

    @model_validator(mode="after")
    def _fits(self) -> Approval:
        names = [field.name for field in self.form]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise refused("form", f"two fields are called {twice!r}", "rename one of them")
        if len(self.model_dump_json(include={"form"})) > _MOST_FORM:
            raise refused("form", "the form is too large", "ask for less, or shorten the choices")
        if self.timeout is None and "on_timeout" in self.model_fields_set:
            raise refused("approval", "on_timeout means nothing without timeout", "add a timeout")
        return self

    def answered(self, decision: Mapping[str, Any]) -> dict[str, Any]:
        """Return the output of the step for a person's *decision*; raises if that fails it."""
        output = {name: decision.get(name) for name in _OUTPUT}
        if not output["approved"] and self.on_reject == "fail":
            raise _rejected(output)
        return output

    def timed_out(self) -> dict[str, Any]:
        """Return the output of the step when nobody has decided in time; raises if it fails."""
        approved = self.on_timeout == "approve"
        output: dict[str, Any] = {
            "approved": approved, "by": None, "comment": "",
            "form": read_form(self.form, None, approved=False), "at": None, "timed_out": True,
        }  # fmt: skip
        if self.on_timeout == "fail":
            within = format_duration(self.timeout or 0.0)
            raise AutomateError(ErrorCodes.DEADLINE_EXCEEDED, f"nobody decided within {within}")
        if self.on_timeout == "reject" and self.on_reject == "fail":
            raise _rejected(output)
        return output


_OUTPUT = ("approved", "by", "comment", "form", "at", "timed_out")


def _rejected(output: Mapping[str, Any]) -> AutomateError:
    text = "rejected, as nobody decided in time"
    if not output["timed_out"]:
        comment = str(output["comment"] or "")[:MOST_TITLE]
        text = f"rejected by {output['by']}{': ' if comment else ''}{comment}"
    return AutomateError(ErrorCodes.FAILED_PRECONDITION, text)


# -- the form -----------------------------------------------------------------------------------


def _text_date(value: Any) -> Any:
    # pydantic would take a number for seconds since 1970.
    if isinstance(value, date) or (isinstance(value, str) and _ISO_DATE.fullmatch(value)):
        return value
    raise PydanticCustomError("date_type", "no date")


def _written_number(value: Any) -> Any:
    # pydantic would read 1_000 as a thousand, and true as 1.
    if isinstance(value, bool) or (isinstance(value, str) and not _NUMBER.fullmatch(value)):
        raise PydanticCustomError("number_type", "no number")
    return value


def _annotation(field: FormField) -> Any:
    least, most = field.minimum, field.maximum
    number = BeforeValidator(_written_number)
    if field.type == "text":
        text = Field(min_length=1 if field.required else 0, max_length=field.max_length)
        return Annotated[str, text]
    if field.type == "number":
        return Annotated[float, Field(ge=least, le=most, allow_inf_nan=False), number]
    if field.type == "integer":
        bottom = -_WHOLE if least is None else ceil(least)
        top = _WHOLE if most is None else floor(most)
        return Annotated[int, Field(ge=bottom, le=top), number]
    if field.type == "choice":
        return Literal[tuple(field.choices)]
    return {"boolean": bool, "date": Annotated[date, BeforeValidator(_text_date)]}[field.type]


def form_model(fields: Sequence[FormField]) -> type[BaseModel]:
    """Return the pydantic model of a form: what checks it, and its JSON Schema."""
    made: dict[str, Any] = {}
    for number, field in enumerate(fields):
        about = Field(
            ... if field.required and field.default is None else field.default,
            alias=field.name, title=field.title, description=field.help,
        )  # fmt: skip
        kind = _annotation(field)
        # Not by their own names, some of which pydantic needs itself.
        made[f"field_{number}"] = (kind if field.required else kind | None, about)
    config = ConfigDict(extra="forbid", hide_input_in_errors=True, title="Form")
    return create_model("Form", __config__=config, **made)


def form_json_schema(fields: Sequence[FormField]) -> dict[str, Any]:
    """Return the JSON Schema of a form, for a user interface of the application's own."""
    return form_model(fields).model_json_schema(by_alias=True)


def read_form(
    fields: Sequence[FormField], given: Mapping[str, Any] | None, *, approved: bool = True
) -> dict[str, Any]:
    """
    Return the values of a form as JSON has them, with defaults for those left out.

    Texts stand for numbers, dates and booleans too, as a browser sends them; ``1_000`` is none.
    What is required is so for an approval alone. Raises ``INVALID_ARGUMENT``, whose details have a
    line for each of the ``fields`` that is wrong.
    """
    given = {} if given is None else given
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise AutomateError(ErrorCodes.INVALID_ARGUMENT, "the form must be an object")
    if not approved:
        fields = [field.model_copy(update={"required": False}) for field in fields]
    kinds = {field.name: field.type for field in fields}
    # What a browser sends for a field that is left empty.
    filled = {
        name: value for name, value in given.items()
        if not (value == "" and kinds.get(name, "") != "text")
    }  # fmt: skip
    try:
        read = form_model(fields).model_validate(filled)
    except ValidationError as error:
        raise _form_error(fields, error) from None
    return read.model_dump(mode="json", by_alias=True)


def _form_error(fields: Sequence[FormField], error: ValidationError) -> AutomateError:
    by_name = {field.name: field for field in fields}
    problems: dict[str, str] = {}
    for each in error.errors(include_url=False, include_input=False):
        name = str(each["loc"][0])[:40]
        problems.setdefault(name, _problem(by_name.get(name), str(each["type"])))
    problems = dict(list(problems.items())[:MOST_FIELDS])
    lines = "; ".join(f"{name} {problem}" for name, problem in problems.items())
    return AutomateError(
        ErrorCodes.INVALID_ARGUMENT, f"the form is not right: {lines}", details={"fields": problems}
    )


def _problem(field: FormField | None, kind: str) -> str:
    if field is None or kind == "extra_forbidden":
        return "is no field of this form"
    if kind in ("missing", "string_too_short"):
        return "is missing"
    if kind == "string_too_long":
        return f"must not be longer than {field.max_length:,} characters"
    if kind == "greater_than_equal" and field.minimum is not None:
        return f"must be at least {field.minimum:g}"
    if kind == "less_than_equal" and field.maximum is not None:
        return f"must be at most {field.maximum:g}"
    return {
        "text": "must be text",
        "number": "must be a number",
        "integer": "must be a whole number",
        "boolean": "must be true or false",
        "date": "must be a date like 2026-01-31",
        "choice": f"must be one of {', '.join(field.choices)}",
    }[field.type]
