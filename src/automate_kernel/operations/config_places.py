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
    and ``{value}``; *stands* says where the config of ``{key}`` is. The defaults are those of a
    `Kernel` that is made in Python.
    """

    config: str = "pass it to the kernel: config={{{key!r}: {{{entries}}}}}"
    entry: str = '"{field}": {value}'
    stands: str = "it is passed to the kernel, in config[{key!r}]"

    def hint(self, key: str, fields: Sequence[str]) -> str:
        """Return the line that gives *fields* of the plugin *key* a value."""
        entries = [self.entry.format(field=name, value=_value(key, name)) for name in fields]
        return self.config.format(key=key, entries=", ".join(entries))

    def located(self, error: ConfigError, key: str) -> ConfigError:
        """Return *error*, of a plugin's config, with the place where its wrong fields stand."""
        problems: Sequence[Mapping[str, Any]] = error.details.get("problems", ())
        wanted = [each for each in problems if not _is_unknown(each["message"])]
        fields = [each["field"].partition(".")[0] or _named(each["message"]) for each in wanted]
        if error.hint is None and any(fields):
            error.hint = self.hint(key, list(dict.fromkeys(filter(None, fields))))
        elif error.hint is None and len(wanted) < len(problems):
            error.hint = self.stands.format(key=key)
        return error

    def needed(self, error: SecretNotFoundError, what: str) -> SecretNotFoundError:
        """Return *error* with the words that *what* needs the secret."""
        return SecretNotFoundError(
            error.key, f"{error.message}, and {what} needs it", hint=error.hint
        )


def _is_unknown(message: str) -> bool:
    """Return True if the message is about a field that isn't there to be set."""
    return "is unknown (" in message


def _named(message: str) -> str:
    """Return the field that the message of a JSON Schema names: ``'token' is required``."""
    return message.split("'")[1] if message.endswith("' is required") else ""


def _value(key: str, field: str) -> str:
    secret = f"{key}_{field}".upper().replace("-", "_")
    return f'"$secret:{secret}"' if is_secret_name(field) else "…"
