"""What a plugin of each kind must be, and the key that it goes by."""

from __future__ import annotations

import re
from typing import Any

from automate_kernel.errors import ErrorCodes, PluginError
from automate_kernel.plugins.claims import incompatibility
from automate_kernel.plugins.kinds import Kind

__all__ = ["key_of", "require_fit", "require_key"]


def require_fit(kind: Kind, thing: Any, target: str) -> None:
    """Raise `PluginError` if *thing* is not what a plugin of *kind* must be."""
    base = kind.base_class()
    if base is not None and not (isinstance(thing, type) and issubclass(thing, base)):
        what = thing.__qualname__ if isinstance(thing, type) else type(thing).__name__
        raise PluginError(
            f"{target} is no subclass of {base.__name__}: it is {what}",
            hint=f"derive the class from {base.__module__}.{base.__name__}; register classes",
        )
    if kind.name == "filter" and not callable(thing):
        raise PluginError(f"{target} can't be called", hint="a filter is a function")
    needs = getattr(thing, "automate_requires", "")
    if needs and (problem := incompatibility(str(needs))):
        raise problem


def key_of(kind: Kind, thing: Any) -> str:
    """The key that *thing* says it has, or else one made of its name."""
    key = getattr(thing, "key", None)
    if isinstance(key, str) and key:
        return key
    name = str(getattr(thing, "__name__", type(thing).__name__))
    if kind.base is None:
        return name
    if kind.registry is not None:
        raise PluginError(f"class {name} has no key", hint=f'give it one: key = "{name.lower()}"')
    # The specification's secrets backends have none of their own: VaultBackend, vault_backend.
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def require_key(kind: Kind, key: str) -> None:
    """Raise `PluginError` if *key* is not written as keys of *kind* are."""
    if not kind.takes_key(key):
        raise PluginError(
            f"{key!r} is no key for plugins of kind {kind}",
            code=ErrorCodes.INVALID_ARGUMENT,
            hint="use lower-case letters, digits, _ and -, with a letter first",
        )
