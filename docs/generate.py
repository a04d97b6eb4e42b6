# ruff: noqa: INP001, T201  (a script beside the pages that it writes)
"""
Writes the pages of the reference that the code itself can tell: `python docs/generate.py`.

The API is read from the source, without importing it, so that no framework has to be configured;
the command line is read from the commands themselves.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
SOURCE = DOCS.parent / "src"
NOTE = "<!-- Written by docs/generate.py: change the docstrings, not this page. -->\n"

API: dict[str, tuple[str, tuple[str, ...]]] = {
    "kernel": ("Kernel", ("automate_kernel.kernel", "automate_kernel.catalogue")),
    "errors": ("Errors", ("automate_kernel.errors", "automate_kernel.failures")),
    "connectors": ("Connectors", ("automate_kernel.connectors", "automate_kernel.base")),
    "providers": ("Providers", ("automate_kernel.providers",)),
    "operations": ("Operations and calls", ("automate_kernel.context", "automate_kernel.operations")),
    "signals": ("Signals", ("automate_kernel.signals",)),
    "outbox": (
        "Outbox",
        ("automate_kernel.outbox", "automate_kernel.outbox.handlers", "automate_kernel.outbox.worker",
         "automate_kernel.outbox.chores"),
    ),  # fmt: skip
    "workflows": (
        "Workflows",
        ("automate_kernel.workflows", "automate_kernel.workflows.duration",
         "automate_kernel.workflows.schedule", "automate_kernel.workflows.graph"),
    ),  # fmt: skip
    "templates": ("Templates", ("automate_kernel.templates",)),
    "secrets": ("Secrets", ("automate_kernel.secrets",)),
    "webhooks": ("Webhooks", ("automate_kernel.webhooks",)),
    "plugins": ("Plugins", ("automate_kernel.plugins",)),
    "storage": ("Storage", ("automate_kernel.storage", "automate_kernel.storage.listen")),
    "testing": (
        "Testing",
        ("automate_kernel.testing", "automate_kernel.testing.clock",
         "automate_kernel.testing.connectors", "automate_kernel.testing.providers",
         "automate_kernel.testing.secrets", "automate_kernel.testing.outbox",
         "automate_kernel.testing.storage"),
    ),  # fmt: skip
    "sqlalchemy": ("SQLAlchemy", ("automate_sqlalchemy",)),
    "django": (
        "Django",
        ("automate_django", "automate_django.outbox", "automate_django.signals",
         "automate_django.storage", "automate_django.models"),
    ),  # fmt: skip
}
OPTIONAL = {"asgi": ("ASGI", ("automate_kernel.asgi",))}


# -- reading the source ------------------------------------------------------------------------


def _file(module: str) -> Path | None:
    base = SOURCE.joinpath(*module.split("."))
    for file in (base / "__init__.py", base.with_suffix(".py")):
        if file.exists():
            return file
    return None


@lru_cache(maxsize=None)
def _tree(module: str) -> ast.Module:
    file = _file(module)
    assert file is not None, module
    return ast.parse(file.read_text(encoding="utf-8"))


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.If):  # `if TYPE_CHECKING:` holds the imports of lazy names
            yield from _statements(node.body)
        else:
            yield node


def _all(module: str) -> list[str]:
    for node in _tree(module).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            names: list[str] = ast.literal_eval(node.value)
            return names
    return []


def _find(module: str, name: str) -> tuple[str, list[ast.stmt], int] | None:
    """The module that defines *name*, its statements, and which of them does."""
    body = list(_statements(_tree(module).body))
    for index, node in reversed(list(enumerate(body))):
        if name in _defined(node):
            return module, body, index
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    source = _absolute(module, node)
                    if _file(f"{source}.{alias.name}") is not None:
                        return None  # a module
                    return _find(source, alias.name) if _file(source) else None
    return None


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    return []


def _absolute(module: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    file = _file(module)
    assert file is not None
    parts = module.split(".")
    up = node.level - (file.name == "__init__.py")
    parts = parts[: len(parts) - up] if up else parts
    return ".".join([*parts, *([node.module] if node.module else [])])


# -- writing Markdown --------------------------------------------------------------------------


def _prose(docstring: str | None) -> str:
    """A docstring as Markdown; drawings are kept, and code is left to the pages that run it."""
    if not docstring:
        return ""
    paragraphs: list[str] = []
    lines = ast.literal_eval(repr(docstring)).strip("\n").splitlines()
    text = "\n".join(_dedented(lines))
    literal = False
    for paragraph in re.split(r"\n\s*\n", text):
        indented = paragraph.startswith("    ")
        if literal and indented:
            if re.search("[─│├└▶▼▲═]", paragraph):
                paragraphs.append(f"```text\n{paragraph}\n```")
            continue
        if paragraph.startswith("==="):
            continue
        literal = paragraph.rstrip().endswith("::")
        if literal:
            paragraph = paragraph.rstrip()[:-2].rstrip()
            paragraph = re.sub(r"(?<=\w)$", ".", paragraph)
        if paragraph:
            paragraphs.append(_inline(paragraph))
    return "\n\n".join(paragraphs)


def _dedented(lines: list[str]) -> list[str]:
    import inspect

    return inspect.cleandoc("\n".join(lines)).splitlines()


def _inline(text: str) -> str:
    text = re.sub(r"``(.+?)``", lambda m: f"`{m[1]}`", text)
    if re.search(r"^[*-] ", text, re.MULTILINE):
        return text
    return re.sub(r"\s*\n\s*", " ", text)


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef, name: str, *, method: bool) -> str:
    """The call as one writes it: parameters with their types, and what comes back."""
    given = node.args
    positional = [*given.posonlyargs, *given.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(given.defaults))
    parts = [_parameter(a, d) for a, d in zip(positional, [*defaults, *given.defaults])]
    if given.posonlyargs:
        parts.insert(len(given.posonlyargs), "/")
    if method and parts:
        parts = parts[1:]
    if given.vararg:
        parts.append("*" + _parameter(given.vararg, None))
    elif given.kwonlyargs:
        parts.append("*")
    parts += [_parameter(a, d) for a, d in zip(given.kwonlyargs, given.kw_defaults)]
    if given.kwarg:
        parts.append("**" + _parameter(given.kwarg, None))
    returns = f" -> {ast.unparse(node.returns)}" if node.returns and node.name != "__init__" else ""
    prefix = "await " if isinstance(node, ast.AsyncFunctionDef) else ""
    line = f"{prefix}{name}({', '.join(parts)}){returns}"
    if len(line) <= 92:
        return line
    inner = "".join(f"    {part},\n" for part in parts)
    return f"{prefix}{name}(\n{inner}){returns}"


def _parameter(argument: ast.arg, default: ast.expr | None) -> str:
    text = argument.arg
    if argument.annotation is not None:
        text += f": {ast.unparse(argument.annotation)}"
    if default is not None:
        text += f" = {ast.unparse(default)}" if argument.annotation else f"={ast.unparse(default)}"
    return text


def _decorators(node: Any) -> set[str]:
    return {ast.unparse(d).split("(")[0].rpartition(".")[2] for d in node.decorator_list}


def _function(node: Any, name: str, level: int, *, method: bool) -> Iterator[str]:
    yield f"{'#' * level} `{name}`"
    shown = name.rpartition(".")[2] if method else name
    yield f"```text\n{_signature(node, shown, method=method)}\n```"
    yield _prose(ast.get_docstring(node, clean=False))


def _class(node: ast.ClassDef, level: int) -> Iterator[str]:
    yield f"{'#' * level} `{node.name}`"
    bases = [ast.unparse(base) for base in node.bases]
    bases = [base for base in bases if base not in ("ABC", "Part", "_Base", "_InDjango")]
    methods = [n for n in node.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    init = next((m for m in methods if m.name == "__init__"), None)
    if init is not None:
        yield f"```text\n{_signature(init, node.name, method=True)}\n```"
    if bases:
        yield f"Derives from {', '.join(f'`{base}`' for base in bases)}."
    yield _prose(ast.get_docstring(node, clean=False))
    if fields := list(_fields(node)):
        yield "\n".join(fields)
    for method in methods:
        kinds = _decorators(method)
        if method.name.startswith("_") or kinds & {"overload", "setter", "model_serializer"}:
            continue
        if "fixture" in kinds or method.name.startswith("test_"):
            continue
        if kinds & {"property", "cached_property"}:
            yield f"{'#' * (level + 1)} `{node.name}.{method.name}`"
            returns = f"*Property*, `{ast.unparse(method.returns)}`. " if method.returns else ""
            yield returns + _prose(ast.get_docstring(method, clean=False))
            continue
        static = bool(kinds & {"staticmethod"})
        yield from _function(method, f"{node.name}.{method.name}", level + 1, method=not static)


def _fields(node: ast.ClassDef) -> Iterator[str]:
    """A list entry for each public attribute of a class, with what stands below it."""
    for index, item in enumerate(node.body):
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            name, kind = item.target.id, ast.unparse(item.annotation)
        elif isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name):
            name, kind = item.targets[0].id, ""
        else:
            continue
        if name.startswith("_") or name in ("model_config", "Meta"):
            continue
        default = ""
        if item.value is not None and len(ast.unparse(item.value)) <= 40:
            default = f" = {ast.unparse(item.value)}"
        below = node.body[index + 1] if index + 1 < len(node.body) else None
        told = ""
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            told = ": " + _prose(str(below.value.value)).replace("\n\n", " ")
        typed = f": {kind}" if kind and not kind.startswith("Annotated") else ""
        yield f"- `{_plain(name)}{typed}{default}`{told}"


def _plain(name: str) -> str:
    return name


def _thing(module: str, name: str, level: int) -> Iterator[str]:
    found = _find(module, name)
    if found is None:
        yield f"{'#' * level} `{name}`"
        return
    home, body, index = found
    node = body[index]
    if isinstance(node, ast.ClassDef):
        yield from _class(node, level)
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        yield from _function(node, name, level, method=False)
    else:
        yield f"{'#' * level} `{name}`"
        below = body[index + 1] if index + 1 < len(body) else None
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            yield _prose(str(below.value.value))
        value = getattr(node, "value", None)
        told = ast.unparse(value) if value is not None else ""
        if told and len(told) <= 200 and not told.startswith("{"):
            yield f"```text\n{name} = {told}\n```"


def api(title: str, modules: tuple[str, ...]) -> str:
    """The page of some modules."""
    parts = [NOTE, f"# {title}"]
    for module in modules:
        if _file(module) is None:
            continue
        parts.append(f"## `{module}`")
        parts.append(_prose(ast.get_docstring(_tree(module), clean=False)))
        for name in _all(module):
            parts += _thing(module, name, 3)
    return "\n\n".join(part for part in parts if part).rstrip() + "\n"


def names() -> str:
    """The page of what `automate_kernel` itself exports."""
    parts = [
        NOTE,
        "# Names of `automate_kernel`",
        "What `from automate_kernel import …` gives. Each name is loaded at its first use.",
    ]
    for name in _all("automate_kernel"):
        found = _find("automate_kernel", name)
        parts.append(f"## `{name}`")
        if found is None:
            continue
        home, body, index = found
        docstring = _docstring_of(body, index)
        summary = _prose(docstring).split("\n\n")[0]
        page = _page_of(home, name)
        parts.append(f"{summary} See [{name}]({page}#{name.lower()}).".strip())
    return "\n\n".join(parts) + "\n"


def _docstring_of(body: list[ast.stmt], index: int) -> str | None:
    node = body[index]
    if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        return ast.get_docstring(node, clean=False)
    below = body[index + 1] if index + 1 < len(body) else None
    if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
        return str(below.value.value)
    return None


def _page_of(home: str, name: str) -> str:
    for page, (_, modules) in API.items():
        if any(home == module and name in _all(module) for module in modules):
            return f"{page}.md"
    for page, (_, modules) in API.items():
        if any(name in _all(module) for module in modules if _file(module)):
            return f"{page}.md"
    raise LookupError(f"{name} is on no page")


# -- tables, filters ---------------------------------------------------------------------------


def tables() -> str:
    """The page of our tables, with every column and index."""
    sys.path.insert(0, str(SOURCE))
    from automate_kernel.storage.tables import TABLES

    parts = [NOTE, "# Tables", TABLES_INTRODUCTION]
    for table in TABLES.values():
        parts += [f"## `{table.name}`", TABLE_NOTES[table.name]]
        rows = ["| column | type | null | meaning |", "| --- | --- | --- | --- |"]
        for column in table.columns:
            kind = f"text({column.length})" if column.type == "text" else column.type
            note = COLUMN_NOTES.get((table.name, column.name)) or COLUMN_NOTES.get(
                ("*", column.name), ""
            )
            key = " (primary key)" if column.name == table.key else ""
            rows.append(
                f"| `{column.name}` | {kind} | {'yes' if column.null else 'no'} | {note}{key} |"
            )
        parts.append("\n".join(rows))
        for index in table.indexes:
            condition = " and ".join(
                f"`{name}` is not null" if value is None else f"`{name}` = `{value}`"
                for name, value in index.where
            )
            unique = "Unique index" if index.unique else "Index"
            where = f", where {condition}" if condition else ""
            columns = ", ".join(f"`{name}`" for name in index.columns)
            parts.append(f"- {unique} `{index.name}` on {columns}{where}.")
    text = "\n\n".join(parts)
    return re.sub(r"(\n- [^\n]*)\n\n(?=- )", r"\1\n", text) + "\n"


TABLES_INTRODUCTION = """\
The same tables whichever adapter made them: `automate_sqlalchemy.metadata`, Django's migrations and
the memory storage are all built from `automate_kernel.storage.tables`, and a test compares them.

