"""The settings: from a file, from the environment over that, and from flags over both."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from automate_cli.output import counted
from automate_kernel.base.errors import ConfigError, nearest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Kind = Literal["text", "int", "float", "bool", "list", "table", "place"]

_TYPES: dict[Kind, tuple[Any, str]] = {
    "text": (str, "text in quotes"),
    "int": (int, "a whole number"),
    "float": ((int, float), "a number"),
    "bool": (bool, "true or false"),
    "list": (list, "a list in brackets"),
    "table": (dict, "a table"),
    "place": ((str, dict), "a folder in quotes, or a table"),
}


@dataclass(frozen=True, slots=True)
class Setting:
    """
    One setting. *hidden* values are not shown; *least* and *most* bound a number.

    *words* are the values that a text may have. *texts* says that a list holds text only.
    """

    name: str
    kind: Kind
    default: Any
    help: str
    hidden: bool = False
    least: float | None = None
    most: float | None = None
    words: tuple[str, ...] = ()
    texts: bool = True

    @property
    def variable(self) -> str | None:
        """The environment variable that sets it; None if no variable can."""
        if self.kind == "table" or not self.texts:
            return None
        return "AUTOMATE_" + self.name.replace(".", "_").upper()


def _number(name: str, kind: Kind, default: Any, text: str, least: float = 0) -> Setting:
    return Setting(name, kind, default, text, least=least)


def _port(name: str, default: int | None, text: str) -> Setting:
    return Setting(name, "int", default, text, least=0, most=65535)


_APP = """\
Your own code: module:kernel, module:function (called with the kernel), or a module whose functions
become actions called module.function."""
_PLUGINS = "Classes as dotted paths, beside installed plugins; key=path gives a class its key."
_BACKENDS = """\
Backends in order: "env", {backend = "file", directory = "/run/secrets"}, or "writable_file"
likewise for tokens that are renewed. Your own is named by its key or dotted path. Its options
stand beside backend."""
_VERSION = "The version of your code; workers of the latest decide what events start."
_KINDS = "The kinds of items that workers work on, mail.* too; by default all."
_KEPT = "Seconds that COMPLETED items are kept; 0 deletes them at once."
_FAILED_KEPT = "Seconds that FAILED and CANCELLED items are kept."
_AUDIT_KEPT = "Seconds that entries of the audit trail are kept."
_EVENTS = "Clients that send it may POST /events; without it nobody may. Better as $secret:KEY."
_EVENTS_SECRETS = (
    "Keys of secrets: clients that sign with them by Standard Webhooks may POST /events, such as"
    " the relay http of another host."
)
_OPERATIONS = (
    "Actions and capabilities that POST /operations, and authors on the pages, may call: names,"
    " slack.* too; by default none."
)
_CALLS = "Clients that send it may call these; without it nobody may. Better as $secret:KEY."
_OIDC = """\
The provider of OpenID Connect that logs people in to the pages: issuer, client_id, client_secret
(as $secret:KEY), roles, and what else Oidc takes; its public_url is ours, and /ui."""
_PROXY = """\
The header of a proxy that logs people in: name, proxies (its addresses), roles, roles_header,
tenant_header."""
_PROXIES = """\
Addresses and networks of the proxies in front: X-Forwarded-For and X-Forwarded-Proto count only
from these. By default there are none."""
_EXECUTORS = """\
Other places where operations run: [executors.gpu] with type = "nats", the key of a plugin, and its
options; operations = ["llm.*"] run there, as do steps with runs_on: gpu. With durable = true steps
wait without being held in a worker."""
_RELAYS = """\
Other systems that get events: [relays.orders] with to = "nats", the key of a plugin, and its
options; events = ["order.*"] has patterns of their names, by default all."""
_SUBSCRIPTIONS = """\
Brokers whose events come in: [subscriptions.orders] with from = "nats", the key of a plugin, and
its options; with tenant_id all events belong to that tenant."""
_OUTPUTS = """\
Where outputs go that are too large for a row: a folder that all processes share, or a table. In
the table, store is the key of a plugin or the dotted path of your own, and its options stand beside
it; write secrets as $secret:KEY."""
_SIGNING = (
    "Keys of 32 characters that sign links of approvals; better as $secret:KEY. The first signs."
)
_PUBLIC = "Where these links lead to: the address of automate serve, as people reach it."
_LEVELS = ("debug", "info", "warning", "error")
_FORMAT = "The format of the log of worker and serve: text, or json with ids, a document a line."
_ALL = (
    Setting("app", "text", None, _APP.replace("\n", " ")),
    Setting("app_dir", "text", ".", "The folder that app and plugins are imported from."),
    Setting("database", "text", "sqlite:///automate.sqlite3", "A SQLAlchemy URL."),
    Setting("outbox", "text", None, "The key or dotted path of an outbox store of your own."),
    Setting("output_store", "place", None, _OUTPUTS.replace("\n", " ")),
    Setting("executors", "table", {}, _EXECUTORS.replace("\n", " ")),
    Setting("relays", "table", {}, _RELAYS.replace("\n", " ")),
    Setting("subscriptions", "table", {}, _SUBSCRIPTIONS.replace("\n", " ")),
    Setting("workflows", "list", None, "Files and folders; by default the folder workflows."),
    Setting("plugins", "list", [], _PLUGINS),
    Setting("discover", "bool", True, "Use installed plugins."),
    Setting("strict", "bool", False, "A broken plugin is an error."),
    Setting("disabled", "list", [], "Plugins that must not run: keys or distributions."),
    Setting("winners", "table", {}, "The plugin that gets a key which several claim."),
    Setting("secrets", "list", ["env"], _BACKENDS.replace("\n", " "), texts=False),
    Setting("env_allow", "list", [], "The variables that templates may read as $env:NAME."),
    Setting("config", "table", {}, "The config of plugins: [config.http] and so on."),
    Setting("commands", "table", {}, "Settings of commands of plugins: [commands.mcp] and so on."),
    Setting("signing_keys", "list", [], _SIGNING, hidden=True),
    Setting("public_url", "text", None, _PUBLIC),
    _number("audit_retention_seconds", "float", 365 * 86_400.0, _AUDIT_KEPT),
    Setting("worker.version", "text", None, _VERSION),
    Setting("worker.kinds", "list", [], _KINDS),
    Setting("worker.exclude_kinds", "list", [], "The kinds that they leave to others."),
    _number("worker.processes", "int", 1, "Worker processes.", 1),
    _number("worker.slots", "int", 10, "Calls at once in a process.", 1),
    _number("worker.async_slots", "int", 1000, "Async handlers at once in a process.", 1),
    _number("worker.batch", "int", 200, "Items in one claim, at most.", 1),
    _number("worker.poll_seconds", "float", 1.0, "Seconds between two looks for work.", 0.01),
    _number("worker.lease_seconds", "float", 15.0, "Seconds that a claim holds.", 0.5),
    _number("worker.grace_seconds", "float", 30.0, "Seconds that a stop waits for running calls."),
    _number("worker.retention_seconds", "float", None, _KEPT),
    _number("worker.failed_retention_seconds", "float", None, _FAILED_KEPT),
    Setting("worker.listen", "bool", True, "Use LISTEN on PostgreSQL."),
    _port("worker.health_port", None, "The port of worker and serve for /healthz and /readyz."),
    _port("worker.metrics_port", None, "The port of worker and serve for /metrics."),
    Setting("worker.probe_host", "text", "127.0.0.1", "The address of these two ports."),
    Setting("serve.host", "text", "127.0.0.1", "The address to listen on."),
    _port("serve.port", 8080, "The port; 0 takes a free one."),
    _number("serve.processes", "int", 1, "Worker processes beside the receiver; 0 for none."),
    Setting("serve.api", "bool", False, "Answer the API below /api, for holders of tokens."),
    Setting("serve.events_token", "text", None, _EVENTS, hidden=True),
    Setting("serve.events_secrets", "list", [], _EVENTS_SECRETS),
    Setting("serve.operations", "list", [], _OPERATIONS),
    Setting("serve.operations_token", "text", None, _CALLS, hidden=True),
    _number(
        "serve.operation_seconds", "float", 30.0, "The longest that such a call may take.", 0.1
    ),
    Setting("serve.ui", "bool", False, "Show the operators' pages, below /ui, after a log-in."),
    Setting("serve.oidc", "table", {}, _OIDC.replace("\n", " ")),
    Setting("serve.header", "table", {}, _PROXY.replace("\n", " ")),
    Setting("serve.proxies", "list", [], _PROXIES.replace("\n", " ")),
    _number("serve.max_body_bytes", "int", 1_000_000, "The largest request body.", 1),
    Setting("log_level", "text", "info", "The least level that is logged.", words=_LEVELS),
    Setting("log_format", "text", "text", _FORMAT, words=("text", "json")),
)
meant: partial[str | None] = partial(nearest, cutoff=0.7)
SETTINGS: dict[str, Setting] = {setting.name: setting for setting in _ALL}


@dataclass(frozen=True, slots=True)
class Value:
    """A setting's value and its source: ``automate.toml:3``, ``--database``, …"""

    value: Any
    source: str = "default"


