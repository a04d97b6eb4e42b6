"""A module with typed methods, written from a document, for editors and type checkers."""

from __future__ import annotations

import keyword
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from automate_kernel.plugins.connectors import ActionSpec
from automate_openapi.actions import Actions
from automate_openapi.connector import OpenApiConnector
from automate_openapi.python_source import apart, camel, line, quoted, snake, told_apart
from automate_openapi.python_types import SCALARS, PythonTypes, TypePlace
from automate_openapi.schemas import Direction

_FIELD = re.compile(r"(?!__)[A-Za-z_][A-Za-z0-9_]*")


def frozen_module(actions: Actions, *, key: str, only: Iterable[str] = ("*",)) -> str:
    """
    Return the source of a module with a subclass of `OpenApiConnector` for *key*.

    It has a typed method for each of the *actions* whose name fits a pattern of *only*. Text of the
    document comes into it as literals and docstrings alone.
    """
    patterns = list(only)
    wanted = [n for n in actions if any(fnmatchcase(n, pattern) for pattern in patterns)]
    specs = [actions[name] for name in sorted(wanted)]
    # Those of all actions, so that a method has its name whatever else is frozen.
    names, directed = _method_names(actions), actions.directed()
    draft = _Module(specs, key, names, directed)
    for spec in specs:
        draft.method(spec)
    module = _Module(specs, key, names, directed, draft.claims)
    methods = [module.method(spec) for spec in specs]
    title = line(actions.document.title)
    about = (
        f"{title}, as typed methods.\n\nWritten by ``automate openapi freeze {key}``. Write it "
        "again when the document has changed."
    )
    body = [
        f'"""\n{about}\n"""',
        "# ruff: noqa",
        "",
        "from __future__ import annotations",
        "",
        *module.imports([*module.classes, *methods]),
        "",
        "",
        *[f"{each}\n\n" for each in module.classes],
        f"class {module.name}(OpenApiConnector):",
        f'    """{title}."""',
        "",
        f"    key = {quoted(key)}",
        f"    display_name = {quoted(title)}",
        "",
        "\n\n".join(methods),
    ]
    return "\n".join(body).rstrip() + "\n"


# Names of the module itself, which no type may have.
_TAKEN = frozenset(
    {"Any", "Literal", "NotRequired", "OpenApiConnector", "TypedDict", "Unpack", "cast"}
)
# In the class a method called `list` would be what `list[str]` means.
_NO_METHODS = frozenset(
    {*dir(OpenApiConnector), *SCALARS.values(), "list", "dict", "config", "ctx", "cast"}
)


class _Module(PythonTypes):
    """The types of a module with the methods of *specs*."""

    def __init__(
        self,
        specs: list[ActionSpec],
        key: str,
        methods: Mapping[str, str],
        directed: frozenset[str],
        claims: Mapping[str, set[str]] | None = None,
    ) -> None:
        self.name = apart(camel(key) or "Api", _TAKEN)
        super().__init__(specs, directed, _TAKEN | {self.name}, claims)
        self._methods = methods

    def imports(self, parts: list[str]) -> list[str]:
        """Return the import lines for the names that *parts* use."""
        text = "\n".join(parts)

        def used(*names: str) -> str:
            return ", ".join(name for name in names if re.search(rf"\b{name}\b", text))

        typing, extensions = (
            used("Any", "Literal", "cast"),
            used("NotRequired", "TypedDict", "Unpack"),
        )
        return [
            *([f"from typing import {typing}", ""] if typing else []),
            "from automate_openapi import OpenApiConnector",
            *([f"from typing_extensions import {extensions}"] if extensions else []),
        ]

    def method(self, spec: ActionSpec) -> str:
        """Return the source of the method for an action."""
        name, kind = self._methods[spec.name], camel(spec.name)
        given = spec.input_schema if isinstance(spec.input_schema, Mapping) else {}
        output = spec.output_schema if isinstance(spec.output_schema, Mapping) else {}
        place = TypePlace(f"{kind}Output", f"{spec.name} output")
        returns = self.type_of(output, place, "output")
        if given.get("properties"):
            place = TypePlace(f"{kind}Input", f"{spec.name} input")
            takes = self.object_of(given, place, "input")
            # A field may be called self, too; mypy asks for another name, Python for the slash.
            own = "_self, /" if "self" in given["properties"] else "self"
            signature, values = f"{own}, **values: Unpack[{takes}]", "dict(values)"
        else:
            signature, values = "self", "{}"
        called = f"await {signature.split(',')[0]}.call_action({quoted(spec.name)}, {values})"
        if returns == "None":
            result = called
        else:
            result = (
                f"return {called if returns == 'Any' else f'cast({quoted(returns)}, {called})'}"
            )
        about = line(spec.title or spec.description) or f"Call {spec.name}"
        return (
            f"    async def {name}({signature}) -> {returns}:\n"
            f'        """{about.rstrip(".")}."""\n'
            f"        {result}"
        )

    def write(
        self, name: str, schema: Mapping[str, Any], place: TypePlace, direction: Direction
    ) -> None:
        """Add a typed dictionary, before those in it."""
        required = set(schema.get("required", []))
        number = len(self.classes)
        fields = {}
        for field, each in schema["properties"].items():
            inner = place.inner(camel(field), f"properties/{field}")
            kind = self.type_of(each, inner, direction)
            fields[field] = kind if field in required else f"NotRequired[{kind}]"
        if all(_FIELD.fullmatch(each) and not keyword.iskeyword(each) for each in fields):
            lines = [f"    {field}: {kind}" for field, kind in fields.items()]
            text = "\n".join([f"class {name}(TypedDict):", *lines])
        else:
            # Names that are none of Python's.
            lines = [f"        {quoted(field)}: {quoted(kind)}," for field, kind in fields.items()]
            text = "\n".join(
                [f"{name} = TypedDict(", f"    {quoted(name)},", "    {", *lines, "    },", ")"]
            )
        self.classes.insert(number, text)


def _method_names(actions: Iterable[str]) -> dict[str, str]:
    """Return the name of the method for each action."""
    names = {each: apart(snake(each) or "action", _NO_METHODS) for each in actions}
    claims = Counter(names.values())
    return {
        each: name if claims[name] == 1 else told_apart(name, each) for each, name in names.items()
    }