Types: `id` is a UUID (`uuid` on PostgreSQL, 32 hex digits elsewhere), `json` is `jsonb` on
PostgreSQL, `time` is in UTC with microseconds. Where a database has no partial indexes, it has the
whole index."""

TABLE_NOTES = {
    "automate_outbox": """\
One unit of work each: an event, an execution's wake-up, or an item of the host's own.

```text
PENDING ─claim─▶ RUNNING ─success─▶ COMPLETED
                  │  ▲ └─failure, attempts spent─▶ FAILED ─requeue─▶ PENDING
           retry  ▼  │ claim, once due
                 RETRY             PENDING or RETRY ─cancel─▶ CANCELLED ─requeue─▶ PENDING
```""",
    "automate_outbox_lane": "A row exists while an item with its `ordering_key` runs.",
    "automate_outbox_pause": "The kinds that are paused.",
    "automate_definition": "Every workflow definition that an execution was started with.",
    "automate_execution": """\
One run of a workflow for one event.

```text
PENDING ─▶ RUNNING ─┬▶ COMPLETED
                    ├▶ FAILED ─resume─▶ PENDING
                    └▶ CANCELLED
```""",
    "automate_step": """\
One row per step of an execution, and one more per element of `for_each`.

```text
PENDING ─▶ RUNNING ─┬▶ COMPLETED
  │   ▲      │      ├▶ FAILED
  │   └ RETRY ◀     └▶ CANCELLED
  └▶ SKIPPED
```""",
    "automate_webhook_delivery": "The webhook deliveries that were accepted, to tell repetitions.",
    "automate_schedule": "When each schedule fired last.",
}

COLUMN_NOTES = {
    ("*", "created_at"): "when the row was made, on the database's clock",
    ("*", "updated_at"): "when it was changed last",
    ("*", "completed_at"): "when it reached a final state",
    ("*", "tenant_id"): "whose it is",
    ("*", "error_code"): "an [error code](errors.md)",
    ("*", "error"): "the error's text, redacted",
    ("*", "output"): "what it gave, redacted",
    ("automate_outbox", "id"): "UUIDv7, made by the client",
    ("automate_outbox", "kind"): "which handler it is for",
    ("automate_outbox", "payload"): "the handler's data, at most 1,000,000 bytes of JSON",
    ("automate_outbox", "headers"): "the host's own, such as a trace context",
    ("automate_outbox", "status"): "see the drawing",
    ("automate_outbox", "waiting_for"): "what a waiting item waits for: `worker` (ready to be "
    "claimed), `time` (not due), `key` (its ordering key is busy), `resume` (its kind is paused); "
    "else null",
    ("automate_outbox", "priority"): "higher goes first; a point is worth an hour of waiting",
    ("automate_outbox", "attempt_count"): "attempts begun, counted at the claim",
    ("automate_outbox", "max_attempts"): "after so many it is FAILED",
    ("automate_outbox", "next_attempt_at"): "when it is due",
    ("automate_outbox", "sort_at"): "the claim order: the due time, an hour earlier per point of "
    "priority",
    ("automate_outbox", "lease_owner"): "the worker that has it",
    ("automate_outbox", "lease_token"): "the claim's fence; it stays on the finished row",
    ("automate_outbox", "lease_expires_at"): "until when the worker has it",
    ("automate_outbox", "idempotency_key"): "unique: a second item with it is not added",
    ("automate_outbox", "ordering_key"): "of its items one runs at a time, in order",
    ("automate_outbox", "last_error_code"): "of the last failed attempt",
    ("automate_outbox", "last_error"): "its text, redacted",
    ("automate_outbox_lane", "ordering_key"): "the key that is busy",
    ("automate_outbox_lane", "item_id"): "the item that runs",
    ("automate_outbox_lane", "lease_token"): "of its claim",
    ("automate_outbox_pause", "kind"): "items of this kind are not claimed",
    ("automate_outbox_pause", "reason"): "for people",
    ("automate_definition", "id"): "SHA-256 of what the definition says",
    ("automate_definition", "name"): "the workflow's name",
    ("automate_definition", "body"): "the definition as JSON",
    ("automate_execution", "id"): "made from the event's id and the workflow's name, so that an "
    "event starts a workflow once",
    ("automate_execution", "workflow"): "its name",
    ("automate_execution", "definition_id"): "the definition that it is pinned to",
    ("automate_execution", "status"): "see the drawing",
    ("automate_execution", "event"): "the event that started it",
    ("automate_execution", "item_id"): "the outbox item that is its wake-up",
    ("automate_step", "id"): "UUIDv7",
    ("automate_step", "execution_id"): "the execution",
    ("automate_step", "step_id"): "the step's id in the workflow",
    ("automate_step", "position"): "which element of `for_each`; -1 for the step itself",
    ("automate_step", "status"): "see the drawing",
    ("automate_step", "attempts"): "calls begun",
    ("automate_step", "started_at"): "when its first attempt began",
    ("automate_step", "next_attempt_at"): "when a retry is due",
    ("automate_webhook_delivery", "id"): "SHA-256 over tenant, connector, trigger and delivery id",
    ("automate_webhook_delivery", "connector"): "the connector's key",
    ("automate_webhook_delivery", "trigger_name"): "the trigger",
    ("automate_webhook_delivery", "item_id"): "the outbox item that it became",
    ("automate_webhook_delivery", "received_at"): "when it was accepted",
    ("automate_schedule", "id"): "the workflow's name and which of its triggers it is",
    ("automate_schedule", "last_fired_at"): "the schedule's time that was fired last",
}


def filters() -> str:
    """The page of the template filters."""
    sys.path.insert(0, str(SOURCE))
    from automate_kernel.templates.builtin import BUILTIN_FILTERS, JINJA_FILTERS, JINJA_TESTS

    parts = [NOTE, "# Template filters and tests"]
    parts.append(
        "Ours, with what they do. `$secret:` references can't be filtered. How to add one is in"
        " [templates](templates.md#filters-of-your-own)."
    )
    rows = ["| filter | gives |", "| --- | --- |"]
    for name, function in sorted(BUILTIN_FILTERS.items()):
        summary = _prose(function.__doc__).replace("\n", " ").replace("|", "\\|")
        rows.append(f"| `{name}` | {summary} |")
    parts.append("\n".join(rows))
    parts.append(
        "Jinja's own, as [its documentation](https://jinja.palletsprojects.com/en/stable/templates/"
        "#list-of-builtin-filters) has them: " + ", ".join(f"`{n}`" for n in sorted(JINJA_FILTERS))
        + "."
    )
    parts.append("Tests (`is …`): " + ", ".join(f"`{n}`" for n in sorted(JINJA_TESTS)) + ".")
    return "\n\n".join(parts) + "\n"


# -- command line ------------------------------------------------------------------------------


def commands() -> list[tuple[str, Any]]:
    """Every command of `automate` that is not hidden: its full name, and click's object."""
    sys.path.insert(0, str(SOURCE))
    import typer
    from automate_kernel.cli.app import app

    def walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
        yield path, command
        if hasattr(command, "commands"):
            for name, inner in command.commands.items():
                if not inner.hidden:
                    yield from walk(inner, f"{path} {name}")

    return list(walk(typer.main.get_command(app), "automate"))


