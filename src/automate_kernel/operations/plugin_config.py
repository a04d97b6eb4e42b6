"""The config that a plugin reads as ``self.config``: a dict that says how it is read."""

from __future__ import annotations

from typing import Any, NoReturn

from automate_kernel.base.errors import did_you_mean


class NoOptionError(KeyError):
    """An option that the config hasn't; its text names those that it has."""

    __str__ = Exception.__str__


class PluginConfig(dict[str, Any]):
    """
    A plugin's checked config, or an object inside of it.

    It is a dict, so ``config.url`` is an `AttributeError` with the way to write it, and a missing
    option a `KeyError` with the names of those that there are. Neither shows a value.
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
