"""The difference between a value and what its JSON is read as, described without showing it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from automate_kernel.base.errors import PayloadError, type_name
from automate_kernel.operations.outputs import json_output
from automate_kernel.storage.values import UnstorableError, is_plain

_NAME_IT = (
    "write its type in the annotation; where JSON writes two of them alike, return a model with a"
    " field that tells which it is"
)


def difference(
    given: Any, back: Any, *, loose: bool = False, converts: bool = False
) -> UnstorableError | None:
    """
    Return the error for what of *given* is another value in *back*, as its JSON is read, or None.

    A value that becomes JSON's own type counts as the same: a tuple that is a list, a text of an
    enum. With *loose* anything may be what is written for it: a date that is text. With *converts*
    any type may become another; a value of the same type must be equal.
    """
    with suppress(Exception):  # an array, whose comparison is an array too
        if type(given) is type(back) and _names_of_parts(given) is not None and given == back:
            return None
    return _Comparison(loose, converts).of(given, back, ())


@dataclass(frozen=True, slots=True)
class _Comparison:
    loose: bool
    converts: bool

    def of(self, given: Any, back: Any, path: tuple[str | int, ...]) -> UnstorableError | None:
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
    # A model is another one if it has lost what its subclass adds.
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
        return UnstorableError(path, f"is {was} that comes back as another one", hint)
    hint = _NAME_IT
    if isinstance(given, type(back)):
        hint = f"write {type(given).__name__} in the annotation, in place of {type(back).__name__}"
    return UnstorableError(path, f"is {was}, and comes back as {becomes}", hint)