@dataclass(slots=True)
class Settings:
    """
    The value of every setting.

    Relative paths of the file are below *folder*: the file's own, or the current one. *strays* are
    variables ``AUTOMATE_…`` that nobody reads, with the name that may be meant.
    """

    values: dict[str, Value]
    folder: Path
    file: Path | None = None
    strays: list[tuple[str, str | None]] = field(default_factory=list)

    def __getitem__(self, name: str) -> Any:
        return self.values[name].value

    def given(self, name: str) -> bool:
        """Return True if the setting is set somewhere."""
        return self.values[name].source != "default"


def problem_with(setting: Setting, value: Any) -> str | None:
    """Return the problem of *value*, without showing it; None if it is valid."""
    types, words = _TYPES[setting.kind]
    # In Python true is a number too.
    if not isinstance(value, types) or (isinstance(value, bool) and setting.kind != "bool"):
        return f"must be {words}"
    if setting.least is not None and value < setting.least:
        return f"must be at least {setting.least:g}"
    if setting.most is not None and value > setting.most:
        return f"must be at most {setting.most:g}"
    if setting.words and value not in setting.words:
        return f"must be one of {', '.join(setting.words)}"
    if setting.kind == "list" and setting.texts and not all(isinstance(v, str) for v in value):
        return "must be a list of texts"
    return None


