"""The config that a plugin reads as ``self.config``: a dict that says how it is read."""

from __future__ import annotations

from typing import Any, NoReturn

from automate_kernel.errors import did_you_mean


class NoOptionError(KeyError):
    """An option that the config hasn't; its text names those that it has."""

    __str__ = Exception.__str__


class PluginConfig(dict[str, Any]):
    """
    A plugin's checked config.

    It is a dict, so ``config.url`` is an `AttributeError` with the way to write it, and a missing
    option a `KeyError` with the names of those that there are. Neither shows a value.
    """

    def __getattr__(self, name: str) -> NoReturn:
        words = f"the config is a dict, and has no attribute {name!r}"
        if not name.startswith("_"):
            known = name if name in self else None
            near = "" if known else did_you_mean(name, self)
            words += f": write self.config[{name!r}]" + (f" ({near})" if near else "")
        raise AttributeError(words, name=name, obj=self)

    def __missing__(self, name: object) -> NoReturn:
        near = did_you_mean(name, self, also=f"it has: {', '.join(map(str, self)) or 'none'}")
        raise NoOptionError(f"the config has no option {name!r} ({near})")
