"""The places where a host keeps the config of plugins, for errors that say where to write it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from automate_kernel.base.errors import ConfigError, SecretNotFoundError
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
        if error.hint is None and (fields := error.details.get("settable")):
            error.hint = self.hint(key, fields)
        elif error.hint is None and error.details.get("unknown"):
            error.hint = self.stands.format(key=key)
        return error

    def needed(self, error: SecretNotFoundError, what: str) -> SecretNotFoundError:
        """Return *error* with the words that *what* needs the secret."""
        return SecretNotFoundError(
            error.key, f"{error.message}, and {what} needs it", hint=error.hint
        )


def _value(key: str, field: str) -> str:
    secret = f"{key}_{field}".upper().replace("-", "_")
    return f'"$secret:{secret}"' if is_secret_name(field) else "…"