def default_values() -> dict[str, Value]:
    """Return every setting as it is where nobody sets it."""
    return {name: Value(setting.default) for name, setting in SETTINGS.items()}


CONFIG_VARIABLE = "AUTOMATE_CONFIG_FILE"
_OWN = "automate.toml"
_SHARED = "pyproject.toml"
_SECTIONS = {name.partition(".")[0] for name in SETTINGS if "." in name}

_Path = tuple[str, ...]


def load_settings(
    file: str | Path | None = None,
    flags: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Settings:
    """
    Return the settings of *file*, or of the nearest one, then of *environ*, then of *flags*.

    Without *file* the nearest ``automate.toml``, or ``pyproject.toml`` with a table
    ``[tool.automate]``, in *folder* or above it counts. Raises `ConfigError` with all problems and
    their lines.
    """
    environ = os.environ if environ is None else environ
    folder = Path.cwd() if folder is None else folder
    found = _chosen(file or environ.get(CONFIG_VARIABLE) or None, folder)
    values = default_values()
    if found is not None:
        values.update(_from_file(found))
    values.update(_from_environment(environ))
    for name, value in (flags or {}).items():
        problem = problem_with(SETTINGS[name], value)
        if problem is not None:
            raise ConfigError(f"{_flag(name)} {problem}")
        values[name] = Value(value, _flag(name))
    base = found.parent if found is not None else folder
    return Settings(values, base.absolute(), found, list(_strays(environ)))


def _flag(name: str) -> str:
    return "--" + name.rpartition(".")[2].replace("_", "-")


def _chosen(given: str | Path | None, folder: Path) -> Path | None:
    if given is not None:
        path = Path(given)
        if not path.is_file():
            raise ConfigError(
                f"there is no config file {str(given)!r}", hint="correct --config, or leave it out"
            )
        return path
    for place in (folder, *folder.absolute().parents):
        if (place / _OWN).is_file():
            return place / _OWN
        shared = place / _SHARED
        if shared.is_file() and _has_table(shared):
            return shared
    return None


def _has_table(path: Path) -> bool:
    # Another tool's broken file is not ours to complain about.
    try:
        return "automate" in tomllib.loads(path.read_text("utf-8")).get("tool", {})
    except (OSError, ValueError):
        return False


def _from_file(path: Path) -> dict[str, Value]:
    try:
        text = path.read_text("utf-8")
        data: Any = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path.name} is not valid TOML: {error}") from None
    prefix: _Path = ()
    if path.name == _SHARED:
        prefix = ("tool", "automate")
        data = data.get("tool", {}).get("automate", {})
    return _values(data, path.name, partial(_place, path.name, toml_lines(text), prefix))


def _values(data: Mapping[str, Any], file: str, place: Callable[[_Path], str]) -> dict[str, Value]:
    values: dict[str, Value] = {}
    problems: list[str] = []
    for path, value in _flat(data):
        name = ".".join(path)
        setting = SETTINGS.get(name)
        problem = problem_with(setting, value) if setting else _unknown(path)
        if problem is None:
            values[name] = Value(value, place(path))
        else:
            problems.append(f"\n  {place(path)}: {name}: {problem}")
    if problems:
        number = counted(len(problems), "problem")
        raise ConfigError(f"{file} is not valid: {number}{''.join(problems)}")
    return values


