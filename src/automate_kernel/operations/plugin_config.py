"""The config of plugins: how a plugin reads its own, and where the application writes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from automate_kernel.base.errors import ConfigError, SecretNotFoundError, did_you_mean
from automate_kernel.secrets.masking import is_secret_name

__all__ = ["ConfigPlaces"]


class NoOptionError(KeyError):
    """An option that the config hasn't; its text names those that it has."""

    __str__ = Exception.__str__


class PluginConfig(dict[str, Any]):
    """
    A plugin's checked config, or an object inside of it.

    It is a dict, so ``config.url`` is an `AttributeError` that says how to write it. A missing
    option is a `KeyError` with the names of the options that there are. Neither shows a value.
    """

    @classmethod
    def of(cls, complete: dict[str, Any]) -> PluginConfig:
        """Return *complete* as such a dict, and the dicts in it too."""
        made: PluginConfig = _readable(complete)
        return made

    def __getattr__(self, name: str) -> NoReturn:
        words = f"the config is a dict, and has no attribute {name!r}"
        if not name.startswith("_"):
            near = "" if name in self else did_you_mean(name, self)
            words += f": write [{name!r}] in place of .{name}" + (f" ({near})" if near else "")
        raise AttributeError(words, name=name, obj=self)

    def __missing__(self, name: object) -> NoReturn:
        near = did_you_mean(name, self, also=f"it has: {', '.join(map(str, self)) or 'none'}")
        raise NoOptionError(f"the config has no option {name!r} ({near})")


def _readable(value: Any) -> Any:
    if type(value) is dict:
        return PluginConfig({key: _readable(part) for key, part in value.items()})
    return [_readable(part) for part in value] if type(value) is list else value


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
