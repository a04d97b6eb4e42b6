"""The options of ``automate call``: made from the JSON Schema of an operation's input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from automate_cli.output import Output
from automate_kernel.base.errors import ConfigError, did_you_mean
from automate_kernel.operations.schemas.fields import (
    FieldTextError,
    InputField,
    assembled,
    input_fields,
    takes_more_fields,
    written,
)
from automate_kernel.operations.spec import OperationSpec

_WHOLE = "--input."
_MOST = 40


class InputOptions:
    """
    The options of one operation. *taken* are those of the command itself.

    A field that is called as one of these is written ``--input.NAME``, as every field may be. A
    field is written as it is called, or with hyphens in place of underscores.
    """

    def __init__(self, spec: OperationSpec, taken: Iterable[str]) -> None:
        schema = spec.json_schema()
        self.fields: list[InputField] = input_fields(schema)
        self._name = spec.name
        self._taken = frozenset(taken)
        self._more = takes_more_fields(schema)
        self._by_option: dict[str, tuple[InputField, bool]] = {}
        for field in self.fields:
            self._add_all(field)
        for path in dict.fromkeys(each.path[:n] for each in self.fields for n in _lengths(each)):
            self._add_all(InputField(path, "json", schema={"type": "object"}))  # as a whole

    def _add_all(self, field: InputField) -> None:
        for name in (field.name, field.name.replace("_", "-")):
            self._add(f"{_WHOLE}{name}", field)
            self._add(f"--{name}", field)

    def _add(self, option: str, field: InputField) -> None:
        self._by_option.setdefault(option, (field, True))
        if field.kind == "boolean" and not field.many:
            self._by_option.setdefault(f"--no-{option[2:]}", (field, False))

    def option_of(self, field: InputField) -> str:
        """Return the option with which *field* is given."""
        option = f"--{field.name.replace('_', '-')}"
        return f"{_WHOLE}{field.name}" if option in self._taken else option

    def names(self) -> list[str]:
        """Return one option for each field, in the schema's order."""
        return [self.option_of(field) for field in self.fields]

    def read(self, words: Sequence[str]) -> dict[str, Any]:
        """Return the input that *words* of the command line stand for; raises `ConfigError`."""
        texts: dict[InputField, list[str]] = {}
        left = list(words)
        while left:
            word = left.pop(0)
            option, sign, text = word.partition("=")
            if not word.startswith("--") or len(option) < 3:
                raise ConfigError(
                    f"unexpected argument {word[:40]!r}",
                    hint="each field has an option: --name value",
                )
            field, yes = self._found(option)
            if field.kind == "boolean" and not field.many and not sign:
                # true and false may follow, as for all others.
                follows = left[0].lower() if left else ""
                text = left.pop(0) if yes and follows in ("true", "false") else str(yes).lower()
            elif not sign:
                if not left:
                    raise ConfigError(f"{option} needs a value", hint=f"it is {field.type_words}")
                text = left.pop(0)
            texts.setdefault(field, []).append(text)
        return self._values(texts)

    def _found(self, option: str) -> tuple[InputField, bool]:
        found = self._by_option.get(option)
        if found is not None:
            return found
        if self._more:
            name = option[len(_WHOLE) :] if option.startswith(_WHOLE) else option[2:]
            field = InputField(tuple(name.split(".")), "json")
            return self._by_option.setdefault(option, (field, True))
        known = [*self.names(), *(each for each in self._by_option if "no-" in each)]
        raise ConfigError(
            f"{self._name} has no option {option[:60]}",
            hint=did_you_mean(
                option, [*known, *self._taken], also=f"it has: {', '.join(self.names()) or 'none'}"
            ),
        )

    def _values(self, texts: Mapping[InputField, list[str]]) -> dict[str, Any]:
        values: dict[tuple[str, ...], Any] = {}
        for field, given in texts.items():
            option = self.option_of(field)
            if len(given) > 1 and not field.many:
                raise ConfigError(f"{option} is given {len(given)} times, and takes one value")
            try:
                # A reference stands for a value of any kind, which is checked once it is known.
                reference = any(each.startswith(("$secret:", "$env:")) for each in given)
                values[field.path] = (
                    given[0] if reference and not field.many else field.read_many(given)
                )
            except FieldTextError as error:
                raise ConfigError(f"{option} {error}") from None
        try:
            return assembled(values)
        except FieldTextError as error:
            raise ConfigError(str(error)) from None

    def show(self, out: Output, dynamic: Iterable[str] = ()) -> None:
        """Print a line for each field; *dynamic* are those whose choices can be listed."""
        rows = [[self.option_of(each), *_described(each, each.name in dynamic)]
                for each in self.fields]  # fmt: skip
        out.table(("OPTION", "TYPE", "DEFAULT", "DESCRIPTION"), rows, empty="it takes no fields")


def _lengths(field: InputField) -> range:
    return range(1, len(field.path))


def _described(field: InputField, dynamic: bool) -> Iterator[str]:
    words = field.type_words
    yield words if len(words) <= _MOST else f"{words[: _MOST - 1]}…"
    if field.required:
        yield "required"
    else:
        nothing = field.default is None or (field.secret and field.default)
        yield "" if nothing else written(field.default)
    notes = [field.description or field.title]
    if len(words) > _MOST:
        notes.append(words)
    if dynamic:
        notes.append(f"(--choices {field.name} lists what it may be)")
    yield " ".join(filter(None, notes))