def cli() -> str:
    """The page of the command line."""
    parts = [NOTE, "# The command `automate`"]
    for path, command in commands():
        parts += [f"## `{path}`" if " " in path else "", _help(command)]
        usage = [_metavar(p) for p in command.params if p.param_type_name == "argument"]
        if not hasattr(command, "commands"):
            parts.append(f"```text\n{' '.join([path, '[OPTIONS]', *usage])}\n```")
        if rows := [row for p in command.params if (row := _option(p))]:
            parts.append("\n".join(rows))
    parts += ["## Settings", SETTINGS_INTRODUCTION, _settings()]
    return "\n\n".join(part for part in parts if part) + "\n"


SETTINGS_INTRODUCTION = """\
Each setting can stand in an `automate.toml` in the current folder or one above (`worker.slots` is
`slots` in the table `[worker]`), and most also in an environment variable. An option of the command
wins over the variable, and the variable over the file. `automate config` shows what counts and why."""


def _settings() -> str:
    from automate_kernel.cli.settings import SETTINGS

    rows = ["| setting | variable | default | meaning |", "| --- | --- | --- | --- |"]
    for setting in SETTINGS.values():
        variable = f"`{setting.variable}`" if setting.variable else ""
        default = "" if setting.default in (None, [], {}) else f"`{setting.default}`"
        words = f" One of {', '.join(setting.words)}." if setting.words else ""
        text = (setting.help + words).replace("|", "\\|")
        rows.append(f"| `{setting.name}` | {variable} | {default} | {text} |")
    return "\n".join(rows)


