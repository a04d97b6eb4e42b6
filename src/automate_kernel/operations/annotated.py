"""The values of an annotation, as JSON and back from it."""

from __future__ import annotations

import copy
import inspect
import typing
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, get_args, get_origin

from typing_extensions import Self

from automate_kernel.base.errors import AutomateError, PayloadError, WorkflowError, type_name
from automate_kernel.operations.outputs import MOST_VALUES, json_output
from automate_kernel.operations.schemas.checks import (
    invalid,
    readable_types,
    validation_problems,
)
from automate_kernel.operations.schemas.core import Shape, shape_of
from automate_kernel.operations.signature import BYTES_AS_BASE64
from automate_kernel.secrets.handles import Sealed, SecretRef
from automate_kernel.storage.values import UnstorableError, is_plain

if TYPE_CHECKING:
    from pydantic import TypeAdapter


V = TypeVar("V", bound="Values")
# Annotations of which nothing follows. A function that never returns gives no value at all.
_NOTHING = (
    Any, None, type(None), inspect.Parameter.empty, NoReturn, getattr(typing, "Never", NoReturn),
)  # fmt: skip


class Values:
    """
    The values of one annotation, as JSON and back.

    Without an annotation, or with ``Any``, the JSON itself is the value. *what* names it in errors.
    With *base64* bytes are written so, and can hold anything.
    """

    def __init__(self, annotation: Any, what: str, *, base64: bool = False) -> None:
        self.what = what
        self._annotation = annotation
        self._shape = Shape()
        self._adapter: TypeAdapter[Any] | None = None
        if annotation not in _NOTHING:
            with readable_types(what, WorkflowError):
                self._adapter = _adapter(annotation, base64)
                self._shape = shape_of(self._adapter.core_schema)

    def named(self, what: str) -> Self:
        """Return the same, which errors call *what*."""
        named = copy.copy(self)
        named.what = what
        return named

    def json_schema(self) -> dict[str, Any] | None:
        """Return the JSON Schema of the values, or None if any JSON fits."""
        return None if self._adapter is None else self._adapter.json_schema()

    def write(self, value: Any) -> Any:
        """
        Return *value* as JSON, in which references to secrets stay as they are.

        It may be converted to the annotation's type. Raises `PayloadError` for a value that would
        lose something unseen: a `SecretStr`, keys that are no text.
        """
        if is_plain(value):
            return value
        if isinstance(value, (SecretRef, Sealed)):
            return value
        if _holds_secret(value):
            return self._written(value)
        written = self._dump(self._converted(value))
        if self._adapter is not None:
            self._require_kept(value, written)
        return written

    def _require_kept(self, value: Any, written: Any) -> None:
        try:
            back = self.read(written)
        except AutomateError:
            return  # the call reports it
        lost = difference(value, back, loose=self._shape.loose, converts=True)
        if lost is not None:
            raise lost.about(self.what.removeprefix("the "))

    def _written(self, value: Any) -> Any:
        """Return *value* as JSON, with the references to secrets in it."""
        if isinstance(value, (SecretRef, Sealed)):
            return value
        if isinstance(value, Mapping):
            return {str(key): self._written(part) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._written(part) for part in value]
        return self._dump(value)

    def _converted(self, value: Any, *, round_trip: bool = False) -> Any:
        """Return what pydantic writes for *value*, or *value* if it can't."""
        if self._adapter is None:
            return value
        import pydantic_core

        try:
            return self._adapter.dump_python(
                value, mode="json", by_alias=True, warnings=False, round_trip=round_trip
            )
        except (pydantic_core.PydanticSerializationError, ValueError, TypeError):
            return value  # whoever takes it says what is wrong with it

    def _dump(self, value: Any) -> Any:
        return json_output(value, self.what.removeprefix("the "))

    def read(self, stored: Any) -> Any:
        """
        Return the value that *stored* JSON makes.

        Raises ``INVALID_ARGUMENT`` that names each wrong field, and shows no value.
        """
        if self._adapter is None:
            return stored
        import pydantic_core
        from pydantic import ValidationError

        try:
            # As strict as for actions: "3" is no number, but a date is text in JSON.
            return self._adapter.validate_json(pydantic_core.to_json(stored), strict=True)
        except ValidationError as error:
            raise invalid(self.what, validation_problems(error, stored)) from None


