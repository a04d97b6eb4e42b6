"""The settings that there are, and their values together with where each came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from automate_kernel.errors import nearest

__all__ = ["SETTINGS", "Setting", "Settings", "Value", "meant", "problem_with"]

Kind = Literal["text", "int", "float", "bool", "list", "table"]

_TYPES: dict[Kind, tuple[Any, str]] = {
    "text": (str, "text in quotes"),
    "int": (int, "a whole number"),
    "float": ((int, float), "a number"),
    "bool": (bool, "true or false"),
    "list": (list, "a list in brackets"),
    "table": (dict, "a table"),
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
        """The environment variable that sets it, if one can."""
        if self.kind == "table" or not self.texts:
            return None
        return "AUTOMATE_" + self.name.replace(".", "_").upper()


def _number(name: str, kind: Kind, default: Any, text: str, least: float = 0) -> Setting:
    return Setting(name, kind, default, text, least=least)


SETTINGS: dict[str, Setting] = {
    setting.name: setting
    for setting in (
        Setting(
            "app",
            "text",
            None,
            "Your own code: module:kernel, module:function (called with the kernel), or a module "
            "whose functions become actions called module.function.",
        ),
        Setting("app_dir", "text", ".", "The folder that app and plugins are imported from."),
        Setting("database", "text", "sqlite:///automate.sqlite3", "A SQLAlchemy URL."),
        Setting("outbox", "text", None, "The key or dotted path of an outbox store of your own."),
        Setting("workflows", "list", None, "Files and folders; by default the folder workflows."),
        Setting("plugins", "list", [], "Classes as dotted paths, beside the installed ones."),
        Setting("discover", "bool", True, "Whether installed plugins count."),
        Setting("strict", "bool", False, "Whether a broken plugin is an error."),
        Setting("disabled", "list", [], "Plugins that must not run: keys or distributions."),
        Setting("winners", "table", {}, "Which of several plugins gets a key that all claim."),
        Setting(
            "secrets",
            "list",
            ["env"],
            'Backends in order: "env", {backend = "file", directory = "/run/secrets"}, or the '
            "key or dotted path of your own, whose options stand beside backend.",
            texts=False,
        ),
        Setting("env_allow", "list", [], "The variables that templates may read as $env:NAME."),
        Setting("config", "table", {}, "The config of plugins: [config.http] and so on."),
        Setting(
            "worker.kinds",
            "list",
            [],
            "The kinds of items that workers work on, mail.* too; by default all.",
        ),
        Setting("worker.exclude_kinds", "list", [], "The kinds that they leave to others."),
        _number("worker.processes", "int", 1, "Worker processes.", 1),
        _number("worker.slots", "int", 10, "Calls at once in a process.", 1),
        _number("worker.async_slots", "int", 1000, "Async handlers at once in a process.", 1),
        _number("worker.batch", "int", 200, "Items in one claim, at most.", 1),
        _number("worker.poll_seconds", "float", 1.0, "How often to look for work.", 0.01),
        _number("worker.lease_seconds", "float", 300.0, "How long a claim holds.", 0.5),
        _number("worker.grace_seconds", "float", 30.0, "How long a stop waits for what runs."),
        _number(
            "worker.retention_seconds",
            "float",
            None,
            "For how long what is COMPLETED is kept; 0 deletes it at once.",
        ),
        _number(
            "worker.failed_retention_seconds",
            "float",
            None,
            "For how long what FAILED or was CANCELLED is kept.",
        ),
        Setting("worker.listen", "bool", True, "Whether to use LISTEN on PostgreSQL."),
        Setting(
            "worker.health_port",
            "int",
            None,
            "Where worker and serve answer /healthz and /readyz.",
            least=0,
            most=65535,
        ),
        Setting(
            "worker.metrics_port",
            "int",
            None,
            "Where worker and serve answer /metrics.",
            least=0,
            most=65535,
        ),
        Setting("worker.probe_host", "text", "127.0.0.1", "The address of these two ports."),
        Setting("serve.host", "text", "127.0.0.1", "The address to listen on."),
        Setting("serve.port", "int", 8080, "The port; 0 takes a free one.", least=0, most=65535),
        _number("serve.processes", "int", 1, "Worker processes beside the receiver; 0 for none."),
        Setting(
            "serve.events_token",
            "text",
            None,
            "Who sends it may POST /events; without it nobody may. Better as $secret:KEY.",
            hidden=True,
        ),
        _number("serve.max_body_bytes", "int", 1_000_000, "The largest request body.", 1),
        Setting(
            "log_level",
            "text",
            "info",
            "What worker and serve log.",
            words=("debug", "info", "warning", "error"),
        ),
        Setting(
            "log_format",
            "text",
            "text",
            "How worker and serve log: text, or json with ids, a document a line.",
            words=("text", "json"),
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Value:
    """A setting's value and where it came from: ``automate.toml:3``, ``--database``, …"""

    value: Any
    source: str = "default"


@dataclass(slots=True)
class Settings:
    """
    The value of every setting.

    *folder* is what relative paths of the file are below: the file's own, or the current one.
    *strays* are variables ``AUTOMATE_…`` that nobody reads, with the name that may be meant.
    """

    values: dict[str, Value]
    folder: Path
    file: Path | None = None
    strays: list[tuple[str, str | None]] = field(default_factory=list)

    def __getitem__(self, name: str) -> Any:
        return self.values[name].value

    def __iter__(self) -> Iterator[tuple[Setting, Value]]:
        return iter([(SETTINGS[name], value) for name, value in self.values.items()])

    def given(self, name: str) -> bool:
        """Whether somebody set it."""
        return self.values[name].source != "default"

    def section(self, name: str) -> Mapping[str, Any]:
        """The values of one table, without its name in front."""
        prefix = f"{name}."
        return {
            key.removeprefix(prefix): value.value
            for key, value in self.values.items()
            if key.startswith(prefix)
        }


def problem_with(setting: Setting, value: Any) -> str | None:
    """What is wrong with *value*, without showing it; None if nothing is."""
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


def meant(word: str, known: Mapping[str, Any] | list[str]) -> str | None:
    """The known word that is nearest to *word*, if any is near."""
    return nearest(word, known, cutoff=0.7)
