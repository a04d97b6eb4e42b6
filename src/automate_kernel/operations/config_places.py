"""The places where a host keeps the config of plugins, for errors that say where to write it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from automate_kernel.errors import ConfigError, SecretNotFoundError
from automate_kernel.secrets.masking import is_secret_name

__all__ = ["ConfigPlaces"]


@dataclass(frozen=True, slots=True)
class ConfigPlaces:
    """
    The form in which an application writes the config of a plugin.

    *config* is a format of ``{key}``, the plugin's, and ``{entries}``; *entry* one of ``{field}``
    and ``{value}``. The defaults are those of a `Kernel` that is made in Python.
    """

    config: str = "pass it to the kernel: config={{{key!r}: {{{entries}}}}}"
    entry: str = '"{field}": {value}'

    def hint(self, key: str, fields: Sequence[str]) -> str:
        """Return the line that gives *fields* of the plugin *key* a value."""
        entries = [self.entry.format(field=name, value=_value(key, name)) for name in fields]
        return self.config.format(key=key, entries=", ".join(entries))

    def located(self, error: ConfigError, key: str) -> ConfigError:
        """Return *error*, of a plugin's config, with the place where its wrong fields stand."""
        problems: Sequence[Mapping[str, Any]] = error.details.get("problems", ())
        fields = [each["field"].partition(".")[0] or _named(each["message"]) for each in problems]
        wanted = list(dict.fromkeys(filter(None, fields)))
        if error.hint is None and wanted:
            error.hint = self.hint(key, wanted)
        return error

    def needed(self, error: SecretNotFoundError, what: str) -> SecretNotFoundError:
        """Return *error* with the words that *what* needs the secret."""
        return SecretNotFoundError(
            error.key, f"{error.message}, and {what} needs it", hint=error.hint
        )


def _named(message: str) -> str:
    """Return the field that the message of a JSON Schema names: ``'token' is required``."""
    return message.split("'")[1] if message.endswith("' is required") else ""


def _value(key: str, field: str) -> str:
    secret = f"{key}_{field}".upper().replace("-", "_")
    return f'"$secret:{secret}"' if is_secret_name(field) else "…"