def _adapter(annotation: Any, base64: bool) -> TypeAdapter[Any]:
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter

    if base64:
        try:
            return TypeAdapter(annotation, config=ConfigDict(**BYTES_AS_BASE64))  # type: ignore[typeddict-item]
        except PydanticUserError as refused:
            if refused.code != "type-adapter-config-unused":  # a model has its own
                raise
    return TypeAdapter(annotation)


def _holds_secret(value: Any) -> bool:
    if isinstance(value, (SecretRef, Sealed)):
        return True
    if isinstance(value, Mapping):
        return any(map(_holds_secret, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_holds_secret, value))


class Results(Values):
    """
    The results of a function with one annotation: what is read is what was written.

    Raises `WorkflowError` for an annotation whose values never come back from JSON.
    """

    def __init__(self, annotation: Any, what: str) -> None:
        if Iterable in (annotation, get_origin(annotation)):
            # An Iterable that pydantic reads is empty the second time.
            annotation = list[get_args(annotation) or Any]  # type: ignore[misc]
        super().__init__(annotation, what, base64=True)
        if self._shape.problem is not None:
            problem, hint = self._shape.problem
            raise WorkflowError(f"{what} {problem}", hint=hint)

    @property
    def are_plain(self) -> bool:
        """True if any value of JSON's own types comes back as it is."""
        return self._adapter is None

    def write(self, value: Any) -> Any:
        """Return *value* as JSON; raises `PayloadError` if it would not come back."""
        if self._shape.plain and is_plain(value, most=MOST_VALUES):
            if self._adapter is not None and type(value) is not self._annotation:
                self._check(value)
            return value
        written = self._dump(self._converted(value, round_trip=self._shape.round_trip))
        if self._adapter is not None:
            self._require_same(value, written)
        return written

    def _check(self, value: Any) -> None:
        from pydantic_core import PydanticSerializationError

        try:
            self._back(
                value,
                "is not valid",
                hint="return that, or write in the annotation what is returned",
            )
        except PydanticSerializationError:
            pass  # half a character: whoever stores it says where it stands

    def _dump(self, value: Any) -> Any:
        return json_output(value, self.what.removeprefix("the "), returned=True)

    def _require_same(self, value: Any, written: Any) -> None:
        back = self._back(
            written,
            "can't be stored, for what is written for it is not valid",
            hint="write what is returned in the annotation, and let serializers and aliases"
            " write what is read",
        )
        lost = difference(value, back, loose=self._shape.loose)
        if lost is not None:
            raise lost.about(self.what.removeprefix("the "))

    def _back(self, written: Any, unfit: str, *, hint: str) -> Any:
        """Return what *written* is read as; raises `PayloadError` for what is *unfit* for that."""
        try:
            return self.read(written)
        except AutomateError as error:
            problems = "; ".join(map(_shown, error.details["problems"]))
            raise PayloadError(f"{self.what} {unfit}: {problems}", hint=hint) from None


def _shown(problem: Mapping[str, str]) -> str:
    return f"{problem['field']}: {problem['message']}" if problem["field"] else problem["message"]


# -- the difference between a value and what its JSON is read as, described without showing it -----

_NAME_IT = (
    "write its type in the annotation; where JSON writes two of them alike, return a model with a"
    " field that tells which it is"
)
_LEAVES = frozenset({str, int, float, bool, type(None)})


def difference(
    given: Any, back: Any, *, loose: bool = False, converts: bool = False
) -> UnstorableError | None:
    """
    Return the error for what of *given* is another value in *back*, as its JSON is read, or None.

    A value that becomes JSON's own type counts as the same: a tuple that is a list, a text of an
    enum. With *loose* anything may be what is written for it: a date that is text. With *converts*
    any type may become another; a value of the same type must be equal.
    """
    return _Comparison(loose, converts).of(given, back, ())


