"""The actions of a plugin that is written from a document, as methods of its connector."""

from __future__ import annotations

import builtins
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from automate_kernel.plugins.connectors import ActionSpec, Connector
from automate_openapi.actions import ApiAction
from automate_openapi.bodies import Body, kind_of
from automate_openapi.document import ApiDocument, mapping
from automate_openapi.paging import Paging, paging_of, settled, types_of
from automate_openapi.parameters import Parameter
from automate_openapi.plugin_models import OWN_DEFAULT, PluginModels, field_names
from automate_openapi.python_source import (
    Bracket,
    apart,
    camel,
    docstring,
    line,
    literal,
    snake,
    told_apart,
)
from automate_openapi.python_types import SCALARS, TypePlace

KEYS = ("idempotency-key", "x-idempotency-key")
"""The headers by which services know a repeated request."""

_SCALARS = frozenset({"string", "integer", "number", "boolean"})
_LONGEST_NAME, _MOST_ITEMS = 50, 10_000
# The parameters of the client's methods, which no part of a path can be called.
_CLIENTS = frozenset(
    {"self", "method", "path", "query", "json", "form", "headers", "returns", "pages", "max_items",
     "max_pages"}
)  # fmt: skip
_TAKEN = frozenset({*dir(Connector), *dir(builtins), "config", "ctx", "client", "l", "models"})
_CHECKED = frozenset({"dict[str, Any]", *SCALARS.values()})
_MODEL = re.compile(r"(list\[)?([A-Z]\w*)\]?")
_JOINTS = {"form": ",", "simple": ",", "spaceDelimited": " ", "pipeDelimited": "|"}


class CannotWriteError(Exception):
    """An operation that no method is written for, with the reason."""


@dataclass(frozen=True)
class WrittenAction:
    """An action with its *spec*, less what its pager sets, and the methods' *name*."""

    action: ApiAction
    name: str
    spec: ActionSpec
    parameters: tuple[Parameter, ...]
    answer: str
    """``json``, ``text``, ``binary`` or ``none``."""
    paging: Paging | None = None
    key: str | None = None
    """The header for a key by which the service knows a repeated request."""
    notes: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    """The names of the input's fields in Python."""

    @property
    def guarded(self) -> bool:
        """True if it must not be repeated where it may have been done."""
        spec = self.spec
        return not spec.read_only and (not spec.idempotent or self.key is not None)

    @property
    def title(self) -> str:
        """The title for people, in one line."""
        return line(self.spec.title, 60) or self.name.replace("_", " ").capitalize()

    @property
    def about(self) -> str:
        """The description; its first paragraph is a sentence."""
        first, _, more = self.spec.description.partition("\n\n")
        text = line(first, 400) or self.title
        return f"{text}{'' if text[-1] in '.!?…' else '.'}\n\n{more}"


def method_names(actions: Iterable[str]) -> dict[str, str]:
    """Return the name of the method for each action: of two that would share one each is marked."""
    names = {
        each: apart((snake(each) or "action")[:_LONGEST_NAME].strip("_"), _TAKEN, digits="call_")
        for each in actions
    }
    claims = Counter(names.values())
    return {
        each: name if claims[name] == 1 else told_apart(name, each) for each, name in names.items()
    }


def prepared(document: ApiDocument, action: ApiAction, name: str) -> WrittenAction:
    """Return *action* as it will be written. Raises `CannotWriteError`."""
    if action.problem is not None:
        raise CannotWriteError(action.problem)
    schema: dict[str, Any] = dict(mapping(action.spec.input_schema))
    if "properties" not in schema:  # the connector checks no such input, and sends it as it is
        raise CannotWriteError("its input is too large to be written")
    answer, headers = _answer(document, action)
    parameters, notes, key = _parameters(action, schema)
    _require_body(action, schema)
    paging, output = None, action.spec.output_schema
    if action.place.method == "get" and answer == "json" and isinstance(output, Mapping):
        query = {
            each.name: settled(schema["properties"][each.key], schema.get("$defs", {}))
            for each in parameters
            if each.location == "query"
        }
        paging = paging_of(query, output, headers)
    left_out = {each.key for each in action.input.parameters} - {each.key for each in parameters}
    if paging is not None:
        own = [e for e in parameters if e.location == "query" and e.name in paging.parameters]
        left_out |= {each.key for each in own}
        parameters = [each for each in parameters if each not in own]
    properties = {k: v for k, v in schema["properties"].items() if k not in left_out}
    for each in parameters:
        if each.location == "path":
            properties[each.key] = _without_null(properties[each.key], schema.get("$defs", {}))
    if paging is not None:
        properties["max_items"] = {
            "type": "integer", "minimum": 1, "maximum": _MOST_ITEMS, OWN_DEFAULT: 100,
            "description": "The most items to return, of all pages.",
        }  # fmt: skip
    schema |= {
        "properties": properties,
        "required": [each for each in schema.get("required", ()) if each in properties],
    }
    spec = replace(action.spec, input_schema=schema, idempotent=action.spec.idempotent or key != "")
    return WrittenAction(
        action, name, spec, tuple(parameters), answer, paging, key or None, tuple(notes),
        field_names(properties),
    )  # fmt: skip


