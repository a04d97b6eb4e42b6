"""The actions of a document, each read when it is asked for."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, TypedDict, TypeVar

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.operations.schemas.checks import Check, compile_schema
from automate_kernel.plugins.connectors import ActionSpec
from automate_openapi.bodies import kind_of
from automate_openapi.config import ActionHints, OpenApiConfig, PagesConfig
from automate_openapi.document import ApiDocument, BrokenReferenceError, mapping
from automate_openapi.inputs import Input, InputReader
from automate_openapi.names import OperationPlace, places
from automate_openapi.schemas import Schemas

_MOST_DESCRIPTION, _MOST_TITLE, _SHOWN_PROBLEMS = 4_000, 200, 5
_SAFE, _REPEATABLE = ("get", "head", "options", "trace"), ("put", "delete")

T = TypeVar("T")


class _Effects(TypedDict):
    read_only: bool
    destructive: bool
    idempotent: bool


@dataclass(frozen=True)
class ApiAction:
    """An operation of the document as an action."""

    spec: ActionSpec
    place: OperationPlace
    input: Input = field(default_factory=Input)
    pages: PagesConfig | None = None
    problem: str | None = None
    """The reason why it can't be called."""

    @cached_property
    def output_check(self) -> Check | None:
        """The check of an answer, or None if nothing is known of it."""
        if not self.spec.output_schema:
            return None
        return compile_schema(self.spec.output_schema, f"output of {self.spec.name!r}")  # type: ignore[arg-type]


class Actions(Mapping[str, ActionSpec]):
    """
    The specs of the wanted actions of a *document*, by name.

    A spec is made when it is asked for, and kept.
    """

    def __init__(
        self, document: ApiDocument, config: OpenApiConfig, logger: logging.Logger
    ) -> None:
        self.document = document
        self._config, self._logger = config, logger
        self._schemas = Schemas(document)
        self._places = places(document, config)
        self._made: dict[str, ApiAction] = {}

    def __getitem__(self, name: str) -> ActionSpec:
        return self.action(name).spec

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def directed(self) -> frozenset[str]:
        """Return the definitions that the actions so far ask for and give in two forms."""
        return self._schemas.directed()

    def action(self, name: str) -> ApiAction:
        """Return the action *name*. Raises `KeyError`."""
        found = self._made.get(name)
        if found is None:
            found = self._made[name] = self._action(name, self._places[name])
        return found

    def _action(self, name: str, place: OperationPlace) -> ApiAction:
        pages = last_fitting(self._config.pages, name) if place.method == "get" else None
        reader = InputReader(
            self.document,
            self._schemas,
            place,
            files_from=self._config.files_from,
            max_items=self._config.max_items if pages is not None else None,
        )
        try:
            given = reader.read()
            output, problems = self._output(place, listed=pages is not None and bool(pages.items))
        except BrokenReferenceError as problem:
            text = f"{name!r} can't be called: {problem}"
            self._logger.warning("%s", text)
            spec = ActionSpec(name, description=text, **self._nature(name, place))
            return ApiAction(spec, place, problem=str(problem))
        problems = [*given.schema.problems, *problems]
        if problems:
            listed = "; ".join(problems[:_SHOWN_PROBLEMS])
            more = len(problems) - _SHOWN_PROBLEMS
            listed += f" and {more} more" if more > 0 else ""
            self._logger.warning("%r is checked less than its document says: %s", name, listed)
        spec = ActionSpec(
            name,
            input_schema=given.schema.schema,
            output_schema=output,
            title=_text(place.operation.get("summary"))[:_MOST_TITLE],
            description=_description(place),
            **self._nature(name, place),
        )
        return ApiAction(spec, place, given, pages)

    def _nature(self, name: str, place: OperationPlace) -> _Effects:
        hints = last_fitting(self._config.hints, name) or ActionHints()
        read_only = _either(hints.read_only, place.method in _SAFE and not hints.destructive)
        destructive = _either(hints.destructive, place.method == "delete")
        idempotent = _either(hints.idempotent, place.method in (*_SAFE, *_REPEATABLE))
        return {
            "read_only": read_only,
            "destructive": destructive and not read_only,
            "idempotent": idempotent,
        }

    def _output(
        self, place: OperationPlace, *, listed: bool
    ) -> tuple[dict[str, Any] | None, list[str]]:
        """Return the schema of what comes back, or None if nothing is known of it."""
        if place.method == "head":
            return {"type": "null"}, []
        choices: list[tuple[Any, str]] = []
        kinds: set[str] = set()
        empty = False
        for status, given in mapping(place.operation.get("responses")).items():
            if not status.upper().startswith("2"):
                continue
            try:
                response, base = self.document.resolved(given, place.base)
            except BrokenReferenceError as problem:
                # What goes there is known all the same.
                return None, [f"response {status}: {problem}"]
            content = mapping(response.get("content"))
            if not content:
                empty = True
            kinds |= {kind_of(media_type) for media_type in content}
            choices += [(mapping(media).get("schema", {}), base) for media in content.values()]
        if kinds == {"text"} and not empty:
            return {"type": "string"}, []
        if kinds - {"json"}:
            return None, []
        return self._joined(choices, empty=empty, listed=listed)

    def _joined(
        self, choices: list[tuple[Any, str]], *, empty: bool, listed: bool
    ) -> tuple[dict[str, Any] | None, list[str]]:
        parts = [self._schemas.part(node, base, "output") for node, base in choices]
        if not parts:
            return None, []
        schemas = [part.schema if isinstance(part.schema, dict) else {} for part in parts]
        # A service may answer with no content where it says that it has none.
        schemas += [{"type": "null"}] if empty else []
        # With max_items it is the list itself, out of the object that it comes in.
        schemas += [{"type": "array"}] if listed else []
        if not all(schemas):
            return None, []
        for part in parts[1:]:
            parts[0].references |= part.references
            parts[0].problems += part.problems
        schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
        closed = self._schemas.close(schema, parts[0], "output")
        return closed.schema or None, closed.problems


def last_fitting(table: Mapping[str, T], name: str) -> T | None:
    """Return the value of the last pattern in *table* that fits *name*, or None."""
    fitting = [value for pattern, value in table.items() if fnmatchcase(name, pattern)]
    return fitting[-1] if fitting else None


def uncallable(name: str, problem: str) -> AutomateError:
    """Return the error for an action that the document describes wrongly."""
    return AutomateError(
        ErrorCodes.FAILED_PRECONDITION,
        f"the action {name!r} can't be called, as its document is wrong: {problem}",
        hint="mend the document, and report it to the service",
    )


def _either(told: bool | None, default: bool) -> bool:
    return default if told is None else told


def _text(value: Any) -> str:
    return " ".join(value.split()) if isinstance(value, str) else ""


def _description(place: OperationPlace) -> str:
    summary, more = (place.operation.get(word) for word in ("summary", "description"))
    words = [each.strip() for each in (summary, more) if isinstance(each, str) and each.strip()]
    text = "\n\n".join(dict.fromkeys(words))
    if place.operation.get("deprecated") is True:
        text = f"Deprecated. {text}"
    return text[:_MOST_DESCRIPTION]