@dataclass(frozen=True, slots=True)
class _Comparison:
    loose: bool
    converts: bool

    def of(self, given: Any, back: Any, path: tuple[str | int, ...]) -> UnstorableError | None:
        if type(given) in _LEAVES and type(given) is type(back):  # as most are
            return None if given == back else _changed(given, back, path)
        if isinstance(given, Mapping) and isinstance(back, Mapping):
            return self._of_mappings(given, back, path)
        if isinstance(given, (list, tuple)) and isinstance(back, (list, tuple)):
            plain = type(given) is type(back) or not hasattr(given, "_fields")
            if plain and len(given) == len(back):
                return self._first(zip(range(len(given)), given, back, strict=True), path)
        elif type(given) is type(back):
            return self._of_one_type(given, back, path)
        elif self._becomes(given, back):
            return None
        return _changed(given, back, path)

    def _becomes(self, given: Any, back: Any) -> bool:
        """Return True if *given* may become *back*, which is of another type."""
        if self.converts or _is_converted(given, back):
            return True
        return self.loose and _is_written(given, back)

    def _of_mappings(
        self, given: Mapping[Any, Any], back: Mapping[Any, Any], path: tuple[str | int, ...]
    ) -> UnstorableError | None:
        keys = {key: key for key in back}
        for key in given:
            if key not in keys or self.of(key, keys[key], path) is not None:
                message = f"has a key that is not text but {type(key).__name__}"
                if isinstance(key, str):
                    message = "loses a key"
                hint = "write the type of its keys in the annotation, or make them text"
                return UnstorableError(path, message, hint)
        return self._first(((key, given[key], back[key]) for key in given), path)

    def _first(
        self, parts: Iterable[tuple[Any, Any, Any]], path: tuple[str | int, ...]
    ) -> UnstorableError | None:
        found = (
            self.of(given, back, (*path, place if isinstance(place, int) else str(place)))
            for place, given, back in parts
        )
        return next((each for each in found if each is not None), None)

    def _of_one_type(
        self, given: Any, back: Any, path: tuple[str | int, ...]
    ) -> UnstorableError | None:
        names = _names_of_parts(given)
        if names is not None:
            parts = ((name, getattr(given, name), getattr(back, name)) for name in names)
            return self._first(parts, path)
        # A value that can't be compared may be any.
        comparable: Any = type(given).__eq__
        if comparable is object.__eq__ or _are_equal(given, back):
            return None
        return _changed(given, back, path)


def _names_of_parts(value: Any) -> list[str] | None:
    """Return the names of what a model or dataclass holds and writes, or None for another value."""
    kind = type(value)
    known = getattr(kind, "model_fields", None) or getattr(kind, "__pydantic_fields__", None)
    if isinstance(known, dict):
        extra = getattr(value, "__pydantic_extra__", None) or {}
        return [*(name for name, field in known.items() if field.exclude is not True), *extra]
    if is_dataclass(value):
        return [field.name for field in fields(value) if field.compare]
    return None


def _are_equal(given: Any, back: Any) -> bool:
    try:
        return bool(given == back)
    except Exception:  # an array, whose comparison is an array too
        return True


def _is_converted(given: Any, back: Any) -> bool:
    """Return True if *back* is what *given* is in the plainer type that the annotation names."""
    if isinstance(given, bool) or isinstance(back, bool):
        return False
    numbers = isinstance(given, (int, float)) and isinstance(back, (int, float))
    sets = isinstance(given, AbstractSet) and isinstance(back, AbstractSet)
    # A model is a different value if it has lost what its subclass adds.
    plainer = isinstance(given, type(back)) and _names_of_parts(given) is None
    return (numbers or sets or plainer) and _are_equal(given, back)


def _is_written(given: Any, back: Any) -> bool:
    """Return True if *back* is the JSON of *given*, in a place that takes any JSON."""
    try:
        return is_plain(back) and bool(json_output(given, "value") == back)
    except PayloadError:
        return False


def _changed(given: Any, back: Any, path: tuple[str | int, ...]) -> UnstorableError:
    was, becomes = type_name(given), type_name(back)
    if type(given) is type(back):
        hint = "let what its serializers write be what its validators take, or give plain values"
        if hasattr(given, "get_secret_value"):
            hint = 'no secret is stored: read it where it is needed, or pass ctx.secret("KEY")'
        return UnstorableError(path, f"is {was} that comes back as another value", hint)
    hint = _NAME_IT
    if isinstance(given, type(back)):
        hint = f"write {type(given).__name__} in the annotation, in place of {type(back).__name__}"
    return UnstorableError(path, f"is {was}, and comes back as {becomes}", hint)