def _answer(document: ApiDocument, action: ApiAction) -> tuple[str, set[str]]:
    """Return the kind of an operation's answer, and the headers that come with it."""
    kinds: set[str] = set()
    headers: set[str] = set()
    for status, given in mapping(action.place.operation.get("responses")).items():
        if status.upper().startswith("2"):
            response, _ = document.resolved(given, action.place.base)
            kinds |= {kind_of(each) for each in mapping(response.get("content"))}
            headers |= set(mapping(response.get("headers")))
    if action.place.method == "head" or not kinds:
        return "none", headers
    if "json" in kinds:
        return "json", headers
    return ("text" if kinds <= {"text", "form"} else "binary"), headers


def _parameters(
    action: ApiAction, schema: Mapping[str, Any]
) -> tuple[list[Parameter], list[str], str]:
    """Return the parameters that are written, notes on the others, and the header for a key."""
    found, notes, key = [], [], ""
    for each in action.input.parameters:
        if each.location == "header" and each.name.lower() in KEYS:
            key = each.name
        elif problem := _problem_of(each, schema):
            if each.required:
                raise CannotWriteError(f"the {each.location} parameter {each.name!r} {problem}")
            notes.append(f"without the {each.location} parameter {each.name!r}, which {problem}")
        else:
            found.append(each)
    return found, notes, key


def _problem_of(parameter: Parameter, schema: Mapping[str, Any]) -> str:
    """Return the reason why no code is written for a parameter; empty if there is none."""
    if parameter.location == "cookie":
        return "is a cookie"
    if len(literal(parameter.name)) > _LONGEST_NAME:
        return "has too long a name"
    if parameter.json and parameter.location == "query":
        return ""
    shape = _shape(schema["properties"][parameter.key], schema.get("$defs", {}))
    if parameter.style == "deepObject" and shape == "object":
        return ""
    if shape == "object" or parameter.json or parameter.style not in _JOINTS:
        return "is written in a way that has no short code"
    return ""


def _shape(schema: Any, definitions: Mapping[str, Any], known: dict[int, str] | None = None) -> str:
    """Return ``scalar``, ``list`` (of scalars) or ``object``, which anything else counts as."""
    schema = settled(schema, definitions)
    if not schema:
        return "scalar"
    known = {} if known is None else known
    if id(schema) not in known:
        # Each is looked at once: many references to a schema would take time without end.
        known[id(schema)] = "object"  # in a circle
        known[id(schema)] = _found_shape(schema, definitions, known)
    return known[id(schema)]


def _found_shape(
    schema: Mapping[str, Any], definitions: Mapping[str, Any], known: dict[int, str]
) -> str:
    if isinstance(schema.get("enum"), list):
        plain = all(isinstance(each, (str, int, float)) for each in schema["enum"])
        return "scalar" if plain else "object"
    several = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    if several:
        shapes = {_shape(each, definitions, known) for each in several}
        return shapes.pop() if len(shapes) == 1 else "object"
    types = types_of(schema)
    if types <= _SCALARS:
        return "scalar"
    if types != {"array"}:
        return "object"
    return "list" if _shape(schema.get("items", {}), definitions, known) == "scalar" else "object"