def _flat(data: Mapping[str, Any]) -> Iterator[tuple[_Path, Any]]:
    for key, value in data.items():
        if key in _SECTIONS and isinstance(value, dict):
            yield from (((key, inner), each) for inner, each in value.items())
        else:
            yield (key,), value


def _place(file: str, lines: Mapping[_Path, int], prefix: _Path, path: _Path) -> str:
    full = (*prefix, *path)
    line = lines.get(full) or min(
        (line for key, line in lines.items() if key[: len(full)] == full), default=0
    )
    # A key of an inline table stands on the line of the table.
    while not line and full:
        full = full[:-1]
        line = lines.get(full, 0)
    return f"{file}:{line}" if line else file


def _unknown(path: _Path) -> str:
    name = ".".join(path)
    if name in _SECTIONS:
        return f"must be a table, [{name}]"
    hint = meant(name, SETTINGS) or (meant(path[0], list(_SECTIONS)) if len(path) == 1 else None)
    if hint is None and len(path) == 1:
        # Right, but for the table that it belongs in.
        hint = next((known for known in SETTINGS if known.endswith(f".{name}")), None)
    elif hint is None and path[-1] in SETTINGS:
        hint = path[-1]
    known = "automate doctor --settings lists all of them"
    return f"there is no such setting ({f'did you mean {hint}?' if hint else known})"


_KEY = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_DOTTED = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_HEADER = re.compile(rf"\s*\[\[?\s*({_DOTTED})\s*\]")
_ASSIGNED = re.compile(rf"\s*({_DOTTED})\s*=")
# No end is required of a text: where that is missing, each start would be tried to the end.
_SHORT = r'"(?:[^"\\\n]|\\.)*"?|\'[^\'\n]*\'?'
_TOKEN = re.compile(rf'(?s:"""(?:\\.|.)*?(?:"""|\Z)|\'\'\'.*?(?:\'\'\'|\Z))|{_SHORT}|#[^\n]*')


def toml_lines(text: str) -> dict[_Path, int]:
    """
    Return the line of each table and key in valid TOML, by path, but not inside inline tables.

    The parser of the standard library reports no lines.
    """
    lines: dict[_Path, int] = {}
    table: _Path = ()
    depth = 0  # in brackets
    for number, line in enumerate(_TOKEN.sub(_in_a_line, text).split("\n"), 1):
        header, assigned = _HEADER.match(line), _ASSIGNED.match(line)
        if depth == 0 and assigned is not None:
            lines.setdefault((*table, *_parts(assigned[1])), number)
        elif depth == 0 and header is not None:
            table = _parts(header[1])
            lines.setdefault(table, number)
        bare = re.sub(_SHORT, "", line)
        depth += sum(map(bare.count, "[{")) - sum(map(bare.count, "]}"))
    return lines


def _in_a_line(token: re.Match[str]) -> str:
    """Leave a short string as it is, only the line breaks of a long one, and no comment."""
    text = token[0]
    return "\n" * text.count("\n") if text.startswith(('"""', "'''", "#")) else text


def _parts(dotted: str) -> _Path:
    return tuple(part.strip("\"'") for part in re.findall(_KEY, dotted))


_VARIABLES = {
    setting.variable: setting for setting in SETTINGS.values() if setting.variable is not None
}
_PREFIX = "AUTOMATE_"
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def _from_environment(environ: Mapping[str, str]) -> dict[str, Value]:
    values = {}
    for variable, setting in _VARIABLES.items():
        text = environ.get(variable)
        if text:  # set but empty is how a compose file leaves one out
            values[setting.name] = Value(_parsed(variable, setting, text), variable)
    return values


def _parsed(variable: str, setting: Setting, text: str) -> Any:
    value: Any = text
    try:
        if setting.kind == "int":
            value = int(text)
        elif setting.kind == "float":
            value = float(text)
        elif setting.kind == "list":
            value = [part.strip() for part in text.split(",") if part.strip()]
        elif setting.kind == "bool":
            value = {**dict.fromkeys(_TRUE, True), **dict.fromkeys(_FALSE, False)}[text.lower()]
    except (ValueError, KeyError):
        value = text
    problem = problem_with(setting, value)
    if problem is not None:
        raise ConfigError(f"the environment variable {variable} {problem}")
    return value


def _strays(environ: Mapping[str, str]) -> Iterator[tuple[str, str | None]]:
    known = [name.removeprefix(_PREFIX) for name in (*_VARIABLES, CONFIG_VARIABLE)]
    for name in sorted(environ):
        own = name.removeprefix(_PREFIX)
        if own == name or own.startswith("SECRET_") or own in known:
            continue
        near = meant(own, known)
        yield name, near and _PREFIX + near