def _metavar(argument: Any) -> str:
    if (argument.metavar or "").startswith("["):
        return str(argument.metavar)
    name = (argument.metavar or argument.name).upper() + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _help(command: Any) -> str:
    text = (command.help or "").split("\f")[0]
    return _prose(text)


def _option(parameter: Any) -> str:
    if getattr(parameter, "hidden", False) or parameter.name in ("help", "install_completion", "show_completion"):
        return ""
    text = " ".join((getattr(parameter, "help", None) or "").split())
    if parameter.param_type_name == "argument":
        return f"- `{parameter.name.upper()}`" + (f": {text}" if text else "")
    shown = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
    if parameter.metavar:
        shown += f" `{parameter.metavar}`"
    if parameter.envvar:
        variables = parameter.envvar if isinstance(parameter.envvar, str) else ", ".join(parameter.envvar)
        text += f" (environment: `{variables}`)"
    default = parameter.default
    if default is not None and not callable(default) and type(default) in (int, float, str) and default != "":
        text += f" Default: `{default}`."
    return f"- {shown}: {text}".rstrip(": ")


PAGES: dict[str, Callable[[], str]] = {
    "reference/api/names.md": names,
    "reference/tables.md": tables,
    "reference/filters.md": filters,
    "reference/cli.md": cli,
}
for _page, (_title, _modules) in {**API, **OPTIONAL}.items():
    if _file(_modules[0]) is not None:
        PAGES[f"reference/api/{_page}.md"] = lambda t=_title, m=_modules: api(t, m)  # type: ignore[misc]


def page(path: str) -> str:
    """What the page at *path* should say."""
    return PAGES[path]()


def main() -> None:
    """Write every page."""
    for path in PAGES:
        file = DOCS / path
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            text = page(path)
        except ImportError as error:
            print(f"{path}: {error}")
            continue
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
            print(f"wrote {path}")


if __name__ == "__main__":
    main()
