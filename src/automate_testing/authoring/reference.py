"""The reference page of plugins, in Markdown, from the descriptions that manifests hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from automate_kernel.base.errors import ErrorCodes
from automate_kernel.operations.error_mapping import code_of_status
from automate_kernel.operations.schemas.fields import field_description

_KINDS = {
    "connector": "Connector",
    "provider": "Provider",
    "secrets_backend": "Secrets backend",
    "outbox_store": "Outbox store",
    "output_store": "Output store",
    "step_executor": "Step executor",
    "relay": "Relay",
    "subscription": "Subscription",
    "filter": "Template filter",
    "hook": "Hook",
    "command": "Command",
}
_ERRORS = """\
Each error is an `AutomateError` with a code. These codes follow from the answer of a service,
unless the plugin knows more. Input that doesn't fit is `INVALID_ARGUMENT`: nothing is called."""
_STATUSES = (400, 401, 403, 404, 409, 429, 500, 503, 504)


def errors_table() -> str:
    """Return the table of the codes that a service's answers have, unless a plugin says other."""
    rows = ["| Answer of the service | Code | Tried again |", "|---|---|---|"]
    for status in _STATUSES:
        code = code_of_status(status)
        rows.append(f"| {status} | `{code}` | {'yes' if code.retryable else 'no'} |")
    lost = ErrorCodes.UNAVAILABLE, ErrorCodes.DEADLINE_EXCEEDED
    for answer, code in zip(("a lost connection", "none in time"), lost, strict=True):
        rows.append(f"| {answer} | `{code}` | {'yes' if code.retryable else 'no'} |")
    return "\n".join(rows)


def reference_page(
    name: str,
    plugins: Sequence[Mapping[str, Any]],
    example: str | None,
    *,
    level: int = 1,
    errors: bool = True,
) -> str:
    """
    Return the page of the distribution *name*.

    *plugins* are entries of its manifests, and *example* is the text of its example workflow. The
    title is a heading of *level*. With *errors* the codes of errors end the page.
    """
    parts = [f"{'#' * level} {name}", f"```console\n$ pip install {name}\n```"]
    for plugin in plugins:
        parts += _plugin(plugin, level + 1)
    if example:
        parts += [f"{'#' * (level + 1)} Example of {name}", f"```yaml\n{example.rstrip()}\n```"]
    if errors and any(plugin.get("operations") for plugin in plugins):
        parts += [f"{'#' * (level + 1)} Errors", _ERRORS, errors_table()]
    return "\n\n".join(part for part in parts if part) + "\n"


def _plugin(plugin: Mapping[str, Any], level: int) -> Iterator[str]:
    yield f"{'#' * level} {_KINDS[plugin['kind']]} `{plugin['key']}`"
    yield plugin["description"]
    if parameters := plugin.get("parameters"):
        yield "Called with: " + ", ".join(f"`{each}`" for each in parameters) + "."
    for operation in plugin.get("operations", ()):
        yield from _operation(plugin["key"], operation, level + 1)
    for trigger in plugin.get("triggers", ()):
        yield from _trigger(trigger, level + 1)
    for poll in plugin.get("polls", ()):
        yield from _poll(poll, level + 1)
    if fields := _fields(plugin.get("config")):
        yield f"{'#' * (level + 1)} Config of `{plugin['key']}`"
        yield fields
    if secrets := plugin.get("secrets"):
        yield "Secrets that it reads: " + ", ".join(f"`{each}`" for each in secrets) + "."


def _operation(key: str, operation: Mapping[str, Any], level: int) -> Iterator[str]:
    yield f"{'#' * level} `{key}.{operation['name']}`"
    words = {
        "read_only": "only reads",
        "idempotent": "may be repeated",
        "destructive": "can't be taken back",
    }
    hints = [word for name, word in words.items() if operation[name]]
    if operation["read_only"]:
        hints = [words["read_only"]]
    yield "\n\n".join(operation["description"].split("\n\n")[:1])
    if hints:
        yield f"It {' and '.join(hints)}."
    yield _fields(operation["input"]) or "It takes no input."
    for options in operation.get("options", ()):
        after = ", ".join(f"`{each}`" for each in options["needs"])
        choices = f"The plugin lists the choices of `{options['name']}`"
        yield f"{choices} for the values of {after}." if after else f"{choices}."
    if output := _fields(operation["output"]):
        yield "Output:"
        yield output


def _trigger(trigger: Mapping[str, Any], level: int) -> Iterator[str]:
    yield f"{'#' * level} Webhook `{trigger['name']}`"
    yield trigger["description"]
    proved = ", ".join(f"`{each}`" for each in trigger["secrets"])
    by = f"It is proved by the secret {proved}." if proved else "The connector itself verifies it."
    yield f"It gives the event `{trigger['event']}`. {by}"
    yield _fields(trigger["payload"])


def _poll(poll: Mapping[str, Any], level: int) -> Iterator[str]:
    yield f"{'#' * level} Poll `{poll['name']}`"
    yield poll["description"]
    every = f"Every {poll['every_seconds']:g} seconds"
    yield f"{every} it gives the new events `{poll['event']}`, {poll['max_events']} at most."
    yield _fields(poll["payload"])


def _fields(schema: Mapping[str, Any] | None) -> str:
    """Return a table of the fields of an object; empty if it has none."""
    if not schema or not schema.get("properties"):
        return ""
    required = schema.get("required", ())
    rows = ["| Field | Type | Default | |", "|---|---|---|---|"]
    for name, field in schema["properties"].items():
        default = "required" if name in required else _default(field)
        # That it may be left out is said by the column of defaults.
        kind = type_words(field, schema).removesuffix(" or null")
        cells = (f"`{name}`", kind, default, field_description(field))
        rows.append("| " + " | ".join(each.replace("|", "\\|") for each in cells) + " |")
    return "\n".join(rows)


def _default(field: Mapping[str, Any]) -> str:
    value = field.get("default")
    return "" if value in (None, "", [], {}) else f"`{value}`"


def type_words(field: Any, root: Mapping[str, Any]) -> str:
    """Return the type of a field of the schema *root*, for people: ``list of text, or null``."""
    if not isinstance(field, Mapping):
        return "any"
    if "$ref" in field:
        name = str(field["$ref"]).rpartition("/")[2]
        found = root.get("$defs", {}).get(name, {})
        return name if found.get("type") == "object" else type_words(found, root)
    if field.get("enum"):
        return "one of " + ", ".join(f"`{each}`" for each in field["enum"])
    for several in ("anyOf", "oneOf", "allOf"):
        if several in field:
            words = [type_words(each, root) for each in field[several]]
            return " or ".join(dict.fromkeys(words))
    kind = field.get("type")
    if kind == "array":
        return f"list of {_grouped(type_words(field.get('items'), root))}"
    if kind == "object" and isinstance(field.get("additionalProperties"), Mapping):
        return f"object of {_grouped(type_words(field['additionalProperties'], root))}"
    if field.get("format") == "password":
        return "secret"
    plain = {"string": "text", "boolean": "yes or no", "None": "any"}
    return plain.get(str(kind), str(kind))


def _grouped(words: str) -> str:
    return f"({words})" if " or " in words else words
