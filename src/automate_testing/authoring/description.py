"""The description of a plugin that its code gives: an entry of a manifest, and what has drifted."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from automate_kernel.operations.field_options import find_options
from automate_kernel.operations.plugin import Plugin
from automate_kernel.operations.schemas.checks import json_schema_of
from automate_kernel.operations.spec import OperationSpec
from automate_kernel.plugins.kinds import Kind
from automate_kernel.plugins.manifest import Manifest
from automate_kernel.triggers.polls.spec import PollSpec

_REFERENCE = re.compile(r"\$secret:\{?([A-Za-z0-9_./#-]+)")


def describe(kind: Kind, key: str, target: str, plugin: Any) -> dict[str, Any]:
    """
    Return what an application shows of *plugin*, as a JSON object.

    Every plugin has ``kind``, ``key``, ``target``, ``title`` and ``description``. A connector or
    provider has ``config`` (a JSON Schema), ``secrets`` (the keys that its webhooks and its
    config's defaults name), ``operations`` and ``triggers``, which are webhooks; the others have
    ``parameters``. A connector with polls has ``polls``, and an operation whose choices the plugin
    lists has ``options``: each the name of a field, and the fields that have to be chosen before.
    One that may be connected to an account has ``account``.
    """
    title = getattr(plugin, "display_name", "") or getattr(plugin, "__name__", key)
    about: dict[str, Any] = {"kind": kind.name, "key": key, "target": target, "title": str(title)}
    about["description"] = _first_paragraph(plugin)
    if not (isinstance(plugin, type) and issubclass(plugin, Plugin)):
        return {**about, "parameters": _parameters(plugin)}
    config = plugin.config_json_schema()
    triggers = [_trigger(key, spec) for spec in getattr(plugin, "triggers", list)()]
    secrets = {name for trigger in triggers for name in trigger["secrets"]}
    secrets |= set(_REFERENCE.findall(str(config)))
    about |= {
        "config": config,
        "secrets": sorted(secrets),
        "operations": [_operation(spec, plugin) for spec in plugin.operation_specs()],
        "triggers": triggers,
    }
    if plugin.oauth is not Plugin.oauth:
        about["account"] = True
    # Left out where there are none, so that manifests of plugins without polls stay as they are.
    polls = [_poll(key, spec) for spec in getattr(plugin, "polls", list)()]
    return {**about, "polls": polls} if polls else about


def pydantic_version() -> str:
    """Return pydantic's version as far as its schemas depend on it: ``2.12``."""
    from pydantic import VERSION

    return ".".join(VERSION.split(".")[:2])


def drift(manifest: Manifest, now: Mapping[str, Any]) -> list[str]:
    """
    Return the parts of a plugin that its *manifest* describes otherwise than *now*, its code.

    Two versions of pydantic word the same schema differently. Of schemas that another one wrote
    only the fields count, and which of them are required.
    """
    then = manifest.entry(now["kind"], now["key"])
    if then is None:
        return [f"{now['kind']} {now['key']} is not in it"]
    exact = manifest.pydantic == pydantic_version()
    return list(_differences(then, now, "", exact=exact))


def _differences(then: Any, now: Any, place: str, *, exact: bool) -> Iterator[str]:
    if place.rpartition(".")[2] in ("config", "input", "output", "payload") and not exact:
        then, now = _outline(then), _outline(now)
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for name in {**then, **now}:
            inner = f"{place}.{name}".lstrip(".")
            if (name in then) != (name in now):
                yield f"{inner} {'is no more' if name in then else 'is new'}"
            else:
                yield from _differences(then[name], now[name], inner, exact=exact)
    elif _named(then) and _named(now):
        then, now = ({each["name"]: each for each in part} for part in (then, now))
        yield from _differences(then, now, place, exact=exact)
    elif then != now:
        yield f"{place} has changed"


def _named(value: Any) -> bool:
    """Return True for the lists of operations, triggers, polls and options."""
    return isinstance(value, list) and all(
        isinstance(each, Mapping) and "name" in each for each in value
    )


def _outline(schema: Any) -> Any:
    if not isinstance(schema, Mapping):
        return schema is not None
    return {
        "properties": sorted(schema.get("properties", ())),
        "required": sorted(schema.get("required", ())),
    }


def _operation(spec: OperationSpec, plugin: type[Plugin]) -> dict[str, Any]:
    schema = spec.json_schema()
    options = [
        {"name": field, "needs": method.fields_needed(plugin)}
        for field in schema.get("properties", ())
        if (method := find_options(plugin, spec.name, field)) is not None
    ]
    described = {
        "name": spec.name,
        "title": spec.title,
        "description": spec.description,
        "idempotent": spec.idempotent,
        "read_only": spec.read_only,
        "destructive": spec.destructive,
        "input": schema,
        "output": spec.output_json_schema(),
    }
    return {**described, "options": options} if options else described


def _trigger(key: str, spec: Any) -> dict[str, Any]:
    return {
        "name": spec.name,
        "description": spec.description,
        "event": spec.event_name or f"{key}.{spec.name}",
        "secrets": list(getattr(spec.signature, "keys", ())),
        "payload": _payload(spec),
    }


def _poll(key: str, spec: PollSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "description": spec.description,
        "event": f"{key}.{spec.name}",
        "every_seconds": spec.every_seconds,
        "max_events": spec.max_events,
        "payload": _payload(spec),
    }


def _payload(spec: Any) -> dict[str, Any] | None:
    return None if spec.payload_schema is None else json_schema_of(spec.payload_schema)


def _first_paragraph(plugin: Any) -> str:
    # A class's own: the base class's says nothing of it.
    text = vars(plugin).get("__doc__") if isinstance(plugin, type) else plugin.__doc__
    return " ".join(inspect.cleandoc(text or "").split("\n\n")[0].split())


def _parameters(plugin: Any) -> Sequence[str]:
    """Return the parameters with which a backend, a store or a filter is called."""
    try:
        parameters = inspect.signature(plugin).parameters.values()
    except (TypeError, ValueError):
        return []
    return [
        f"{each.name}={_default(each.default)}" if each.default is not each.empty else each.name
        for each in parameters
        if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]


def _default(value: Any) -> str:
    # The repr of others may have an address in it, which differs from run to run.
    return repr(value) if isinstance(value, (str, int, float, tuple, type(None))) else "…"
