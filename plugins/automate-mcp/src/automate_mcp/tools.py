"""The tools of a server, as capabilities."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypedDict

from mcp.types import Tool

from automate_kernel.base.errors import AutomateError
from automate_kernel.operations.schemas.checks import Check, compile_schema
from automate_kernel.operations.schemas.patterns import PatternBudget
from automate_kernel.operations.schemas.portable import is_portable, without_patterns
from automate_kernel.plugins.providers import CapabilitySpec
from automate_mcp.config import McpConfig, ToolHints
from automate_mcp.schema_references import check_references

Tell = Callable[[str], None]
"""Takes a line on what is wrong with a tool."""

_UNFIT = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST_NAME = 120
_DIGEST = 6
_MOST_SCHEMA = 256_000
_MOST_DESCRIPTION = 8_000


@dataclass(frozen=True, slots=True)
class RemoteTool:
    """A *tool* of a server as a capability: its *spec*, and its name there."""

    name: str
    spec: CapabilitySpec
    typed: bool
    """True if its output is what its own schema says."""
    check: Check | None
    """Finds what its output has against its schema, as far as that is used."""
    timeout_seconds: float


def remote_tools(tools: Iterable[Tool], config: McpConfig, tell: Tell) -> dict[str, RemoteTool]:
    """Return the allowed tools of *tools*, by the names of their capabilities; *tell* of faults."""
    found: dict[str, RemoteTool] = {}
    seen: dict[str, Tool] = {}
    schemas = _Schemas(tell)
    for tool in tools:
        if not is_allowed(tool.name, config):
            continue
        if tool.name in seen:
            if tool != seen[tool.name]:  # pages may overlap
                tell(f"the tool {tool.name!r} is listed twice: the first of them counts")
            continue
        seen[tool.name] = tool
        name = capability_name(tool.name)
        if name in found:
            name = f"{name[:_LONGEST_NAME]}_{_digest(tool.name)}"
        if found.get(name) is None:
            found[name] = _remote(tool, name, config, schemas)
    return found


def is_allowed(name: str, config: McpConfig) -> bool:
    """Return True if the tool *name* may be called."""
    return any(fnmatchcase(name, pattern) for pattern in config.tools)


def capability_name(name: str) -> str:
    """
    Return the name of the capability for a tool called *name*: often the same.

    Workflows have names between dots, each of which begins with a letter or ``_``.
    """
    words = [_UNFIT.sub("_", each) for each in re.split("[./]", name) if each]
    fit = ".".join(f"_{each}" if each[0] in "-0123456789" else each for each in words)
    if fit and fit == name and len(fit) <= _LONGEST_NAME:
        return fit
    fit = fit[: _LONGEST_NAME - _DIGEST - 1].rstrip(".") or "tool"
    return f"{fit}_{_digest(name)}"


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST]


def _remote(tool: Tool, name: str, config: McpConfig, schemas: _Schemas) -> RemoteTool:
    hints = config.hints.get(tool.name, ToolHints())
    output = schemas.usable(tool.output_schema, f"output of {name!r}")
    # The names of fields as the schema says, not as the object of the SDK has them.
    spec = CapabilitySpec(
        name,
        input_schema=schemas.usable(tool.input_schema, f"input of {name!r}"),
        output_schema=output,
        title=(tool.title or (tool.annotations and tool.annotations.title) or "")[:200],
        description=(tool.description or "")[:_MOST_DESCRIPTION],
        **_nature(tool, hints, trusted=config.trust_annotations),
    )
    typed = tool.output_schema is not None
    check = compile_schema(output, f"output of {name!r}") if output is not None else None
    seconds = hints.timeout_seconds or config.timeout_seconds
    return RemoteTool(tool.name, spec, typed, check, seconds)


class _Nature(TypedDict):
    read_only: bool
    destructive: bool
    idempotent: bool


def _nature(tool: Tool, hints: ToolHints, *, trusted: bool) -> _Nature:
    """Return whether it only reads, destroys, or may be repeated: on the safe side, if unknown."""
    told = tool.annotations if trusted else None
    read_only = hints.read_only
    if read_only is None:
        # Who says that it destroys has said that it writes.
        read_only = bool(told and told.read_only_hint) and hints.destructive is not True
    destructive, idempotent = hints.destructive, hints.idempotent
    if destructive is None:
        destructive = not read_only and not (told and told.destructive_hint is False)
    if idempotent is None:
        idempotent = bool(told and told.idempotent_hint)
    return {
        "read_only": read_only,
        "destructive": destructive and not read_only,
        "idempotent": idempotent,
    }


class _Schemas:
    """The schemas of one server's tools, with the patterns that mean the same here and there."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._budget = PatternBudget()

    def usable(self, schema: Mapping[str, Any] | None, what: str) -> Mapping[str, Any] | None:
        """Return a schema that we can check; None for a schema that the server alone can check."""
        if schema is None:
            return None
        try:
            if len(json.dumps(schema, allow_nan=False)) > _MOST_SCHEMA:
                raise ValueError("it is too large")
            usable: Mapping[str, Any] = without_patterns(schema, self._takes)
            compile_schema(usable, what)({})
            check_references(usable)
        except (AutomateError, ValueError, re.error, RecursionError, TypeError) as error:
            self._tell(f"the schema of the {what} isn't used: {type(error).__name__}")
            return None
        return usable

    def _takes(self, pattern: str) -> bool:
        return is_portable(pattern, self._budget.takes)