def _without_null(schema: Any, definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a part of a path, which can't be null."""
    found = dict(settled(schema, definitions))
    if "type" in found:
        found["type"] = sorted(types_of(found))
    if "enum" in found:
        found["enum"] = [each for each in found["enum"] if each is not None]
    for word in ("anyOf", "oneOf"):
        if word in found:
            found[word] = [_without_null(each, definitions) for each in found[word]]
            found[word] = [each for each in found[word] if each.get("type") != []]
    return {"description": mapping(schema).get("description", ""), **found}


def _require_body(action: ApiAction, schema: Mapping[str, Any]) -> None:
    body = action.input.body
    if body is None or body.kind == "json":
        return
    if body.kind != "form":
        raise CannotWriteError(f"its body is {line(body.media_type)}")
    shapes = {
        _shape(schema["properties"][each], schema.get("$defs", {})) for each in body.fields.values()
    }
    if body.whole is not None or body.others or shapes - {"scalar", "list"}:
        raise CannotWriteError("its form has fields that are objects")


# -- the source ----------------------------------------------------------------------------------


class ActionSource:
    """Writes the methods of a connector. *service* is its name for people."""

    def __init__(self, models: PluginModels, service: str) -> None:
        self._models, self._service = models, service
        self.uses: set[str] = set()
        """The names that the methods need."""
        self.unchecked: set[str] = set()
        """The actions that take any answer."""

    def method(self, written: WrittenAction) -> str:
        """Return the source of a method."""
        spec, given = written.spec, written.spec.input_schema
        signature = ["self"]
        if isinstance(given, Mapping) and given.get("properties"):
            kind = self._models.object_of(
                {**given, "description": f"The input of `{written.name}`."},
                TypePlace(f"{camel(written.name)}Input", f"{spec.name} input"), "input",
            )  # fmt: skip
            signature.append(f"given: models.{kind}")
        returns, raw = self._returns(written)
        flags = [
            f"{each}=True"
            for each in ("read_only", "idempotent", "destructive")
            if getattr(spec, each) and not (each == "idempotent" and spec.read_only)
        ]
        flags.append(f"title={literal(written.title)}")
        body = self._pages if written.paging is not None else self._request
        head = f"async def {written.name}("
        return "\n".join(
            [
                Bracket("@action(", flags).written("    "),
                Bracket(head, signature, f") -> {returns}:").written("    "),
                *docstring(written.about, "        "),
                *(f"        # {each}" for each in self._notes(written)),
                *body(written, raw, returns),
            ]
        )

    def _notes(self, written: WrittenAction) -> Iterator[str]:
        notes = [f"{each[:1].upper()}{each[1:]}." for each in written.notes]
        notes += [f"Recognised: {written.paging.reason}"] if written.paging is not None else []
        # A name could be a word to a linter: such begin with a number sign.
        yield from (re.sub(r"#|[^ -~]", "?", line(each, 88)) for each in notes)

    def _returns(self, written: WrittenAction) -> tuple[str, str]:
        """Return the annotation of a method, and the type that its client is asked for."""
        if written.answer == "none":
            return "None", "bytes"
        name = TypePlace(f"{camel(written.name)}Output", f"{written.spec.name} output")
        about = f"The output of `{written.name}`."
        if written.answer in ("text", "binary"):
            kind = "str"
            about = about if written.answer == "text" else f"{about[:-1]}, in base64."
            raw = "str" if written.answer == "text" else "bytes"
            return f"models.{self._models.root(kind, name, about)}", raw
        output: Any = written.spec.output_schema
        schema = output if isinstance(output, Mapping) else {}
        if written.paging is not None:
            for part in written.paging.items.split(".") if written.paging.items else ():
                schema = settled(schema, output.get("$defs", {}))["properties"][part]
            schema = settled(schema, output.get("$defs", {}))
        kind = self._models.type_of(schema, name, "output")
        found = _MODEL.fullmatch(kind)
        if found and found[2] != "Any" and found[2] not in self._models.choices:
            typed = f"{found[1] or ''}models.{found[2]}{']' if found[1] else ''}"
            return typed, f"models.{found[2]}" if written.paging is not None else typed
        item = ""
        if written.paging is not None:
            item = kind.removeprefix("list[").removesuffix("]")
            item = item if item in _CHECKED else ""
            kind = f"list[{item or 'Any'}]"
        if kind in ("Any", "list[Any]"):
            self.unchecked.add(written.name)
        root = f"models.{self._models.root(kind, name, about)}"
        return root, item if written.paging is not None else root

    def _request(self, written: WrittenAction, raw: str, returns: str) -> Iterator[str]:
        """Yield the lines that send the request and return its answer."""
        method = written.action.place.method
        arguments = [*self._arguments(written), f"returns={raw}"]
        short = method in ("get", "post") and not any(
            str(each).startswith("headers=") for each in arguments
        )
        parts = [*([] if short else [literal(method.upper())]), self._path(written), *arguments]
        request = Bracket(f"self.client.a{method}(" if short else "self.client.arequest(", parts)
        wrapped = written.answer in ("text", "binary")
        before = "answer = " if wrapped else "return " if written.answer == "json" else ""
        if not written.guarded:
            yield replace(request, head=f"{before}await {request.head}").written("        ")
        else:
            self.uses.add("_once")
            keyed = ["keyed=True"] if written.key is not None else []
            yield Bracket(f"{before}await self._once(", [request, *keyed]).written("        ")
        if written.answer == "binary":
            self.uses.add("b64encode")
        if wrapped:
            value = "answer" if written.answer == "text" else "b64encode(answer).decode()"
            yield Bracket(f"return {returns}(", [value]).written("        ")

    def _pages(self, written: WrittenAction, raw: str, returns: str) -> Iterator[str]:
        """Yield the lines that return the items of all pages."""
        assert written.paging is not None  # noqa: S101 - its caller's
        self.uses.add(written.paging.pager)
        arguments = [self._path(written), "pages=pages", *self._arguments(written)]
        arguments += [*([f"returns={raw}"] if raw else []), "max_items=given.max_items"]
        items = "[each async for each in found]"
        pages = Bracket(f"pages = {written.paging.pager}(", written.paging.options)
        yield pages.written("        ")
        yield Bracket("found = self.client.aitems(", arguments).written("        ")
        yield (
            f"        return {items}"
            if raw.startswith("models.")
            else Bracket(f"return {returns}(", [items]).written("        ")
        )

    # -- the parts of a request --------------------------------------------------------------

    def _path(self, written: WrittenAction) -> str:
        parts = {
            each.name: _part(written.names[each.key])
            for each in written.parameters
            if each.location == "path"
        }
        path = written.action.place.path
        return literal(re.sub(r"\{([^{}/]+)\}", lambda found: f"{{{parts[found[1]]}}}", path))

    def _arguments(self, written: WrittenAction) -> Iterator[str | Bracket]:
        names, found = written.names, written.parameters
        for each in found:
            if each.location == "path":
                yield self._value(written, each, f"{_part(names[each.key])}=")
        for location, head in (("query", "query=_given("), ("header", "headers=_texts(")):
            pairs = [
                f"**_deep({literal(each.name)}, given.{names[each.key]})"
                if _is_deep(each)
                else self._value(written, each, f"{literal(each.name)}: ")
                for each in found
                if each.location == location
            ]
            if pairs:
                self.uses |= {"_deep"} if any(map(_is_deep, found)) else set()
                self.uses.add(head[head.index("=") + 1 : -1])
                yield Bracket(head, [Bracket("{", pairs, "}")])
        if written.action.input.body is not None:
            yield self._body(written, written.action.input.body)

    def _body(self, written: WrittenAction, body: Body) -> str | Bracket:
        names = written.names
        self.uses.add("_sent")
        if body.whole is not None:
            whole = literal(body.whole)
            found = f"[{whole}]" if body.required else f".get({whole})"
            return f"json=_sent(given){found}"
        moved = {wire: names[key] for wire, key in body.fields.items() if wire != key}
        left_out = [names[each.key] for each in written.parameters] + [*moved.values()]
        parts = ["given", *map(literal, left_out)]
        if moved:
            pairs = ", ".join(f"{literal(wire)}: given.{name}" for wire, name in moved.items())
            parts.append(f"**{{{pairs}}}")
        if body.kind == "form":
            self.uses.add("_given")
            return Bracket("form=_given(", [Bracket("_sent(", parts)])
        if body.required:
            return Bracket("json=_sent(", parts)
        self.uses.add("_sent_if_any")
        return Bracket("json=_sent_if_any(", parts)

    def _value(self, written: WrittenAction, parameter: Parameter, before: str) -> str | Bracket:
        """Return the source of a parameter's value, with what stands *before* it."""
        value = f"given.{written.names[parameter.key]}"
        schema: Any = written.action.spec.input_schema
        if parameter.json:
            self.uses.add("_json")
            return Bracket(f"{before}_json(", [value])
        shape = _shape(schema["properties"][parameter.key], schema.get("$defs", {}))
        if shape == "list" and not (parameter.location == "query" and parameter.explode):
            joint = _JOINTS[parameter.style]
            if parameter.location == "path":
                return Bracket(f"{before}{literal(joint)}.join(", [f"map(str, {value})"])
            self.uses.add("_joined")
            return Bracket(
                f"{before}_joined(", [value, *([literal(joint)] if joint != "," else [])]
            )
        return f"{before}{value}"


def _part(name: str) -> str:
    return f"{name}_" if name in _CLIENTS else name


def _is_deep(parameter: Parameter) -> bool:
    return parameter.style == "deepObject" and not parameter.json
